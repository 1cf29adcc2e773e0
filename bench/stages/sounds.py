"""Reads the sounds that judges receive, and makes the keys of their scores from hashes.

Keys consist of hashes of decoded samples, so that audio whose scores are known is not decoded.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import soundfile

from bench import audio
from bench.audio import Waveform
from bench.files import file_sha256, fingerprint
from bench.judges import Converted, only
from bench.stages.cache import ScoreCache
from bench.stages.convert import Conversion
from bench.trials import ENGLISH, Trial, Utterance

DECODER = f"libsndfile {soundfile.__libsndfile_version__}"  # another may decode MP3 differently
KEY_VERSION = 2  # of `cache_key`; 1 hashed the joined and cut reference


@dataclass(frozen=True)
class Row:
    """One conversion with its system, suite and trial.

    Attributes:
        system: the system's name.
        suite: the suite's name.
        has_source_words: whether the audio has the words of the source.
        trial: what was converted.
        conversion: the record of the conversion.
    """

    system: str
    suite: str
    has_source_words: bool
    trial: Trial
    conversion: Conversion

    @property
    def label(self) -> str:
        """The row's name in messages: system/suite/trial_id."""
        return f"{self.system}/{self.suite}/{self.trial.trial_id}"


@lru_cache(maxsize=512)
def _load(path: Path, modified: int, size: int) -> Waveform:
    return audio.load(path)


@lru_cache(maxsize=512)
def _reference(references: tuple[Utterance, ...], seconds: float | None) -> Waveform:
    """The reference that the system received (`Trial.reference`); joined once for all trials."""
    joined = audio.concatenate([_recording(utterance) for utterance in references])
    return joined if seconds is None else joined.first(seconds)


def _recording(utterance: Utterance) -> Waveform:
    return _file(utterance.path)


def conversion_sound(path: Path) -> Waveform:
    """The sound file of a conversion.

    Raises:
        AudioError: if it is missing or damaged.
    """
    check_there(path)
    try:
        return _file(path)
    except audio.AudioError as error:
        raise audio.AudioError(
            f"{path}: {error.fault}; delete the file and run `vcbench convert` again", error.fault
        ) from error


def check_there(path: Path) -> None:
    if not path.is_file():
        raise audio.AudioError(
            f"{path}: the conversion was recorded but its file is gone; run `vcbench convert` again"
        )


def _file(path: Path) -> Waveform:
    """The audio of a file; it is decoded once unless the file changes."""
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


def item_of(row: Row, folder: Path, reads: frozenset[str]) -> Converted:
    """What a judge with these `reads` receives for the row; nothing else is read from disk."""
    trial = row.trial

    def recordings(name: str, utterances: Sequence[Utterance]) -> tuple[Waveform, ...] | None:
        return tuple(map(_recording, utterances)) if name in reads else None

    item = Converted(
        trial.trial_id,
        converted=conversion_sound(folder / row.conversion.wav) if "converted" in reads else None,
        source=_recording(trial.source) if "source" in reads else None,
        reference=_reference(trial.references, trial.reference_seconds)
        if "reference" in reads
        else None,
        enrolment=recordings("enrolment", trial.enrolment),
        source_enrolment=recordings("source_enrolment", trial.source_enrolment),
        text=trial.source.text,
        language=trial.language,
    )
    return only(item, reads)


def files_of(row: Row, folder: Path, reads: frozenset[str]) -> dict[str, list[str]]:
    """The paths of the sound files of each field that a judge with these `reads` receives.

    They are texts: making and hashing `Path`s would take most of the time of a key.
    """
    trial = row.trial
    files = {}
    if "converted" in reads:
        files["converted"] = [wav_path(folder, row.conversion.wav)]
    if "source" in reads:
        files["source"] = [str(trial.source.path)]
    if "reference" in reads:
        files["reference"] = [str(u.path) for u in trial.references]
    if "enrolment" in reads:
        files["enrolment"] = [str(u.path) for u in trial.enrolment]
    if "source_enrolment" in reads:
        files["source_enrolment"] = [str(u.path) for u in trial.source_enrolment]
    return files


def wav_path(folder: Path, wav: str) -> str:
    """The path of a conversion's sound."""
    return f"{folder}/{wav}"


def samples_of(
    rows: Sequence[Row],
    folder: Path,
    reads: frozenset[str],
    cache: ScoreCache,
    readers: ThreadPoolExecutor,
    digests: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The hash of the decoded samples of every file that the judge receives, by its path.

    A file is decoded only if the cache does not know the hash of its bytes.

    Args:
        rows: what is judged.
        folder: the run folder.
        reads: see `Judge.reads`.
        cache: knows hashes of samples by hashes of files; new ones are added.
        readers: threads that read.
        digests: files that need not be read, because the hash of their bytes is known.

    Raises:
        AudioError: if a conversion is missing or damaged.
    """
    files: dict[str, bool] = {}  # whether it is a conversion
    for row in rows:
        for name, paths in files_of(row, folder, reads).items():
            files.update(dict.fromkeys(paths, name == "converted"))
    digests = digests or {}
    unread = [path for path in files if path not in digests]
    for path in unread:
        if files[path]:
            check_there(Path(path))
    hashes = {path: digests[path] for path in files if path in digests}
    hashes.update(zip(unread, readers.map(file_sha256, map(Path, unread)), strict=True))
    hashes = {path: decoded_key(digest) for path, digest in hashes.items()}
    known = cache.samples_of(hashes.values())
    unknown = {digest: path for path, digest in hashes.items() if digest not in known}
    if unknown:
        paths = list(unknown.values())
        decoded = readers.map(lambda path: _decoded(Path(path), files[path]).sha256, paths)
        new = dict(zip(unknown, decoded, strict=True))
        cache.put_samples(new)
        known.update(new)
    return {path: known[digest] for path, digest in hashes.items()}


def decoded_key(digest: str) -> str:
    """The key of the hash of a file's samples: the hash of its bytes, and the decoder."""
    return f"{digest} by {DECODER}"


def _decoded(path: Path, is_conversion: bool) -> Waveform:
    return conversion_sound(path) if is_conversion else _file(path)


def cache_key(
    identity: str, row: Row, folder: Path, reads: frozenset[str], samples: Mapping[str, str]
) -> str:
    """The key of a judge's columns of a row: a hash of the judge and of all that it reads.

    Args:
        identity: of the judge.
        row: what is judged.
        folder: the run folder.
        reads: see `Judge.reads`.
        samples: see `samples_of`.
    """
    read: dict[str, object] = {
        name: [samples[path] for path in paths]
        for name, paths in files_of(row, folder, reads).items()
    }
    if "reference" in reads:
        read["reference_seconds"] = row.trial.reference_seconds
    if "text" in reads:
        read["text"] = row.trial.source.text
    if "language" in reads and row.trial.language != ENGLISH:
        read["language"] = row.trial.language
    return fingerprint({"judge": identity, "version": KEY_VERSION, **read})

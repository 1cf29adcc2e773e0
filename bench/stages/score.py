"""The second stage: every judge scores every converted utterance, once.

Judges run one after another, so that only one model is in memory. Scores are cached by the audio
that was judged and by the judge: equal audio is judged once, also across systems and suites.
Cache keys consist of hashes, so that audio whose scores are known is not decoded.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
import soundfile

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError
from bench.files import file_sha256, fingerprint
from bench.judges import Converted, Judge, only
from bench.stages.cache import Columns, ScoreCache
from bench.stages.convert import Conversion, Entry
from bench.stages.execute import Streamed
from bench.stages.judging import judged
from bench.trials import ENGLISH, Suite, Trial, Utterance

DECODER = f"libsndfile {soundfile.__libsndfile_version__}"  # another may decode MP3 differently
KEY_VERSION = 2  # of `_cache_key`; 1 hashed the joined and cut reference
STREAM_TIMES = [f.name for f in fields(Streamed)]  # columns of streamed conversions
BATCH = 32  # items per call of a judge; scores are on disk after each batch
READERS = 8  # threads that read sound files: decoding and hashing run outside of Python's lock


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


def rows_of(
    entries: Sequence[Entry],
    suites: Sequence[Suite],
    conversions: Mapping[tuple[str, str], Mapping[str, Conversion]],
) -> list[Row]:
    """The rows of the score table: every system × suite × trial.

    Args:
        entries: the systems.
        suites: the suites.
        conversions: (system, suite) → trial id → record.

    Raises:
        UserError: if a trial has no record; a missing conversion is never skipped.
    """
    rows = []
    for entry in entries:
        for suite in suites:
            records = conversions[entry.name, suite.name]
            for trial in suite.trials:
                if trial.trial_id not in records:
                    raise UserError(
                        f"{entry.name} has no conversion of {suite.name}/{trial.trial_id} "
                        f"({len(records)} of {len(suite.trials)} are there); run `vcbench convert`"
                    )
                rows.append(
                    Row(
                        entry.name,
                        suite.name,
                        entry.facts.has_source_words,
                        trial,
                        records[trial.trial_id],
                    )
                )
    return rows


def score_rows(
    rows: Sequence[Row],
    name: str,
    judge: Judge,
    folder: Path,
    cache: ScoreCache,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Columns]:
    """The judge's columns for every row, in order; empty for rows that cannot be judged.

    Args:
        rows: what is to be scored.
        name: the judge's name.
        judge: the judge.
        folder: the run folder, which the conversions' paths are relative to.
        cache: known scores; new ones are added batch by batch.
        advance: called with the number of rows that are done.

    Raises:
        JudgeError: names the trial that the judge failed on.
        AudioError: if a converted file cannot be read.
    """
    asked = [
        index
        for index, row in enumerate(rows)
        if row.conversion.status == "ok" and (row.has_source_words or not judge.needs_source_words)
    ]
    kind = type(judge)
    identity = fingerprint([f"{kind.__module__}.{kind.__qualname__}", judge.fingerprint])
    with ThreadPoolExecutor(READERS) as readers:

        def read(indices: Sequence[int]) -> list[Future[Converted]]:
            return [readers.submit(_item, rows[i], folder, judge.reads) for i in indices]

        asked_rows = [rows[index] for index in asked]
        samples = _samples(asked_rows, folder, judge.reads, cache, readers)
        keys = {
            index: _cache_key(identity, row, folder, judge.reads, samples)
            for index, row in zip(asked, asked_rows, strict=True)
        }
        known = cache.get(keys.values())
        first_of: dict[str, int] = {}
        for index, key in keys.items():
            if key not in known:
                first_of.setdefault(key, index)

        # Audio of similar length together, so that a judge that fills batches pads little.
        def order(index: int) -> tuple[float, int]:
            return -(rows[index].conversion.audio_seconds or 0.0), index

        new = sorted(first_of.values(), key=order)
        advance(len(rows) - len(new))
        batches = [new[start : start + BATCH] for start in range(0, len(new), BATCH)]
        ahead = read(batches[0]) if batches else []
        for number, batch in enumerate(batches, start=1):
            items = [future.result() for future in ahead]
            ahead = read(batches[number]) if number < len(batches) else []  # meanwhile
            columns = judged(name, judge, items, [rows[index].label for index in batch])
            scores = {keys[index]: c for index, c in zip(batch, columns, strict=True)}
            cache.put(scores)
            known.update(scores)
            advance(len(batch))
    return [known[keys[index]] if index in keys else {} for index in range(len(rows))]


def wav_hashes(rows: Sequence[Row], folder: Path) -> list[str]:
    """Hash of every row's sound file as it is now; "" if it has none.

    Raises:
        AudioError: if a file is missing.
    """
    conversions = [row.conversion for row in rows]
    return [_file_sha256(folder / c.wav) if c.wav else "" for c in conversions]


def score_table(
    rows: Sequence[Row],
    folder: Path,
    hashes: Sequence[str],
    scores: Mapping[str, Sequence[Columns]],
) -> pd.DataFrame:
    """The score table as `bench.results.ScoredRun.scores` describes it.

    A sound that was changed since it was converted has the duration, rate and peak of its file as
    it is now, and no times: they belong to another sound.

    Args:
        rows: every system × suite × trial.
        folder: the run folder.
        hashes: of their sound files (see `wav_hashes`).
        scores: judge → columns of every row.

    Raises:
        AudioError: if a changed sound is not usable audio.
    """
    records = []
    for index, row in enumerate(rows):
        trial, conversion = row.trial, row.conversion
        altered = hashes[index] != conversion.wav_sha256
        if altered:
            sound = _conversion(folder / conversion.wav)
            conversion = replace(
                conversion,
                elapsed_seconds=None,
                stages={},
                first_chunk_seconds=None,
                stream_seconds=None,
                streamed_seconds=None,
                audio_seconds=sound.seconds,
                sample_rate=sound.sample_rate,
                peak=sound.peak,
                clipped=None,
            )
        record: dict[str, object] = {
            "system": row.system,
            "suite": row.suite,
            "trial_id": trial.trial_id,
            "status": conversion.status,
            "error": conversion.error,
            "source_speaker": trial.source.speaker,
            "target_speaker": trial.speaker,
            "source_gender": trial.source.gender,
            "target_gender": trial.references[0].gender,
            **{f"factor.{name}": value for name, value in trial.factors.items()},
            "wav": conversion.wav,
            "wav_sha256": hashes[index],
            "altered": altered,
            "origin": conversion.origin,
            "remarks": conversion.remarks,
            "sample_rate": conversion.sample_rate,
            "peak": conversion.peak,
            "clipped": conversion.clipped,
            "elapsed_seconds": conversion.elapsed_seconds,
            "audio_seconds": conversion.audio_seconds,
            **_stream_times(conversion),
            **{f"stage.{name}": seconds for name, seconds in conversion.stages.items()},
        }
        for judge, columns in scores.items():
            record.update({f"{judge}.{name}": value for name, value in columns[index].items()})
        records.append(record)
    return pd.DataFrame.from_records(records)


def _stream_times(conversion: Conversion) -> dict[str, float]:
    """The columns of a streamed conversion; none if the system does not stream."""
    times = {name: getattr(conversion, name) for name in STREAM_TIMES}
    return {name: seconds for name, seconds in times.items() if seconds is not None}


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


def _conversion(path: Path) -> Waveform:
    """The sound file of a conversion.

    Raises:
        AudioError: if it is missing or damaged.
    """
    _check_there(path)
    try:
        return _file(path)
    except audio.AudioError as error:
        raise audio.AudioError(
            f"{path}: {error.fault}; delete the file and run `vcbench convert` again", error.fault
        ) from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise audio.AudioError(
            f"{path}: the conversion was recorded but its file is gone; run `vcbench convert` again"
        )


def _file(path: Path) -> Waveform:
    """The audio of a file; it is decoded once unless the file changes."""
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


def _item(row: Row, folder: Path, reads: frozenset[str]) -> Converted:
    """What a judge with these `reads` receives for the row; nothing else is read from disk."""
    trial = row.trial

    def recordings(name: str, utterances: Sequence[Utterance]) -> tuple[Waveform, ...] | None:
        return tuple(map(_recording, utterances)) if name in reads else None

    item = Converted(
        trial.trial_id,
        converted=_conversion(folder / row.conversion.wav) if "converted" in reads else None,
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


def _files(row: Row, folder: Path, reads: frozenset[str]) -> dict[str, list[Path]]:
    """The sound files of each field that a judge with these `reads` receives."""
    trial = row.trial
    files = {
        "converted": [folder / row.conversion.wav],
        "source": [trial.source.path],
        "reference": [u.path for u in trial.references],
        "enrolment": [u.path for u in trial.enrolment],
        "source_enrolment": [u.path for u in trial.source_enrolment],
    }
    return {name: paths for name, paths in files.items() if name in reads}


def _samples(
    rows: Sequence[Row],
    folder: Path,
    reads: frozenset[str],
    cache: ScoreCache,
    readers: ThreadPoolExecutor,
) -> dict[Path, str]:
    """The hash of the decoded samples of every file that the judge receives.

    A file is decoded only if the cache does not know the hash of its bytes.

    Raises:
        AudioError: if a conversion is missing or damaged.
    """
    files: dict[Path, bool] = {}  # whether it is a conversion
    for row in rows:
        for name, paths in _files(row, folder, reads).items():
            files.update(dict.fromkeys(paths, name == "converted"))
    for path, is_conversion in files.items():
        if is_conversion:
            _check_there(path)
    hashes = dict(zip(files, readers.map(file_sha256, files), strict=True))
    hashes = {path: f"{digest} by {DECODER}" for path, digest in hashes.items()}
    known = cache.samples_of(hashes.values())
    unknown = {digest: path for path, digest in hashes.items() if digest not in known}
    if unknown:
        paths = list(unknown.values())
        decoded = readers.map(lambda path: _decoded(path, files[path]).sha256, paths)
        new = dict(zip(unknown, decoded, strict=True))
        cache.put_samples(new)
        known.update(new)
    return {path: known[digest] for path, digest in hashes.items()}


def _decoded(path: Path, is_conversion: bool) -> Waveform:
    return _conversion(path) if is_conversion else _file(path)


def _file_sha256(path: Path) -> str:
    _check_there(path)
    return file_sha256(path)


def _cache_key(
    identity: str, row: Row, folder: Path, reads: frozenset[str], samples: Mapping[Path, str]
) -> str:
    """The key of a judge's columns of a row: a hash of the judge and of all that it reads.

    Args:
        identity: of the judge.
        row: what is judged.
        folder: the run folder.
        reads: see `Judge.reads`.
        samples: see `_samples`.
    """
    read: dict[str, object] = {
        name: [samples[path] for path in paths]
        for name, paths in _files(row, folder, reads).items()
    }
    if "reference" in reads:
        read["reference_seconds"] = row.trial.reference_seconds
    if "text" in reads:
        read["text"] = row.trial.source.text
    if "language" in reads and row.trial.language != ENGLISH:
        read["language"] = row.trial.language
    return fingerprint({"judge": identity, "version": KEY_VERSION, **read})

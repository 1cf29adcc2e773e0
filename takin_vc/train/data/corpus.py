"""Lists of recordings to train on, and their sound.

A list is a CSV with the columns `utterance_id`, `speaker`, `path` (under the list's folder) and
`corpus`; `gender`, `text`, `seconds` and `licence` are optional. A recording without a speaker is
treated as the only one of a speaker: its reference is another part of the same recording.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

REQUIRED = ("utterance_id", "speaker", "path", "corpus")


class CorpusError(ValueError):
    """A list that cannot be trained on; the message names the row or the file."""


@dataclass(frozen=True)
class TrainingRecording:
    """One recording of the list.

    Attributes:
        utterance_id: unique in the list.
        speaker: empty if unknown.
        path: of the audio file.
        corpus: its corpus, "LibriSpeech".
        text: its transcript; empty if unknown.
    """

    utterance_id: str
    speaker: str
    path: Path
    corpus: str
    text: str = ""


def read_recordings(tables: Sequence[str | Path]) -> list[TrainingRecording]:
    """The recordings of one or several lists, in their order.

    Raises:
        CorpusError: for a list without these columns, an id that occurs twice, a path that leads
            out of the list's folder, or a missing audio file.
    """
    recordings: dict[str, TrainingRecording] = {}
    missing: list[Path] = []
    for table in map(Path, tables):
        if not table.is_file():
            raise CorpusError(f"{table}: no such list of recordings (data=path/to/utterances.csv)")
        with table.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            lacking = set(REQUIRED) - set(rows.fieldnames or ())
            if lacking:
                raise CorpusError(f"{table}: lacks the column {', '.join(sorted(lacking))}")
            root = table.parent.resolve()
            for line, row in enumerate(rows, start=2):
                path = (root / row["path"]).resolve()
                if not path.is_relative_to(root):
                    raise CorpusError(f"{table}:{line}: {row['path']!r} leads out of {root}")
                if row["utterance_id"] in recordings:
                    raise CorpusError(f"{table}:{line}: {row['utterance_id']!r} comes twice")
                if not path.is_file():
                    missing.append(path)
                recordings[row["utterance_id"]] = TrainingRecording(
                    row["utterance_id"],
                    row["speaker"] or "",
                    path,
                    row["corpus"],
                    row.get("text") or "",
                )
    if missing:
        raise CorpusError(
            f"{len(missing)} of {len(recordings)} recordings are not there, the first: {missing[0]}"
        )
    if not recordings:
        raise CorpusError(f"no recordings in {', '.join(map(str, tables))}")
    return list(recordings.values())


def read(path: Path, sample_rate: int) -> np.ndarray:
    """A recording, mono, at `sample_rate`: (T,) float32.

    Raises:
        CorpusError: if it cannot be decoded, or is empty.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"{path}: cannot be decoded ({error})") from error
    if len(samples) == 0 or not np.isfinite(samples).all():
        raise CorpusError(f"{path}: is empty or not finite")
    mono = samples.mean(axis=1)
    return resampled(mono, rate, sample_rate)


def resampled(samples: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    """(T,) at `rate`, as (T wanted / rate,) at `wanted`; both in one unit."""
    return samples if rate == wanted else soxr.resample(samples, rate, wanted)


def names_of(recordings: Iterable[TrainingRecording]) -> frozenset[str]:
    """The training data of a model trained on these, as `bench.validity.exposure` reads it.

    "LibriSpeech:103" for every known speaker, and the corpus alone for the others.
    """
    return frozenset(
        f"{r.corpus}:{r.speaker.rpartition('-')[2]}" if r.speaker else r.corpus for r in recordings
    )


def identity_of(recordings: Sequence[TrainingRecording]) -> str:
    """Identifies a list: its length, and a hash of its rows in their order.

    The paths and the sound of the files make no difference.
    """
    rows = [[r.utterance_id, r.speaker, r.corpus, r.text] for r in recordings]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return f"{len(rows)} recordings, sha256 {digest[:12]}…"


def held_out_speakers(
    recordings: Sequence[TrainingRecording], chosen: int | Sequence[str], seed: int
) -> frozenset[str]:
    """Speakers to validate on.

    Args:
        recordings: all of them.
        chosen: their names, or how many to draw from those with at least two recordings.
        seed: of the draw.

    Raises:
        CorpusError: if a name is unknown, there are not so many, or none would be left to train on.
    """
    if not isinstance(chosen, int):
        if unknown := set(chosen) - {r.speaker for r in recordings}:
            raise CorpusError(f"held_out.speakers names {min(unknown)!r}, who has no recording")
        if {r.speaker for r in recordings} <= set(chosen):
            raise CorpusError("held_out.speakers names every speaker: none is left to train on")
        return frozenset(chosen)
    count = chosen
    counts: dict[str, int] = {}
    for recording in recordings:
        if recording.speaker:
            counts[recording.speaker] = counts.get(recording.speaker, 0) + 1
    able = sorted(speaker for speaker, n in counts.items() if n > 1)
    if len(able) < count or (count and len(counts) <= count):
        raise CorpusError(
            f"held_out.speakers ({count}) are too many: {len(able)} of {len(counts)} speakers have "
            "two recordings or more"
        )
    drawn = np.random.default_rng(seed).permutation(len(able))[:count]
    return frozenset(able[i] for i in drawn)


def weights_of(recordings: Sequence[TrainingRecording], factors: Mapping[str, float]) -> np.ndarray:
    """How much more often than others each recording is drawn, (recordings,).

    Args:
        recordings: of several corpora.
        factors: by the beginning of the corpus' name ("Common Voice"), its factor; 0 leaves its
            recordings out. Corpora that are not named have 1.

    Raises:
        CorpusError: if no recording is of a corpus that is named, or a factor is negative.
    """
    weights = np.ones(len(recordings))
    for name, factor in factors.items():
        members = [i for i, r in enumerate(recordings) if r.corpus.startswith(name)]
        known = ", ".join(sorted({r.corpus for r in recordings})[:8])
        if not members:
            raise CorpusError(f"corpora names {name!r}, and no recording is of it; known: {known}")
        if factor < 0:
            raise CorpusError(f"corpora: the factor of {name!r} ({factor}) must not be negative")
        weights[members] = factor
    return weights


def only_speakers(recordings: Sequence[TrainingRecording], count: int) -> np.ndarray:
    """1 for the recordings of `count` of the speakers, 0 for all others, (recordings,).

    The speakers depend on their names alone, not on a seed or the order of the list, and those of
    a smaller count are among those of a larger one: for a curve over the number of speakers.

    Raises:
        CorpusError: if there are fewer labelled speakers, or `count` is not positive.
    """
    names = sorted({r.speaker for r in recordings} - {""}, key=lambda name: (_digest(name), name))
    if not 1 <= count <= len(names):
        raise CorpusError(
            f"speakers={count}: it must be from 1 to {len(names)}, which are labelled"
        )
    chosen = set(names[:count])
    return np.array([float(r.speaker in chosen) for r in recordings])


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()

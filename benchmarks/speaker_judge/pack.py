"""Packs the training speech of the small speaker judge into few files, to carry it elsewhere.

    python -m benchmarks.speaker_judge.pack OUT train/utterances.csv train2/utterances.csv

OUT gets `index.json` and shards of the original files, back to back. Recordings without a speaker
are left out. Of speakers with many recordings only some are taken, as many as fit. Some speakers
are held out for validation: they are chosen here, before anything is trained or evaluated.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from takin_vc.train.data.corpus import CorpusError, TrainingRecording, read_recordings

SAMPLE_RATE = 16_000  # Hz
INDEX = "index.json"
HELD_OUT = {"LibriSpeech": 8, "speechocean762": 12, "AN4": 8, "Common Voice": 12}  # speakers
LEAST_OF_HELD_OUT = 4  # recordings of a speaker who is held out
MOST_OF_HELD_OUT = 10  # of them that are packed


@dataclass(frozen=True)
class Packed:
    """A recording in a shard.

    Attributes:
        speaker: its label.
        corpus: without release and language.
        held_out: True for validation.
        shard: name of the file.
        offset: of its first byte there.
        size: in bytes.
    """

    speaker: str
    corpus: str
    held_out: bool
    shard: str
    offset: int
    size: int


def shuffled(recordings: Sequence[TrainingRecording]) -> list[TrainingRecording]:
    """In the order of a hash of their ids: the same on every machine, and without chapters."""
    return sorted(recordings, key=lambda r: _hash(r.utterance_id))


def held_out_speakers(by_speaker: Mapping[str, Sequence[TrainingRecording]]) -> set[str]:
    """The speakers of `HELD_OUT`, by a hash of their labels, of those with enough recordings."""
    chosen: set[str] = set()
    for corpus, count in HELD_OUT.items():
        able = [
            speaker
            for speaker, recordings in by_speaker.items()
            if family(recordings[0].corpus) == corpus and len(recordings) >= LEAST_OF_HELD_OUT
        ]
        chosen |= set(sorted(able, key=_hash)[:count])
    return chosen


def family(corpus: str) -> str:
    """ "Common Voice 6.1 ta" -> "Common Voice"; other names stay."""
    return "Common Voice" if corpus.startswith("Common Voice") else corpus


def most_each(counts: Sequence[Sequence[int]], budget: int) -> int:
    """The most recordings of each speaker that fit.

    Args:
        counts: for each speaker, the sizes of the recordings in bytes, in the order of taking.
        budget: bytes.

    Returns:
        0 where not even one of each fits.
    """
    longest = max(map(len, counts), default=0)
    fits = [n for n in range(1, longest + 1) if sum(sum(c[:n]) for c in counts) <= budget]
    return max(fits, default=0)


def pack(tables: Sequence[str], folder: Path, megabytes: float, shard_megabytes: float) -> str:
    """Writes the shards and the index; returns what was packed, for people.

    Raises:
        CorpusError: for a list that is faulty, or a budget that is too small.
    """
    by_speaker: dict[str, list[TrainingRecording]] = defaultdict(list)
    for recording in shuffled([r for r in read_recordings(tables) if r.speaker]):
        by_speaker[recording.speaker].append(recording)
    held_out = held_out_speakers(by_speaker)
    validation = [r for s in sorted(held_out) for r in by_speaker[s][:MOST_OF_HELD_OUT]]
    training = {s: rs for s, rs in sorted(by_speaker.items()) if s not in held_out}
    left = int(megabytes * 1e6) - sum(r.path.stat().st_size for r in validation)
    most = most_each([[r.path.stat().st_size for r in rs] for rs in training.values()], left)
    if not most:
        raise CorpusError(f"{megabytes:g} MB is too little for one recording of each speaker")
    chosen = validation + [r for rs in training.values() for r in rs[:most]]

    folder.mkdir(parents=True, exist_ok=True)
    packed: list[Packed] = []
    shard, content = 0, bytearray()
    for recording in chosen:
        data = recording.path.read_bytes()
        if content and len(content) + len(data) > shard_megabytes * 1e6:
            (folder / _shard(shard)).write_bytes(content)
            shard, content = shard + 1, bytearray()
        packed.append(
            Packed(
                recording.speaker,
                family(recording.corpus),
                recording.speaker in held_out,
                _shard(shard),
                len(content),
                len(data),
            )
        )
        content += data
    (folder / _shard(shard)).write_bytes(content)
    (folder / INDEX).write_text(json.dumps([asdict(p) for p in packed], indent=0))
    return (
        f"{len(packed)} recordings of {len(by_speaker)} speakers, at most {most} of each, "
        f"{sum(p.size for p in packed) / 1e6:.1f} MB in {shard + 1} shards; "
        f"{len(held_out)} speakers with {len(validation)} recordings are held out"
    )


def unpack(folder: Path, processes: int) -> tuple[list[Packed], list[np.ndarray]]:
    """The recordings of all shards, decoded: int16 samples (T,) at 16 kHz each.

    Call it before CUDA is used: it forks.
    """
    packed = [Packed(**row) for row in json.loads((folder / INDEX).read_text())]
    contents = {name: (folder / name).read_bytes() for name in sorted({p.shard for p in packed})}
    files = [contents[p.shard][p.offset : p.offset + p.size] for p in packed]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return packed, pool.map(_decoded, files, chunksize=16)


def _decoded(data: bytes) -> np.ndarray:
    samples, rate = soundfile.read(BytesIO(data), dtype="int16")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise CorpusError(f"recordings must be mono at {SAMPLE_RATE} Hz, not at {rate} Hz")
    return np.asarray(samples)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _shard(number: int) -> str:
    return f"shard{number:02d}.bin"


def main() -> int:
    """Packs; 1 if a list is faulty."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speaker_judge.pack", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("out", type=Path, help="folder for the shards")
    parser.add_argument("tables", nargs="+", help="lists of recordings (utterances.csv)")
    parser.add_argument("--megabytes", type=float, default=115, help="of all shards")
    parser.add_argument("--shard-megabytes", type=float, default=15, help="of one shard")
    a = parser.parse_args()
    try:
        print(pack(a.tables, a.out, a.megabytes, a.shard_megabytes))
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

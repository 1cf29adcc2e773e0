"""A small corpus on disk: something with a pitch and syllables for each speaker."""

import csv
from pathlib import Path

import soundfile

from tests.support import tiny_models as tiny


def make(folder: Path, *, speakers: int = 6, each: int = 3, unlabelled: int = 2) -> Path:
    """Writes `utterances.csv` and its recordings, and gives the list's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    names = [(f"s{s}", f"s{s}-{i}") for s in range(speakers) for i in range(each)]
    names += [("", f"unknown-{i}") for i in range(unlabelled)]
    for number, (speaker, utterance_id) in enumerate(names):
        speech = tiny.speech(1.2 + 0.1 * (number % 4), number)
        soundfile.write(folder / f"{utterance_id}.wav", speech.samples.numpy(), 16000)
        rows.append((utterance_id, speaker, f"{utterance_id}.wav", "Made", "NO WORDS"))
    path = folder / "utterances.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("utterance_id", "speaker", "path", "corpus", "text"))
        writer.writerows(rows)
    return path

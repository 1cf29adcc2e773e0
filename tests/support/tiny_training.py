"""A small corpus on disk, and trainings of the recipe `tiny` on it."""

import csv
import json
from pathlib import Path
from typing import Any

import soundfile

from takin_vc.config import load
from takin_vc.train.run import run
from tests.support import tiny_models as tiny

STAGES = ("voiceprint", "vocoder", "conversion")  # what a checkpoint is bundled from, in order


def write_corpus(folder: Path, *, speakers: int = 6, each: int = 3, unlabelled: int = 2) -> Path:
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


def arguments(table: Path, out: Path, stage: str, *overrides: str) -> list[str]:
    """What the command line of a training gets."""
    fixed = ["recipe=tiny", "device=cpu", f"data={table}", f"out={out}", f"stage={stage}"]
    return [*fixed, *overrides]


def train(table: Path, out: Path, stage: str, *overrides: str) -> dict[str, Any]:
    """Trains a stage and gives its result."""
    return run(load(arguments(table, out, stage, *overrides), "train"))


def losses(out: Path, stage: str) -> list[dict[str, Any]]:
    """The lines of a stage's log, without their times."""
    lines = (out / stage / "log.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k != "minutes"} for line in logged]

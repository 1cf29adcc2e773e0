"""Finished runs made up of drawn scores, whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from bench.metrics import METRICS
from bench.results import ScoredRun
from bench.stats.pooling import Measured, summarise
from bench.stats.sides import Side
from tests.support.runs import write_folder

JUDGES = {"secs_a": Measured(("secs",)), "wer_a": Measured(("wer",), needs_source_words=True)}


def ring(speakers=18, each=4):
    """Source and target of every trial: each speaker `each` times both, never with itself."""
    source = np.repeat(np.arange(speakers), each)
    return source, (source + 1 + np.tile(np.arange(each), speakers)) % speakers


def scores(system, secs, errors=None, words=10, design=None, failed=()):
    """A score table of one system.

    Args:
        system: its name.
        secs: of every trial.
        errors: word errors of every trial.
        words: of every trial.
        design: as `ring` gives it.
        failed: numbers of trials that failed.
    """
    source, target = ring() if design is None else design
    table = pd.DataFrame(
        {
            "system": system,
            "suite": "s",
            "trial_id": [f"t{i:04d}" for i in range(len(source))],
            "status": "ok",
            "error": "",
            "source_speaker": [f"S{i}" for i in source],
            "target_speaker": [f"S{i}" for i in target],
            "factor.gender_pair": np.where(source % 2 == 0, "F2M", "M2F"),
            "elapsed_seconds": 1.0,
            "audio_seconds": 4.0,
            "secs_a.secs": secs,
            "wer_a.word_errors": 1.0 if errors is None else errors,
            "wer_a.words": float(words),
        }
    )
    lost = table.index.isin(list(failed))
    table.loc[lost, ["status", "error"]] = ["failed", "Error: no"]
    measured = [
        "elapsed_seconds",
        "audio_seconds",
        "secs_a.secs",
        "wer_a.word_errors",
        "wer_a.words",
    ]
    table.loc[lost, measured] = np.nan
    return table


def facts(**changes):
    """What run.json says of such a run."""
    made = {
        "created": "2025-01-02T03:04:05+00:00",
        "commit": "0" * 40,
        "machine": {"processor": "A", "cores": 2, "torch_threads": 2, "gpus": [], "cuda": None},
        "anchors": {},
        "systems": {"a": {"settings": {"_target_": "x.A", "steps": 10}}},
        "suites": {"s": {"sha256": "1" * 64, "trials": 72}},
        "judges": {"secs_a": {"fingerprint": "2" * 64}, "wer_a": {"fingerprint": "3" * 64}},
        "pooling": {name: metric.pooling for name, metric in METRICS.items()},
        "settings": {"seed": 0},
    }
    return {**json.loads(json.dumps(made)), **changes}


def run(name, *tables, folder=Path("outputs"), **changes):
    """A run of these systems."""
    table = pd.concat(tables, ignore_index=True)
    return ScoredRun(name, folder / name, facts(**changes), table, summary=pd.DataFrame())


def side(name, table, **changes):
    """The only system of a run of its own."""
    made = run(name, table, **changes)
    return Side(name, made, made.systems[0])


def write(made):
    """Writes the run's folder."""
    return write_folder(
        made.folder, made.facts, made.scores, lambda table: summarise(table, JUDGES, {})
    )

"""A scored run in memory: its tables and the facts about it. Reads and writes no file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.provenance import place, place_of

# Stands for the judge in the score table and in the summary: see `bench.validity.exposure`.
TRAINED_ON = "trained_on"


@dataclass(frozen=True)
class ScoredRun:
    """A scored run: enough to compare, to gate and to list it, without its sounds.

    Attributes:
        name: the run's name.
        folder: the run's folder, for messages; need not exist.
        facts: the contents of run.json.
        scores: one row per system × suite × trial: see `bench.run.results.Results.scores`.
        summary: one row per suite × system × judge × metric: see
            `bench.run.results.Results.summary`.
    """

    name: str
    folder: Path
    facts: Mapping[str, Any]
    scores: pd.DataFrame
    summary: pd.DataFrame

    @property
    def systems(self) -> list[str]:
        """The names of its systems, without the recordings that mark floor and ceiling."""
        return [s for s in self.scores["system"].unique() if s not in self.facts["anchors"]]


def timed_on(scores: pd.DataFrame, facts: Mapping[str, Any]) -> pd.Series:
    """The machine that each conversion was timed on, as `bench.provenance.place` writes it.

    Args:
        scores: see `ScoredRun`; conversions without a time are left out.
        facts: of the run: its machine stands for conversions without an origin.
    """
    times = ["elapsed_seconds", "audio_seconds"]
    if not set(times) <= set(scores.columns):
        return pd.Series(dtype=object)
    timed = scores.dropna(subset=times)
    machine_of_run = place(facts.get("machine") or {})
    if "origin" not in timed:
        return pd.Series(machine_of_run, timed.index)
    return timed["origin"].fillna("").map(lambda origin: place_of(origin) or machine_of_run)

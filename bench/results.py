"""Defines a scored run in memory: its tables and facts. Reads and writes no file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from bench.provenance import machine_line, machine_of

if TYPE_CHECKING:
    from bench.trials import Suite

# Stands for the judge in the score table and in the summary: see `bench.validity.exposure`.
TRAINED_ON = "trained_on"


@dataclass(frozen=True)
class ScoredRun:
    """A scored run, read from its folder by `bench.run.folder`.

    Attributes:
        name: the run's name.
        folder: the run's folder, for messages; need not exist.
        facts: the contents of run.json.
        scores: one row per system × suite × trial, failures included. Columns:
            system, suite, trial_id; status (ok, failed, absent), error ("" unless failed);
            source_speaker, target_speaker, source_gender, target_gender; factor.<name> for each
            factor of the trials; wav (path relative to `folder`, "" unless ok), wav_sha256 (of the
            file as it was scored), altered (whether the file was changed since it was converted:
            it is scored as it is, and its time is left out), origin (code and machine that
            converted it; "" if unknown or for recordings), remarks (what the system changed in its
            process; "" if nothing), sample_rate (Hz), peak, clipped (share of samples, 0 to 1),
            elapsed_seconds, audio_seconds (NaN for recordings); first_chunk_seconds,
            stream_seconds, streamed_seconds where a system streams; trained_on.source,
            trained_on.target (seen, unseen, unknown; "" for recordings) and trained_on.unseen (1,
            0; NaN if unknown): see `bench.validity.exposure`; <judge>.<column> for every column of
            every judge (NaN if not measured).
        summary: one row per suite × system × judge × metric, pooled over trials. Columns: suite,
            system, judge, metric (key of METRICS), value, low, high (95% interval, NaN if it
            cannot be estimated), n (trials measured), trials (trials of the suite), failed, note
            ("" or why there is no value, such as "no weights: …").
        suites: name → trials, for reports; empty where only the tables were read.
    """

    name: str
    folder: Path
    facts: Mapping[str, Any]
    scores: pd.DataFrame
    summary: pd.DataFrame
    suites: "Mapping[str, Suite]" = field(default_factory=dict)

    @property
    def anchors(self) -> Mapping[str, str]:
        """The systems that are recordings: {"source": "floor", …}."""
        return self.facts.get("anchors", {})

    @property
    def systems(self) -> list[str]:
        """The names of its systems, without the recordings that mark floor and ceiling."""
        return [s for s in self.scores["system"].unique() if s not in self.anchors]


def timed_on(scores: pd.DataFrame, facts: Mapping[str, Any]) -> pd.Series:
    """The machine that each conversion was timed on (see `bench.provenance.machine_line`).

    Args:
        scores: see `ScoredRun`; conversions without a time are left out.
        facts: of the run; its machine is used for conversions without an origin.

    Returns:
        A line per timed conversion, with the index of `scores`.
    """
    times = ["elapsed_seconds", "audio_seconds"]
    if not set(times) <= set(scores.columns):
        return pd.Series(dtype=object)
    timed = scores.dropna(subset=times)
    machine_of_run = machine_line(facts.get("machine") or {})
    if "origin" not in timed:
        return pd.Series(machine_of_run, timed.index)
    return timed["origin"].fillna("").map(lambda origin: machine_of(origin) or machine_of_run)


class Renderer(Protocol):
    """Writes one form of the report into the run's folder."""

    def render(self, results: ScoredRun) -> Path | None:
        """Writes the report and returns its main file, or prints it and returns None."""
        ...

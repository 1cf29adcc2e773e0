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

# Columns of `ScoredRun.scores` and their meaning; a name in angle brackets stands for several.
COLUMNS: Mapping[str, str] = {
    "system": "name of the system",
    "suite": "name of the suite",
    "trial_id": "id of the trial in its suite",
    "status": "ok, failed, or absent if the corpus has no such recording",
    "error": "why the conversion failed; empty unless failed",
    "source_speaker": "speaker of the source",
    "target_speaker": "speaker of the reference",
    "source_gender": "F, M, or empty if the corpus does not say",
    "target_gender": "likewise, of the target",
    "factor.<name>": "a factor of the trial, such as factor.gender_pair",
    "wav": "path of the sound, relative to the run's folder; empty unless ok",
    "wav_sha256": "hash of that file as it was scored",
    "altered": "whether the file was changed since it was converted: it is scored as it is, and "
    "its time is left out",
    "origin": "code and machine that converted it; empty if unknown and for recordings",
    "remarks": "what the system changed in its process; empty if nothing",
    "sample_rate": "of the sound, in Hz",
    "peak": "largest magnitude before the file of 16 bits was written",
    "clipped": "share of samples outside of [-1, 1] before that, 0 to 1",
    "elapsed_seconds": "time of the conversion, without files and warm-ups; empty for recordings",
    "audio_seconds": "duration of the sound",
    "first_chunk_seconds": "from the call to the first chunk, where a system streams",
    "stream_seconds": "from the call to the last chunk, where a system streams",
    "streamed_seconds": "duration of the speech in all chunks, where a system streams",
    "stage.<name>": "seconds of a stage that the system names",
    "trained_on.source": "seen, unseen or unknown: whether the system was trained on the source "
    "speaker; empty for recordings",
    "trained_on.target": "likewise, of the target speaker",
    "trained_on.unseen": "1 if both speakers are unseen, 0 if one is seen, empty if unknown",
    "<judge>.<column>": "a column of a judge; empty if not measured",
}
# Columns of `ScoredRun.summary`.
SUMMARY_COLUMNS: Mapping[str, str] = {
    "suite": "name of the suite",
    "system": "name of the system",
    "judge": "name of the judge; timing and trained_on stand for no judge",
    "metric": "key of the metric",
    "value": "pooled over the trials of the suite; empty if not measured",
    "low": "lower end of the 95% interval; empty if it cannot be estimated",
    "high": "upper end of the 95% interval",
    "n": "trials that were measured",
    "trials": "trials of the suite",
    "failed": "trials that failed",
    "note": 'empty, or why there is no value, such as "no weights: …"',
}


@dataclass(frozen=True)
class ScoredRun:
    """A scored run, read from its folder by `bench.run.folder`.

    Attributes:
        name: the run's name.
        folder: the run's folder, for messages; need not exist.
        facts: the contents of run.json.
        scores: one row per system × suite × trial, failures included: see `COLUMNS`.
        summary: one row per suite × system × judge × metric, pooled over trials: see
            `SUMMARY_COLUMNS`.
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

"""The results of a run, as the report sees them: two tables, the suites, and where it all came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bench.trials import Suite


@dataclass(frozen=True)
class Results:
    """One run.

    Attributes:
        name: the run's name.
        folder: outputs/<name>/.
        scores: one row per system × suite × trial, failures included. Columns:
            system, suite, trial_id; status (ok, failed, absent), error ("" unless failed);
            source_speaker, target_speaker, source_gender, target_gender; factor.<name> for each
            factor of the trials; wav (path relative to `folder`, "" unless ok), sample_rate (Hz),
            peak, clipped (share of samples), elapsed_seconds, audio_seconds (NaN for recordings);
            <judge>.<column> for every column of every judge (NaN where not measured).
        summary: one row per suite × system × judge × metric, pooled over trials. Columns: suite,
            system, judge, metric (key of METRICS), value, low, high (95% interval, NaN where not
            estimable), n (trials measured), trials (trials asked for), failed, note ("" or why
            there is no value, such as "no weights: …").
        suites: name → trials.
        provenance: commit, packages, machine, judges' weights, manifests' hashes, settings.
        anchors: systems that are recordings: {"source": "floor", …} as configured.
    """

    name: str
    folder: Path
    scores: pd.DataFrame
    summary: pd.DataFrame
    suites: Mapping[str, Suite]
    provenance: Mapping[str, Any]
    anchors: Mapping[str, str]


class Renderer(Protocol):
    """Writes one form of the report into the run's folder."""

    def render(self, results: Results) -> Path:
        """Writes the report and returns the path of its main file."""
        ...

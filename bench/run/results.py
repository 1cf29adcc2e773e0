"""The results of a run, as the report sees them: two tables, the suites, the provenance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bench.run.folder import check_sounds, read_run
from bench.run.recordings import stored_suites
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
            factor of the trials; wav (path relative to `folder`, "" unless ok), wav_sha256 (of the
            file as it was scored), altered (whether somebody changed it since it was converted:
            it is scored as it is, and its time is left out),
            origin (code and machine that converted it; "" where unknown or of no meaning),
            remarks (what the system changed of its process; "" where nothing),
            sample_rate (Hz), peak, clipped (share of samples), elapsed_seconds, audio_seconds (NaN
            for recordings);
            trained_on.source, trained_on.target (seen, unseen, unknown; "" for recordings) and
            trained_on.unseen (1, 0; NaN where unknown): see `bench.validity.exposure`;
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

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """The results of the run in `folder`.

        Raises:
            UserError: if the folder holds no scored run, or its suites are no longer as they were.
        """
        run = read_run(folder)
        check_sounds(folder, run.scores)
        return cls(
            name=folder.name,
            folder=folder,
            scores=run.scores,
            summary=run.summary,
            suites=stored_suites(run),
            provenance=run.facts,
            anchors=run.facts["anchors"],
        )


class Renderer(Protocol):
    """Writes one form of the report into the run's folder."""

    def render(self, results: Results) -> Path | None:
        """Writes the report and returns its main file, or prints it and returns None."""
        ...

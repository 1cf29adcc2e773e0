"""The results of a run, as the report sees them: two tables, the suites, the provenance."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.cli.settings import build
from bench.errors import UserError
from bench.provenance import place, place_of
from bench.run.folder import RUN, SCORES, ScoredRun, check_sounds, read_run
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
            suites=_recorded_suites(run),
            provenance=run.facts,
            anchors=run.facts["anchors"],
        )


def _recorded_suites(run: ScoredRun) -> dict[str, Suite]:
    """The suites of a run, as they were when it was scored.

    A run folder may come from anyone: nothing that it names is called, only `Suite.load` is.
    """
    suites = {}
    for name, known in run.facts["suites"].items():
        try:
            node = OmegaConf.create(run.facts["settings"]).suite[name]
            target, manifest, root = node.get("_target_"), node.manifest, node.root
        except (OmegaConfBaseException, AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{run.folder / RUN}: its settings do not describe suite {name} ({error})"
            ) from error
        if target != "bench.trials.Suite.load":
            raise UserError(f"suite {name}: {target} is not read from a run's folder")
        if not isinstance(manifest, str) or not isinstance(root, str):
            raise UserError(f"suite {name}: manifest and root of a run must be paths")
        suites[name] = Suite.load(
            manifest, root=root, name=name, sha256=known["sha256"], limit=known["trials"]
        )
        trials = {trial.trial_id for trial in suites[name].trials}
        rows = run.scores.loc[run.scores["suite"] == name, "trial_id"]
        if other := sorted(set(rows) - trials):
            raise UserError(
                f"{run.folder / SCORES} has a trial {other[0]!r} that {manifest} does not have"
            )
    return suites


class Renderer(Protocol):
    """Writes one form of the report into the run's folder."""

    def render(self, results: Results) -> Path | None:
        """Writes the report and returns its main file, or prints it and returns None."""
        ...


def load_suites(settings: DictConfig) -> dict[str, Suite]:
    """The suites that the settings name."""
    return {
        str(name): build(node, f"suite {name}", name=str(name), limit=settings.limit)
        for name, node in settings.suite.items()
    }


def timed_on(scores: pd.DataFrame, provenance: Mapping[str, Any]) -> pd.Series:
    """The machine that each conversion was timed on, as `bench.provenance.place` writes it.

    Args:
        scores: see `Results.scores`; conversions without a time are left out.
        provenance: of the run: its machine stands for conversions without an origin.
    """
    times = ["elapsed_seconds", "audio_seconds"]
    if not set(times) <= set(scores.columns):
        return pd.Series(dtype=object)
    timed = scores.dropna(subset=times)
    own = place(provenance.get("machine") or {})
    if "origin" not in timed:
        return pd.Series(own, timed.index)
    return timed["origin"].fillna("").map(lambda origin: place_of(origin) or own)

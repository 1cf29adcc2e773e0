"""The results of a run, as the report sees them: two tables, the suites, the provenance."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from bench.config import build
from bench.errors import UserError
from bench.files import replacing, sha256_of
from bench.leaks import TRAINED_ON
from bench.provenance import place, place_of
from bench.trials import Suite

# Files of a run's folder.
RUN = "run.json"
SCORES = "scores.csv"
SUMMARY = "summary.csv"

# Columns of the tables that are texts even where they look like numbers.
TEXT = frozenset(
    (
        *(
            "system",
            "suite",
            "trial_id",
            "status",
            "error",
            "origin",
            "wav",
            "wav_sha256",
            "judge",
            "metric",
            "note",
        ),
        *("source_speaker", "target_speaker", "source_gender", "target_gender"),
        *(f"{TRAINED_ON}.source", f"{TRAINED_ON}.target"),
    )
)


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
            file as it was scored), altered (whether somebody changed it since it was converted),
            origin (code and machine that converted it; "" where unknown or of no meaning),
            sample_rate (Hz), peak, clipped (share of samples), elapsed_seconds, audio_seconds (NaN
            for recordings);
            trained_on.source, trained_on.target (seen, unseen, unknown; "" for recordings) and
            trained_on.unseen (1, 0; NaN where unknown): see `bench.leaks`;
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
        try:
            provenance = json.loads((folder / RUN).read_text(encoding="utf-8"))
            scores, summary = read_table(folder / SCORES), read_table(folder / SUMMARY)
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} holds no scored run ({Path(error.filename).name} is missing); "
                "run `vcbench run`, or name another with name=…"
            ) from error
        _check_sounds(folder, scores)
        suites = _recorded_suites(provenance)
        return cls(
            name=folder.name,
            folder=folder,
            scores=scores,
            summary=summary,
            suites=suites,
            provenance=provenance,
            anchors=provenance["anchors"],
        )


def _recorded_suites(provenance: Mapping[str, Any]) -> dict[str, Suite]:
    """The suites of a run, as they were when it was scored.

    A run folder may come from anyone: nothing that it names is called, only `Suite.load` is.
    """
    settings = OmegaConf.create(provenance["settings"])
    suites = {}
    for name, known in provenance["suites"].items():
        node = settings.suite[name]
        if node.get("_target_") != "bench.trials.Suite.load":
            raise UserError(f"suite {name}: {node.get('_target_')} is not read from a run's folder")
        manifest, root = node.manifest, node.root
        if not isinstance(manifest, str) or not isinstance(root, str):
            raise UserError(f"suite {name}: manifest and root of a run must be paths")
        suites[name] = Suite.load(name, manifest, root, known["sha256"], known["trials"])
    return suites


def _check_sounds(folder: Path, scores: pd.DataFrame) -> None:
    """Raises UserError unless the sounds in the folder are those that were scored."""
    for row in scores[scores["status"] == "ok"].itertuples():
        path = (folder / row.wav).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UserError(f"{folder / SCORES}: {row.wav!r} leaves the run's folder")
        if not path.is_file() or sha256_of(path) != row.wav_sha256:
            raise UserError(f"{path} is not the sound that was scored; run `vcbench score` again")


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


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table that `write_table` wrote: names and texts stay texts, empty numbers are NaN."""
    columns = pd.read_csv(path, nrows=0).columns
    text = {
        c: str for c in columns if c in TEXT or c.startswith("factor.") or c.endswith(".hypothesis")
    }
    empty = {c: [""] for c in columns if c not in text}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a CSV that appears whole or not at all."""
    table = table.replace("\r", " ", regex=True)  # Python's csv would not quote it
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")

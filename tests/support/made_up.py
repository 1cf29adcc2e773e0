"""Builds made-up runs: planted scores, over invented or embedded trials."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.audio import Waveform
from bench.files import file_sha256
from bench.metrics import METRICS
from bench.results import ScoredRun
from bench.run.folder import write_run
from bench.run.recordings import store_trials
from bench.stats.pooling import Measured, summarise
from bench.stats.sides import Side
from bench.trials import Suite, Trial
from suites.build import MANIFESTS, MINI
from tests.support.simulation import ring

NO_WEIGHTS = "UTMOS22 strong: no weights (looked at utmos.pt); download them from the authors"
JUDGES = {
    "secs_resemblyzer": Measured(("secs", "source_secs", "nearer_target")),
    "wer_whisper_base": Measured(("wer", "cer"), needs_source_words=True),
    "dnsmos": Measured(("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")),
    "prosody": Measured(("f0_correlation", "f0_rmse", "duration_ratio"), needs_source_words=True),
    "utmos": Measured(("utmos",), unavailable=NO_WEIGHTS),
}
SECS, WER = "secs_resemblyzer", "wer_whisper_base"
RECORDINGS = {"source": True, "target": False}
ANCHORS = {"source": "floor", "target": "ceiling"}
LEVEL = {"source": (0.55, 0.85), "world": (0.66, 0.70), "target": (0.86, 0.52)}
EMBEDDED = ("mini_cross_gender", "mini_reference_length")


def facts(**changes: Any) -> dict[str, Any]:
    """The contents of run.json, with these entries replaced."""
    weights = {
        "name": "Resemblyzer speaker encoder",
        "path": "weights/pretrained.pt",
        "sha256": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        "licence": "Apache-2.0",
    }
    contents = {
        "created": "2025-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "packages": {"torch": "2.11.0", "pandas": "2.3.0"},
        "machine": {"processor": "A", "cores": 2, "torch_threads": 2, "gpus": [], "cuda": None},
        "anchors": {},
        "systems": {"a": {"settings": {"_target_": "x.A", "steps": 10}}},
        "suites": {"s": {"sha256": "1" * 64, "trials": 72}},
        "judges": {
            SECS: {
                "fingerprint": "f" * 64,
                "metrics": [*JUDGES[SECS].metrics],
                "weights": [weights],
            },
            WER: {"fingerprint": "3" * 64, "metrics": [*JUDGES[WER].metrics]},
            "utmos": {"unavailable": NO_WEIGHTS},
        },
        "metrics": {},
        "pooling": {name: metric.pooling for name, metric in METRICS.items()},
        "settings": {"seed": 0},
    }
    return {**json.loads(json.dumps(contents)), **changes}


# --- invented trials, without sounds


def scores(
    system: str,
    secs: np.ndarray,
    errors: np.ndarray | None = None,
    words: int = 10,
    design: tuple[np.ndarray, np.ndarray] | None = None,
    failed: Sequence[int] = (),
) -> pd.DataFrame:
    """A score table of one system over the suite "s".

    Args:
        system: its name.
        secs: of every trial.
        errors: word errors of every trial; None for one each.
        words: of every trial.
        design: source and target speakers: see `ring`.
        failed: numbers of the trials that failed.
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
            f"{SECS}.secs": secs,
            f"{WER}.word_errors": 1.0 if errors is None else errors,
            f"{WER}.words": float(words),
        }
    )
    return with_failures(table, table.index.isin(list(failed)))


def run(
    name: str, *tables: pd.DataFrame, folder: Path = Path("outputs"), **changes: Any
) -> ScoredRun:
    """A run of these systems, without a summary; `changes` replace entries of its facts."""
    table = pd.concat(tables, ignore_index=True)
    return ScoredRun(name, folder / name, facts(**changes), table, summary=pd.DataFrame())


def side(name: str, table: pd.DataFrame, **changes: Any) -> Side:
    """The only system of a run."""
    of_one = run(name, table, **changes)
    return Side(name, of_one, of_one.systems[0])


# --- trials of the embedded corpus, with sounds


def make_results(
    folder: Path,
    limit: int | None = 8,
    systems: Mapping[str, str] | None = None,
    suites: Sequence[str] = EMBEDDED,
) -> ScoredRun:
    """A run over embedded suites by `source`, these systems and `target`.

    Args:
        folder: where its wavs are written.
        limit: trials of each suite; None for all.
        systems: name → system that it scores like (a key of `LEVEL`); None for world.
        suites: names of embedded suites.
    """
    systems = {"world": "world"} if systems is None else systems
    loaded = {s: Suite.load(MANIFESTS / f"{s}.v2.jsonl", root=MINI, limit=limit) for s in suites}
    rng = np.random.default_rng(0)
    rows = []
    for system in ("source", *systems, "target"):
        for suite in loaded.values():
            rows += [_row(folder, rng, system, suite.name, t, systems) for t in suite.trials]
    table = pd.DataFrame(rows)
    return ScoredRun(
        name="made_up",
        folder=folder,
        scores=table,
        summary=summarise(table, JUDGES, RECORDINGS),
        suites=loaded,
        facts=facts(
            anchors=dict(ANCHORS),
            systems={s: {"settings": {"strength": 1.0}, "trained_on": []} for s in systems},
            suites={s.name: {"sha256": s.sha256, "trials": len(s.trials)} for s in loaded.values()},
        ),
    )


def _row(
    folder: Path,
    rng: np.random.Generator,
    system: str,
    suite: str,
    trial: Trial,
    systems: Mapping[str, str],
) -> dict[str, Any]:
    secs, source_secs = LEVEL[systems.get(system, system)] + rng.normal(0, 0.04, 2)
    words = trial.source.text.split()
    hypothesis = list(words)
    if system in systems:
        wrong = rng.integers(len(words))
        hypothesis[wrong : wrong + 1] = ["banana"]
    converted = {"source": trial.source, "target": trial.target}.get(system, trial.source).load()
    if system in systems:  # cut a little, so that it is another file than the source
        converted = Waveform(
            converted.samples[: len(converted.samples) - 800], converted.sample_rate
        )
    wav = Path("wav") / system / suite / f"{trial.trial_id}.wav"
    converted.save(folder / wav)
    source_words = RECORDINGS.get(system, True)
    nan = float("nan")
    return {
        "system": system,
        "suite": suite,
        "trial_id": trial.trial_id,
        "status": "ok",
        "error": "",
        "source_speaker": trial.source.speaker,
        "target_speaker": trial.speaker,
        "source_gender": trial.source.gender,
        "target_gender": trial.references[0].gender,
        **{f"factor.{k}": v for k, v in trial.factors.items()},
        "wav": wav.as_posix(),
        "sample_rate": converted.sample_rate,
        "peak": converted.peak,
        "clipped": 0.0,
        "elapsed_seconds": converted.seconds * 0.3 if system in systems else nan,
        "audio_seconds": converted.seconds,
        f"{SECS}.secs": secs,
        f"{SECS}.source_secs": source_secs,
        f"{SECS}.nearer_target": float(secs > source_secs),
        f"{WER}.hypothesis": " ".join(hypothesis).capitalize() + "." if source_words else None,
        f"{WER}.word_errors": float(system in systems) if source_words else nan,
        f"{WER}.words": len(words) if source_words else nan,
        f"{WER}.char_errors": 4.0 * (system in systems) if source_words else nan,
        f"{WER}.chars": len(trial.source.text) if source_words else nan,
        **{f"dnsmos.{c}": 3.0 + rng.normal(0, 0.2) for c in ("ovrl", "sig", "bak", "p808")},
        "prosody.f0_correlation": 0.9 if source_words else nan,
        "prosody.f0_rmse": 1.2 if source_words else nan,
        "prosody.duration_ratio": 1.0 if source_words else nan,
    }


# --- changes


def judged(table: pd.DataFrame) -> list[str]:
    """The columns that judges filled."""
    return [c for c in table.columns if "." in c and not c.startswith("factor.")]


def with_failures(table: pd.DataFrame, rows: Any, error: str = "Error: no") -> pd.DataFrame:
    """The score table with failed conversions in these rows (a mask or an index)."""
    table = table.copy()
    table.loc[rows, ["status", "error"]] = ["failed", error]
    if "wav" in table:
        table.loc[rows, "wav"] = ""
    unknown = [*judged(table), "elapsed_seconds", "audio_seconds", "peak", "clipped"]
    table.loc[rows, [c for c in unknown if c in table]] = np.nan
    return table


def rescored(
    results: ScoredRun, table: pd.DataFrame, judges: Mapping[str, Measured] = JUDGES
) -> ScoredRun:
    """The run with another score table, and the summary of that table."""
    return replace(results, scores=table, summary=summarise(table, judges, RECORDINGS))


def failing(results: ScoredRun, system: str, suite: str, trial_id: str, error: str) -> ScoredRun:
    """The run with one failed conversion."""
    table = results.scores
    row = (table["system"] == system) & (table["suite"] == suite) & (table["trial_id"] == trial_id)
    assert row.sum() == 1
    return rescored(results, with_failures(table, row, error))


# --- on disk


def write(run: ScoredRun) -> Path:
    """Writes the folder of a run of invented trials."""
    return write_folder(
        run.folder, run.facts, run.scores, lambda table: summarise(table, JUDGES, {})
    )


def write_complete(results: ScoredRun, **changes: Any) -> Path:
    """Writes the folder of a run of `make_results` with its lists of trials and hashes of sounds.

    Args:
        results: the run; its sounds are in its folder.
        changes: replace entries of its facts.
    """
    folder = results.folder
    hashes = [file_sha256(folder / wav) if wav else "" for wav in results.scores["wav"]]
    lists = {name: store_trials(folder, suite) for name, suite in results.suites.items()}
    contents = {**results.facts, **changes}
    suites = {s: {**contents["suites"][s], "list": of} for s, of in lists.items()}
    return write_folder(
        folder,
        {**contents, "suites": suites},
        results.scores.assign(wav_sha256=hashes),
        lambda table: summarise(table, JUDGES, RECORDINGS),
    )


def write_folder(
    folder: Path,
    facts: Mapping[str, Any],
    scores: pd.DataFrame,
    summarise: Callable[[pd.DataFrame], pd.DataFrame],
) -> Path:
    """Writes a run whose run.json names the systems and counts the trials of these scores."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = {suite: rows["trial_id"].nunique() for suite, rows in scores.groupby("suite")}
    contents = {
        "created": "2025-01-02T03:04:05+00:00",
        "anchors": {},
        "judges": {},
        "metrics": {},
        "pooling": {},
        "settings": {},
        **facts,
    }
    suites = contents.get("suites", {})
    contents["suites"] = {
        suite: {"sha256": "1" * 64, **suites.get(suite, {}), "trials": int(count)}
        for suite, count in trials.items()
    }
    systems = contents.get("systems", {})
    contents["systems"] = {s: systems.get(s, {}) for s in map(str, scores["system"].unique())}
    scores = scores if "wav" in scores else scores.assign(wav="")
    write_run(folder, contents, scores, summarise)
    return folder

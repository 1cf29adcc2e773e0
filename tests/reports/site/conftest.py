"""Run folders for sites: comparable ones, one by another judge, one over fewer trials."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.results import ScoredRun
from tests.support.made_up import SECS, facts, failing, make_results, write_complete

SUITE = "mini_cross_gender"
SYSTEMS = {"world": "world", "takin_vc": "world"}
COMMITS = {"v1": "a1" * 20, "v2": "b2" * 20, "v3": "c3" * 20}


def moved(run: ScoredRun, folder: Path, gain: float = 0.0, suites: Any = None) -> ScoredRun:
    """A copy of the run in another folder, whose takin_vc is more similar by `gain`."""
    shutil.copytree(run.folder / "wav", folder / "wav", dirs_exist_ok=True)
    scores = run.scores.copy()
    scores.loc[scores["system"] == "takin_vc", f"{SECS}.secs"] += gain
    return dataclasses.replace(run, name=folder.name, folder=folder, scores=scores)


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders v1, v2 (one failure), v3, other_judge, short: four trials, `short` two."""
    folder = tmp_path_factory.mktemp("site") / "outputs"
    base = make_results(folder / "v1", 4, SYSTEMS, [SUITE])
    write_complete(base, created="2026-03-01T10:00:00+00:00", commit=COMMITS["v1"])
    trial = base.suites[SUITE].trials[0].trial_id
    second = failing(moved(base, folder / "v2", 0.02), "takin_vc", SUITE, trial, "Error: no")
    write_complete(second, created="2026-03-02T10:00:00+00:00", commit=COMMITS["v2"])
    third = moved(base, folder / "v3", 0.05)
    systems = {"world": third.facts["systems"]["world"], "takin_vc": {"settings": {"steps": 4}}}
    created = "2026-03-03T10:00:00+00:00"
    write_complete(third, created=created, commit=COMMITS["v3"], dirty=True, systems=systems)
    judges = facts()["judges"]
    judges[SECS]["fingerprint"] = "9" * 64
    created = "2026-02-01T10:00:00+00:00"
    write_complete(moved(base, folder / "other_judge"), created=created, judges=judges)
    short = make_results(folder / "short", 2, SYSTEMS, [SUITE])
    write_complete(short, created="2026-02-02T10:00:00+00:00")
    return folder


@pytest.fixture(scope="session")
def written(outputs: Path) -> Path:
    """The site of all runs of `outputs`."""
    from reports.site.page import Bounds, write_site
    from reports.site.runs import read_shown

    runs, _ = read_shown(sorted(outputs.iterdir()), sounds=True, skip_damaged=False)
    out = outputs.parent / "site"
    write_site(runs, out, "Leaderboard", Bounds(trials=1))
    return out

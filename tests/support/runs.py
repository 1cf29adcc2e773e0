"""Run folders on disk for made-up scores."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.run.folder import write_run


def write_folder(
    folder: Path,
    facts: Mapping[str, Any],
    scores: pd.DataFrame,
    summarise: Callable[[pd.DataFrame], pd.DataFrame],
) -> Path:
    """Writes a run whose run.json names the systems and counts the trials of these scores."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = {suite: own["trial_id"].nunique() for suite, own in scores.groupby("suite")}
    known = {
        "created": "2025-01-02T03:04:05+00:00",
        "anchors": {},
        "judges": {},
        "pooling": {},
        "settings": {},
        **facts,
    }
    about = known.get("suites", {})
    known["suites"] = {
        suite: {"sha256": "1" * 64, **about.get(suite, {}), "trials": int(count)}
        for suite, count in trials.items()
    }
    systems = known.get("systems", {})
    known["systems"] = {s: systems.get(s, {}) for s in map(str, scores["system"].unique())}
    scores = scores if "wav" in scores else scores.assign(wav="")
    write_run(folder, known, scores, summarise)
    return folder

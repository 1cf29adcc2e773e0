"""The section of report.html on listening tests."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.results import ScoredRun
from bench.stats.listening import ALL
from reports.figures.base import Figure, style
from reports.figures.opinions import opinions
from reports.listening.ratings.report import (
    LABELS,
    READING,
    READING_OF_PAIRS,
    difference_grid,
    score_grid,
    summary_lines,
)
from reports.listening.ratings.results import TestResults


def listening_sections(
    results: ScoredRun, rated: Mapping[str, TestResults]
) -> list[dict[str, Any]]:
    """Of each listening test: title, lines, tables (title, heads, rows), reading, figure, notes."""
    sections = []
    for kind, test in rated.items():
        tables = [("Scores", *score_grid(test)), ("Differences", *difference_grid(test))]
        sections.append(
            {
                "title": f"{LABELS[kind]}, listening test {test.test.test_id}",
                "lines": summary_lines(test),
                "tables": [table for table in tables if table[2]],
                "reading": READING_OF_PAIRS if test.test.paired else READING,
                "figure": _figure(results, test),
                "notes": test.notes,
            }
        )
    return sections


def _figure(results: ScoredRun, test: TestResults) -> Figure | None:
    if test.test.paired:
        return None
    scores: pd.DataFrame = test.scores[test.scores["slice"] == ALL]
    with style():
        return opinions(results, scores, LABELS[test.test.kind])

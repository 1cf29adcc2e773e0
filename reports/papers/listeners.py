"""Listeners' mean ratings in the columns of a paper's table that no metric measures: NMOS, SMOS."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.results import ScoredRun
from bench.stats.agreement import LISTENERS
from reports.listening.ratings.results import TestResults, of_suite
from reports.papers.published import Published
from reports.papers.rows import PaperCell, PaperRow
from reports.tables import systems_of


def opinions_of(
    table: Published, results: ScoredRun, suite: str, rated: Mapping[str, TestResults]
) -> dict[str, pd.DataFrame]:
    """Column key → the listeners' means of each system over the suite, by the table's factor.

    Raises:
        UserError: if a test fills no column, or rated nothing of the suite.
    """
    keys = [column.key for column in table.columns if not column.metrics]
    opinions = {}
    for key, test in rated.items():
        if key not in keys:
            raise UserError(
                f"{test.test.folder} is a test of kind {key}, and {table.name} has no column that "
                f"listeners fill with it; {choose_one_of(key, keys)}"
            )
        factor = None
        if table.factor:
            trials = results.suites[suite].trials
            factor = {t.trial_id: str(t.factors.get(table.factor, "")) for t in trials}
        opinions[key] = of_suite(test, suite, factor)
        if not set(opinions[key]["system"]) & set(systems_of(results)):
            raise UserError(
                f"{test.test.folder} rated nothing of suite {suite} of {results.folder}; it is of "
                f"run {test.test.run!r}: give its ratings, or the run that was rated"
            )
    return opinions


def with_opinions(
    row: PaperRow,
    table: Published,
    opinions: Mapping[str, pd.DataFrame],
    label: str = "",
    only: Sequence[str] = (),
) -> PaperRow:
    """The measured row with the listeners' means.

    Args:
        row: without them.
        table: as printed.
        opinions: see `opinions_of`.
        label: the slice of the row; "" for all trials.
        only: keys of the columns that apply to it; empty for all.
    """
    cells, remarks = [], []
    for column, cell in zip(table.columns, row.cells, strict=True):
        means = opinions.get(column.key)
        if means is not None and (not only or column.key in only):
            means = means[(means["system"] == row.system) & (means["slice"] == label)]
            for mean in means.to_dict("records"):
                bounds = f"{mean['low']:.2f}", f"{mean['high']:.2f}"
                known = bounds if np.isfinite(mean["low"]) else None
                cell = PaperCell(f"{mean['mean']:.2f}", known, LISTENERS)
                remarks.append(f"{column.head} by {mean['listeners']} listeners")
        cells.append(cell)
    return replace(row, cells=tuple(cells), remark="; ".join([row.remark, *remarks]))


def by_listeners(
    line: tuple[str, str, str], table: Published, rated: Mapping[str, TestResults]
) -> tuple[str, str, str]:
    """A line of the deviations; that of a column which listeners filled names their test."""
    heads = {column.head: column.key for column in table.columns if not column.metrics}
    test = rated.get(heads.get(line[0], ""))
    if test is None:
        return line
    kept = test.screened.kept
    here = f"{kept['listener'].nunique()} listeners, {len(kept)} ratings, test {test.test.test_id}"
    return line[0], line[1], here

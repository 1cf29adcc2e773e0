"""The leading metrics sliced by the factors of the trials."""

from collections.abc import Container, Mapping

import pandas as pd

from bench.metrics import INTELLIGIBILITY, NATURALNESS, SIMILARITY, Measure
from bench.results import ScoredRun
from bench.stats.pooling import TIMING, Measured, measures_of, summarise
from bench.validity.kinship import kinships
from reports.tables import (
    DASH,
    NOT_APPLICABLE,
    Cell,
    Column,
    Table,
    chosen,
    is_unavailable,
    kinship_notes,
    label,
    measured_cell,
    system_row,
    systems_of,
)

SLICED = (SIMILARITY, INTELLIGIBILITY, NATURALNESS)  # families, in this order
MOST_SLICES = 8  # a factor with more values is not sliced by


def slices(results: ScoredRun) -> dict[tuple[str, str], pd.DataFrame]:
    """The leading metrics of `SLICED` by each factor that takes two to eight values in a suite.

    Returns:
        (suite, factor) → one row per value × system × judge × metric, the value in the column
        `factor.<factor>`, values in ascending order.
    """
    every = results.summary[["judge", "metric"]].drop_duplicates()
    shown = chosen(every.itertuples(index=False, name=None), SLICED)
    judges, recordings = measured(results.summary, results.anchors, shown)
    sliced = {}
    for suite, group in results.scores.groupby("suite", sort=False):
        for column in [c for c in group.columns if c.startswith("factor.")]:
            rows = group[group[column].fillna("") != ""]  # other suites may have other factors
            if 2 <= rows[column].nunique() <= MOST_SLICES:
                rows = rows.sort_values(column, key=_by_number, kind="stable")
                summary = summarise(rows, judges, recordings, by=[column])
                sliced[str(suite), column.removeprefix("factor.")] = summary
    return sliced


def slice_tables(results: ScoredRun, slices: Mapping[tuple[str, str], pd.DataFrame]) -> list[Table]:
    """A table for each slicing (see `slices`): a column for each metric and value of the factor."""
    return [_slice_table(results, *key, summary) for key, summary in slices.items()]


def measured(
    summary: pd.DataFrame, anchors: Mapping[str, str], measures: Container[Measure] | None = None
) -> tuple[dict[str, Measured], dict[str, bool]]:
    """The arguments of `summarise`, read back from its summary.

    Args:
        summary: of a run.
        anchors: of the run.
        measures: those to keep; None for all.

    Returns:
        The judges, and recording → whether it says the source's words.
    """
    judged = summary[summary["judge"] != TIMING]
    inapplicable = judged[judged["note"] == NOT_APPLICABLE]
    judges = {}
    for judge, rows in judged.groupby("judge", sort=False):
        reasons = rows.loc[rows["note"].map(is_unavailable), "note"]
        judges[str(judge)] = Measured(
            metrics=tuple(
                metric
                for metric in rows["metric"].unique()
                if measures is None or (judge, metric) in measures
            ),
            needs_source_words=judge in set(inapplicable["judge"]),
            unavailable="" if reasons.empty else str(reasons.iloc[0]),
        )
    other_words = set(inapplicable["system"])
    return judges, {system: system not in other_words for system in anchors}


def _slice_table(results: ScoredRun, suite: str, factor: str, summary: pd.DataFrame) -> Table:
    column = f"factor.{factor}"
    values = list(summary[column].unique())
    pairs = chosen(measures_of(summary), SLICED)
    cells = summary.set_index(["system", "judge", "metric", column])
    scores = results.scores[results.scores["suite"] == suite]
    trials = scores.groupby(column)["trial_id"].nunique()
    kin = kinships(results.facts)
    rows = [
        system_row(
            results,
            system,
            scores,
            [
                measured_cell(
                    metric,
                    cells.loc[(system, judge, metric, value)],
                    trials[value],
                    kin=(system, judge) in kin,
                )
                if (system, judge, metric, value) in cells.index
                else Cell(DASH)
                for judge, metric in pairs
                for value in values
            ],
        )
        for system in systems_of(results, suite)
    ]
    unit = " s" if factor.endswith("_seconds") else ""
    columns = tuple(
        Column(f"{label(metric)} · {judge}", f"{value}{unit}", f"{trials[value]} trials")
        for judge, metric in pairs
        for value in values
    )
    sizes = ", ".join(f"{value}{unit}: {trials[value]}" for value in values)
    notes = kinship_notes(kin, results, [row.system for row in rows], [j for j, _ in pairs])
    return Table(f"{suite} by {factor} (trials {sizes})", columns, tuple(rows), tuple(notes))


def _by_number(values: pd.Series) -> pd.Series:
    """Sort key: the values as numbers if all are numbers, else as they are."""
    numbers = pd.to_numeric(values, errors="coerce")
    return values if numbers.isna().any() else numbers

"""The tables of a report, as every form of it shows them: HTML, Markdown, terminal."""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from bench.metrics import (
    INTELLIGIBILITY,
    METRICS,
    NATURALNESS,
    SIMILARITY,
    SPEED,
    Measure,
    leading,
)
from bench.run.results import Results
from bench.stats.pooling import TIMING, Measured, measures_of, summarise
from bench.trials import ENROLMENT, REFERENCE

PRINTED = "paper"  # stands for the judge above what the authors printed
DASH = "–"  # stands where nothing was measured; never a zero
NOT_APPLICABLE = "not applicable"  # the note of `summarise`

# What the terminal and the head of a report show, and what is sliced by factors: families, in this
# order; of each the leading metric by each judge with its variants (see `bench.metrics.leading`).
HEADLINE = (SIMILARITY, INTELLIGIBILITY, NATURALNESS, SPEED)
SLICED = (SIMILARITY, INTELLIGIBILITY, NATURALNESS)
MOST_SLICES = 8  # a factor with more values is no slicing

ROLES = {
    "floor": (
        "{} is the floor: the source recording, unconverted. A conversion that is no more similar "
        "to the target than this has not changed the voice; no conversion can be expected to have "
        "a lower WER."
    ),
    "ceiling": (
        "{} is the ceiling: another true recording of the target speaker. A conversion that is as "
        "similar to the target as this cannot be told from the speaker by this judge."
    ),
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: "0.68", "–" where there is none, or a word such as "no weights".
        interval: "[0.66, 0.70]", or "" where there is none.
        n: the trials behind the number, where they are not those that the row or column names.
        best: whether it is better than every other system's, beyond chance.
    """

    value: str
    interval: str = ""
    n: int | None = None
    best: bool = False

    @property
    def text(self) -> str:
        """All of it on one line."""
        n = "" if self.n is None else f"(n={self.n})"
        return " ".join(part for part in (self.value, self.interval, n) if part)


@dataclass(frozen=True)
class Column:
    """A column: `group` (always with the judge's name) stands above `head`, `hint` explains it."""

    group: str
    head: str
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """A system's numbers.

    Attributes:
        system: its name.
        role: "floor" or "ceiling" for recordings, "" for systems.
        trials: asked for.
        completed: of these, converted.
        failed: of these, failed; the others have no recording in the corpus.
    """

    system: str
    role: str
    trials: int
    completed: int
    failed: int
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return f"{self.system} ({self.role})" if self.role else self.system

    @property
    def n(self) -> str:
        """Trials completed; "70/72" where that is not all."""
        return (
            str(self.trials) if self.completed == self.trials else f"{self.completed}/{self.trials}"
        )


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: its title.
        columns: of numbers; every row begins with system, n and failed.
        rows: a system each.
        notes: what a reader must know about these numbers.
        legend: how to read any such table.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    legend: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper header: text and number of columns."""
        return [(g, len(list(c))) for g, c in groupby(self.columns, key=lambda c: c.group)]


def systems_of(results: Results, suite: str | None = None) -> list[str]:
    """Systems in the order of tables and figures: floor, systems as they were given, ceiling."""
    scores = results.scores if suite is None else results.scores.query("suite == @suite")
    order = {"floor": 0, "ceiling": 2}
    return sorted(scores["system"].unique(), key=lambda s: order.get(results.anchors.get(s, ""), 1))


def number(metric: str, value: float) -> str:
    """The value with the metric's decimals, "–" where there is none."""
    if not math.isfinite(value):
        return DASH
    decimals = METRICS[metric].decimals
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"


def interval(metric: str, low: float, high: float) -> str:
    """ "[low, high]", or "" where it is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(metric, low)}, {number(metric, high)}]"


def label(metric: str) -> str:
    """The metric's name, its direction and its unit: "WER ↓ %"."""
    m = METRICS[metric]
    return " ".join(part for part in (m.label, m.arrow, m.unit) if part)


def chosen(measures: Iterable[Measure], families: Sequence[str]) -> list[Measure]:
    """The leading metric of each family by each judge, with its variants, in the tables' order."""
    return leading(measures, families, variants=True)


def in_headline(table: pd.DataFrame) -> pd.Series:
    """Whether each row of a comparison (`bench.stats.compare`) is about a headline metric."""
    pairs = [*table[["judge", "metric"]].itertuples(index=False, name=None)]
    return pd.Series(pd.Index(pairs).isin(chosen(pairs, HEADLINE)), table.index)


def summary_table(
    results: Results,
    suite: str,
    families: Sequence[str] | None = None,
    without: Sequence[str] = (),
    best: Container[tuple[str, str, str, str]] = (),
    notes: Sequence[str] = (),
) -> Table:
    """One suite: a row a system, a column a metric, under its judge.

    Args:
        results: the run.
        suite: the suite's name.
        families: what to show (see `chosen`); None for all that the run has.
        without: families whose chosen metrics are left out.
        best: (suite, judge, metric, system) of the cells to stress: see `reports.findings`.
        notes: come first among the table's notes.
    """
    summary = results.summary[results.summary["suite"] == suite]
    printed = _printed(results, suite)

    def shown(measures: list[Measure]) -> list[Measure]:
        if families is not None:
            return chosen(measures, families)
        left_out = chosen(measures, without)
        return [measure for measure in measures if measure not in left_out]

    judged = summary[["judge", "metric"]].drop_duplicates()
    pairs = shown([*judged.itertuples(index=False, name=None)])
    in_print = [m for m in METRICS if any(m in values for values in printed.values())]
    printed_metrics = [metric for _, metric in shown([(PRINTED, m) for m in in_print])]
    cells = summary.set_index(["system", "judge", "metric"])
    scores = results.scores[results.scores["suite"] == suite]
    rows = []
    for system in systems_of(results, suite):
        own = scores[scores["system"] == system]
        completed = int((own["status"] == "ok").sum())
        rows.append(
            Row(
                system=system,
                role=results.anchors.get(system, ""),
                trials=len(own),
                completed=completed,
                failed=int((own["status"] == "failed").sum()),
                cells=tuple(
                    replace(
                        _cell(metric, cells.loc[(system, judge, metric)], completed),
                        best=(suite, judge, metric, system) in best,
                    )
                    if (system, judge, metric) in cells.index
                    else Cell(DASH)
                    for judge, metric in pairs
                )
                + tuple(_printed_cell(m, printed.get(system, {})) for m in printed_metrics),
            )
        )
    columns = tuple(Column(judge, label(m), METRICS[m].about) for judge, m in pairs)
    columns += tuple(
        Column(PRINTED, label(m), "as its authors printed it") for m in printed_metrics
    )
    return Table(
        f"{suite}: {len(results.suites[suite].trials)} trials",
        columns,
        tuple(rows),
        (
            *notes,
            *_notes(rows, summary[summary["metric"].isin([m for _, m in pairs])], scores),
            *_cautions(results, suite),
            *(_printed_notes(printed) if printed_metrics else ()),
        ),
        tuple(_legend(rows)),
    )


def slice_tables(results: Results, slices: Mapping[tuple[str, str], pd.DataFrame]) -> list[Table]:
    """For each slicing (see `slices`) a table: a column for each value of the factor, by metric."""
    return [_slice_table(results, *key, summary) for key, summary in slices.items()]


def slices(results: Results) -> dict[tuple[str, str], pd.DataFrame]:
    """The chosen metrics of `SLICED` by each factor that takes two to eight values in a suite.

    Returns:
        (suite, factor) → one row per value × system × judge × metric, the value in the column
        `factor.<factor>`, values in ascending order.
    """
    every = results.summary[["judge", "metric"]].drop_duplicates()
    shown = chosen(every.itertuples(index=False, name=None), SLICED)
    judges, recordings = measured(results.summary, results.anchors, shown)
    found = {}
    for suite, group in results.scores.groupby("suite", sort=False):
        for column in [c for c in group.columns if c.startswith("factor.")]:
            own = group[group[column].fillna("") != ""]  # other suites may have other factors
            if 2 <= own[column].nunique() <= MOST_SLICES:
                own = own.sort_values(column, key=_by_number, kind="stable")
                summary = summarise(own, judges, recordings, by=[column])
                found[str(suite), column.removeprefix("factor.")] = summary
    return found


def _cell(metric: str, row: pd.Series, expected: int) -> Cell:
    n = int(row["n"])
    if n:
        return Cell(
            number(metric, row["value"]),
            interval(metric, row["low"], row["high"]),
            n if n != expected else None,
        )
    if row["note"] == NOT_APPLICABLE or not _unavailable(row["note"]):
        return Cell(DASH)
    return Cell("no weights" if "no weights" in row["note"] else "unavailable")


def _unavailable(note: str) -> bool:
    """Whether the note says why a judge did not judge at all."""
    return note not in ("", NOT_APPLICABLE, "nothing could be measured")


def _notes(rows: Sequence[Row], summary: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    notes = []
    completed_trials = scores[scores["status"] == "ok"].groupby("system")["trial_id"].agg(frozenset)
    if len({completed_trials.get(row.system, frozenset()) for row in rows}) > 1:
        completed = ", ".join(f"{row.system} {row.completed} of {row.trials}" for row in rows)
        notes.append(
            f"The rows rest on different trials ({completed}): they are not directly comparable."
        )
    if any(cell.n is not None for row in rows for cell in row.cells):
        notes.append("n=… in a cell: the judge could measure only so many trials.")
    unavailable = summary[summary["note"].map(_unavailable).astype(bool)]  # also of no rows
    for judge, note in unavailable[["judge", "note"]].drop_duplicates().itertuples(index=False):
        notes.append(f"{judge} did not judge: {note.removeprefix('no weights: ')}")
    return notes


def _cautions(results: Results, suite: str) -> list[str]:
    """What is unusual about the suite itself."""
    cautions = []
    if changed := results.provenance.get("suites", {}).get(suite, {}).get("changed"):
        cautions.append(
            f"{len(changed)} recordings are not those that the trial list was made with (first "
            f"{changed[0]}): these numbers are not those of the frozen suite."
        )
    trials = results.suites[suite].trials
    if any(trial.factors.get(ENROLMENT) == REFERENCE for trial in trials):
        cautions.append(
            "The list has no other recordings of its target speakers: SECS compares with the very "
            "reference that the system heard, which favours systems that copy it."
        )
    return cautions


def _printed(results: Results, suite: str) -> dict[str, Mapping[str, Any]]:
    """System → what its authors printed (see `bench.systems.Wavs`)."""
    systems = results.provenance.get("systems", {})
    found = {s: systems.get(s, {}).get("settings", {}) for s in systems_of(results, suite)}
    return {
        system: settings["published"]
        for system, settings in found.items()
        if isinstance(settings.get("published"), Mapping) and settings["published"]
    }


def _printed_cell(metric: str, printed: Mapping[str, Any]) -> Cell:
    value = printed.get(metric)
    return Cell(number(metric, value) if isinstance(value, int | float) else DASH)


def _printed_notes(printed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the printed numbers stand, and that they are of other trials."""
    where = dict.fromkeys(str(own.get("by", "its authors")) for own in printed.values())
    return [
        f"{PRINTED}: {', '.join(where)}. Other trials and other judges: not comparable number by "
        "number."
    ]


def _legend(rows: Sequence[Row]) -> list[str]:
    legend = [ROLES[row.role].format(row.system) for row in rows if row.role in ROLES]
    if any(cell.interval for row in rows for cell in row.cells):
        legend.append(
            "[low, high]: 95% interval by resampling source and target speakers, since trials that "
            "share a speaker are not independent."
        )
    if any(cell.best for row in rows for cell in row.cells):
        legend.append(
            "Bold: better than every other system over the trials that both completed, with the "
            "false discovery rate of all such tests held at 5%. No bold: nothing is that sure."
        )
    if any(cell.value == DASH for row in rows for cell in row.cells):
        legend.append(
            f"{DASH}: not measured. A recording has no RTF; one that says other words than the "
            "source has no WER and no prosody to compare."
        )
    return legend


def _slice_table(results: Results, suite: str, factor: str, summary: pd.DataFrame) -> Table:
    column = f"factor.{factor}"
    values = list(summary[column].unique())
    pairs = chosen(measures_of(summary), SLICED)
    cells = summary.set_index(["system", "judge", "metric", column])
    trials = results.scores[results.scores["suite"] == suite].groupby(column)["trial_id"].nunique()
    rows = []
    for system in systems_of(results, suite):
        own = results.scores.query("suite == @suite and system == @system")
        rows.append(
            Row(
                system=system,
                role=results.anchors.get(system, ""),
                trials=len(own),
                completed=int((own["status"] == "ok").sum()),
                failed=int((own["status"] == "failed").sum()),
                cells=tuple(
                    _cell(metric, cells.loc[(system, judge, metric, value)], int(trials[value]))
                    if (system, judge, metric, value) in cells.index
                    else Cell(DASH)
                    for judge, metric in pairs
                    for value in values
                ),
            )
        )
    unit = " s" if factor.endswith("_seconds") else ""
    columns = tuple(
        Column(f"{label(metric)} · {judge}", f"{value}{unit}", f"{trials[value]} trials")
        for judge, metric in pairs
        for value in values
    )
    sizes = ", ".join(f"{value}{unit}: {trials[value]}" for value in values)
    return Table(f"{suite} by {factor} (trials {sizes})", columns, tuple(rows))


def measured(
    summary: pd.DataFrame, anchors: Mapping[str, str], measures: Container[Measure] | None = None
) -> tuple[dict[str, Measured], dict[str, bool]]:
    """What `summarise` needs to know, read back from its own summary.

    Args:
        summary: of a run.
        anchors: of the run.
        measures: to leave out all others; None for all.

    Returns:
        The judges, and the recordings → whether they say the source's words.
    """
    judged = summary[summary["judge"] != TIMING]
    inapplicable = judged[judged["note"] == NOT_APPLICABLE]
    judges = {}
    for judge, rows in judged.groupby("judge", sort=False):
        reasons = rows.loc[rows["note"].map(_unavailable), "note"]
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


def _by_number(values: pd.Series) -> pd.Series:
    """Sort key: by number where all values are numbers."""
    numbers = pd.to_numeric(values, errors="coerce")
    return values if numbers.isna().any() else numbers

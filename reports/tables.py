"""The tables of a report. Every form shows the same: HTML, Markdown, terminal."""

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
from bench.results import ScoredRun
from bench.trials import ENROLMENT, REFERENCE
from bench.validity.kinship import Kinship, declared_networks, kinships
from reports.kinship import DAGGER, cases

PRINTED = "paper"  # stands for the judge above numbers that the authors printed
DASH = "–"  # stands for a number that was not measured
NOT_APPLICABLE = "not applicable"  # the note of `summarise`

# The families that the terminal and the head of a report show, in this order: of each the leading
# metric by each judge, with its variants (see `bench.metrics.leading`).
HEADLINE = (SIMILARITY, INTELLIGIBILITY, NATURALNESS, SPEED)

ROLES = {
    "floor": (
        "{} is the floor: the source recording, unconverted. A conversion that is no more similar "
        "to the target than this has not changed the voice; no conversion can be expected to have "
        "a lower WER."
    ),
    "ceiling": (
        "{} is the ceiling: another true recording of the target speaker. If a conversion is as "
        "similar to the target as this, the judge cannot distinguish it from the speaker."
    ),
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: "0.68", "–" if there is none, or a word such as "no weights".
        interval: "[0.66, 0.70]", or "" if there is none.
        n: number of trials behind the value, if it is not that of the row or column.
        best: whether it is better than every other system's, beyond chance.
        kin: whether the judge is kin to the system.
    """

    value: str
    interval: str = ""
    n: int | None = None
    best: bool = False
    kin: bool = False

    @property
    def marked(self) -> str:
        """The value, with a dagger if the judge is kin to the system."""
        return f"{self.value}{DAGGER}" if self.kin else self.value

    @property
    def text(self) -> str:
        """Value, interval and n on one line."""
        n = "" if self.n is None else f"(n={self.n})"
        return " ".join(part for part in (self.marked, self.interval, n) if part)


@dataclass(frozen=True)
class Column:
    """A column: `group` (always with the judge's name) stands above `head`, `hint` explains it."""

    group: str
    head: str
    hint: str = ""


@dataclass(frozen=True)
class SystemRow:
    """A system's row of a table.

    Attributes:
        system: its name.
        role: "floor" or "ceiling" for recordings, "" for systems.
        trials: number of trials of the table.
        completed: number of these that were converted.
        failed: number of these that failed; the others have no recording in the corpus.
        cells: one for each column.
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
        """The number of completed trials; "70/72" if these are not all."""
        return (
            str(self.trials) if self.completed == self.trials else f"{self.completed}/{self.trials}"
        )


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: its title.
        columns: of numbers; every row begins with system, n and failed.
        rows: one for each system.
        notes: on these numbers.
        legend: how to read any such table.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[SystemRow, ...]
    notes: tuple[str, ...] = ()
    legend: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The upper header: (text, number of columns)."""
        return [(g, len(list(c))) for g, c in groupby(self.columns, key=lambda c: c.group)]


def systems_of(results: ScoredRun, suite: str | None = None) -> list[str]:
    """Systems in the order of tables and figures: floor, systems as the run has them, ceiling."""
    scores = results.scores if suite is None else results.scores.query("suite == @suite")
    order = {"floor": 0, "ceiling": 2}
    return sorted(scores["system"].unique(), key=lambda s: order.get(results.anchors.get(s, ""), 1))


def number(metric: str, value: float) -> str:
    """The value with the metric's decimals; "–" if it is not finite."""
    if not math.isfinite(value):
        return DASH
    decimals = METRICS[metric].decimals
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"


def interval(metric: str, low: float, high: float) -> str:
    """ "[low, high]", or "" if it is not known."""
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
    results: ScoredRun,
    suite: str,
    families: Sequence[str] | None = None,
    without: Sequence[str] = (),
    best: Container[tuple[str, str, str, str]] = (),
    notes: Sequence[str] = (),
) -> Table:
    """The table of one suite: one row per system, one column per judge and metric.

    Args:
        results: the run.
        suite: the suite's name.
        families: whose metrics to show (see `chosen`); None for every metric of the run.
        without: families whose chosen metrics are left out.
        best: (suite, judge, metric, system) of the bold cells: see `reports.findings`.
        notes: the first of the table's notes.
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
    kin = kinships(results.facts)
    rows = []
    for system in systems_of(results, suite):
        completed = ((scores["system"] == system) & (scores["status"] == "ok")).sum()
        measured = [
            replace(
                measured_cell(
                    metric,
                    cells.loc[(system, judge, metric)],
                    completed,
                    kin=(system, judge) in kin,
                ),
                best=(suite, judge, metric, system) in best,
            )
            if (system, judge, metric) in cells.index
            else Cell(DASH)
            for judge, metric in pairs
        ]
        in_paper = [_printed_cell(m, printed.get(system, {})) for m in printed_metrics]
        rows.append(system_row(results, system, scores, [*measured, *in_paper]))
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
            *kinship_notes(kin, results, [row.system for row in rows], [j for j, _ in pairs]),
            *_notes(rows, summary[summary["metric"].isin([m for _, m in pairs])], scores),
            *_cautions(results, suite),
            *_short(scores, pairs),
            *(_printed_notes(printed) if printed_metrics else ()),
        ),
        tuple(_legend(rows)),
    )


def system_row(
    results: ScoredRun, system: str, scores: pd.DataFrame, cells: Sequence[Cell]
) -> SystemRow:
    """The row of a system.

    Args:
        results: the run.
        system: its name.
        scores: the rows of the score table that the table is about, of all systems.
        cells: one for each column.
    """
    status = scores.loc[scores["system"] == system, "status"]
    return SystemRow(
        system=system,
        role=results.anchors.get(system, ""),
        trials=len(status),
        completed=int((status == "ok").sum()),
        failed=int((status == "failed").sum()),
        cells=tuple(cells),
    )


def measured_cell(metric: str, row: pd.Series, expected: int, kin: bool = False) -> Cell:
    """The cell of a row of a summary; it shows n if that is not the `expected` number of trials.

    Args:
        metric: key of `METRICS`.
        row: of the summary.
        expected: number of trials.
        kin: whether the judge is kin to the system.
    """
    n = int(row["n"])
    if n:
        return Cell(
            number(metric, row["value"]),
            interval(metric, row["low"], row["high"]),
            n if n != expected else None,
            kin=kin,
        )
    if not is_unavailable(row["note"]):
        return Cell(DASH)
    return Cell("no weights" if "no weights" in row["note"] else "unavailable")


def kinship_notes(
    kin: Mapping[tuple[str, str], Kinship],
    results: ScoredRun,
    systems: Iterable[str],
    judges: Iterable[str],
) -> list[str]:
    """The sentence below a table that says what its daggers stand for; none without daggers.

    Args:
        kin: see `bench.validity.kinship.kinships`.
        results: the run.
        systems: of the table.
        judges: of the table.
    """
    systems, judges = list(dict.fromkeys(systems)), list(dict.fromkeys(judges))
    measured = {(str(s), str(j)) for s, j in zip(*_measured_pairs(results), strict=True)}
    pairs = [(s, j) for s in systems for j in judges if (s, j) in kin and (s, j) in measured]
    if not pairs:
        return []
    unknown = [
        s
        for s in systems
        if s not in results.anchors and declared_networks(results.facts, s) is None
    ]
    silent = f"; unknown for {', '.join(unknown)} (no networks declared)" if unknown else ""
    return [
        f"{DAGGER} the judge is kin to the system and may favour it: {cases(kin, pairs)}{silent}."
    ]


def _measured_pairs(results: ScoredRun) -> tuple[pd.Series, pd.Series]:
    """System and judge of every row of the summary that has a value."""
    rows = results.summary[results.summary["n"] > 0]
    return rows["system"], rows["judge"]


def is_unavailable(note: str) -> bool:
    """Whether the note of a row of a summary is the reason why a judge did not judge at all."""
    return note not in ("", NOT_APPLICABLE, "nothing could be measured")


def _notes(rows: Sequence[SystemRow], summary: pd.DataFrame, scores: pd.DataFrame) -> list[str]:
    notes = []
    completed_trials = scores[scores["status"] == "ok"].groupby("system")["trial_id"].agg(frozenset)
    if len({completed_trials.get(row.system, frozenset()) for row in rows}) > 1:
        completed = ", ".join(f"{row.system} {row.completed} of {row.trials}" for row in rows)
        notes.append(
            f"The rows cover different trials ({completed}): they are not directly comparable."
        )
    if any(cell.n is not None for row in rows for cell in row.cells):
        notes.append("n=… in a cell: the judge could measure only that many trials.")
    unavailable = summary[summary["note"].map(is_unavailable).astype(bool)]  # also of no rows
    for judge, note in unavailable[["judge", "note"]].drop_duplicates().itertuples(index=False):
        notes.append(f"{judge} did not judge: {note.removeprefix('no weights: ')}")
    return notes


def _cautions(results: ScoredRun, suite: str) -> list[str]:
    """Notes on the suite itself."""
    cautions = []
    if changed := results.facts.get("suites", {}).get(suite, {}).get("changed"):
        cautions.append(
            f"{len(changed)} recordings differ from those of the frozen list (first "
            f"{changed[0]}): these numbers are not those of the frozen suite."
        )
    trials = results.suites[suite].trials
    if any(trial.factors.get(ENROLMENT) == REFERENCE for trial in trials):
        cautions.append(
            "The list has no other recordings of its target speakers: SECS compares with the same "
            "reference that the system received, which favours systems that copy it."
        )
    return cautions


def _short(scores: pd.DataFrame, measures: Sequence[Measure]) -> list[str]:
    """Notes on metrics that are not comparable between short clips and others."""
    notes = []
    for judge, name in measures:
        metric = METRICS[name]
        column = f"{judge}.{metric.numerator}"
        if metric.shortest is None or column not in scores:
            continue
        lengths = scores.loc[scores[column].notna(), "audio_seconds"].astype(float)
        if short := int((lengths < metric.shortest).sum()):
            notes.append(
                f"{short} of {len(lengths)} sounds that {judge} scored are shorter than "
                f"{metric.shortest:g} s: {metric.label} is lower for them, whatever their quality; "
                "compare systems over the same trials."
            )
    return notes


def _printed(results: ScoredRun, suite: str) -> dict[str, Mapping[str, Any]]:
    """System → the numbers that its authors printed (see `bench.systems.Wavs`)."""
    systems = results.facts.get("systems", {})
    settings_of = {s: systems.get(s, {}).get("settings", {}) for s in systems_of(results, suite)}
    return {
        system: settings["published"]
        for system, settings in settings_of.items()
        if isinstance(settings.get("published"), Mapping) and settings["published"]
    }


def _printed_cell(metric: str, printed: Mapping[str, Any]) -> Cell:
    value = printed.get(metric)
    return Cell(number(metric, value) if isinstance(value, int | float) else DASH)


def _printed_notes(printed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A note on the source of the printed numbers, and that they are of other trials."""
    where = dict.fromkeys(str(numbers.get("by", "its authors")) for numbers in printed.values())
    return [
        f"{PRINTED}: {', '.join(where)}. Other trials and other judges: not comparable number by "
        "number."
    ]


def _legend(rows: Sequence[SystemRow]) -> list[str]:
    legend = [ROLES[row.role].format(row.system) for row in rows if row.role in ROLES]
    if any(cell.interval for row in rows for cell in row.cells):
        legend.append(
            "[low, high]: 95% interval by resampling source and target speakers, since trials that "
            "share a speaker are not independent."
        )
    if any(cell.best for row in rows for cell in row.cells):
        legend.append(
            "Bold: better than every other system over the trials that both completed, with the "
            "false discovery rate of all such tests held at 5%. No bold: no system is."
        )
    if any(cell.kin for row in rows for cell in row.cells):
        legend.append(
            f"{DAGGER}: the system was made with a network of the judge, or with another of the "
            "same family. No number by a system's own network is bold. No dagger: none is declared."
        )
    if any(cell.value == DASH for row in rows for cell in row.cells):
        legend.append(
            f"{DASH}: not measured. A recording has no RTF; one with other words than the source "
            "has no WER and no prosody to compare."
        )
    return legend

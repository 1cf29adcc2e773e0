"""Published tables with the rows of a run below the printed ones.

A measured number never replaces a printed one: checkpoint, judges or trials differ from the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS, Measure
from bench.results import ScoredRun
from bench.stats.pooling import TIMING, measures_of, summarise
from bench.validity.exposure import in_short
from bench.validity.kinship import kinships
from reports.listening.ratings.results import TestResults
from reports.papers.listeners import by_listeners, opinions_of, with_opinions
from reports.papers.published import Published, PublishedRow
from reports.papers.rows import PaperCell, PaperRow
from reports.slices import measured
from reports.tables import interval, kinship_notes, number, systems_of

NO_WEIGHTS = "printed; there are no public weights"
NOT_RUN = "printed; not in this run"
PRINTED = "printed"


@dataclass(frozen=True)
class PaperTable:
    """A published table with measured rows.

    Attributes:
        table: as printed.
        rows: printed rows in the paper's order, each followed by the row that was measured for it;
            then the other systems of the run.
        deviations: differences between the paper and the run: (what, there, here).
        notes: what the daggers of the measured rows stand for.
    """

    table: Published
    rows: tuple[PaperRow, ...]
    deviations: tuple[tuple[str, str, str], ...] = field(default_factory=tuple)
    notes: tuple[str, ...] = ()


def paper_table(
    table: Published,
    results: ScoredRun,
    suite: str | None = None,
    rated: Mapping[str, TestResults] | None = None,
) -> PaperTable:
    """The published table with the rows of a run.

    Args:
        table: as printed.
        results: the run.
        suite: of the run; None for the first that fits.
        rated: key of a column, such as "nmos" → the listening test that fills it.

    Raises:
        UserError: if the run has no such suite, or none with the factor that the table needs; or if
            a listening test fills no column or rated nothing of the suite.
    """
    suite = _suite(table, results, suite)
    opinions = opinions_of(table, results, suite, rated or {})
    summary = results.summary[results.summary["suite"] == suite]
    by_value = None
    if table.factor:
        scores = results.scores[results.scores["suite"] == suite]
        by_value = summarise(
            scores, *measured(results.summary, results.anchors), by=[f"factor.{table.factor}"]
        )
    measures = _measures(table, summary)
    filled = []
    used: dict[str, None] = {}
    for row in table.rows:
        system = _system(row, table, results)
        cells = tuple(PaperCell(row.printed.get(column.key, "")) for column in table.columns)
        remark = PRINTED if system else NOT_RUN
        if row.weights == "none":
            remark = ": ".join(filter(None, (NO_WEIGHTS, row.why)))
        filled.append(PaperRow(row.name, remark, cells))
        if system is not None:
            used[system] = None
            rows = summary
            if by_value is not None and row.value:
                rows = by_value[by_value[f"factor.{table.factor}"] == row.value]
            name = f"{system}, {row.name}" if row.value else system
            measured_row = _measured_row(name, system, table, results, rows, measures, row.only)
            label = f"factor={row.value}" if table.factor and row.value else ""
            only = (*row.only, *row.printed) if row.only else ()
            filled.append(with_opinions(measured_row, table, opinions, label, only))
    if not table.factor and not table.setting:
        filled += [
            with_opinions(
                _measured_row(system, system, table, results, summary, measures), table, opinions
            )
            for system in _converting_systems(results)
            if system not in used
        ]
    deviations = _deviations(table, results, suite, measures, list(used))
    deviations = [by_listeners(line, table, rated or {}) for line in deviations]
    systems = [row.system for row in filled if row.measured]
    judges = [judge for judge, _ in measures.values()]
    notes = kinship_notes(kinships(results.facts), results, systems, judges)
    return PaperTable(table, tuple(filled), tuple(deviations), tuple(notes))


def _suite(table: Published, results: ScoredRun, suite: str | None) -> str:
    names = list(results.suites)
    if suite is not None:
        if suite not in names:
            raise UserError(f"the run has no suite {suite!r}; {choose_one_of(suite, names)}")
        names = [suite]
    if not table.factor:
        return names[0]
    wanted = {row.value for row in table.rows if row.value}
    for name in names:
        trials = results.suites[name].trials
        if wanted <= {trial.factors.get(table.factor) for trial in trials}:
            return name
    raise UserError(
        f"{table.name} has a row for each {table.factor} ({', '.join(sorted(wanted))}); "
        f"{', '.join(names)} has not all of them: run a suite that has"
    )


def _converting_systems(results: ScoredRun) -> list[str]:
    return [s for s in systems_of(results) if s not in results.anchors]


def _system(row: PublishedRow, table: Published, results: ScoredRun) -> str | None:
    """The system of the run that stands for the row."""
    if table.setting:
        for system in _converting_systems(results):
            value = _settings(results, system).get(table.setting)
            if value is not None and str(value) == row.value:
                return system
        return None
    present = systems_of(results)
    return next((system for system in row.systems if system in present), None)


def _settings(results: ScoredRun, system: str) -> Mapping[str, Any]:
    settings = results.facts.get("systems", {}).get(system, {}).get("settings", {})
    return settings if isinstance(settings, Mapping) else {}


def _measures(table: Published, summary: pd.DataFrame) -> dict[str, Measure]:
    """Column key → the judge and metric of the run that stand for it.

    The metric is the first of the column's metrics that was measured. The judge is the paper's if
    it measured that metric, else the first.
    """
    known = measures_of(summary)
    chosen = {}
    for column in table.columns:
        for metric in column.metrics:
            judges = [judge for judge, name in known if name == metric]
            if judges:
                judge = column.judge if column.judge in judges else judges[0]
                chosen[column.key] = (judge, metric)
                break
    return chosen


def _measured_row(
    name: str,
    system: str,
    table: Published,
    results: ScoredRun,
    summary: pd.DataFrame,
    measures: Mapping[str, Measure],
    only: Sequence[str] = (),
) -> PaperRow:
    """A system's row, with its checkpoint and judges in the remark.

    Args:
        name: of the row.
        system: that was measured.
        table: as printed.
        results: the run.
        summary: of the trials that the row covers.
        measures: see `_measures`.
        only: keys of the columns that apply to it; empty for all.
    """
    cells = []
    judges: dict[str, None] = {}
    kin = kinships(results.facts)
    for column in table.columns:
        measure = measures.get(column.key) if not only or column.key in only else None
        cell = _measured_cell(summary, system, measure)
        if related := kin.get((system, cell.judge)):
            cell = replace(cell, kinship=related.grade)
        cells.append(cell)
        if measure is not None and cell.judge:
            judges[f"{METRICS[measure[1]].label} by {cell.judge}"] = None
    checkpoint = _settings(results, system).get("checkpoint")
    checkpoint = Path(str(checkpoint)).name if checkpoint else ""
    if system in results.anchors:
        what = "this run, recordings"
    elif checkpoint:
        what = f"this run, checkpoint {checkpoint}"
    else:
        what = "this run, no checkpoint named"
    return PaperRow(name, "; ".join([what, *judges]), tuple(cells), True, system, checkpoint)


def _measured_cell(summary: pd.DataFrame, system: str, measure: Measure | None) -> PaperCell:
    if measure is None:
        return PaperCell("")
    judge, metric = measure
    rows = summary[
        (summary["system"] == system)
        & (summary["judge"] == judge)
        & (summary["metric"] == metric)
        & (summary["n"] > 0)
    ]
    if rows.empty:
        return PaperCell("")
    row = rows.iloc[0]
    known = interval(metric, row["low"], row["high"])
    bounds = (number(metric, row["low"]), number(metric, row["high"])) if known else None
    return PaperCell(number(metric, row["value"]), bounds, "" if judge == TIMING else judge)


def _deviations(
    table: Published,
    results: ScoredRun,
    suite: str,
    measures: Mapping[str, Measure],
    used: Sequence[str],
) -> list[tuple[str, str, str]]:
    """Each statement of the paper on its setup, with that of the run; none is assumed equal."""
    facts = results.facts
    systems = facts.get("systems", {})
    here = {
        "suite": f"{suite}, {len(results.suites[suite].trials)} trials",
        "data": "; ".join(
            f"{s}: {in_short(systems[s].get('trained_on') or ())}"
            for s in used
            if s in systems and s not in results.anchors
        ),
        "steps": _of_settings(systems, used, "steps"),
        "vocoder": _of_settings(systems, used, "vocoder"),
        "rtf": _hardware(facts),
    }
    judged = {
        key: judge if metric == _metrics(table, key)[0] else f"{judge} ({METRICS[metric].label})"
        for key, (judge, metric) in measures.items()
        if judge != TIMING
    }
    names = {"suite": "trials", "data": "training data", "rtf": "hardware", "dnsmos": "DNSMOS"}
    lines = []
    for what, there in table.setup.items():
        of_family = next((j for j, m in measures.values() if m.startswith(what)), "")
        value = here.get(what) or judged.get(what) or of_family or "not known from this run"
        if _metrics(table, what) and what not in measures and what != "rtf":
            value = "no judge of this run measured it"
        label = METRICS[what].label if what in METRICS else what
        lines.append((names.get(what, label), there, value))
    for column in table.columns:
        if not column.metrics:
            lines.append((column.head, "as printed", "not measured"))
        elif column.key not in measures and column.key not in table.setup:
            lines.append((column.head, "as printed", "no judge of this run measured it"))
    return lines


def _metrics(table: Published, key: str) -> tuple[str, ...]:
    """The metrics of the table's column with this key; empty if there is none."""
    return next((column.metrics for column in table.columns if column.key == key), ())


def _of_settings(systems: Mapping[str, Any], used: Sequence[str], key: str) -> str:
    values = [
        f"{s}: {systems[s]['settings'][key]}"
        for s in used
        if systems.get(s, {}).get("settings", {}).get(key) is not None
    ]
    return "; ".join(values)


def _hardware(facts: Mapping[str, Any]) -> str:
    machine = facts.get("machine", {})
    gpus = ", ".join(machine.get("gpus") or [])
    return (
        gpus
        or f"{machine.get('processor', 'unknown')}, {machine.get('torch_threads', '?')} threads"
    )

"""Published tables with the rows that a run measured beneath the printed ones.

A measured row is always a row of its own: checkpoint, judges or trials are not the paper's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.files import write_text
from bench.metrics import METRICS, Measure
from bench.run.results import Results
from bench.stats.pooling import TIMING, measures_of, summarise
from bench.validity.exposure import in_short
from reports.papers import write as forms
from reports.papers.published import Cell, Laid, Line, Published, Row
from reports.tables import interval, measured, number, systems_of

NO_WEIGHTS = "printed; there are no public weights"
NOT_RUN = "printed; not in this run"
PRINTED = "printed"


class PaperReport:
    """Writes tables/<table>.md, .tex, .csv and .html into a run's folder.

    Args:
        table: name of a published table.
        suite: of the run; None for the first that has what the table needs.
    """

    def __init__(self, table: str, suite: str | None = None) -> None:
        self.table = table
        self.suite = suite

    def render(self, results: Results) -> Path:
        """Writes the four files and returns the Markdown."""
        laid = lay(Published.load(self.table), results, self.suite)
        folder = results.folder / "tables"
        write_text(folder / f"{self.table}.tex", forms.latex(laid))
        write_text(folder / f"{self.table}.csv", forms.csv(laid))
        write_text(folder / f"{self.table}.html", forms.html(laid))
        write_text(folder / f"{self.table}.md", forms.markdown(laid))
        return folder / f"{self.table}.md"


def lay(table: Published, results: Results, suite: str | None = None) -> Laid:
    """The table with the run's rows.

    Raises:
        UserError: if the run has no such suite, or none with the factor that the table needs.
    """
    suite = _suite(table, results, suite)
    summary = results.summary[results.summary["suite"] == suite]
    by_value = None
    if table.factor:
        scores = results.scores[results.scores["suite"] == suite]
        by_value = summarise(
            scores, *measured(results.summary, results.anchors), by=[f"factor.{table.factor}"]
        )
    measures = _measures(table, summary)
    lines = []
    used: dict[str, None] = {}
    for row in table.rows:
        system = _system(row, table, results)
        cells = tuple(Cell(row.printed.get(column.key, "")) for column in table.columns)
        remark = NO_WEIGHTS if row.weights == "none" else PRINTED if system else NOT_RUN
        lines.append(Line(row.name, remark, cells))
        if system is not None:
            used[system] = None
            rows = summary
            if by_value is not None and row.value:
                rows = by_value[by_value[f"factor.{table.factor}"] == row.value]
            name = f"{system}, {row.name}" if row.value else system
            lines.append(_measured_line(name, system, table, results, rows, measures, row.only))
    if not table.factor and not table.setting:
        lines += [
            _measured_line(system, system, table, results, summary, measures)
            for system in _own_systems(results)
            if system not in used
        ]
    deviations = _deviations(table, results, suite, measures, list(used))
    return Laid(table, tuple(lines), tuple(deviations))


def _suite(table: Published, results: Results, suite: str | None) -> str:
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


def _own_systems(results: Results) -> list[str]:
    return [s for s in systems_of(results) if s not in results.anchors]


def _system(row: Row, table: Published, results: Results) -> str | None:
    """The system of the run that stands for the row."""
    if table.setting:
        for system in _own_systems(results):
            value = _settings(results, system).get(table.setting)
            if value is not None and str(value) == row.value:
                return system
        return None
    present = systems_of(results)
    return next((system for system in row.systems if system in present), None)


def _settings(results: Results, system: str) -> Mapping[str, Any]:
    settings = results.provenance.get("systems", {}).get(system, {}).get("settings", {})
    return settings if isinstance(settings, Mapping) else {}


def _measures(table: Published, summary: pd.DataFrame) -> dict[str, Measure]:
    """Column key → the judge and metric of the run that stand for it.

    The metric is the first of the column's that was measured, the judge the paper's where it
    measured that, else the first.
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


def _measured_line(
    name: str,
    system: str,
    table: Published,
    results: Results,
    summary: pd.DataFrame,
    measures: Mapping[str, Measure],
    only: Sequence[str] = (),
) -> Line:
    """What the run measured of a system, with the checkpoint and the judges in its remark.

    Args:
        name: of the row.
        system: that was measured.
        table: as printed.
        results: the run.
        summary: of the trials that the row is about.
        measures: see `_measures`.
        only: keys of the columns that mean something for it; empty for all.
    """
    cells = []
    judges: dict[str, None] = {}
    for column in table.columns:
        measure = measures.get(column.key) if not only or column.key in only else None
        cell = _measured_cell(summary, system, measure)
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
    return Line(name, "; ".join([what, *judges]), tuple(cells), True, system, checkpoint)


def _measured_cell(summary: pd.DataFrame, system: str, measure: Measure | None) -> Cell:
    if measure is None:
        return Cell("")
    judge, metric = measure
    rows = summary[
        (summary["system"] == system)
        & (summary["judge"] == judge)
        & (summary["metric"] == metric)
        & (summary["n"] > 0)
    ]
    if rows.empty:
        return Cell("")
    row = rows.iloc[0]
    known = interval(metric, row["low"], row["high"])
    bounds = (number(metric, row["low"]), number(metric, row["high"])) if known else None
    return Cell(number(metric, row["value"]), bounds, "" if judge == TIMING else judge)


def _deviations(
    table: Published,
    results: Results,
    suite: str,
    measures: Mapping[str, Measure],
    used: Sequence[str],
) -> list[tuple[str, str, str]]:
    """Everything that was stated there, with what holds here. Nothing is claimed to be equal."""
    facts = results.provenance
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
        mine = here.get(what) or judged.get(what) or of_family or "not known from this run"
        if _metrics(table, what) and what not in measures and what != "rtf":
            mine = "no judge of this run measured it"
        label = METRICS[what].label if what in METRICS else what
        lines.append((names.get(what, label), there, mine))
    for column in table.columns:
        if not column.metrics:
            lines.append((column.head, "as printed", "not measured"))
        elif column.key not in measures and column.key not in table.setup:
            lines.append((column.head, "as printed", "no judge of this run measured it"))
    return lines


def _metrics(table: Published, key: str) -> tuple[str, ...]:
    """The metrics of the table's column with this key; empty where there is none."""
    return next((column.metrics for column in table.columns if column.key == key), ())


def _of_settings(systems: Mapping[str, Any], used: Sequence[str], key: str) -> str:
    found = [
        f"{s}: {systems[s]['settings'][key]}"
        for s in used
        if systems.get(s, {}).get("settings", {}).get(key) is not None
    ]
    return "; ".join(found)


def _hardware(facts: Mapping[str, Any]) -> str:
    machine = facts.get("machine", {})
    gpus = ", ".join(machine.get("gpus") or [])
    return (
        gpus
        or f"{machine.get('processor', 'unknown')}, {machine.get('torch_threads', '?')} threads"
    )

"""Leaderboards: the systems of all runs over one suite, as far as their numbers are comparable.

Runs whose numbers over a suite are on other scales are never in one table: the first table of a
suite has the newest of the runs with the most trials and those that are comparable with it; the
next tables have the others, and each says which field of run.json differs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.metrics import (
    EXPOSURE,
    INTELLIGIBILITY,
    LEAKAGE,
    METRICS,
    NATURALNESS,
    PROSODY,
    SIMILARITY,
    SPEED,
    leading,
)
from bench.stats.history import machines_of
from bench.stats.pooling import TIMINGS
from bench.validity.kinship import Kinship, kinships
from reports.kinship import DAGGER, cases
from reports.site.runs import ShownRun
from reports.site.scales import comparable, why_apart
from reports.tables import DASH, Cell, is_unavailable, label, measured_cell

# The families whose leading metric by each judge has a column, in this order.
SHOWN = (SIMILARITY, LEAKAGE, INTELLIGIBILITY, NATURALNESS, PROSODY, SPEED, EXPOSURE)
OTHER_MACHINE = "*"  # marks a time that another machine took than that of the first row
ROLE_ORDER = {"floor": 0, "": 1, "ceiling": 2}


@dataclass(frozen=True)
class BoardColumn:
    """A metric by a judge.

    Attributes:
        judge: its name.
        metric: key of `METRICS`.
    """

    judge: str
    metric: str

    @property
    def head(self) -> str:
        return label(self.metric)

    @property
    def about(self) -> str:
        return METRICS[self.metric].about

    @property
    def family(self) -> str:
        return METRICS[self.metric].family


@dataclass(frozen=True)
class BoardCell:
    """A number of a leaderboard.

    Attributes:
        cell: as it is shown.
        value: by which rows are sorted; None if there is none.
        mark: `OTHER_MACHINE` or "".
    """

    cell: Cell
    value: float | None
    mark: str = ""


@dataclass(frozen=True)
class BoardRow:
    """A system, by the newest run of the table that has it.

    Attributes:
        system: its name.
        role: "floor" or "ceiling" for recordings, "" for systems.
        shown: the run.
        older: number of older runs of the table that also have this system.
        trials: of the suite.
        completed: number of trials that were converted.
        failed: number of trials that failed.
        suspicious: whether its conversions raised more flags than chance explains.
        cells: one for each column.
    """

    system: str
    role: str
    shown: ShownRun
    older: int
    trials: int
    completed: int
    failed: int
    suspicious: bool
    cells: tuple[BoardCell, ...]

    @property
    def n(self) -> str:
        """The number of completed trials; "70/72" if these are not all."""
        return (
            str(self.trials) if self.completed == self.trials else f"{self.completed}/{self.trials}"
        )


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Attributes:
        suite: its name.
        number: 1, 2, … within the suite: see `reports.site.scales.comparable`.
        trials: of the suite.
        runs: those whose numbers are comparable here, the newest first.
        differs: why these numbers are not comparable with those of table 1; "" for table 1.
        columns: of numbers.
        rows: one for each system: the floor, the systems by the first column and then those that
            are suspicious, the ceiling.
        notes: on these numbers.
    """

    suite: str
    number: int
    trials: int
    runs: tuple[ShownRun, ...]
    differs: str
    columns: tuple[BoardColumn, ...]
    rows: tuple[BoardRow, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.suite}: {self.trials} trials, {len(self.runs)} " + (
            "run" if len(self.runs) == 1 else "runs"
        )


@dataclass(frozen=True)
class Overview:
    """One metric by one judge: systems × suites.

    Attributes:
        column: the metric and its judge.
        suites: names of the suites that it was measured over.
        rows: (a row of the first suite that has the system, its cells by suite; None if the system
            has none there).
    """

    column: BoardColumn
    suites: tuple[str, ...]
    rows: tuple[tuple[BoardRow, tuple[BoardCell | None, ...]], ...]


def overviews(made: Sequence[Board]) -> list[Overview]:
    """The leading metrics of the first table of every suite, each as systems × suites.

    Times are left out: suites may have been run on different machines.
    """
    first = [board for board in made if board.number == 1]
    measures = dict.fromkeys((c.judge, c.metric) for board in first for c in board.columns)
    found = []
    for judge, metric in leading(measures, (SIMILARITY, INTELLIGIBILITY, NATURALNESS)):
        column = BoardColumn(judge, metric)
        having = [board for board in first if column in board.columns]
        cells: dict[str, dict[str, BoardCell]] = {}
        named: dict[str, BoardRow] = {}
        for board in having:
            for row in board.rows:
                cells.setdefault(row.system, {})[board.suite] = row.cells[
                    board.columns.index(column)
                ]
                named.setdefault(row.system, row)
        suites = tuple(board.suite for board in having)
        rows = sorted(named.values(), key=lambda row: ROLE_ORDER.get(row.role, 1))
        found.append(
            Overview(
                column,
                suites,
                tuple((row, tuple(cells[row.system].get(s) for s in suites)) for row in rows),
            )
        )
    return found


def boards(runs: Sequence[ShownRun]) -> list[Board]:
    """The leaderboards of all suites.

    Args:
        runs: the newest first.
    """
    suites = dict.fromkeys(suite for shown in runs for suite in shown.run.facts["suites"])
    made = []
    for suite in suites:
        groups = comparable([s for s in runs if suite in s.run.facts["suites"]], suite)
        for number, group in enumerate(groups, 1):
            reason = "" if number == 1 else why_apart(group[0], groups[0], suite)
            made.append(_board(group, suite, number, reason))
    return made


def _board(runs: Sequence[ShownRun], suite: str, number: int, reason: str) -> Board:
    measures = dict.fromkeys(m for shown in runs for m in shown.measures[suite])
    columns = [BoardColumn(*measure) for measure in leading(measures, SHOWN)]
    having: dict[str, list[ShownRun]] = {}  # system → the runs that have it, the newest first
    for shown in runs:
        scores = shown.run.scores
        for system in scores.loc[scores["suite"] == suite, "system"].unique():
            having.setdefault(str(system), []).append(shown)
    machines = _machines(having, suite)
    rows = [_row(system, of, suite, columns, machines) for system, of in having.items()]
    rows.sort(key=lambda row: (ROLE_ORDER.get(row.role, 1), *_rank(row, columns)))
    return Board(
        suite,
        number,
        int(runs[0].run.facts["suites"][suite]["trials"]),
        tuple(runs),
        reason,
        tuple(columns),
        tuple(rows),
        tuple(_notes(rows, having, suite, columns, machines)),
    )


def _rank(row: BoardRow, columns: Sequence[BoardColumn]) -> tuple[bool, bool, float, str]:
    """Sorts by the first column, the better first; without a value, then suspicious, last."""
    value = row.cells[0].value if columns else None
    if value is None:
        return row.suspicious, True, 0.0, row.system
    sign = -1 if METRICS[columns[0].metric].higher_is_better else 1
    return row.suspicious, False, sign * value, row.system


def _row(
    system: str,
    of: Sequence[ShownRun],
    suite: str,
    columns: Sequence[BoardColumn],
    machines: dict[str, str],
) -> BoardRow:
    newest = of[0]
    run = newest.run
    scores = run.scores[(run.scores["suite"] == suite) & (run.scores["system"] == system)]
    completed = int((scores["status"] == "ok").sum())
    summary = run.summary[(run.summary["suite"] == suite) & (run.summary["system"] == system)]
    by_measure = {(row["judge"], row["metric"]): row for _, row in summary.iterrows()}
    kin = kinships(run.facts)
    reference = next(iter(machines.values()), "")
    cells = []
    for column in columns:
        row = by_measure.get((column.judge, column.metric))
        if row is None:
            cells.append(BoardCell(Cell(DASH), None))
            continue
        cell = measured_cell(column.metric, row, completed, kin=(system, column.judge) in kin)
        value = float(row["value"])
        timed = column.metric in TIMINGS and math.isfinite(value)
        other = timed and machines.get(system, reference) != reference
        cells.append(
            BoardCell(cell, value if math.isfinite(value) else None, OTHER_MACHINE if other else "")
        )
    return BoardRow(
        system,
        str(run.anchors.get(system, "")),
        newest,
        len(of) - 1,
        len(scores),
        completed,
        int((scores["status"] == "failed").sum()),
        (suite, system) in newest.suspicious,
        tuple(cells),
    )


def _machines(having: dict[str, list[ShownRun]], suite: str) -> dict[str, str]:
    """System → the machine that its newest run was timed on; the newest run's system first."""
    timed = {}
    newest_first = sorted(having, key=lambda s: having[s][0].created, reverse=True)
    for system in newest_first:
        run = having[system][0].run
        if machine := machines_of(run).get((system, suite)):
            several = machine == str(run.folder)
            timed[system] = f"several machines of {run.name}" if several else machine
    return timed


def _notes(
    rows: Sequence[BoardRow],
    having: dict[str, list[ShownRun]],
    suite: str,
    columns: Sequence[BoardColumn],
    machines: dict[str, str],
) -> list[str]:
    notes = []
    if names := [row.system for row in rows if row.suspicious]:
        notes.append(
            f"Suspicious, their numbers mean little: {', '.join(names)}. The page of the run says "
            "why."
        )
    if len({_completed(row, suite) for row in rows}) > 1:
        each = ", ".join(f"{row.system} {row.completed} of {row.trials}" for row in rows)
        notes.append(f"The rows cover different trials ({each}): they are not directly comparable.")
    used = {machines[row.system] for row in rows if row.system in machines}
    if len(used) > 1 and any(column.metric in TIMINGS for column in columns):
        each = "; ".join(
            f"{', '.join(s for s, m in machines.items() if m == machine)} on {machine}"
            for machine in dict.fromkeys(machines.values())
        )
        notes.append(f"{OTHER_MACHINE} Times of different machines are not comparable: {each}.")
    about = rows[0].shown.run.facts["suites"][suite]
    if changed := about.get("changed"):
        notes.append(
            f"{len(changed)} recordings differ from those of the frozen list: these numbers are "
            "not those of the frozen suite."
        )
    if any(row.older for row in rows if not row.role):
        notes.append(
            "Each row is of the newest run of its system here; the history has the older ones."
        )
    settings = [s for s, of in having.items() if len({_settings(r, s) for r in of}) > 1]
    if settings:
        notes.append(f"Older runs had other settings of {', '.join(settings)}.")
    notes += _kinship(rows, columns)
    if any(cell.cell.n is not None for row in rows for cell in row.cells):
        notes.append("n=… in a cell: the judge could measure only that many trials.")
    return notes + _not_judged(rows, suite)


def _completed(row: BoardRow, suite: str) -> frozenset[str]:
    scores = row.shown.run.scores
    of_row = (scores["suite"] == suite) & (scores["system"] == row.system)
    return frozenset(scores.loc[of_row & (scores["status"] == "ok"), "trial_id"])


def _settings(shown: ShownRun, system: str) -> str:
    return str(shown.run.facts["systems"].get(system, {}).get("settings"))


def _kinship(rows: Sequence[BoardRow], columns: Sequence[BoardColumn]) -> list[str]:
    kin: dict[tuple[str, str], Kinship] = {}
    for row in rows:
        measured = {
            column.judge
            for column, cell in zip(columns, row.cells, strict=True)
            if cell.value is not None
        }
        for (system, judge), kinship in kinships(row.shown.run.facts).items():
            if system == row.system and judge in measured:
                kin[system, judge] = kinship
    if not kin:
        return []
    return [f"{DAGGER} the judge is kin to the system and may favour it: {cases(kin, [*kin])}."]


def _not_judged(rows: Sequence[BoardRow], suite: str) -> list[str]:
    """Which judges did not judge, why, and in which runs if not in all."""
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for shown in {row.shown.slug: row.shown for row in rows}.values():
        summary = shown.run.summary[shown.run.summary["suite"] == suite]
        for judge, note in summary[["judge", "note"]].itertuples(index=False):
            if isinstance(note, str) and is_unavailable(note):
                reasons.setdefault((judge, note), {})[shown.run.name] = None
    several = len({row.shown.slug for row in rows}) > 1
    notes = []
    for (judge, note), names in reasons.items():
        where = f" in {', '.join(names)}" if several else ""
        notes.append(f"{judge} did not judge{where}: {note.removeprefix('no weights: ')}")
    return notes

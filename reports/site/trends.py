"""The history of a system's metrics over the runs of a site: a table and small charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.metrics import METRICS
from bench.stats.history import history
from bench.stats.pooling import TIMINGS
from bench.stats.sides import differs
from reports.site.boards import BoardColumn
from reports.site.runs import ShownRun
from reports.site.scales import differing
from reports.tables import DASH, interval, number

OTHER_SCALE = "*"  # marks a number that is on another scale than the newest one
# Size of a chart and of its margins, in units of its view box.
WIDTH, HEIGHT = 320.0, 140.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 22.0


@dataclass(frozen=True)
class ChartPoint:
    """A number of a chart.

    Attributes:
        x, y: position in the chart.
        low, high: y of the interval's ends; None if there is no interval.
        same_scale: whether it is comparable with the newest number.
        text: run, commit and value, in words.
    """

    x: float
    y: float
    low: float | None
    high: float | None
    same_scale: bool
    text: str


@dataclass(frozen=True)
class Chart:
    """A metric over runs, the oldest first.

    Attributes:
        column: the metric and its judge.
        points: one for each run that measured it.
        lines: the points that are comparable with each other: coordinates for a polyline.
        ticks: (y, text) of the lowest and the highest value of the axis.
        dates: those of the first and the last point.
        summary: the chart in a sentence.
    """

    column: BoardColumn
    points: tuple[ChartPoint, ...]
    lines: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    dates: tuple[str, str]
    summary: str


@dataclass(frozen=True)
class TrendLine:
    """A run of a history.

    Attributes:
        shown: the run.
        n: the most trials that a metric was measured on, and the trials of the suite: "70/72".
        failed: number of trials that failed.
        settings: those of the system that differ between the runs: "checkpoint=best.pt".
        cells: (text, interval, mark) for each column.
    """

    shown: ShownRun
    n: str
    failed: int
    settings: str
    cells: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Trend:
    """The history of a system over a suite.

    Attributes:
        system: its name.
        suite: its name.
        columns: of numbers.
        lines: one for each run, the newest first.
        charts: one for each column with at least two numbers.
        notes: which field makes marked numbers incomparable.
    """

    system: str
    suite: str
    columns: tuple[BoardColumn, ...]
    lines: tuple[TrendLine, ...]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]

    @property
    def settings_differ(self) -> bool:
        """Whether the system had other settings in some run."""
        return any(line.settings for line in self.lines)


def trends(runs: Sequence[ShownRun]) -> list[Trend]:
    """The history of every system and suite that at least two runs have; recordings have none."""
    if not any(shown.run.systems for shown in runs):
        return []
    by_name = {shown.run.name: shown for shown in runs}
    listed = history([shown.run for shown in runs])
    made = []
    for (system, suite), rows in listed.table.groupby(["system", "suite"], sort=False):
        if rows["run"].nunique() > 1:
            made.append(_trend(str(system), str(suite), rows, by_name))
    return made


def _trend(system: str, suite: str, rows: pd.DataFrame, by_name: dict[str, ShownRun]) -> Trend:
    pairs = rows[["judge", "metric"]].drop_duplicates().itertuples(index=False, name=None)
    columns = tuple(BoardColumn(str(judge), str(metric)) for judge, metric in pairs)
    of_column = {
        c: rows[(rows["judge"] == c.judge) & (rows["metric"] == c.metric)] for c in columns
    }
    lines = []
    settings = _changed_settings(system, [by_name[str(name)] for name in rows["run"].unique()])
    for name, of_run in rows.groupby("run", sort=False):
        by_pair = of_run.set_index(["judge", "metric"])
        first = of_run.iloc[0]
        cells = tuple(
            _cell(c.metric, by_pair.loc[(c.judge, c.metric)])
            if (c.judge, c.metric) in by_pair.index
            else (DASH, "", "")
            for c in columns
        )
        n = f"{of_run['n'].max()}/{first['trials']}"
        lines.append(
            TrendLine(by_name[str(name)], n, int(first["failed"]), settings[str(name)], cells)
        )
    charts = [_chart(c, of_column[c], by_name) for c in columns]
    return Trend(
        system,
        suite,
        columns,
        tuple(reversed(lines)),
        tuple(chart for chart in charts if chart is not None),
        tuple(_notes(of_column, by_name, suite)),
    )


def _changed_settings(system: str, runs: Sequence[ShownRun]) -> dict[str, str]:
    """Name of a run → the settings of a system that are not the same in all these runs."""
    known = {s.run.name: s.run.facts["systems"].get(system, {}).get("settings") for s in runs}
    settings = {name: v if isinstance(v, Mapping) else {} for name, v in known.items()}
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    changed = [k for k in keys if len({str(v.get(k)) for v in settings.values()}) > 1]
    return {
        name: ", ".join(f"{key}={values[key]}" for key in changed if key in values)
        for name, values in settings.items()
    }


def _cell(metric: str, row: pd.Series) -> tuple[str, str, str]:
    mark = OTHER_SCALE if row["scale"] and math.isfinite(row["value"]) else ""
    return number(metric, row["value"]), interval(metric, row["low"], row["high"]), mark


def _notes(
    of_column: dict[BoardColumn, pd.DataFrame], by_name: dict[str, ShownRun], suite: str
) -> list[str]:
    """The fields that make marked numbers incomparable with the newest ones."""
    reasons: dict[str, dict[str, None]] = {}
    for column, rows in of_column.items():
        newest = by_name[str(rows.iloc[-1]["run"])]
        for name in rows.loc[rows["scale"] > 0, "run"]:
            shown = by_name[str(name)]
            reason = differing(shown, newest, suite, [(column.judge, column.metric)])
            reason = reason or differs(shown.run, newest.run, "suites", suite, "list")
            if not reason and column.metric in TIMINGS:
                reason = "the machine that it was timed on"
            reasons.setdefault(reason or "how it was measured", {})[str(name)] = None
    return [
        f"{OTHER_SCALE} not comparable with the newest number of its column: "
        f"{', '.join(names)} differ{'s' if len(names) == 1 else ''} from it in {reason}."
        for reason, names in reasons.items()
    ]


def _chart(column: BoardColumn, rows: pd.DataFrame, by_name: dict[str, ShownRun]) -> Chart | None:
    rows = rows[rows["value"].notna()]
    if len(rows) < 2:
        return None
    metric = METRICS[column.metric]
    lows = rows["low"].fillna(rows["value"])
    highs = rows["high"].fillna(rows["value"])
    bottom, top = (
        float(min(lows.min(), rows["value"].min())),
        float(max(highs.max(), rows["value"].max())),
    )
    if top - bottom < 10**-metric.decimals:
        middle = (top + bottom) / 2
        bottom, top = middle - 10**-metric.decimals, middle + 10**-metric.decimals
    step = (WIDTH - LEFT - RIGHT) / (len(rows) - 1)

    def height(value: float) -> float:
        share = (value - bottom) / (top - bottom)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    points: list[ChartPoint] = []
    lines: dict[int, list[str]] = {}
    for position, (_, row) in enumerate(rows.iterrows()):
        shown = by_name[str(row["run"])]
        has_interval = math.isfinite(row["low"]) and math.isfinite(row["high"])
        bounds = interval(column.metric, row["low"], row["high"])
        point = ChartPoint(
            round(LEFT + position * step, 1),
            height(row["value"]),
            height(row["low"]) if has_interval else None,
            height(row["high"]) if has_interval else None,
            row["scale"] == 0,
            f"{shown.run.name}, commit {shown.commit}: {number(column.metric, row['value'])} "
            f"{bounds}".strip(),
        )
        points.append(point)
        lines.setdefault(int(row["scale"]), []).append(f"{point.x},{point.y}")
    first, last = (by_name[str(rows.iloc[i]["run"])] for i in (0, -1))
    values = [number(column.metric, rows.iloc[i]["value"]) for i in (0, -1)]
    return Chart(
        column,
        tuple(points),
        tuple(" ".join(coordinates) for coordinates in lines.values() if len(coordinates) > 1),
        (
            (height(bottom), number(column.metric, bottom)),
            (height(top), number(column.metric, top)),
        ),
        (first.created[:10], last.created[:10]),
        f"{column.head} by {column.judge} over {len(points)} runs: from {values[0]} "
        f"({first.run.name}) to {values[1]} ({last.run.name}). The table below has every number.",
    )

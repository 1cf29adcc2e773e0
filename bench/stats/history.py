"""The metrics of several runs, in the order of their dates."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from bench.errors import UserError
from bench.metrics import (
    INTELLIGIBILITY,
    LEAKAGE,
    NATURALNESS,
    SIMILARITY,
    SPEED,
    Measure,
    leading,
)
from bench.results import ScoredRun, timed_on
from bench.stats.pooling import TIMINGS, measures_of

# The families whose leading metrics are shown by default.
HEADLINE = (SIMILARITY, LEAKAGE, INTELLIGIBILITY, NATURALNESS, SPEED)


@dataclass(frozen=True)
class History:
    """The metrics of several runs, oldest run first.

    Attributes:
        table: one row per suite × system × judge × metric × scale × run, with the columns of
            `bench.results.ScoredRun.summary` (values are NaN where no trial of a system could be
            measured, such as where every trial failed) and run, created, commit, scale: 0 for the
            scale of the newest run, 1 for the next older one, and so on. Numbers of two scales
            (another judge, list of trials or pooling, for RTF another machine) must not be
            compared.
        notes: what was left out and why.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    def groups(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """The rows of each system in each suite, with a title."""
        for (system, suite), rows in self.table.groupby(["system", "suite"], sort=False):
            yield f"{system} over {suite}", rows


def history(
    runs: Sequence[ScoredRun],
    systems: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    suites: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> History:
    """Lists the pooled metrics of every run.

    Args:
        runs: in any order.
        systems: names of systems; None for all but recordings.
        metrics: keys of METRICS; None for the leading metrics of `HEADLINE` in any of the runs,
            shown for every run that measured them.
        suites: names of suites; None for all.
        notes: on runs that were left out: one each, kept in the result.

    Raises:
        UserError: if no run has any of the metrics for these systems and suites.
    """
    chosen: list[tuple[ScoredRun, pd.DataFrame]] = []
    shown: dict[Measure, None] = {}
    for run in runs:
        summary = run.summary
        most = summary.groupby(["system", "suite"])["n"].transform("max")
        keep = (summary["n"] > 0) | (most == 0)
        keep &= (
            summary["system"].isin(systems)
            if systems
            else ~summary["system"].isin(run.facts["anchors"])
        )
        keep &= summary["suite"].isin(suites) if suites else True
        rows = summary[keep]
        chosen.append((run, rows))
        every = rows[["judge", "metric"]].itertuples(index=False, name=None)
        shown |= dict.fromkeys(leading(measures_of(rows) or every, HEADLINE))
    tables = []
    for run, rows in chosen:
        if metrics:
            keep = rows["metric"].isin(metrics)
        else:
            pairs = pd.MultiIndex.from_frame(rows[["judge", "metric"]])
            keep = pairs.isin([*shown])
        tables.append(_dated(run, rows[keep]))
    if not tables or all(table.empty for table in tables):
        raise UserError(
            f"none of {len(runs) + len(notes)} runs has what was asked for; `vcbench ls runs` "
            "lists them, `vcbench ls metrics` what can be measured, and recordings are shown where "
            "system= names them"
        )
    table = pd.concat(tables, ignore_index=True).sort_values("created", kind="stable")
    keys = ["system", "suite", "judge", "metric"]
    # The scale of the newest run is 0: scales are numbered backwards in time.
    newest_first = table.iloc[::-1].groupby(keys, sort=False)["measured_as"]
    table["scale"] = newest_first.transform(lambda scales: pd.factorize(scales)[0])
    return History(table.drop(columns="measured_as").reset_index(drop=True), tuple(notes))


def _dated(run: ScoredRun, summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with the run's name, date and commit, and `measured_as`.

    Numbers with equal `measured_as` are on one scale.
    """
    facts = run.facts
    rows = summary.assign(
        run=run.name, created=facts.get("created") or "", commit=facts.get("commit") or ""
    )
    machines = machines_of(run) if set(TIMINGS) & set(rows["metric"]) else {}
    rows["measured_as"] = [
        json.dumps(
            [
                facts["suites"].get(row.suite),
                facts["judges"].get(row.judge, {}).get("fingerprint"),
                facts.get("pooling", {}).get(row.metric),
                machines.get((row.system, row.suite), str(run.folder))
                if row.metric in TIMINGS
                else None,
            ],
            sort_keys=True,
        )
        for row in rows.itertuples()
    ]
    return rows


def machines_of(run: ScoredRun) -> dict[tuple[str, str], str]:
    """(system, suite) → the machine that it was timed on.

    If there were several, the run's folder stands for them: their mean has another scale.
    """
    timed = timed_on(run.scores, run.facts)
    rows = run.scores.loc[timed.index]
    machines = timed.groupby([rows["system"], rows["suite"]]).unique().to_dict()
    return {
        key: values[0] if len(values) == 1 else str(run.folder) for key, values in machines.items()
    }

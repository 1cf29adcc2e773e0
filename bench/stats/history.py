"""A metric over the runs of a project, read from their folders alone."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from bench.run.folder import NotScored, ScoredRun, read_run
from bench.run.results import timed_on
from bench.stats.pooling import measures_of

# The families whose leading metrics are shown where nothing else is asked for.
HEADLINE = (SIMILARITY, LEAKAGE, INTELLIGIBILITY, NATURALNESS, SPEED)


@dataclass(frozen=True)
class History:
    """What the runs say, oldest first.

    Attributes:
        table: one row per suite × system × judge × metric × scale × run, with the columns of
            `bench.run.results.Results.summary` (values are NaN where nothing of a system could be
            measured, such as where every trial failed) and run, created, commit, scale: 0 for the
            scale of the newest run, 1 for the next older one … Numbers of two scales (another
            judge, another list of trials, another pooling, for RTF another machine) are not to be
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
    folders: Sequence[Path],
    systems: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    suites: Sequence[str] | None = None,
) -> History:
    """The pooled metrics of every run.

    Args:
        folders: of runs; those that hold none that is scored, or one of an older version, are named
            in the notes.
        systems: which systems; None for all but recordings.
        metrics: keys of METRICS; None for the leading metrics of `HEADLINE`: those that lead in any
            of the runs, wherever they were measured.
        suites: names of suites; None for all.

    Raises:
        UserError: if a run is damaged, or nothing is left.
    """
    runs, notes = [], []
    shown: dict[Measure, None] = {}
    for folder in folders:
        try:
            run = read_run(folder)
        except NotScored as error:
            notes.append(f"Left out: {error}.")
            continue
        summary, anchors = run.summary, run.facts["anchors"]
        most = summary.groupby(["system", "suite"])["n"].transform("max")
        keep = (summary["n"] > 0) | (most == 0)
        keep &= summary["system"].isin(systems) if systems else ~summary["system"].isin(anchors)
        keep &= summary["suite"].isin(suites) if suites else True
        kept = summary[keep]
        runs.append((run, kept))
        every = kept[["judge", "metric"]].itertuples(index=False, name=None)
        shown |= dict.fromkeys(leading(measures_of(kept) or every, HEADLINE))
    tables = []
    for run, summary in runs:
        folder, facts = run.folder, run.facts
        if metrics:
            keep = summary["metric"].isin(metrics)
        else:
            pairs = pd.MultiIndex.from_frame(summary[["judge", "metric"]])
            keep = pairs.isin([*shown])
        own = summary[keep].assign(
            run=folder.name, created=facts.get("created") or "", commit=facts.get("commit") or ""
        )
        machines = _machines(run) if "rtf" in set(own["metric"]) else {}
        own["measured_as"] = [
            json.dumps(
                [
                    facts["suites"].get(row.suite),
                    facts["judges"].get(row.judge, {}).get("fingerprint"),
                    facts.get("pooling", {}).get(row.metric),
                    machines.get((row.system, row.suite), str(folder))
                    if row.metric == "rtf"
                    else None,
                ],
                sort_keys=True,
            )
            for row in own.itertuples()
        ]
        tables.append(own)
    if not tables or all(table.empty for table in tables):
        raise UserError(
            f"none of {len(folders)} runs has what was asked for; `vcbench ls runs` lists them, "
            "`vcbench ls metrics` what can be measured, and recordings are shown where system= "
            "names them"
        )
    table = pd.concat(tables, ignore_index=True).sort_values("created", kind="stable")
    keys = ["system", "suite", "judge", "metric"]
    # The scale of the newest run is 0: numbered backwards in time.
    newest_first = table.iloc[::-1].groupby(keys, sort=False)["measured_as"]
    table["scale"] = newest_first.transform(lambda own: pd.factorize(own)[0])
    return History(table.drop(columns="measured_as").reset_index(drop=True), tuple(notes))


def _machines(run: ScoredRun) -> dict[tuple[str, str], str]:
    """The machine that each system was timed on, by system and suite.

    Where there were several, or it cannot be told, the run's folder instead: their mean is on a
    scale of its own.
    """
    timed = timed_on(run.scores, run.facts)
    rows = run.scores.loc[timed.index]
    machines = timed.groupby([rows["system"], rows["suite"]]).unique().to_dict()
    return {
        key: values[0] if len(values) == 1 else str(run.folder) for key, values in machines.items()
    }

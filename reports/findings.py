"""Findings across systems: the best, those at the ceiling, those to be doubted, and why."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from bench.errors import UserError
from bench.metrics import INTELLIGIBILITY, METRICS, NATURALNESS, SIMILARITY, Measure
from bench.results import ScoredRun
from bench.run.results import Results
from bench.stats.compare import FAILED, compare
from bench.stats.pooling import measures_of
from bench.stats.sides import Side
from bench.validity import flags
from bench.validity.confounds import Confound, confounds
from reports.tables import systems_of

# The families that a recording marks the ceiling of. How near counts as being there is the metric's
# `near`: beyond it a judge finds differences that no listener has been shown to find.
CEILING: Mapping[str, Sequence[str]] = {
    "floor": (INTELLIGIBILITY, NATURALNESS),
    "ceiling": (SIMILARITY,),
}
DOUBTED = "is better, and suspicious"
RECORDINGS = "sources and references"
MOST_PAIRS = 100  # of systems; more are not compared with each other


@dataclass(frozen=True)
class Standing:
    """What may be said of a run beyond its numbers.

    Attributes:
        best: (suite, judge, metric, system) that is better than every other system, beyond chance
            and over the trials that both completed, fails no more than it, and is not called out.
        at_ceiling: (suite, judge, metric, system) that cannot be told from a true recording.
        flags: every flag raised: see `bench.validity.flags.raised`.
        called_out: systems flagged too often: see `bench.validity.flags.called_out`.
        differences: every pair of systems, see `bench.stats.compare`; empty where there is none.
        confounds: what similarity goes with.
        elsewhere: (suite, system, origin, conversions) of conversions that were kept from an
            earlier run, by other code or on another machine.
        altered: (suite, system, conversions, of) of conversions that were changed since they were
            converted; `of` counts all that the system converted.
        remarks: (suite, system, remark, conversions) of what a system changed of the process.
        missing: (suite, name, sounds) of files that are no longer there: of a system's conversions,
            and of `RECORDINGS`.
    """

    best: frozenset[tuple[str, str, str, str]]
    at_ceiling: frozenset[tuple[str, str, str, str]]
    flags: pd.DataFrame
    called_out: pd.DataFrame
    differences: pd.DataFrame
    confounds: tuple[Confound, ...]
    elsewhere: tuple[tuple[str, str, str, int], ...]
    altered: tuple[tuple[str, str, int, int], ...]
    remarks: tuple[tuple[str, str, str, int], ...]
    missing: tuple[tuple[str, str, int], ...]

    def notes(self, suite: str, anchors: Mapping[str, str]) -> list[str]:
        """What a reader of the suite's table must know about its systems and files."""
        notes = []
        rows_of_suite = self.called_out[
            (self.called_out["suite"] == suite) & ~self.called_out["system"].isin(list(anchors))
        ]
        for system, rows in rows_of_suite.groupby("system", sort=False):
            reasons = ", ".join(
                f"{flags.FLAGS[str(row.flag)].label} ({row.trials} of {row.of})"
                for row in rows.itertuples()
            )
            notes.append(f"{system} is suspicious, its numbers mean little: {reasons}.")
        for name, judge, metric, system in sorted(self.at_ceiling):
            if name == suite:
                notes.append(
                    f"{system} is at the ceiling of {METRICS[metric].label} by {judge}: this judge "
                    "cannot tell it from true recordings, and no higher value means anything."
                )
        for name, system, origin, count in self.elsewhere:
            if name == suite:
                notes.append(
                    f"conversions of {system} kept from an earlier run: {count}, made by "
                    f"{origin}, where their RTF was measured."
                )
        for name, system, count, converted in self.altered:
            if name == suite:
                notes.append(
                    f"conversions of {system} changed since they were converted: {count} of "
                    f"{converted}; they were scored as they are now."
                )
        for name, system, remark, count in self.remarks:
            if name == suite:
                notes.append(f"{system} {remark.rstrip('.')} (conversions: {count}).")
        gone = [(whose, count) for name, whose, count in self.missing if name == suite]
        if gone:
            each = ", ".join(f"{whose} {count}" for whose, count in gone)
            notes.append(
                f"sounds that are missing: {sum(count for _, count in gone)} ({each}). They have "
                "no player and no spectrogram here; no number depends on them."
            )
        return notes

    def suspicious(self, anchors: Container[str]) -> list[str]:
        """Systems that are called out somewhere."""
        return [str(s) for s in self.called_out["system"].unique() if s not in anchors]

    def by_trial(self, without: Container[str]) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Suite → trial id → (system, what is suspicious about its conversion).

        Args:
            without: systems to leave out: recordings are no conversions on every trial.
        """
        found: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for row in self.flags.itertuples():
            if row.system in without:
                continue
            text = f"{flags.FLAGS[str(row.flag)].label}: {row.reason}"
            trials = found.setdefault(str(row.suite), {})
            trials.setdefault(str(row.trial_id), []).append((str(row.system), text))
        return found


def standing(results: Results) -> Standing:
    """Compares, flags and regresses what the run holds."""
    floor = next((s for s, role in results.anchors.items() if role == "floor"), None)
    raised = flags.raised(results.scores, results.suites, floor)
    systems = [s for s in systems_of(results) if s not in results.anchors]
    pairs = list(combinations(systems, 2))
    between = _compared(results, pairs if len(pairs) <= MOST_PAIRS else [])
    beside = _compared(results, [(anchor, s) for anchor in results.anchors for s in systems])
    called_out = flags.called_out(results.scores, raised)
    games = set(called_out[["suite", "system"]].itertuples(index=False, name=None))
    return Standing(
        best=frozenset(b for b in _best(between, systems) if (b[0], b[-1]) not in games),
        at_ceiling=_at_ceiling(beside, results),
        flags=raised,
        called_out=called_out,
        differences=_doubted(between, games),
        confounds=tuple(confounds(results.scores, systems)),
        elsewhere=_elsewhere(results),
        altered=_altered(results),
        remarks=_remarks(results),
        missing=_missing(results),
    )


def _elsewhere(results: Results) -> tuple[tuple[str, str, str, int], ...]:
    """Conversions that the code and machine of the run did not make, as far as they are known."""
    own, scores = results.provenance.get("origin"), results.scores
    if own is None or "origin" not in scores:
        return ()
    other = (scores["status"] == "ok") & ~scores["origin"].isin(["", own])
    if "remarks" in scores:  # a system that set the threads of its process converted here
        itself = scores["remarks"].fillna("").str.contains("number of threads")
        other &= ~(itself & scores["origin"].map(_without_threads).eq(_without_threads(own)))
    rows = scores[other]
    counts = rows.groupby(["suite", "system", "origin"], sort=False).size()
    return tuple((*map(str, key), int(count)) for key, count in counts.items())  # type: ignore[misc]


def _without_threads(origin: str) -> str:
    return re.sub(r", \d+ threads", "", origin)


def _altered(results: Results) -> tuple[tuple[str, str, int, int], ...]:
    """Conversions that are not as they were converted, in runs that know it."""
    scores = results.scores
    if "altered" not in scores:
        return ()
    converted = scores[scores["status"] == "ok"]
    changed = converted["altered"].isin([True, "True"])
    counts = changed.groupby([converted["suite"], converted["system"]], sort=False)
    return tuple(
        (*map(str, key), int(rows.sum()), len(rows))  # type: ignore[misc]
        for key, rows in counts
        if rows.any()
    )


def _remarks(results: Results) -> tuple[tuple[str, str, str, int], ...]:
    """What was noted about conversions, in runs that noted it."""
    scores = results.scores
    if "remarks" not in scores:
        return ()
    noted = scores[scores["remarks"].notna() & (scores["remarks"] != "")]
    counts = noted.groupby(["suite", "system", "remarks"], sort=False).size()
    return tuple((*map(str, key), int(count)) for key, count in counts.items())  # type: ignore[misc]


def _missing(results: Results) -> tuple[tuple[str, str, int], ...]:
    """Files of sounds that a report would play and that are not there."""
    gone = []
    converted = results.scores[results.scores["status"] == "ok"]
    for name, suite in results.suites.items():
        rows = converted[converted["suite"] == name]
        for system, wavs in rows.groupby("system", sort=False)["wav"]:
            gone.append((name, str(system), sum(not (results.folder / w).is_file() for w in wavs)))
        paths = {u.path for trial in suite.trials for u in (trial.source, *trial.references)}
        gone.append((name, RECORDINGS, sum(not path.is_file() for path in paths)))
    return tuple(found for found in gone if found[2])


def _compared(results: Results, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    run = ScoredRun(
        results.name, results.folder, results.provenance, results.scores, results.summary
    )
    if not pairs:
        return pd.DataFrame()
    try:
        return compare([(Side(a, run, a), Side(b, run, b)) for a, b in pairs]).table
    except UserError:  # nothing that both have was measured
        return pd.DataFrame()


def _doubted(table: pd.DataFrame, games: Container[tuple[str, str]]) -> pd.DataFrame:
    """The comparison without the victories of systems that are called out."""

    def verdict(row: pd.Series) -> str:
        said = str(row["verdict"])
        winner = {"better": "candidate", "worse": "baseline"}.get(said.partition(" ")[0])
        if winner is None or (row["suite"], row[winner]) not in games:
            return said
        return f"{row[winner]} {DOUBTED}"

    if table.empty:
        return table
    return table.assign(verdict=[verdict(row) for _, row in table.iterrows()])


def _best(table: pd.DataFrame, systems: Sequence[str]) -> frozenset[tuple[str, str, str, str]]:
    found = set()
    if table.empty:
        return frozenset()
    for key, rows in table.groupby(["suite", "judge", "metric"], sort=False):
        suite, judge, metric = map(str, key)
        if metric == FAILED:
            continue
        wins = dict.fromkeys(systems, 0)
        for row in rows.itertuples():
            if row.verdict == "better":
                wins[str(row.candidate)] += 1
            elif row.verdict == "worse":
                wins[str(row.baseline)] += 1
        compared = {s for column in ("baseline", "candidate") for s in rows[column]}
        for system, won in wins.items():
            if system in compared and won == len(compared) - 1 > 0:
                found.add((suite, judge, metric, system))
    return frozenset(found)


def _at_ceiling(table: pd.DataFrame, results: Results) -> frozenset[tuple[str, str, str, str]]:
    """Systems whose whole interval is at least as good as the recording, or as good as that."""
    found = set()
    reported: set[Measure] = set(measures_of(results.summary))
    for row in table.itertuples():
        judge, name = str(row.judge), str(row.metric)
        metric = METRICS[name]
        families = CEILING.get(results.anchors[str(row.baseline)], ())
        if metric.near is None or metric.family not in families or (judge, name) not in reported:
            continue
        if (row.low > -metric.near) if metric.higher_is_better else (row.high < metric.near):
            found.add((str(row.suite), judge, name, str(row.candidate)))
    return frozenset(found)

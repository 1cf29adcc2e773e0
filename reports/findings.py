"""Findings across systems: significant winners, systems at the ceiling, suspicious systems."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, cast

import pandas as pd

from bench.errors import UserError
from bench.metrics import INTELLIGIBILITY, METRICS, NATURALNESS, SIMILARITY, Measure
from bench.provenance import without_versions
from bench.results import ScoredRun
from bench.stats.compare import FAILED, compare
from bench.stats.pooling import measures_of
from bench.stats.sides import Side
from bench.validity import flags
from bench.validity.confounds import Confound, confounds
from bench.validity.kinship import kinships
from reports.kinship import with_kinship
from reports.slices import slices
from reports.tables import systems_of

# The families for which a recording marks the ceiling. A system is at the ceiling if it is within
# the metric's `near`: no listener has been shown to hear smaller differences.
CEILING: Mapping[str, Sequence[str]] = {
    "floor": (INTELLIGIBILITY, NATURALNESS),
    "ceiling": (SIMILARITY,),
}
SUSPICIOUS_WINNER = "is better, and suspicious"
RECORDINGS = "sources and references"
KEPT = "_findings"  # name of the attribute of the results
MOST_PAIRS = 100  # of systems; more are not compared with each other


@dataclass(frozen=True)
class Findings:
    """The findings of a run. Get them by `findings_of`, which computes them once for all reports.

    Attributes:
        results: the run.
        best: (suite, judge, metric, system) that is better than every other system, beyond chance
            and over the trials that both completed, fails no more than it, is not suspicious, and
            is not judged by a network that it was made with.
        at_ceiling: (suite, judge, metric, system) that the judge cannot distinguish from a true
            recording.
        flags: every flag raised: see `bench.validity.flags.raised`.
        suspicious: systems flagged too often: see `bench.validity.flags.suspicious`.
        differences: every pair of systems, see `bench.stats.compare.compare` and
            `reports.kinship.with_kinship`; empty if there is none.
        confounds: correlations of similarity with other properties.
        reused: (suite, system, origin, conversions) of conversions that were kept from an earlier
            run, by other code or on another machine.
        altered: (suite, system, conversions, of) of conversions that were changed since they were
            converted; `of` counts all conversions of the system.
        remarks: (suite, system, remark, conversions) on what a system changed of its process.
        missing: (suite, name, files) of sounds that are missing: of a system's conversions, and of
            `RECORDINGS`.
    """

    results: ScoredRun
    best: frozenset[tuple[str, str, str, str]]
    at_ceiling: frozenset[tuple[str, str, str, str]]
    flags: pd.DataFrame
    suspicious: pd.DataFrame
    differences: pd.DataFrame
    confounds: tuple[Confound, ...]
    reused: tuple[tuple[str, str, str, int], ...]
    altered: tuple[tuple[str, str, int, int], ...]
    remarks: tuple[tuple[str, str, str, int], ...]
    missing: tuple[tuple[str, str, int], ...]

    @cached_property
    def slices(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The leading metrics by the factors of the trials: see `reports.slices.slices`."""
        return slices(self.results)

    @property
    def suspicious_systems(self) -> list[str]:
        """Names of the systems that are suspicious in some suite."""
        systems = self.suspicious["system"].unique()
        return [str(s) for s in systems if s not in self.results.anchors]

    def notes(self, suite: str) -> list[str]:
        """Notes on the systems and files of a suite, for the reader of its table."""
        notes = []
        rows_of_suite = self.suspicious[
            (self.suspicious["suite"] == suite)
            & self.suspicious["system"].isin(self.suspicious_systems)
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
                    "cannot distinguish it from true recordings, and no higher value means "
                    "anything."
                )
        for name, system, origin, count in self.reused:
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
        missing = [(owner, count) for name, owner, count in self.missing if name == suite]
        if missing:
            each = ", ".join(f"{owner} {count}" for owner, count in missing)
            notes.append(
                f"sounds that are missing: {sum(count for _, count in missing)} ({each}). They "
                "have no player and no spectrogram here; no number depends on them."
            )
        return notes

    def flags_by_trial(self) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Suite → trial id → (system, flag in words), without the flags of recordings."""
        by_trial: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for row in self.flags.itertuples():
            if row.system in self.results.anchors:
                continue
            text = f"{flags.FLAGS[str(row.flag)].label}: {row.reason}"
            trials = by_trial.setdefault(str(row.suite), {})
            trials.setdefault(str(row.trial_id), []).append((str(row.system), text))
        return by_trial


def findings_of(results: ScoredRun) -> Findings:
    """The findings of a run: computed by the first report, and kept on the run for the others."""
    kept: dict[str, Any] = vars(results)  # where functools.cached_property keeps its values too
    if KEPT not in kept:
        kept[KEPT] = compute(results)
    return cast(Findings, kept[KEPT])


def compute(results: ScoredRun) -> Findings:
    """Compares the systems of a run, flags their conversions, correlates their similarity."""
    floor = next((s for s, role in results.anchors.items() if role == "floor"), None)
    raised = flags.raised(results.scores, results.suites, floor)
    suspicious = flags.suspicious(results.scores, raised)
    flagged = set(suspicious[["suite", "system"]].itertuples(index=False, name=None))
    systems = [s for s in systems_of(results) if s not in results.anchors]
    kin = kinships(results.facts)
    by_itself = {pair for pair, kinship in kin.items() if kinship.same_network}
    pairs = list(combinations(systems, 2))
    between = _compared(results, pairs if len(pairs) <= MOST_PAIRS else [])
    with_anchors = _compared(results, [(a, s) for a in results.anchors for s in systems])
    return Findings(
        results=results,
        best=frozenset(
            (suite, judge, metric, system)
            for suite, judge, metric, system in _best(between, systems)
            if (suite, system) not in flagged and (system, judge) not in by_itself
        ),
        at_ceiling=_at_ceiling(with_anchors, results),
        flags=raised,
        suspicious=suspicious,
        differences=with_kinship(_without_victories(between, flagged), kin),
        confounds=tuple(confounds(results.scores, systems)),
        reused=_reused(results),
        altered=_altered(results),
        remarks=_remarks(results),
        missing=_missing(results),
    )


def _reused(results: ScoredRun) -> tuple[tuple[str, str, str, int], ...]:
    """Conversions whose recorded origin is not the code and machine of the run."""
    origin, scores = results.facts.get("origin"), results.scores
    if origin is None or "origin" not in scores:
        return ()
    differs = (scores["status"] == "ok") & ~scores["origin"].fillna("").map(without_versions).isin(
        ["", origin]
    )
    if "remarks" in scores:  # a system that set the threads of its process converted here
        set_threads = scores["remarks"].fillna("").str.contains("number of threads")
        same = (
            scores["origin"]
            .fillna("")
            .map(without_versions)
            .map(_without_threads)
            .eq(_without_threads(origin))
        )
        differs &= ~(set_threads & same)
    counts = scores[differs].groupby(["suite", "system", "origin"], sort=False).size()
    return tuple((*map(str, key), int(count)) for key, count in counts.items())  # type: ignore[misc]


def _without_threads(origin: str) -> str:
    return re.sub(r", \d+ threads", "", origin)


def _altered(results: ScoredRun) -> tuple[tuple[str, str, int, int], ...]:
    """Conversions that were changed since they were converted, in runs that recorded it."""
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


def _remarks(results: ScoredRun) -> tuple[tuple[str, str, str, int], ...]:
    """Remarks on conversions, in runs that recorded them."""
    scores = results.scores
    if "remarks" not in scores:
        return ()
    noted = scores[scores["remarks"].notna() & (scores["remarks"] != "")]
    counts = noted.groupby(["suite", "system", "remarks"], sort=False).size()
    return tuple((*map(str, key), int(count)) for key, count in counts.items())  # type: ignore[misc]


def _missing(results: ScoredRun) -> tuple[tuple[str, str, int], ...]:
    """Sounds that a report would play and whose files are missing."""
    counts = []
    converted = results.scores[results.scores["status"] == "ok"]
    for name, suite in results.suites.items():
        rows = converted[converted["suite"] == name]
        for system, wavs in rows.groupby("system", sort=False)["wav"]:
            missing = sum(not (results.folder / wav).is_file() for wav in wavs)
            counts.append((name, str(system), missing))
        paths = {u.path for trial in suite.trials for u in (trial.source, *trial.references)}
        counts.append((name, RECORDINGS, sum(not path.is_file() for path in paths)))
    return tuple(count for count in counts if count[2])


def _compared(results: ScoredRun, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    if not pairs:
        return pd.DataFrame()
    try:
        return compare([(Side(a, results, a), Side(b, results, b)) for a, b in pairs]).table
    except UserError:  # the systems have no measured metric in common
        return pd.DataFrame()


def _without_victories(table: pd.DataFrame, flagged: Container[tuple[str, str]]) -> pd.DataFrame:
    """The comparison, with the verdict of every row that a suspicious system wins replaced."""

    def verdict(row: pd.Series) -> str:
        given = str(row["verdict"])
        winner = {"better": "candidate", "worse": "baseline"}.get(given.partition(" ")[0])
        if winner is None or (row["suite"], row[winner]) not in flagged:
            return given
        return f"{row[winner]} {SUSPICIOUS_WINNER}"

    if table.empty:
        return table
    return table.assign(verdict=[verdict(row) for _, row in table.iterrows()])


def _best(table: pd.DataFrame, systems: Sequence[str]) -> frozenset[tuple[str, str, str, str]]:
    """Systems that win against every other system that was compared."""
    best = set()
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
        for system, count in wins.items():
            if system in compared and count == len(compared) - 1 > 0:
                best.add((suite, judge, metric, system))
    for name, known in METRICS.items():  # compared by another metric: the same differences
        best |= {(s, j, name, system) for s, j, m, system in best if m == known.differs_as}
    return frozenset(best)


def _at_ceiling(table: pd.DataFrame, results: ScoredRun) -> frozenset[tuple[str, str, str, str]]:
    """Systems whose whole interval is better than the recording's value, or within `near` of it."""
    at_ceiling = set()
    reported: set[Measure] = set(measures_of(results.summary))
    for row in table.itertuples():
        judge, name = str(row.judge), str(row.metric)
        metric = METRICS[name]
        families = CEILING.get(results.anchors[str(row.baseline)], ())
        if metric.near is None or metric.family not in families or (judge, name) not in reported:
            continue
        if (row.low > -metric.near) if metric.higher_is_better else (row.high < metric.near):
            at_ceiling.add((str(row.suite), judge, name, str(row.candidate)))
    return frozenset(at_ceiling)

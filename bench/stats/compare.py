"""Paired comparison of systems over the trials that both completed."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS, Measure, Metric, held_to
from bench.results import timed_on
from bench.stats.crossed import LEVEL, Crossed, Estimate
from bench.stats.pooling import TIMING, TIMINGS, judge_table, measures_in
from bench.stats.sides import Side, check_comparable, machines_apart

FAILED = "failed"  # a metric of every comparison: the share of trials that could not be converted
CONVERSION = "conversion"  # stands for the judge in its rows
DURATION = "duration"  # a factor that every suite has: of the baseline's output
DURATION_SECONDS = (4, 8)
SAME = "the same in every trial"
POWER = 0.8  # with which a test detects the effect that is called detectable
LOAD_NOTE = (
    "Systems are timed one after the other: the intervals of times do not cover a change of the "
    "machine's load between them. Time both again before you rely on their difference."
)


@dataclass(frozen=True)
class Differences:
    """The result of a comparison.

    Attributes:
        table: one row per pair × suite × slice × judge × metric, see `compare`.
        notes: what was left out and why, and what intervals do not cover.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = field(default_factory=tuple)


def compare(
    pairs: Sequence[tuple[Side, Side]],
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    margins: Mapping[str, float | str] | None = None,
    level: float = LEVEL,
) -> Differences:
    """Compares every metric of every pair, over the trials of each suite that both completed.

    Args:
        pairs: (baseline, candidate).
        metrics: keys of METRICS; None for all that both have, but for those whose differences are
            another's (`Metric.differs_as`) and that have no margin.
        by: factors of the trials to slice by, one after the other, in addition to all trials; or
            `DURATION`.
        margins: metric or family → the smallest difference that matters, in the metric's unit or as
            "10%" of the baseline's value. It separates "no difference" from "too small a test".
            See `margins_by_measure`.
        level: of intervals and tests, such as 0.95.

    Returns:
        One row per pair × suite × slice × judge × metric with the columns: baseline, candidate,
        suite, slice ("" for all trials, else "factor=value"), judge, metric, baseline_value,
        candidate_value (both over the common trials), effect (candidate less baseline), low, high,
        p, q (p after Benjamini and Hochberg 1995 over all rows), detectable (the smallest true
        effect that a test like this finds with 80% power), n (common trials),
        baseline_failed, candidate_failed (trials, of the slice), margin (NaN where none), verdict.

    Raises:
        UserError: as `check_comparable`, and if the runs have no measured metric in common.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    known = _Tables()
    for baseline, candidate in pairs:
        if baseline.run is not candidate.run:
            notes |= dict.fromkeys(check_comparable(baseline.run, candidate.run))
        suites = set(baseline.run.facts["suites"]) & set(candidate.run.facts["suites"])
        for suite in [s for s in baseline.run.facts["suites"] if s in suites]:
            machines = machines_apart(*(known.timed_on(x, suite) for x in (baseline, candidate)))
            if machines and (metrics is None or set(TIMINGS) & set(metrics)):
                note = f"times over {suite} are left out: they were measured on other machines"
                notes[f"{note} ({machines})."] = None
            rows += _compare_over(
                known, suite, baseline, candidate, metrics, not machines, by, margins or {}, level
            )
    if not rows:
        raise UserError("nothing to compare: the runs have no metric in common that was measured")
    table = pd.DataFrame(rows)
    table["q"] = benjamini_hochberg(table["p"].to_numpy(float))
    table["verdict"] = [_verdict(row, level) for _, row in table.iterrows()]
    told_apart = table["q"] < 1 - level
    if (told_apart & table["metric"].isin(TIMINGS)).any():
        notes[LOAD_NOTE] = None
    return Differences(table, tuple(notes))


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p of each test (Benjamini and Hochberg 1995); NaN stays NaN and counts as no test.

    Of the differences with an adjusted p below 0.05, at most 5% are false on average.
    """
    adjusted = np.full(len(p), np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def detectable(estimate: Estimate, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true effect that a test like this one detects with this power.

    Half the width of the interval, which must exclude 0, and the quantile of the power times the
    standard error. NaN where the standard error is not known.
    """
    if not np.isfinite(estimate.se):
        return float("nan")
    low, high = estimate.interval(level)
    return float((high - low) / 2 + stats.t.ppf(power, estimate.df) * estimate.se)


def shared_measures(
    tables: Sequence[pd.DataFrame], metrics: Sequence[str] | None, timing: bool
) -> list[Measure]:
    """(judge, metric) that every table has columns for.

    Args:
        tables: score tables.
        metrics: keys of METRICS to keep; None for all.
        timing: whether RTF is among them.
    """
    shared = set.intersection(*(set(map(str, t.columns)) for t in tables))
    return [
        (judge, metric)
        for judge, metric in measures_in(c for c in tables[0].columns if c in shared)
        if (timing or judge != TIMING) and (metrics is None or metric in metrics)
    ]


def measured_in(tables: Sequence[pd.DataFrame]) -> list[Measure]:
    """(judge, metric) that every table has a value of for some trial, and the share of failures.

    Args:
        tables: score tables of one system and suite each, by trial id.
    """
    measures = []
    for judge, metric in shared_measures(tables, None, timing=True):
        terms = [METRICS[metric].terms(judge_table(table, judge)) for table in tables]
        if set.intersection(*(set(t.index) for t in terms)):
            measures.append((judge, metric))
    return [*measures, (CONVERSION, FAILED)]


def margins_by_measure(
    side: Side, measures: Sequence[Measure], margins: Container[str]
) -> dict[Measure, str]:
    """The name of the margin that applies to each measure: see `bench.metrics.held_to`.

    A family's margin applies to the metrics that the judges were set to measure. A judge may store
    counts of further metrics (a recogniser stores those of every normalisation); they do not lead.
    """
    judges = side.run.facts.get("judges", {})
    named = {judge: facts["metrics"] for judge, facts in judges.items() if facts.get("metrics")}
    reported = [(j, m) for j, m in measures if j not in named or m in named[j]]
    by_key = {pair: pair[1] for pair in measures if pair[1] in margins}
    return held_to(margins, reported) | by_key


class _Tables:
    """What a comparison reads of each side: computed once for all pairs that the side is in."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, str, str], pd.DataFrame] = {}
        self._timed_on: dict[tuple[int, str, str], pd.Series] = {}
        self._judges: dict[tuple[int, str, str, str], pd.DataFrame] = {}
        self._terms: dict[tuple[int, str, str, str, str], pd.DataFrame] = {}

    def rows(self, side: Side, suite: str) -> pd.DataFrame:
        """See `Side.rows`."""
        key = (id(side.run), side.system, suite)
        if key not in self._rows:
            self._rows[key] = side.rows(suite)
        return self._rows[key]

    def timed_on(self, side: Side, suite: str) -> pd.Series:
        """See `bench.results.timed_on`."""
        key = (id(side.run), side.system, suite)
        if key not in self._timed_on:
            self._timed_on[key] = timed_on(self.rows(side, suite), side.run.facts)
        return self._timed_on[key]

    def terms(self, side: Side, suite: str, judge: str, metric: str) -> pd.DataFrame:
        """See `Metric.terms`."""
        key = (id(side.run), side.system, suite, judge)
        if key not in self._judges:
            self._judges[key] = judge_table(self.rows(side, suite), judge)
        if (*key, metric) not in self._terms:
            self._terms[*key, metric] = METRICS[metric].terms(self._judges[key])
        return self._terms[*key, metric]


def _compare_over(
    known: _Tables,
    suite: str,
    baseline: Side,
    candidate: Side,
    metrics: Sequence[str] | None,
    timing: bool,
    by: Sequence[str],
    margins: Mapping[str, float | str],
    level: float,
) -> list[dict[str, Any]]:
    """The rows of one suite; without RTF if `timing` is false."""
    a, b = known.rows(baseline, suite), known.rows(candidate, suite)
    trials = a.index.intersection(b.index, sort=False)
    a, b = a.loc[trials], b.loc[trials]
    measures = shared_measures([a, b], metrics, timing)
    if metrics is None:
        measures = [
            (judge, name)
            for judge, name in measures
            if name in margins or (judge, METRICS[name].differs_as) not in measures
        ]
    # A trial that either system failed on is left out of every metric but the share of failures.
    columns = []
    for judge, name in measures:
        terms = [known.terms(s, suite, judge, name) for s in (baseline, candidate)]
        arrays = [t.reindex(trials).to_numpy(float) for t in terms]
        columns.append((judge, name, METRICS[name], *arrays))
    asked = (a["status"] != "absent") & (b["status"] != "absent")
    failures = []
    for table in (a, b):
        failed = np.where(asked, 100.0 * (table["status"] == "failed"), np.nan)
        failures.append(np.column_stack([failed, np.where(asked, 1.0, np.nan)]))
    columns.append((CONVERSION, FAILED, METRICS[FAILED], *failures))
    margin_names = margins_by_measure(baseline, measured_in([a, b]), margins) if margins else {}
    rows = []
    for label, chosen in _slices(a, by):
        if not chosen.any():
            continue
        crossed = Crossed(a["source_speaker"][chosen], a["target_speaker"][chosen])
        both = np.stack([np.stack([x[chosen], y[chosen]]) for *_, x, y in columns])
        both = np.where(np.isnan(both).any(axis=(1, 3))[:, None, :, None], np.nan, both)
        flat = both.reshape(-1, *both.shape[2:]).transpose(1, 0, 2)  # (N, 2 × measures, 2)
        contrast = np.kron(np.eye(len(columns)), [-1.0, 1.0])
        unbounded = [metric.unbounded for _, _, metric, *_ in columns for _ in range(2)]
        estimates = crossed.contrasts(flat[:, :, 0], flat[:, :, 1], contrast, unbounded)
        for k, (judge, name, metric, *_) in enumerate(columns):
            estimate = estimates[k]
            if estimate.n == 0 and name != FAILED:
                continue
            values = np.nansum(both[k], axis=1)
            value = [float(v[0] / v[1]) if v[1] > 0 else np.nan for v in values]
            low, high = metric.clip_difference(estimate.interval(level))
            margin = margins.get(margin_names.get((judge, name), ""))
            same = estimate.se == 0 and estimate.value == 0  # equal in every trial: not a test
            rows.append(
                {
                    "baseline": baseline.label,
                    "candidate": candidate.label,
                    "suite": suite,
                    "slice": label,
                    "judge": judge,
                    "metric": name,
                    "baseline_value": value[0],
                    "candidate_value": value[1],
                    "effect": estimate.value,
                    "low": low,
                    "high": high,
                    "p": np.nan if same else estimate.p_of_no_difference(),
                    "detectable": detectable(estimate, level),
                    "n": estimate.n,
                    "baseline_failed": int((a["status"][chosen] == "failed").sum()),
                    "candidate_failed": int((b["status"][chosen] == "failed").sum()),
                    "margin": margin_of(margin, value[0], metric),
                }
            )
    return rows


def margin_of(margin: float | str | None, baseline: float, metric: Metric) -> float:
    """A margin in the metric's unit; NaN where there is none.

    Raises:
        UserError: if it is neither a positive number nor a percentage such as "10%".
    """
    if margin is None:
        return float("nan")
    text = str(margin)
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not (number > 0 and np.isfinite(number)) or isinstance(margin, bool):
        raise UserError(
            f"the margin of {metric.label} is {margin!r}; give a positive number in its unit"
            f"{' (' + metric.unit + ')' if metric.unit else ''}, or a share of the baseline: 10%"
        )
    return abs(baseline) * number / 100 if text.endswith("%") else number


def _slices(table: pd.DataFrame, by: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """(label, mask of the table's rows): all trials, then each value of each factor."""
    slices = [("", np.ones(len(table), bool))]
    for factor in by:
        values = _values(table, factor)
        slices += [(f"{factor}={v}", (values == v).to_numpy()) for v in sorted(set(values) - {""})]
    return slices


def _values(table: pd.DataFrame, factor: str) -> pd.Series:
    """The factor's value of each trial, "" where it has none.

    Raises:
        UserError: if there is no such factor.
    """
    if f"factor.{factor}" in table:
        return table[f"factor.{factor}"].fillna("")
    if factor == DURATION:
        seconds = table["audio_seconds"]
        bins = np.digitize(seconds, DURATION_SECONDS)
        low, high = DURATION_SECONDS
        names = np.array([f"under {low} s", f"{low} to {high} s", f"{high} s and more"])
        return pd.Series(np.where(seconds.notna(), names[bins], ""), table.index)
    known = [c.removeprefix("factor.") for c in table.columns if c.startswith("factor.")]
    raise UserError(
        f"no factor {factor!r} to slice by; {choose_one_of(factor, [*known, DURATION])}"
    )


def _verdict(row: pd.Series, level: float) -> str:
    """The conclusion that a row allows, in words."""
    metric = METRICS[str(row["metric"])]
    if np.isnan(row["p"]):
        return SAME if row["low"] == row["high"] else "too few speakers"
    if row["q"] < 1 - level and row["effect"] != 0:
        if metric.higher_is_better is None:
            return "different"
        better = (row["effect"] > 0) == metric.higher_is_better
        word = "better" if better else "worse"
        failed, failed_before = row["candidate_failed"], row["baseline_failed"]
        winner_failed_more = failed > failed_before if better else failed_before > failed
        if row["metric"] != FAILED and winner_failed_more:
            return f"{word} where both converted"
        return word
    if np.isnan(row["margin"]):
        return "not told apart"
    within = -row["margin"] < row["low"] and row["high"] < row["margin"]
    return "no difference that matters" if within else "too small a test"

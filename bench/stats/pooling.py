"""Pools metrics over trials, with intervals that account for shared speakers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics import METRICS, SHARE, Measure, Metric
from bench.stats.crossed import LEVEL, Crossed, Estimate

TIMING = "timing"  # stands for the judge of metrics that the conversion stage measures
TIMINGS = ("rtf", "first_chunk", "stream_rtf")  # its metrics; the latter two of systems that stream
NO_JUDGES = ("factor", "stage")  # prefixes of columns of the score table that are not judges


@dataclass(frozen=True)
class Measured:
    """The facts on a judge that the summary needs.

    Attributes:
        metrics: keys of `METRICS`.
        needs_source_words: see `bench.judges.Judge`.
        unavailable: why it did not judge; "" if it did.
    """

    metrics: tuple[str, ...]
    needs_source_words: bool = False
    unavailable: str = ""


def summarise(
    scores: pd.DataFrame,
    judges: Mapping[str, Measured],
    recordings: Mapping[str, bool],
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """Pools every metric over the trials of each suite × system (× slice).

    Args:
        scores: the score table.
        judges: the judges by name.
        recordings: systems that are recordings → whether they say the source's words.
        by: further columns of `scores` to slice by.

    Returns:
        One row per suite × slice × system × judge × metric with the columns suite, *by, system,
        judge, metric, value, low, high, n, trials, failed, note: see
        `bench.results.ScoredRun.summary`.
    """
    rows: list[dict[str, object]] = []
    for key, group in scores.groupby(["suite", *by], sort=False, dropna=False):
        sliced = dict(zip(["suite", *by], key, strict=True))
        rows += [{**sliced, **row} for row in _pooled(group, judges, recordings)]
    return pd.DataFrame(rows)


def _pooled(
    scores: pd.DataFrame, judges: Mapping[str, Measured], recordings: Mapping[str, bool]
) -> list[dict[str, object]]:
    """The rows of one suite (and slice): every system's metrics over the same resamples."""
    trials = scores.drop_duplicates("trial_id").set_index("trial_id")
    timings = tuple(
        name for name in TIMINGS if name == "rtf" or METRICS[name].numerator in scores.columns
    )
    rows, columns = [], []
    for system, group in scores.groupby("system", sort=False):
        of_system = group.set_index("trial_id")
        failed = int((of_system["status"] == "failed").sum())
        counts = {"trials": len(of_system), "failed": failed}
        for judge, measured in {**judges, TIMING: Measured(timings)}.items():
            table = judge_table(of_system, judge)
            for name in measured.metrics:
                metric = METRICS[name]
                note = measured.unavailable
                if (judge == TIMING and system in recordings) or (
                    measured.needs_source_words and not recordings.get(str(system), True)
                ):
                    note = "not applicable"
                row = {"system": system, "judge": judge, "metric": name, "value": float("nan")}
                row |= {"low": float("nan"), "high": float("nan"), "n": 0, **counts, "note": note}
                rows.append(row)
                if not note and metric.numerator in table:
                    terms = metric.terms(table)
                    row["n"] = len(terms)
                    columns.append((row, metric, terms.reindex(trials.index).to_numpy(float)))
                row["note"] = note or ("" if row["n"] else "nothing could be measured")
    if columns:
        stacked = np.stack([terms for _, _, terms in columns], axis=1)  # (N, K, 2)
        crossed = Crossed(trials["source_speaker"], trials["target_speaker"])
        unbounded = [metric.unbounded for _, metric, _ in columns]
        estimates = crossed.ratios(stacked[:, :, 0], stacked[:, :, 1], unbounded)
        for (row, metric, _), estimate in zip(columns, estimates, strict=True):
            row["value"] = estimate.value
            row["low"], row["high"] = _bounds(metric, estimate)
    return rows


def judge_table(scores: pd.DataFrame, judge: str) -> pd.DataFrame:
    """The speakers, and the columns of one judge without its prefix."""
    speakers = scores[["source_speaker", "target_speaker"]]
    if judge == TIMING:
        measured = [
            c for name in TIMINGS for c in (METRICS[name].numerator, METRICS[name].denominator)
        ]
        return speakers.join(scores[[c for c in dict.fromkeys(measured) if c in scores]])
    prefix = f"{judge}."
    columns = scores[[c for c in scores.columns if c.startswith(prefix)]]
    return speakers.join(columns.rename(columns=lambda c: c.removeprefix(prefix)))


def measures_of(summary: pd.DataFrame) -> list[Measure]:
    """The (judge, metric) pairs that rows of a summary have a value of, in their order."""
    rows = summary.loc[summary["n"] > 0, ["judge", "metric"]].drop_duplicates()
    return [(str(judge), str(metric)) for judge, metric in rows.itertuples(index=False)]


def measures_in(columns: Iterable[str]) -> list[Measure]:
    """The (judge, metric) pairs that a score table with these columns may have values of.

    A judge may store the counts of more metrics than its settings name: they are included.
    """
    given = list(dict.fromkeys(map(str, columns)))
    judges = dict.fromkeys(c.rpartition(".")[0] for c in given if "." in c)
    measures = []
    for judge in [*(j for j in judges if j not in NO_JUDGES), TIMING]:
        prefix = "" if judge == TIMING else f"{judge}."
        for name, metric in METRICS.items():
            needed = {metric.numerator, metric.denominator or metric.numerator}
            if (judge == TIMING) == (name in TIMINGS) and {f"{prefix}{c}" for c in needed} <= set(
                given
            ):
                measures.append((judge, name))
    return measures


def interval(metric: Metric, table: pd.DataFrame, level: float = LEVEL) -> tuple[float, float]:
    """Interval of the pooled metric over trials that share speakers: see `bench.stats.crossed`.

    Returns:
        (low, high); NaN with fewer than `bench.stats.crossed.MIN_SPEAKERS` speakers on a side.
    """
    terms = metric.terms(table)
    crossed = Crossed(
        table.loc[terms.index, "source_speaker"], table.loc[terms.index, "target_speaker"]
    )
    numerators, denominators = terms.to_numpy(float).T[:, :, None]
    estimates = crossed.ratios(numerators, denominators, [metric.unbounded])
    return _bounds(metric, estimates[0], level)


def _bounds(metric: Metric, estimate: Estimate, level: float = LEVEL) -> tuple[float, float]:
    """The interval within the limits of the metric.

    A share that is 0 or 100% in all trials has no spread to resample, but is not certain. The other
    end of its interval is where the speakers of the smaller side would all have agreed with
    probability `1 - level` (the "rule of three", Hanley and Lippman-Hand 1983, with speakers for
    trials). An error rate of 0 in every trial gets no interval.
    """
    low, high = metric.clip(estimate.interval(level))
    if estimate.se == 0 and metric.limits == SHARE:
        reach = SHARE[1] * (1 - level) ** (1 / (estimate.df + 1))
        if estimate.value == SHARE[1]:
            return reach, high
        if estimate.value == SHARE[0]:
            return low, SHARE[1] - reach
    if estimate.se == 0 and estimate.value == metric.limits[0]:
        return float("nan"), float("nan")
    return low, high

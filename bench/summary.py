"""Pooled metrics with intervals that know that trials share speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics import METRICS, Metric

RESAMPLES = 2000
MIN_SPEAKERS = 4  # on each side, for an interval
TIMING = "timing"  # stands for the judge in the rows of metrics that the conversion stage measures


@dataclass(frozen=True)
class Measured:
    """What the summary needs to know of a judge.

    Attributes:
        metrics: keys of `METRICS`.
        needs_source_words: see `bench.judges.Judge`.
        unavailable: why it did not judge; "" where it did.
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
        by: more columns of `scores` to slice by.

    Returns:
        One row per suite × slice × system × judge × metric with the columns suite, *by, system,
        judge, metric, value, low, high, n, trials, failed, note: see
        `bench.results.Results.summary`.
    """
    rows = []
    for key, group in scores.groupby(["suite", *by, "system"], sort=False, dropna=False):
        place = dict(zip(["suite", *by, "system"], key, strict=True))
        counts = {"trials": len(group), "failed": int((group["status"] == "failed").sum())}
        system = str(place["system"])
        for judge, measured in {**judges, TIMING: Measured(("rtf",))}.items():
            for name in measured.metrics:
                metric = METRICS[name]
                note = measured.unavailable
                if (judge == TIMING and system in recordings) or (
                    measured.needs_source_words and not recordings.get(system, True)
                ):
                    note = "not applicable"
                table = judge_table(group, judge)
                if note or metric.numerator not in table:
                    value, low, high, n = float("nan"), float("nan"), float("nan"), 0
                else:
                    n = len(metric.terms(table))
                    value = metric.pool(table)
                    low, high = interval(metric, table)
                rows.append(
                    {
                        **place,
                        "judge": judge,
                        "metric": name,
                        "value": value,
                        "low": low,
                        "high": high,
                        "n": n,
                        **counts,
                        "note": note or ("" if n else "nothing could be measured"),
                    }
                )
    return pd.DataFrame(rows)


def judge_table(scores: pd.DataFrame, judge: str) -> pd.DataFrame:
    """The columns of one judge under their bare names, beside the speakers."""
    speakers = scores[["source_speaker", "target_speaker"]]
    if judge == TIMING:
        return speakers.join(scores[["elapsed_seconds", "audio_seconds"]])
    prefix = f"{judge}."
    own = scores[[c for c in scores.columns if c.startswith(prefix)]]
    return speakers.join(own.rename(columns=lambda c: c.removeprefix(prefix)))


def interval(
    metric: Metric, table: pd.DataFrame, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the pooled metric by the crossed bootstrap over speakers.

    Trials share source speakers and target speakers, so they are not independent. Each resample
    draws source speakers and target speakers with replacement, independently of each other, and
    weighs a trial by the product of the draws (the pigeonhole bootstrap, Owen 2007,
    doi:10.1214/07-AOAS122).

    Returns:
        (low, high); NaN where fewer than `MIN_SPEAKERS` are on a side: drawing from two or three
        speakers hardly varies, and would call the least certain numbers the most certain.
    """
    terms = metric.terms(table)
    source = pd.factorize(table.loc[terms.index, "source_speaker"])[0]
    target = pd.factorize(table.loc[terms.index, "target_speaker"])[0]
    if len(terms) == 0 or min(source.max(), target.max()) + 1 < MIN_SPEAKERS:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    sources, targets = _draws(rng, source.max() + 1), _draws(rng, target.max() + 1)

    def totals(values: pd.Series) -> np.ndarray:
        """The sum over trials in each resample: cells of speaker pairs first, then the draws."""
        cells = np.zeros((source.max() + 1, target.max() + 1))
        np.add.at(cells, (source, target), values.to_numpy(float))
        return np.sum((sources @ cells) * targets, axis=1)

    denominators = totals(terms["denominator"])
    drawn = denominators > 0
    ratios = totals(terms["numerator"])[drawn] / denominators[drawn]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draws(rng: np.random.Generator, clusters: int) -> np.ndarray:
    """How often each cluster is drawn in each resample: (RESAMPLES, clusters)."""
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES)

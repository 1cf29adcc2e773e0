"""Splits the variance of single conversions into speakers, trials and sampling noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import UserError
from bench.metrics import METRICS
from bench.stats.compare import shared_measures
from bench.stats.crossed import Components, Crossed
from bench.stats.pooling import judge_table
from bench.stats.sides import Side, brief, check_comparable


@dataclass(frozen=True)
class Split:
    """The variance of a metric over single trials, split by its sources.

    Attributes:
        suite: its name.
        judge: its name.
        metric: key of METRICS.
        speakers: between speakers and between trials (see `Components`), without sampling noise.
        sampling: variance between seeds within a trial.
        value: the pooled metric over all seeds.
        n: trials that every seed completed.
        seeds: number of seeds.
    """

    suite: str
    judge: str
    metric: str
    speakers: Components
    sampling: float
    value: float
    n: int
    seeds: int

    @property
    def shares(self) -> dict[str, float]:
        """The share of each source in the variance; they sum to 1 (NaN if all are 0)."""
        parts = {
            "source speaker": self.speakers.source,
            "target speaker": self.speakers.target,
            "trial": self.speakers.trial,
            "sampling": self.sampling,
        }
        total = sum(parts.values())
        return {name: part / total if total > 0 else np.nan for name, part in parts.items()}


def split_variance(repeats: Sequence[Side], metrics: Sequence[str] | None = None) -> list[Split]:
    """Variance of one system under several seeds, split into speakers, trials and sampling noise.

    A single trial counts with its contribution to the pooled metric (for a mean, the metric
    itself), so that the parts are those of the pooled metric's error.

    Args:
        repeats: the same system in runs that differ only in their seed.
        metrics: keys of METRICS; None for all.

    Raises:
        UserError: if there are fewer than two seeds, or the runs differ in other settings.
    """
    first, *others = repeats
    seeds = [side.run.facts["settings"]["seed"] for side in repeats]
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise UserError(
            f"the seeds of {', '.join(s.run.name for s in repeats)} are {seeds}; sampling noise "
            "shows between different ones: run with seed=0, seed=1, …"
        )
    for side in others:
        check_comparable(first.run, side.run)
        before = first.run.facts["systems"][first.system]["settings"]
        after = side.run.facts["systems"][side.system]["settings"]
        for key in sorted(set(before) | set(after)):
            if before.get(key) != after.get(key):
                raise UserError(
                    f"{first.label} and {side.label} differ in {key} ({brief(before.get(key))} "
                    f"against {brief(after.get(key))}), not only in their seed"
                )
    splits = []
    for suite in first.run.facts["suites"]:
        tables = [side.rows(suite) for side in repeats]
        trials = tables[0]
        for judge, metric in shared_measures(tables, metrics, timing=False):
            terms = [METRICS[metric].terms(judge_table(t, judge)) for t in tables]
            stacked = np.stack([t.reindex(trials.index).to_numpy(float) for t in terms])
            stacked = np.where(np.isnan(stacked).any(axis=(0, 2))[None, :, None], np.nan, stacked)
            totals = np.nansum(stacked, axis=(0, 1))
            n = int((~np.isnan(stacked[0, :, 0])).sum())
            if n < 2 or totals[1] <= 0:
                continue
            value = totals[0] / totals[1]
            per_trial = totals[1] / (n * len(repeats))
            shares = (stacked[:, :, 0] - value * stacked[:, :, 1]) / per_trial  # (seeds, N)
            sampling = float(np.nanmean(shares.var(axis=0, ddof=1)))
            crossed = Crossed(trials["source_speaker"], trials["target_speaker"])
            of_means = crossed.components(shares.mean(axis=0))
            trial = max(0.0, of_means.trial - sampling / len(repeats))
            speakers = Components(of_means.source, of_means.target, trial)
            splits.append(Split(suite, judge, metric, speakers, sampling, value, n, len(repeats)))
    return splits

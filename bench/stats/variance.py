"""Where the variance of single conversions comes from: speakers, trials, sampling noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import UserError
from bench.metrics import METRICS
from bench.stats.compare import Side, brief, check_comparable, rows_of, shared_measures
from bench.stats.crossed import Components, Crossed
from bench.stats.pooling import judge_table


@dataclass(frozen=True)
class Split:
    """The variance of a metric over single trials, and where it comes from.

    Attributes:
        metric: key of METRICS, by `judge` in `suite`.
        speakers: between speakers and between trials (see `Components`), without sampling noise.
        sampling: between seeds within a trial.
        value: the pooled metric over all seeds.
        n: trials that every seed completed.
        seeds: how many.
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
        """Each part of the variance of a single conversion; they add up to 1 (NaN if all are 0)."""
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

    The metric of a single trial is its contribution to the pooled one (the metric itself for a
    mean), so that the parts are those of the pooled metric's error.

    Args:
        repeats: the same system in runs that differ in nothing but their seed.
        metrics: keys of METRICS; None for all.

    Raises:
        UserError: if there are fewer than two seeds, or the runs differ in more.
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
        mine = first.run.facts["systems"][first.system]["settings"]
        theirs = side.run.facts["systems"][side.system]["settings"]
        for key in sorted(set(mine) | set(theirs)):
            if mine.get(key) != theirs.get(key):
                raise UserError(
                    f"{first.label} and {side.label} differ in {key} ({brief(mine.get(key))} "
                    f"against {brief(theirs.get(key))}), not only in their seed"
                )
    splits = []
    for suite in first.run.facts["suites"]:
        tables = [rows_of(side, suite) for side in repeats]
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
            found = crossed.components(shares.mean(axis=0))
            trial = max(0.0, found.trial - sampling / len(repeats))
            speakers = Components(found.source, found.target, trial)
            splits.append(Split(suite, judge, metric, speakers, sampling, value, n, len(repeats)))
    return splits

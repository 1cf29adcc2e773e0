"""Correlates SECS with properties other than the voice: duration, level, bandwidth, F0 gap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics import METRICS, SIMILARITY, leading
from bench.stats.crossed import LEVEL, MIN_SPEAKERS, Crossed
from bench.stats.pooling import judge_table, measures_in

# Column of the score table → name of the property.
PROPERTIES = {
    "audio_seconds": "duration",
    "integrity.level_db": "level",
    "integrity.bandwidth_hz": "bandwidth",
    "integrity.f0_gap": "F0 gap to the reference",
}
MIN_TRIALS = 8


@dataclass(frozen=True)
class Confound:
    """The correlation of similarity with another property, over one system's trials of a suite.

    Attributes:
        suite: its name.
        system: its name.
        judge: name of a judge of similarity.
        metric: key of METRICS: the judge's leading metric of similarity.
        what: the other property: a value of `PROPERTIES`.
        correlation: of ranks (Spearman), -1 to 1.
        low: lower end of its 95% interval by resampling speakers.
        high: upper end of that interval.
        n: number of trials.
    """

    suite: str
    system: str
    judge: str
    metric: str
    what: str
    correlation: float
    low: float
    high: float
    n: int

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def confounds(scores: pd.DataFrame, systems: Sequence[str]) -> list[Confound]:
    """The rank correlation of similarity with each property that varies, by suite, system, judge.

    A correlation does not show a cause. Speech that is short, soft or narrow-band scores lower,
    but a difficult trial may also be short and score low.
    """
    correlations = []
    converted = scores[(scores["status"] == "ok") & scores["system"].isin(systems)]
    measures = leading(measures_in(converted.columns), [SIMILARITY])
    for (suite, system), rows in converted.groupby(["suite", "system"], sort=False):
        for judge, metric in measures:
            similarity = METRICS[metric].per_trial(judge_table(rows, judge))
            for column, what in PROPERTIES.items():
                if column not in rows:
                    continue
                other = rows[column].astype(float)
                if column.endswith("f0_gap"):
                    other = other.abs()
                values = pd.DataFrame({"similarity": similarity, "other": other}).dropna()
                speakers = rows.loc[values.index, ["source_speaker", "target_speaker"]]
                if (
                    len(values) < MIN_TRIALS
                    or values.nunique().min() < 3
                    or speakers.nunique().min() < MIN_SPEAKERS
                ):
                    continue
                correlations.append(
                    Confound(
                        str(suite),
                        str(system),
                        judge,
                        metric,
                        what,
                        *_correlation(values, speakers),
                        len(values),
                    )
                )
    return correlations


def _correlation(values: pd.DataFrame, speakers: pd.DataFrame) -> tuple[float, float, float]:
    """Spearman's correlation of two columns, and its percentile interval (low, high)."""
    x, y = (r - r.mean() for r in values.rank().to_numpy().T)
    moments = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
    totals = Crossed(speakers["source_speaker"], speakers["target_speaker"]).totals(moments)
    totals = np.vstack([moments.sum(axis=0), totals[totals[:, 0] > 0]])
    n, sx, sy, sxx, syy, sxy = totals.T
    spread = np.sqrt(np.maximum((sxx - sx * sx / n) * (syy - sy * sy / n), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(spread > 0, (sxy - sx * sy / n) / spread, np.nan)
    low, high = np.nanquantile(r[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(r[0]), float(low), float(high)

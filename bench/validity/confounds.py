"""Correlates speaker similarity with properties other than the voice: duration, level, pitch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics import METRICS, SIMILARITY, leading
from bench.stats.crossed import LEVEL, MIN_SPEAKERS, Crossed
from bench.stats.pooling import judge_table, measures_in

# Column of the score table → what it is.
SUSPECTS = {
    "audio_seconds": "duration",
    "integrity.level_db": "level",
    "integrity.bandwidth_hz": "bandwidth",
    "integrity.f0_gap": "F0 gap to the reference",
}
FEWEST = 8  # trials


@dataclass(frozen=True)
class Confound:
    """How similarity goes with something else over the trials of one system in one suite.

    Attributes:
        metric: key of METRICS: the judge's leading metric of similarity.
        what: a value of `SUSPECTS`.
        correlation: of ranks (Spearman), -1 to 1.
        low, high: its interval at 95% by resampling speakers.
        n: trials.
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
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def confounds(scores: pd.DataFrame, systems: Sequence[str]) -> list[Confound]:
    """The rank correlation of similarity with every suspect that varies, by system, suite, judge.

    A correlation does not say what causes what: speech that is short, soft or narrow-band scores
    lower by itself, and a hard trial may be both.
    """
    found = []
    converted = scores[(scores["status"] == "ok") & scores["system"].isin(systems)]
    measures = leading(measures_in(converted.columns), [SIMILARITY])
    for (suite, system), rows in converted.groupby(["suite", "system"], sort=False):
        for judge, metric in measures:
            similarity = METRICS[metric].per_trial(judge_table(rows, judge))
            for column, what in SUSPECTS.items():
                if column not in rows:
                    continue
                suspect = rows[column].astype(float)
                if column.endswith("f0_gap"):
                    suspect = suspect.abs()
                values = pd.DataFrame({"similarity": similarity, "suspect": suspect}).dropna()
                speakers = rows.loc[values.index, ["source_speaker", "target_speaker"]]
                if (
                    len(values) < FEWEST
                    or values.nunique().min() < 3
                    or speakers.nunique().min() < MIN_SPEAKERS
                ):
                    continue
                found.append(
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
    return found


def _correlation(values: pd.DataFrame, speakers: pd.DataFrame) -> tuple[float, float, float]:
    """Spearman's correlation of two columns, and its percentile interval."""
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

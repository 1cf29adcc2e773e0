"""Uncertainty of group means when ratings share any number of crossed factors.

`bench.stats.crossed` is for trials, which share source and target speakers. A rating also shares
its listener and its sentence with other ratings. Every factor is a random effect here: an interval
is about other listeners, speakers and sentences of the same kind.

The variances and covariances are solved for by moments, as in Gao and Owen 2017
(doi:10.1214/17-EJS1236), for two factors: the sums of squares of the ratings' deviations within the
levels of each factor have expectations that are linear in the variances. Each group (a system) has
variances of its own, and each pair of groups has a covariance of each factor: a listener who rates
one system high rates the others high too, which cancels in their difference.
`benchmarks/programs/listening.py` measures how often the intervals cover the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import nnls

from bench.stats.crossed import LEVEL, MIN_SPEAKERS


@dataclass(frozen=True)
class MeanEstimate:
    """A contrast of group means with its uncertainty.

    Attributes:
        value: the contrast; NaN if a group in it has no value.
        se: its standard error; NaN if it is not known.
        df: degrees of freedom of that error.
        parts: factor → its share of the squared standard error; "rating" is single ratings' share.
    """

    value: float
    se: float
    df: float
    parts: Mapping[str, float]

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """(low, high) by Student's distribution; NaN if the error is not known."""
        half = self.se * float(stats.t.ppf((1 + level) / 2, self.df))
        return self.value - half, self.value + half

    def p_of_no_difference(self) -> float:
        """Two-sided p of the true value being 0; NaN if the error is not known or 0."""
        if not self.se > 0:
            return float("nan")
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df))


class GroupMeans:
    """Means of groups of values that share levels of crossed factors.

    Args:
        values: (R,), finite.
        group: number of the group of each value, (R,); groups are 0 to G - 1.
        factors: name → number of each value's level, (R,). "listener" is treated as any other.
        groups: G.

    Attributes:
        means: of the groups, (G,); NaN where a group has no value.
        left_out: factors with fewer than `MIN_SPEAKERS` levels. Their variance is not known: the
            intervals are then about these levels alone.
    """

    def __init__(
        self,
        values: np.ndarray,
        group: np.ndarray,
        factors: Mapping[str, np.ndarray],
        groups: int,
    ) -> None:
        numbered = {k: np.unique(v, return_inverse=True)[1].ravel() for k, v in factors.items()}
        self.left_out = tuple(k for k, v in numbered.items() if v.max() + 1 < MIN_SPEAKERS)
        self.factors = tuple(k for k in numbered if k not in self.left_out)
        self._level = [numbered[k] for k in self.factors]
        self._levels = [int(v.max()) + 1 for v in self._level]
        self._group, self._groups = group, groups
        self._counts = np.bincount(group, minlength=groups).astype(float)
        sums = np.bincount(group, values, groups)
        self.means = np.where(self._counts > 0, sums / np.maximum(self._counts, 1), np.nan)
        self._residuals = values - self.means[group]
        self._of_group = [np.flatnonzero(group == g) for g in range(groups)]
        # of each factor: how many values, and the sum of residuals, by group and level
        self._n = [self._table(k, np.ones(len(values))) for k in range(len(self.factors))]
        self._sums = [self._table(k, self._residuals) for k in range(len(self.factors))]
        self._within, self._residual = self._variances()
        self._between: dict[tuple[int, int], np.ndarray] = {}

    def contrast(self, weights: np.ndarray | Sequence[float]) -> MeanEstimate:
        """The sum of the group means times `weights` (G,): (0, 1) is a mean, (-1, 1) a difference.

        The error is NaN if a group has fewer than two values, or every factor is left out.
        """
        row = np.asarray(weights, float)
        used = np.flatnonzero(row)
        value = float(row[used] @ self.means[used])
        unknown = MeanEstimate(value, np.nan, np.nan, {})
        if not self.factors or (self._counts[used] < 2).any():
            return unknown
        parts, free = [], []
        for k in range(len(self.factors)):
            shares = self._n[k][used] * (row[used] / self._counts[used])[:, None]  # (used, levels)
            covariance = self._covariance(k, used)
            parts.append(float(np.einsum("gl,gh,hl->", shares, covariance, shares)))
            levels = (self._n[k][used] > 0).any(axis=0).sum()
            free.append(max(float(levels) - 1, 1.0))
        parts.append(float((row[used] ** 2 * self._residual[used] / self._counts[used]).sum()))
        single = self._counts[used].sum() - sum(free) - len(used)
        free.append(max(float(single), min(free)))
        variance = sum(parts)
        if variance <= 0:
            return MeanEstimate(value, 0.0, min(free), {})
        # Satterthwaite's number takes the variances as known and is too large; the rarest levels'
        # is too small. Their geometric mean covers best, as in `bench.stats.crossed`.
        satterthwaite = variance**2 / float((np.square(parts) / np.array(free)).sum())
        df = float(np.sqrt(satterthwaite * min(free)))
        names = (*self.factors, "rating")
        shown = {n: p / variance for n, p in zip(names, parts, strict=True)}
        return MeanEstimate(value, float(np.sqrt(variance)), df, shown)

    def _table(self, factor: int, values: np.ndarray) -> np.ndarray:
        """Sums of values by group and level of a factor: (groups, levels)."""
        levels = self._levels[factor]
        cells = np.bincount(
            self._group * levels + self._level[factor], values, self._groups * levels
        )
        return cells.reshape(self._groups, levels)

    def _joint(self, group: int, one: int, other: int) -> np.ndarray:
        """Centred counts of a group's values by the levels of two factors: (levels, levels)."""
        rows = self._of_group[group]
        shape = self._levels[one], self._levels[other]
        cells = np.bincount(
            self._level[one][rows] * shape[1] + self._level[other][rows],
            minlength=shape[0] * shape[1],
        ).reshape(shape)
        product = np.outer(self._n[one][group], self._n[other][group])
        return cells - product / self._counts[group]

    def _variances(self) -> tuple[np.ndarray, np.ndarray]:
        """Each factor's variance in each group (K, G), and that of single values (G,)."""
        K = len(self.factors)
        within, residual = np.zeros((K, self._groups)), np.zeros(self._groups)
        self._joints: list[dict[tuple[int, int], np.ndarray]] = []
        for g in range(self._groups):
            joints = {}
            n = self._counts[g]
            if n >= 2:
                expected, observed = np.zeros((K + 1, K + 1)), np.zeros(K + 1)
                for k in range(K):
                    for j in range(k, K):
                        joints[k, j] = self._joint(g, k, j)
                        joints[j, k] = joints[k, j].T
                        expected[k, j] = expected[j, k] = np.square(joints[k, j]).sum()
                    expected[k, K] = expected[K, k] = n - np.square(self._n[k][g]).sum() / n
                    observed[k] = np.square(self._sums[k][g]).sum()
                expected[K, K] = n - 1
                observed[K] = np.square(self._residuals[self._of_group[g]]).sum()
                solved = _solved(expected, observed)
                within[:, g], residual[g] = solved[:K], solved[K]
            self._joints.append(joints)
        return within, residual

    def _covariance(self, factor: int, used: np.ndarray) -> np.ndarray:
        """The covariance of a factor's effects on these groups: positive semi-definite."""
        variances = self._within[factor][used]
        matrix = np.diag(variances)
        for i, a in enumerate(used):
            for j, b in enumerate(used[:i]):
                covariance = self._pair(int(b), int(a))[factor]
                limit = float(np.sqrt(variances[i] * variances[j]))
                matrix[i, j] = matrix[j, i] = np.clip(covariance, -limit, limit)
        if len(used) <= 2:
            return matrix
        eigen, vectors = np.linalg.eigh(matrix)
        return (vectors * np.clip(eigen, 0, None)) @ vectors.T

    def _pair(self, a: int, b: int) -> np.ndarray:
        """The covariances of the factors' effects on two groups, (K,)."""
        if (a, b) not in self._between:
            K = len(self.factors)
            expected, observed = np.zeros((K, K)), np.zeros(K)
            for k in range(K):
                observed[k] = self._sums[k][a] @ self._sums[k][b]
                for j in range(K):
                    expected[k, j] = (self._joints[a][k, j] * self._joints[b][k, j]).sum()
            scale = np.sqrt(np.maximum(np.abs(np.diag(expected)), 1e-12))
            scaled = expected / np.outer(scale, scale)
            solved = np.linalg.lstsq(scaled, observed / scale, rcond=1e-8)[0] / scale
            self._between[a, b] = solved
        return self._between[a, b]


def _solved(expected: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Variances behind sums of squares; none is negative."""
    scale = np.where(np.diag(expected) > 0, np.diag(expected), 1.0)
    scaled = expected / scale[:, None]
    try:
        variances = np.linalg.solve(scaled, observed / scale)
    except np.linalg.LinAlgError:  # two factors have the same levels
        variances = np.array([-1.0])
    if (variances < 0).any() or not np.isfinite(variances).all():
        variances, _ = nnls(scaled, observed / scale)
    return variances

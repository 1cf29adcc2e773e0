"""Uncertainty of pooled numbers over trials that share source speakers and target speakers.

Two methods are combined. Resampling source and target speakers independently (the pigeonhole
bootstrap, Owen 2007, doi:10.1214/07-AOAS122) gives the interval of a ratio of sums its skewed
shape, for every metric. All systems share the resamples, so that differences are paired. But the
width of such intervals is wrong in a known way: the noise of single trials counts three times
(Owen, theorem 3.2), and a dozen speakers are treated as if they were the population. So the width
is set by moments: the variances of speakers and of trials are solved for from the sums of squares
within sources, within targets and in total (the method of Gao and Owen 2017,
doi:10.1214/17-EJS1236), and their uncertainty is drawn too.

Rates without an upper limit, such as word error rates, have another shape. Few speakers and trials
hold most of the errors, and a sample that misses them has both a low rate and a small standard
error. So their draws are drawn out: see `_stretched`.
`benchmarks/programs/inference.py` measures how often all these intervals cover the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.optimize import nnls
from scipy.sparse import csgraph
from scipy.sparse.linalg import lsqr

RESAMPLES = 10_000
LEVEL = 0.95
MIN_SPEAKERS = 4  # on each side: with fewer the variance between speakers is hardly known
CHUNK = 1 << 24  # weights held at a time: 64 MB
ROOT = 4  # of a rate, whose standard error is taken to be the same everywhere: see `_stretched`


@dataclass(frozen=True)
class Components:
    """The variance of single trials by its sources, in the squared unit of the values.

    None is negative; all are NaN with one speaker on a side.

    Attributes:
        source: between source speakers.
        target: between target speakers.
        trial: the rest: of the trial itself and of the noise of its measurement.
    """

    source: float
    target: float
    trial: float


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the number; NaN if no trial was measured.
        se: its standard error; NaN with fewer than `MIN_SPEAKERS` on a side.
        df: degrees of freedom of that error.
        draws: (resamples,) values of the number in the resamples; empty if `se` is NaN.
        n: number of measured trials.
        least_p: the smallest p of no difference, see `_least_p`.
    """

    value: float
    se: float
    df: float
    draws: np.ndarray
    n: int
    least_p: float = 0.0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """(low, high) at this level, with 0 if `least_p` exceeds 1 - level; NaN if unknown."""
        if len(self.draws) == 0:
            return float("nan"), float("nan")
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        if self.least_p > 1 - level:
            reach = max(high - self.value, self.value - low, abs(self.value))
            low, high = self.value - reach, self.value + reach
        return float(low), float(high)

    def p_of_no_difference(self) -> float:
        """Two-sided p of the true value being 0; below `1 - level` if the interval excludes 0.

        Never exactly 0: the smallest value is 2 / (resamples + 1), and 1 / (resamples + 1) if all
        resamples are equal; nor below `least_p`. NaN if the interval is not known.
        """
        if len(self.draws) == 0:
            return float("nan")
        if self.se == 0:
            return 1.0 if self.value == 0 else max(self.least_p, 1 / (len(self.draws) + 1))
        tails = np.sum(self.draws <= 0), np.sum(self.draws >= 0)
        return float(min(1.0, max(self.least_p, 2 * (1 + min(tails)) / (len(self.draws) + 1))))


class Crossed:
    """Trials that share source speakers and target speakers.

    Args:
        source: each trial's source speaker, (N,).
        target: each trial's target speaker, (N,).
        resamples: how many times speakers are drawn.
        seed: of the draws. Speakers are drawn in the order of their names, so that the order of
            the trials changes nothing.
    """

    def __init__(
        self,
        source: Sequence[str],
        target: Sequence[str],
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self._source, self._sources = _numbered(source)
        self._target, self._targets = _numbered(target)
        self._resamples = resamples
        self._seed = seed
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None
        self._moments: dict[bytes, _Moments] = {}

    def ratios(
        self,
        numerators: np.ndarray,
        denominators: np.ndarray,
        unbounded: Sequence[bool] | None = None,
    ) -> list[Estimate]:
        """Sums of numerators over sums of denominators, with their uncertainty.

        Args:
            numerators: (N, K); NaN where a trial was not measured.
            denominators: (N, K), NaN in the same positions.
            unbounded: see `contrasts`.
        """
        return self.contrasts(numerators, denominators, np.eye(numerators.shape[1]), unbounded)

    def contrasts(
        self,
        numerators: np.ndarray,
        denominators: np.ndarray,
        weights: np.ndarray,
        unbounded: Sequence[bool] | None = None,
    ) -> list[Estimate]:
        """Weighted sums of the ratios, such as differences, resampled together.

        Args:
            numerators: (N, K); NaN where a trial was not measured.
            denominators: (N, K), NaN in the same positions.
            weights: (J, K): one row for each result; (1, -1) is a difference. The ratios of a row
                should cover the same trials: only then is the difference paired.
            unbounded: which of the K ratios are rates that cannot be negative and have no upper
                limit (`bench.metrics.Metric.unbounded`): their draws have another shape, see the
                module. None for none of them.
        """
        rates = np.zeros(numerators.shape[1], bool)
        if unbounded is not None:
            rates[:] = unbounded
        missing = np.isnan(numerators) | np.isnan(denominators)
        numerators = np.where(missing, 0.0, numerators)
        denominators = np.where(missing, 0.0, denominators)
        totals = denominators.sum(axis=0)
        usable = totals > 0
        values = np.where(usable, numerators.sum(axis=0) / np.where(usable, totals, 1), np.nan)
        residuals = numerators - np.where(usable, values, 0.0) * denominators  # (N, K)
        influence = residuals / np.where(usable, totals, 1)
        wide = [self._moments_of(~missing[:, k]) for k in range(len(totals))]
        deviations: np.ndarray | None = None
        estimates = []
        for row in weights:
            used = np.flatnonzero(row)
            present = ~missing[:, used].any(axis=1)
            value = float(row[used] @ values[used])
            n = int(present.sum())
            if np.isnan(value) or any(wide[k].speakers < MIN_SPEAKERS for k in used):
                estimates.append(Estimate(value, np.nan, np.nan, np.empty(0), n))
                continue
            if deviations is None:
                deviations = self._deviations(residuals, denominators)
            joint = influence[:, used] @ row[used]
            moments = wide[used[0]] if len(used) == 1 else self._moments_of(present)
            se, df = moments.error(self._squares(joint))
            drawn = deviations[:, used] @ row[used]
            terms = None
            if rates[used].any():
                of_terms = deviations[:, used]
                below = _below(of_terms)
                terms = _Terms(row[used], values[used], rates[used], of_terms, below)
            least_p = _least_p(row[used], numerators[present][:, used] / totals[used])
            estimate = self._estimate(value, se, df, drawn, n, terms)
            estimates.append(replace(estimate, least_p=least_p))
        return estimates

    def components(self, values: np.ndarray) -> Components:
        """Splits the variance of `values` (N,), NaN where not measured, by its sources.

        The trials' part is the residual after an effect of every speaker is fitted, over its
        degrees of freedom (Henderson's method III, Searle, Casella and McCulloch 1992, section
        5.5). The speakers' parts follow from the sums of squares within sources and within targets.
        """
        present = ~np.isnan(values)
        if self._moments_of(present).speakers < 2:
            return Components(np.nan, np.nan, np.nan)
        residuals = np.where(present, values - np.nanmean(values), 0.0)
        trial = _left_over(self._source[present], self._target[present], residuals[present])
        return Components(*self._moments_of(present).solve(self._squares(residuals), trial))

    def totals(self, columns: np.ndarray) -> np.ndarray:
        """The sums over trials of `columns` (N, K) in every resample: (resamples, K)."""
        sources, targets = self._draws()
        pairs, cell = np.unique(self._source * self._targets + self._target, return_inverse=True)
        cells = np.stack([np.bincount(cell, c, len(pairs)) for c in columns.T]).astype(np.float32)
        source, target = np.divmod(pairs, self._targets)
        out = np.empty((self._resamples, columns.shape[1]))
        step = max(1, CHUNK // len(pairs))
        for start in range(0, self._resamples, step):
            part = slice(start, start + step)
            weights = sources[part][:, source].astype(np.float32)
            weights *= targets[part][:, target]
            out[part] = weights @ cells.T
        return out

    def _deviations(self, residuals: np.ndarray, denominators: np.ndarray) -> np.ndarray:
        """Each ratio in every resample less its value: (resamples, K); NaN if not drawn."""
        distinct, column = np.unique(denominators, axis=1, return_inverse=True)
        drawn = self.totals(np.hstack([residuals, distinct]))
        K = residuals.shape[1]
        below = drawn[:, K:][:, column.ravel()]
        return np.where(below > 0, drawn[:, :K] / np.where(below > 0, below, 1), np.nan)

    def _estimate(
        self,
        value: float,
        se: float,
        df: float,
        deviations: np.ndarray,
        n: int,
        terms: "_Terms | None",
    ) -> Estimate:
        """The estimate of a contrast; with `terms` if there are unbounded rates in it."""
        known = np.isfinite(deviations)
        deviations = deviations[known]
        spread = deviations.std() if len(deviations) else 0.0
        if not spread > 0 or se == 0:
            return Estimate(value, 0.0, df, np.full(self._resamples, value), n)
        # A normal over the root of an independent chi-square is Student's: the standard error is
        # itself an estimate, which is less certain with fewer speakers.
        error = np.sqrt(df / np.random.default_rng(self._seed + 1).chisquare(df, len(deviations)))
        if terms is None:
            return Estimate(value, se, df, value + deviations * (se / spread) * error, n)
        return Estimate(value, se, df, value + terms.drawn(known, se / spread * error), n)

    def _squares(self, values: np.ndarray) -> np.ndarray:
        """Sums of squares of the sums within sources, within targets, and of single values."""
        by_source = np.bincount(self._source, values, self._sources)
        by_target = np.bincount(self._target, values, self._targets)
        return np.array([by_source @ by_source, by_target @ by_target, values @ values])

    def _moments_of(self, present: np.ndarray) -> "_Moments":
        key = np.packbits(present).tobytes()
        if key not in self._moments:
            self._moments[key] = _Moments(
                self._source[present], self._target[present], self._targets
            )
        return self._moments[key]

    def _draws(self) -> tuple[np.ndarray, np.ndarray]:
        if self._drawn is None:
            rng = np.random.default_rng(self._seed)
            self._drawn = (
                _times_drawn(rng, self._sources, self._resamples),
                _times_drawn(rng, self._targets, self._resamples),
            )
        return self._drawn


@dataclass(frozen=True)
class _Terms:
    """The ratios of a contrast in which there are unbounded rates.

    Attributes:
        weights: (k,), see `Crossed.contrasts`.
        values: the ratios, (k,).
        rates: which of them are unbounded rates, (k,).
        deviations: of each ratio in every resample, (resamples, k).
        below: factors of the negative ones of rates, (k,).
    """

    weights: np.ndarray
    values: np.ndarray
    rates: np.ndarray
    deviations: np.ndarray
    below: np.ndarray

    def drawn(self, known: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Deviations of the contrast in the resamples `known`, each times its `scale`."""
        scaled = self.deviations[known] * scale[:, None]
        stretched = _stretched(self.values, scaled * np.where(scaled < 0, self.below, 1.0))
        return np.where(self.rates, stretched, scaled) @ self.weights


class _Moments:
    """The expected sums of squares of a design, by variance component.

    Args:
        source: numbers of the source speakers, (N,).
        target: numbers of the target speakers, (N,).
        targets: one more than the largest number of a target speaker.
    """

    def __init__(self, source: np.ndarray, target: np.ndarray, targets: int) -> None:
        self.n = N = len(source)
        s, t = np.bincount(source), np.bincount(target)
        self.source_speakers, self.target_speakers = int((s > 0).sum()), int((t > 0).sum())
        self.speakers = min(self.source_speakers, self.target_speakers)
        if self.speakers < 2:
            return
        pairs, trials = np.unique(source * targets + target, return_counts=True)
        a, b = np.divmod(pairs, targets)
        s, t, trials = s.astype(float), t.astype(float), trials.astype(float)
        self._ss, self._tt = float(s @ s), float(t @ t)
        both = float(trials @ trials) - 2 * float((s[a] * trials) @ t[b]) / N
        both += self._ss * self._tt / N**2
        # Rows: within sources, within targets, all; columns: variance of sources, targets, trials.
        # Each is the expected square of sums of residuals about the mean of all trials.
        of_sources = self._ss - 2 * float((s**3).sum()) / N + self._ss**2 / N**2
        of_targets = self._tt - 2 * float((t**3).sum()) / N + self._tt**2 / N**2
        within_source, within_target = N - self._ss / N, N - self._tt / N
        self._expected = np.array(
            [
                [of_sources, both, within_source],
                [both, of_targets, within_target],
                [within_source, within_target, N - 1],
            ]
        )

    def solve(self, squares: np.ndarray, trial: float | None = None) -> tuple[float, float, float]:
        """The variances of sources, targets and trials behind sums of squares; none is negative.

        Args:
            squares: see `Crossed._squares`.
            trial: the variance of trials, if it is known.
        """
        known = 3 if trial is None else 2
        expected, wanted = self._expected[:known, :known], squares[:known]
        if trial is not None:
            wanted = wanted - trial * self._expected[:2, 2]
        scale = np.diag(expected)
        try:
            variances = np.linalg.solve(expected / scale[:, None], wanted / scale)
        except np.linalg.LinAlgError:  # each speaker has one trial: the variances are confounded
            variances = np.array([-1.0])
        if (variances < 0).any():
            variances, _ = nnls(expected / scale[:, None], wanted / scale)
        source, target, *rest = map(float, variances)
        return source, target, rest[0] if trial is None else trial

    def error(self, squares: np.ndarray) -> tuple[float, float]:
        """Standard error of a sum over trials, and its degrees of freedom."""
        source, target, trial = self.solve(squares)
        parts = np.array([source * self._ss, target * self._tt, trial * self.n])
        variance = float(parts.sum())
        fewest = self.speakers - 1
        single = max(self.n - self.source_speakers - self.target_speakers + 1, fewest)
        if variance <= 0:
            return 0.0, float(fewest)
        free = np.array([self.source_speakers - 1, self.target_speakers - 1, single])
        # Satterthwaite's number takes the components as known and is too large; the number of
        # speakers on the smaller side is too small. Intervals with their geometric mean have the
        # best coverage (benchmarks/programs/inference.py).
        satterthwaite = variance**2 / float((parts**2 / free).sum())
        return float(np.sqrt(variance)), float(np.sqrt(satterthwaite * fewest))


def _least_p(weights: np.ndarray, parts: np.ndarray) -> float:
    """The smallest p that a sign test of the trials allows, where resamples cannot tell; else 0.

    Of m trials in which two alike systems differ, all favour one with p = 2^(1 - m). Where others
    do not, or all differ by one amount, no resample has the other sign. `weights` (K,) of a
    difference sum to 0; `parts` (N, K) are the measured trials' in each ratio.
    """
    differences, rounding = parts @ weights, 1e-12 * np.abs(parts).max(initial=0.0)
    differ = np.abs(differences) > rounding
    are_equal = np.all(np.abs(differences - differences[:1]) <= rounding)
    resamples_can_tell = abs(weights.sum()) > 1e-9 or (differ.all() and not are_equal)
    return 0.0 if resamples_can_tell else min(1.0, 2.0 ** (1 - int(differ.sum())))


def _left_over(source: np.ndarray, target: np.ndarray, values: np.ndarray) -> float | None:
    """Residual variance after an effect of each speaker is fitted; None with no freedom left."""
    trials = len(values)
    sources, targets = int(source.max()) + 1, int(target.max()) + 1
    rows = np.tile(np.arange(trials), 2)
    design = sparse.csr_array(
        (np.ones(2 * trials), (rows, np.concatenate([source, sources + target]))),
        shape=(trials, sources + targets),
    )
    parts, _ = csgraph.connected_components(design.T @ design)
    absent = int((design.sum(axis=0) == 0).sum())  # each is a component of the graph
    free = trials - (sources + targets - absent) + (parts - absent)
    if free <= 0:
        return None
    effects = lsqr(design, values, atol=1e-10, btol=1e-10)[0]
    return float(((values - design @ effects) ** 2).sum() / free)


def _stretched(values: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Deviations of rates, drawn out above 0.

    Where difficulty multiplies errors, the standard error of a rate grows with the rate. That of
    its `ROOT`-th root is then nearly the same everywhere (Box and Cox 1964), and the largest rate
    that is consistent with a value v is v (1 + d / (ROOT v))^ROOT, not v + d. Of the roots 3, 4, 5
    and 10, 4 is the first whose intervals cover 93% of the truths (docs/methods/statistics.md).

    Args:
        values: the rates, (K,).
        deviations: from them, (resamples, K).
    """
    positive = values > 0
    shares = np.maximum(deviations, 0) / np.where(positive, values, 1.0)
    drawn_out = values * ((1 + shares / ROOT) ** ROOT - 1)
    return np.where(positive & (deviations > 0), drawn_out, deviations)


def _below(deviations: np.ndarray) -> np.ndarray:
    """Factors that give negative deviations the root mean square of all: (K,), at least 1.

    No resample has a rate below 0. With few errors all negative deviations are therefore small, and
    a rate of 0 would look impossible beside a single error.

    Args:
        deviations: (resamples, K), NaN where not drawn.
    """
    squares = np.nan_to_num(deviations) ** 2
    negative = deviations < 0
    below = (squares * negative).sum(axis=0) / np.maximum(negative.sum(axis=0), 1)
    of_all = squares.sum(axis=0) / np.maximum(np.isfinite(deviations).sum(axis=0), 1)
    return np.sqrt(np.maximum(of_all / np.where(below > 0, below, 1.0), 1.0))


def _numbered(names: Sequence[str]) -> tuple[np.ndarray, int]:
    known, numbers = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    return numbers.ravel(), len(known)


def _times_drawn(rng: np.random.Generator, speakers: int, resamples: int) -> np.ndarray:
    """How often each speaker is drawn in each resample: (resamples, speakers)."""
    drawn = np.empty((resamples, speakers), np.uint8)
    for start in range(0, resamples, 500):
        stop = min(start + 500, resamples)
        counts = rng.multinomial(speakers, np.full(speakers, 1 / speakers), size=stop - start)
        drawn[start:stop] = counts
    return drawn

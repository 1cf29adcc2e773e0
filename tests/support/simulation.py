"""Designs of trials and scores drawn with known effects, to check intervals and tests against."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bench.stats.crossed import Crossed


def ring(speakers: int = 18, each: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The design of the embedded suites: each speaker is source and target of `each` trials.

    Returns:
        (N,) numbers of the source and of the target speaker of every trial; they always differ.
    """
    source = np.repeat(np.arange(speakers), each)
    return source, (source + 1 + np.tile(np.arange(each), speakers)) % speakers


def grid(sources: int, targets: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Every source with every target, of which a share is kept: see `ring`."""
    source, target = np.divmod(np.arange(sources * targets), targets)
    kept = np.random.default_rng(0).random(len(source)) < share
    return source[kept], target[kept]


def scattered(sources: int, targets: int, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Some pairs of a grid, drawn until every speaker has a trial: see `ring`."""
    rng = np.random.default_rng(0)
    while True:
        kept = np.sort(rng.permutation(sources * targets)[:trials])
        source, target = np.divmod(kept, targets)
        if len(np.unique(source)) == sources and len(np.unique(target)) == targets:
            return source, target


@dataclass(frozen=True)
class WordErrors:
    """A population of word errors that few speakers and trials hold most of.

    Each speaker's factor is drawn from a gamma distribution of mean 1. A trial's errors are Poisson
    of its words, the system's rate and both factors, which all systems share. In a burst, some
    trials of a system have a large part of their words wrong in addition.

    Attributes:
        rates: each system's errors per word outside bursts.
        bursts: each system's share of trials with a burst.
        part: the least and the largest part of the words that is wrong in a burst.
        shape: of the gamma distribution; its variance is 1 / shape.
    """

    rates: tuple[float, ...] = (0.1,)
    bursts: tuple[float, ...] = (0.04,)
    part: tuple[float, float] = (0.5, 1.0)
    shape: float = 1.0

    @property
    def truths(self) -> np.ndarray:
        """Each system's true word error rate, (systems,)."""
        return np.array(self.rates) + np.array(self.bursts) * np.mean(self.part)

    def drawn(
        self, source: np.ndarray, target: np.ndarray, simulations: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors (systems, trials, simulations) and words (trials, simulations)."""
        size = len(source), simulations
        words = rng.integers(5, 31, size).astype(float)
        gamma = [
            rng.gamma(self.shape, 1 / self.shape, (of.max() + 1, simulations))[of]
            for of in (source, target)
        ]
        systems = []
        for rate, burst in zip(self.rates, self.bursts, strict=True):
            errors = rng.poisson(rate * words * gamma[0] * gamma[1]).astype(float)
            wrong = np.round(words * rng.uniform(*self.part, size))
            systems.append(errors + (rng.random(size) < burst) * wrong)
        return np.stack(systems), words


def cluster_robust(
    source: np.ndarray, target: np.ndarray, influence: np.ndarray, level: float = 0.95
) -> np.ndarray:
    """Half widths of intervals by standard errors that are robust to two-way clusters.

    The variance is that between source speakers plus that between target speakers less that between
    their pairs, each with the correction G / (G - 1) for G clusters; Student's quantile has one
    degree of freedom less than the speakers of the smaller side (Cameron, Gelbach and Miller 2011,
    doi:10.1198/jbes.2010.07136, section 2.3). Where the difference is not positive, the larger of
    the first two stands for it.

    Args:
        source: number of the source speaker of every trial, (N,).
        target: number of the target speaker of every trial, (N,).
        influence: (N, K): what each trial adds to each estimate's error to first order.
        level: of the intervals.

    Returns:
        (K,), in the unit of the estimates.
    """
    variances, clusters = [], []
    for labels in (source, target, source * (target.max() + 1) + target):
        known, number = np.unique(labels, return_inverse=True)
        sums = np.zeros((len(known), influence.shape[1]))
        np.add.at(sums, number, influence)
        clusters.append(len(known))
        variances.append((sums**2).sum(axis=0) * len(known) / (len(known) - 1))
    of_sources, of_targets, of_pairs = variances
    variance = of_sources + of_targets - of_pairs
    variance = np.where(variance > 0, variance, np.maximum(of_sources, of_targets))
    quantile = stats.t.ppf((1 + level) / 2, min(clusters[:2]) - 1)
    return quantile * np.sqrt(variance)


def drawn(
    source: np.ndarray,
    target: np.ndarray,
    effects: tuple[float, float, float],
    simulations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scores of mean 0: (trials, simulations).

    Args:
        source: number of the source speaker of every trial, (N,).
        target: number of the target speaker of every trial, (N,).
        effects: standard deviations of the source speaker's, target speaker's and trial's effect.
        simulations: number of columns.
        rng: source of randomness.
    """
    by_source = rng.normal(0, effects[0], (source.max() + 1, simulations))
    by_target = rng.normal(0, effects[1], (target.max() + 1, simulations))
    return (
        by_source[source]
        + by_target[target]
        + rng.normal(0, effects[2], (len(source), simulations))
    )


def intervals(
    source: np.ndarray,
    target: np.ndarray,
    numerators: np.ndarray,
    denominators: np.ndarray,
    unbounded: bool = False,
) -> dict[str, np.ndarray]:
    """95% intervals of ratios, or of differences of ratios, by several methods.

    Args:
        source: number of the source speaker of every trial, (N,).
        target: number of the target speaker of every trial, (N,).
        numerators: (systems, N, simulations): of one system, or of two whose difference (second
            less first) is meant.
        denominators: (N, simulations), of all systems.
        unbounded: whether the ratios are rates without an upper limit: see `bench.stats.crossed`.

    Returns:
        (simulations, 2) by "ours" (`bench.stats.crossed`), "mean's" (ours without regard to
        `unbounded`), "two-way" (`cluster_robust`), "crossed" (bootstrap over both kinds of
        speakers) and "trials" (bootstrap over trials).
    """
    systems, _, simulations = numerators.shape
    signs = np.array([1.0] if systems == 1 else [-1.0, 1.0])
    crossed = Crossed(source, target, resamples=2000)
    flat = np.hstack(list(numerators)), np.tile(denominators, systems)
    contrasts = np.kron(signs, np.eye(simulations))

    def of_module(unbounded: bool) -> np.ndarray:
        rates = [unbounded] * flat[0].shape[1]
        return np.array([e.interval() for e in crossed.contrasts(*flat, contrasts, rates)])

    def of_sums(sums: np.ndarray) -> np.ndarray:
        """The quantiles of resampled sums of numerators and of denominators."""
        *above, below = np.split(sums, systems + 1, axis=1)
        some = (below > 0).all(axis=1)  # without a trial, nothing is known
        ratios = (np.tensordot(signs, np.stack(above), 1) / np.where(below > 0, below, 1))[some]
        return np.quantile(ratios, [0.025, 0.975], axis=0).T

    totals = denominators.sum(axis=0)
    values = numerators.sum(axis=1) / totals  # (systems, simulations)
    influence = (numerators - values[:, None] * denominators) / totals
    half = cluster_robust(source, target, np.tensordot(signs, influence, 1))
    columns = np.hstack([flat[0], denominators])
    rng = np.random.default_rng(1)
    trials = rng.multinomial(len(source), np.full(len(source), 1 / len(source)), size=2000)
    means = of_module(False)
    return {
        "ours": of_module(True) if unbounded else means,
        "mean's": means,
        "two-way": (signs @ values)[:, None] + np.stack([-half, half], axis=1),
        "crossed": of_sums(crossed.totals(columns)),
        "trials": of_sums(trials @ columns),
    }


def contains(bounds: np.ndarray, truth: float) -> float:
    """The share of the intervals (simulations, 2) that contain the truth."""
    return float(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])))


def covered(source: np.ndarray, target: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """The share of simulations whose 95% interval of the mean contains 0, by method.

    Args:
        source: number of the source speaker of every trial, (N,).
        target: number of the target speaker of every trial, (N,).
        values: (trials, simulations).

    Returns:
        The methods of `intervals` but "mean's", which is "ours" here → share.
    """
    bounds = intervals(source, target, values[None], np.ones_like(values))
    del bounds["mean's"]
    return {name: contains(of_method, 0.0) for name, of_method in bounds.items()}

"""Designs of trials and scores drawn with known effects, to check intervals and tests against."""

import numpy as np

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


def covered(
    source: np.ndarray, target: np.ndarray, values: np.ndarray, truth: float = 0.0
) -> dict[str, float]:
    """The share of simulations whose 95% interval of the mean contains the truth.

    Args:
        source: number of the source speaker of every trial, (N,).
        target: number of the target speaker of every trial, (N,).
        values: (trials, simulations).
        truth: the true mean.

    Returns:
        "ours" (`bench.stats.crossed`), "crossed" (bootstrap over both kinds of speakers) and
        "trials" (bootstrap over trials) → share.
    """
    crossed = Crossed(source, target, resamples=2000)
    ones = np.ones_like(values)
    ours = np.array([e.interval() for e in crossed.ratios(values, ones)])
    sums = crossed.totals(np.column_stack([values, ones[:, 0]]))
    sums = sums[sums[:, -1] > 0]
    bare = np.quantile(sums[:, :-1] / sums[:, -1:], [0.025, 0.975], axis=0).T
    rng = np.random.default_rng(1)
    trials = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=2000)
    plain = np.quantile(trials @ values / len(values), [0.025, 0.975], axis=0).T
    return {
        name: float(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])))
        for name, bounds in (("ours", ours), ("crossed", bare), ("trials", plain))
    }

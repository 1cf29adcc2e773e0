"""How large a listening test must be: simulated from variance components. Reads no file.

A rating is the system's mean plus independent effects of the listener, of the listener with the
system, of the sentence, of the sentence with the system, and noise; it is rounded to the scale. The
design is that of `reports.listening.design`: every listener rates each of the trials once, in turns
under another system.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from bench.errors import UserError

LEVEL = 0.95  # of intervals
SIMULATED = 300  # tests for each size
MOST_LISTENERS = 400
QUALITY = 3.7  # mean rating of the simulated systems: where published systems lie


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the effects on a rating, on the scale of the test.

    The defaults are assumptions for a five-point test, not measurements: give earlier ratings.

    Attributes:
        listener: of a listener's mean.
        taste: of a listener's preference for a system.
        sentence: of a trial's mean.
        item: of one system's success with one trial.
        noise: of one rating.
    """

    listener: float = 0.45
    taste: float = 0.2
    sentence: float = 0.25
    item: float = 0.3
    noise: float = 0.75

    @classmethod
    def of_ratings(cls, ratings: pd.DataFrame) -> "Spread":
        """Estimated from ratings by products of pairs that share an effect (method of moments).

        Args:
            ratings: columns listener, system, trial_id, rating.

        Raises:
            UserError: if the ratings have no pairs that separate listeners, trials and noise.
        """
        table = ratings[["listener", "system", "trial_id", "rating"]].copy()
        table["rating"] -= table.groupby("system")["rating"].transform("mean")
        total = float(table["rating"].var(ddof=0))
        same: dict[tuple[str, ...], tuple[float, int]] = {
            keys: _pairs(table, keys)
            for keys in (
                ("listener",),
                ("listener", "system"),
                ("trial_id",),
                ("trial_id", "system"),
                ("listener", "trial_id"),
            )
        }

        def product(wide: tuple[str, ...], *narrow: tuple[str, ...]) -> float:
            """Mean product over pairs that share `wide` and none of the `narrow`."""
            amount, count = same[wide]
            for keys in narrow:
                amount, count = amount - same[keys][0], count - same[keys][1]
            return amount / count if count else float("nan")

        listener = product(("listener",), ("listener", "system"), ("listener", "trial_id"))
        taste = product(("listener", "system")) - listener
        sentence = product(("trial_id",), ("trial_id", "system"), ("listener", "trial_id"))
        item = product(("trial_id", "system")) - sentence
        parts = np.array([listener, taste, sentence, item])
        if not np.isfinite(parts).all() or table.empty:
            raise UserError(
                "the earlier ratings do not tell listeners and trials apart: each listener must "
                "rate several trials, and each trial needs several listeners and systems"
            )
        parts = np.maximum(parts, 0)
        noise = max(total - parts.sum(), 0.0)
        return cls(*map(float, np.sqrt([*parts, noise])))


@dataclass(frozen=True)
class Size:
    """A test of a certain size and what it can tell.

    Attributes:
        trials: that each listener rates.
        listeners: how many.
        half_width: of the 95 % interval of one system's mean rating.
        detectable: smallest difference of two systems that the test detects with the wanted power.
    """

    trials: int
    listeners: int
    half_width: float
    detectable: float

    @property
    def votes(self) -> int:
        """Ratings in all."""
        return self.trials * self.listeners


def simulate(
    spread: Spread,
    systems: int,
    trials: int,
    listeners: int,
    scale: tuple[float, float, float] = (1, 5, 1),
    power: float = 0.8,
    seed: int = 1,
) -> Size:
    """Simulates tests of equally good systems, and measures how their means scatter.

    Args:
        spread: of the effects.
        systems: how many conditions.
        trials: that each listener rates; every one is another sentence.
        listeners: how many.
        scale: lowest, highest and step of a rating.
        power: wanted chance to detect `detectable`.
        seed: of the simulation.
    """
    rng = np.random.default_rng([seed, systems, trials, listeners])
    t = np.arange(trials)
    turn = (t[None] + np.arange(listeners)[:, None]) % systems  # (L, N): the system of each rating
    counts = np.bincount(turn.ravel(), minlength=systems)
    lowest, highest, step = scale
    middle = lowest + (QUALITY - 1) / 4 * (highest - lowest)
    means = np.empty((SIMULATED, systems))
    for n in range(SIMULATED):
        rating = middle + rng.normal(0, spread.noise, turn.shape)
        rating += rng.normal(0, spread.listener, (listeners, 1))
        rating += rng.normal(0, spread.sentence, (1, trials))
        rating += np.take_along_axis(rng.normal(0, spread.taste, (listeners, systems)), turn, 1)
        rating += rng.normal(0, spread.item, (trials, systems))[t, turn]
        rating = np.clip(np.round((rating - lowest) / step) * step + lowest, lowest, highest)
        means[n] = np.bincount(turn.ravel(), rating.ravel(), systems) / counts
    of_one = float(means.std(0, ddof=1).mean())
    differences = means[:, 1:] - means[:, :-1]
    of_two = float(differences.std(0, ddof=1).mean())
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return Size(trials, listeners, z * of_one, (z + NormalDist().inv_cdf(power)) * of_two)


def smallest(
    spread: Spread,
    systems: int,
    trials: int,
    half_width: float | None = None,
    difference: float | None = None,
    scale: tuple[float, float, float] = (1, 5, 1),
    power: float = 0.8,
    seed: int = 1,
) -> Size | None:
    """The smallest number of listeners, a multiple of `systems`, that is enough.

    Returns:
        The size; None if `MOST_LISTENERS` are too few, because the trials are too few.
    """

    def size(squares: int) -> Size:
        return simulate(spread, systems, trials, squares * systems, scale, power, seed)

    def enough(candidate: Size) -> bool:
        return (half_width is None or candidate.half_width <= half_width) and (
            difference is None or candidate.detectable <= difference
        )

    low, high = 0, max(MOST_LISTENERS // systems, 1)
    best = size(high)
    if not enough(best):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        candidate = size(middle)
        if enough(candidate):
            high, best = middle, candidate
        else:
            low = middle
    return best


def votes_of_preference(difference: float, spread: Spread, power: float = 0.8) -> tuple[float, int]:
    """How often listeners prefer the better of two systems, and the AB votes that show it.

    Listeners compare two clips of one sentence; both ratings have the noise and the effect of the
    item (Thurstone's case V), while effects of listener and sentence cancel out. The votes are for
    an exact binomial test in the normal approximation, at 5 % and without ties, and independent.

    Returns:
        The share of votes for the better system, and the number of votes.
    """
    scatter = np.sqrt(2 * (spread.noise**2 + spread.item**2 + spread.taste**2))
    share = NormalDist().cdf(difference / scatter) if scatter else 1.0
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    excess = share - 0.5
    if excess <= 0:
        raise UserError(f"difference={difference:g}: must be more than 0")
    root = z * 0.5 + NormalDist().inv_cdf(power) * np.sqrt(share * (1 - share))
    return share, int(np.ceil((root / excess) ** 2))


def too_near(means: pd.Series, detectable: float) -> list[tuple[str, str, float]]:
    """Pairs of systems whose means differ by less than a test can detect."""
    ordered = means.sort_values(ascending=False)
    return [
        (str(a), str(b), float(ordered[a] - ordered[b]))
        for i, a in enumerate(ordered.index)
        for b in ordered.index[i + 1 :]
        if ordered[a] - ordered[b] < detectable
    ]


def _pairs(table: pd.DataFrame, keys: Sequence[str]) -> tuple[float, int]:
    """Sum of products of ratings, and their number, over ordered pairs that share the keys."""
    groups = table.groupby(list(keys))["rating"]
    sums, sizes = groups.sum(), groups.size()
    amount = float((sums**2).sum() - (table["rating"] ** 2).sum())
    return amount, int((sizes * (sizes - 1)).sum())

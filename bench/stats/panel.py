"""Ratings by listeners, as arrays: who rated which utterance, and what panels of them agree on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.stats.coefficients import COEFFICIENTS, changes, coefficients
from bench.stats.crossed import MIN_SPEAKERS

SPLITS = 100  # of the listeners into halves


@dataclass(frozen=True)
class Panel:
    """The ratings of one question over one suite. An utterance is one system's output of a trial.

    Attributes:
        system: number of each utterance's system, (U,).
        trial: number of each utterance's trial, (U,).
        utterance: number of the utterance that each rating is of, (R,).
        listener: number of the listener who gave it, (R,).
        rating: the ratings, (R,).
    """

    system: np.ndarray
    trial: np.ndarray
    utterance: np.ndarray
    listener: np.ndarray
    rating: np.ndarray

    @property
    def listeners(self) -> int:
        """The number of listeners who rated something."""
        return len(np.unique(self.listener))

    def means(self) -> np.ndarray:
        """The mean rating of each utterance, (U,); NaN where there is none."""
        return _means(self.utterance, self.rating, len(self.system))

    def part(self, kept: np.ndarray) -> "Panel":
        """The panel over the utterances of this mask, (U,), numbered anew."""
        number = np.cumsum(kept) - 1
        rated = kept[self.utterance]
        return Panel(
            self.system[kept],
            self.trial[kept],
            number[self.utterance[rated]],
            self.listener[rated],
            self.rating[rated],
        )

    def deviations(self, biased: bool) -> np.ndarray:
        """Each rating less the mean of its utterance, (R,).

        Args:
            biased: whether a listener who rates everything higher keeps that deviation. Where all
                rate all it moves no coefficient and is left out in any case.
        """
        away = self.rating - self.means()[self.utterance]
        if not biased or len(self.rating) == len(self.system) * self.listeners:
            away = away - _means(self.listener, away, self.listener.max() + 1)[self.listener]
        return away

    def excess(self, rows: Sequence[np.ndarray], noise: Sequence[np.ndarray]) -> np.ndarray:
        """The covariance that the listeners add to the trials': (K, K), positive semi-definite.

        The noise of single ratings is in the variance between trials already. It is the part of the
        variance between listeners that is left if the ratings of one listener were of different
        people, trial by trial (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136,
        subtract it in the same way).

        Args:
            rows: K arrays (R,): what each rating adds to K numbers.
            noise: the same without the bias of the listeners.
        """
        if self.listeners < 2:
            return np.zeros((len(rows), len(rows)))
        count = self.listener.max() + 1
        cell = np.unique(self.trial[self.utterance] * count + self.listener, return_inverse=True)[1]
        between = np.stack([np.bincount(self.listener, row) for row in rows])
        within = np.stack([np.bincount(cell.ravel(), row) for row in noise])
        values, vectors = np.linalg.eigh(between @ between.T - within @ within.T)
        return (vectors * np.clip(values, 0, None)) @ vectors.T

    def influences(self, x: np.ndarray, biased: bool) -> np.ndarray:
        """What each rating adds to the coefficients with the metric x (U,): (4, R).

        It is the change if the rating were left out (the jackknife), about its mean within the
        utterance: leaving out any rating makes the mean less certain, and that is no difference
        between listeners.
        """
        n = np.bincount(self.utterance, minlength=len(self.system))[self.utterance]
        several = n > 1
        out = np.zeros((len(COEFFICIENTS), len(self.rating)))
        at, means = self.utterance[several], self.means()
        away = self.deviations(biased)[several] / (n[several] - 1)
        moved = changes(x, means, at, means[at] - away)
        for row, change in zip(out, moved, strict=True):
            centred = change - _means(at, change, len(self.system))[at]
            row[several] = -np.sqrt((n[several] - 1) / n[several]) * centred
        return out

    def system_means(self, values: np.ndarray, systems: np.ndarray) -> np.ndarray:
        """The mean over utterances of each of these systems; NaN where none has a value."""
        present = ~np.isnan(values)
        means = _means(self.system[present], values[present], self.system.max() + 1)
        return means[systems]


@dataclass(frozen=True)
class Ceiling:
    """How well listeners predict listeners, by the coefficients of `COEFFICIENTS`.

    Attributes:
        half: one half of the listeners against the other half, mean over the splits, (4,).
        panel: all of them against as many others, by Spearman and Brown's formula; NaN for Kendall
            and pairs, (4,).
        one: one listener against the mean of the others, mean over listeners, (4,).
        n: utterances or systems that both halves rated, the fewest in any split.
    """

    half: np.ndarray
    panel: np.ndarray
    one: np.ndarray
    n: int


def ceiling(panel: Panel, per_system: bool, splits: int = SPLITS, seed: int = 0) -> Ceiling:
    """How well listeners predict listeners; NaN with fewer than `MIN_SPEAKERS` listeners.

    Args:
        panel: the ratings.
        per_system: over means of systems, not of single utterances.
        splits: how many; 0 for no ceiling.
        seed: of the splits.
    """
    missing = np.full(len(COEFFICIENTS), np.nan)
    listeners = np.unique(panel.listener)
    if len(listeners) < MIN_SPEAKERS or splits == 0:
        return Ceiling(missing, missing, missing, 0)
    rng = np.random.default_rng(seed)
    halves, counts = [], []
    for _ in range(splits):
        chosen = rng.permutation(listeners)[: len(listeners) // 2]
        values, n = _between(panel, np.isin(panel.listener, chosen), per_system)
        halves.append(values)
        counts.append(n)
    single = [_between(panel, panel.listener == who, per_system)[0] for who in listeners]
    half, one = _mean(halves), _mean(single)
    all_of_them = 2 * half / (1 + half)
    all_of_them[2:] = np.nan
    return Ceiling(half, all_of_them, one, min(counts))


def _between(panel: Panel, first: np.ndarray, per_system: bool) -> tuple[np.ndarray, int]:
    """The coefficients between the listeners of a mask and the others; over how many values."""
    size = len(panel.system)
    a, b = (_means(panel.utterance[m], panel.rating[m], size) for m in (first, ~first))
    both = ~np.isnan(a) & ~np.isnan(b)
    if per_system:
        systems = np.unique(panel.system[both])
        a, b = (panel.system_means(np.where(both, v, np.nan), systems) for v in (a, b))
    else:
        a, b = a[both], b[both]
    return coefficients(a, b), len(a)


def _mean(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over those that are known, of each coefficient; NaN where none is."""
    table = np.stack(rows)
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _means(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    counts = np.bincount(group, minlength=groups)
    sums = np.bincount(group, values, minlength=groups)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

"""Mean opinion scores, differences and preferences from a listening test, with intervals.

All intervals are about other listeners, speakers and sentences of the same kind
(`bench.stats.effects`), so they are wider than those that treat every rating as independent.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from bench.errors import UserError, choose_one_of
from bench.stats.compare import benjamini_hochberg
from bench.stats.crossed import LEVEL, MIN_SPEAKERS
from bench.stats.effects import GroupMeans

FACTORS = ("listener", "source_speaker", "target_speaker", "trial_id")
ALL = ""  # the slice of all ratings
NOT_TOLD_APART = "not told apart"


def opinions(
    ratings: pd.DataFrame,
    by: Sequence[str] = (),
    level: float = LEVEL,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Mean ratings of every system, and the difference of every pair of systems.

    Args:
        ratings: columns system, rating and `FACTORS`; one row a rating. A speaker that is not
            known is "".
        by: further columns to slice by, one after the other, in addition to all ratings.
        level: of the intervals.
        limits: the ends of the scale; intervals of means do not go beyond them.

    Returns:
        means: one row per slice × system: slice ("" or "column=value"), system, mean, low, high
            (NaN where not known), se, median, n (ratings), listeners, trials.
        differences: one row per slice × pair: slice, baseline, candidate, effect (candidate less
            baseline), low, high, p, q (p after Benjamini and Hochberg over all rows), verdict.
        notes: what the intervals do not cover.

    Raises:
        UserError: if `by` names no column.
    """
    rows, pairs, notes = [], [], dict.fromkeys(_of_listeners(ratings))
    lowest, highest = limits
    for label, part in _slices(ratings, by):
        systems = sorted(part["system"].unique())
        means = _means(part, pd.Index(systems).get_indexer(part["system"]), len(systems))
        notes |= dict.fromkeys(_left_out(means, part, label))
        for k, system in enumerate(systems):
            given = part[part["system"] == system]
            estimate = means.contrast(np.eye(len(systems))[k])
            low, high = estimate.interval(level)
            rows.append(
                {
                    "slice": label,
                    "system": system,
                    "mean": estimate.value,
                    "low": np.maximum(low, lowest),
                    "high": np.minimum(high, highest),
                    "se": estimate.se,
                    "median": float(given["rating"].median()),
                    "n": len(given),
                    "listeners": given["listener"].nunique(),
                    "trials": given["trial_id"].nunique(),
                }
            )
            for j in range(k):
                weights = np.zeros(len(systems))
                weights[[j, k]] = -1.0, 1.0
                difference = means.contrast(weights)
                low, high = difference.interval(level)
                pairs.append(
                    {
                        "slice": label,
                        "baseline": systems[j],
                        "candidate": system,
                        "effect": difference.value,
                        "low": low,
                        "high": high,
                        "p": difference.p_of_no_difference(),
                    }
                )
    columns = ["slice", "baseline", "candidate", "effect", "low", "high", "p"]
    return pd.DataFrame(rows), _judged(pd.DataFrame(pairs, columns=columns), level), list(notes)


def preferences(
    choices: pd.DataFrame, by: Sequence[str] = (), level: float = LEVEL
) -> tuple[pd.DataFrame, list[str]]:
    """How often, and by how much, one system of a pair was preferred to the other.

    Args:
        choices: columns system, other (the two systems, in the order of their presentation), rating
            (positive: `system` is better; 0: a tie) and `FACTORS`.
        by: see `opinions`.
        level: of the intervals.

    Returns:
        table: one row per slice × pair: slice, system, other, n, wins (of `system`), ties, losses,
            win_rate (wins in % of wins and losses), win_low, win_high (Clopper and Pearson 1934:
            exact if all choices were independent), mean (of the ratings, for `system`), low, high
            (over listeners, speakers and sentences), p, q, verdict; system and other are in the
            order of their names.
        notes: what the intervals do not cover; how often the first was preferred, if that differs
            from half beyond doubt.
    """
    turned = choices.copy()
    swap = turned["system"] > turned["other"]
    turned.loc[swap, ["system", "other"]] = turned.loc[swap, ["other", "system"]].to_numpy()
    turned["rating"] = turned["rating"].where(~swap, -turned["rating"])
    rows, notes = [], dict.fromkeys(_of_listeners(turned))
    for label, part in _slices(turned, by):
        pairs = part.groupby(["system", "other"], sort=True)
        number = pairs.ngroup().to_numpy()
        means = _means(part, number, len(pairs))
        notes |= dict.fromkeys(_left_out(means, part, label))
        for k, ((system, other), given) in enumerate(pairs):
            estimate = means.contrast(np.eye(len(pairs))[k])
            low, high = estimate.interval(level)
            wins, losses = int((given["rating"] > 0).sum()), int((given["rating"] < 0).sum())
            win_low, win_high = clopper_pearson(wins, wins + losses, level)
            decided = wins + losses
            rows.append(
                {
                    "slice": label,
                    "system": system,
                    "other": other,
                    "n": len(given),
                    "wins": wins,
                    "ties": len(given) - decided,
                    "losses": losses,
                    "win_rate": 100 * wins / decided if decided else np.nan,
                    "win_low": 100 * win_low,
                    "win_high": 100 * win_high,
                    "mean": estimate.value,
                    "low": low,
                    "high": high,
                    "p": estimate.p_of_no_difference(),
                }
            )
    first, decided = int((choices["rating"] > 0).sum()), int((choices["rating"] != 0).sum())
    if decided and stats.binomtest(first, decided).pvalue < 0.01:
        notes[
            f"The first of the two was preferred in {first} of {decided} choices: listeners favour "
            "a position; the pairs must be balanced over both orders."
        ] = None
    return _judged(pd.DataFrame(rows), level), list(notes)


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a share (Clopper and Pearson 1934), 0 to 1; NaN if n is 0."""
    if n == 0:
        return float("nan"), float("nan")
    bounds = stats.binomtest(hits, n).proportion_ci(level, method="exact")
    return float(bounds.low), float(bounds.high)


def _slices(table: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    yield ALL, table
    for column in by:
        if column not in table:
            known = [c for c in table if c not in ("rating", "listener")]
            raise UserError(f"by={column}: ratings have none; {choose_one_of(column, known)}")
        for value, part in table.groupby(column, sort=True):
            if str(value):
                yield f"{column}={value}", part


def _means(part: pd.DataFrame, group: np.ndarray, groups: int) -> GroupMeans:
    factors = {name: part[name].to_numpy(str) for name in FACTORS}
    return GroupMeans(part["rating"].to_numpy(float), group, factors, groups)


def _of_listeners(table: pd.DataFrame) -> list[str]:
    listeners = table["listener"].nunique()
    if listeners >= MIN_SPEAKERS:
        return []
    return [
        f"{listeners} listeners: the intervals say nothing about other listeners, whose spread "
        f"cannot be known from fewer than {MIN_SPEAKERS}."
    ]


def _left_out(means: GroupMeans, part: pd.DataFrame, label: str) -> list[str]:
    where = f"{label}: " if label else ""
    nouns = {"trial_id": "sentences"}
    parts = [
        f"{part[name].nunique()} {nouns.get(name, name.replace('_', ' ') + 's')}"
        for name in means.left_out
        if name != "listener"
    ]
    if not parts:
        return []
    return [
        f"{where}{', '.join(parts)}: the intervals are about these alone, since the spread cannot "
        f"be known from fewer than {MIN_SPEAKERS}."
    ]


def _judged(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """The table with q and a verdict about its estimate (effect or mean)."""
    if table.empty:
        return table.assign(q=[], verdict=[])
    q = benjamini_hochberg(table["p"].to_numpy(float))
    value = table["effect" if "effect" in table else "mean"].to_numpy(float)
    words = np.where(value > 0, "better", "worse")
    clear = q < 1 - level
    return table.assign(q=q, verdict=np.where(clear, words, NOT_TOLD_APART))

"""The stimuli of each system that listeners rated best, in the middle and worst."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.listening.ratings.results import TestResults

BEST, MEDIAN, WORST, ONLY = "best", "median", "worst", "only one"
ORDER = (BEST, MEDIAN, WORST, ONLY)
FIRST_KEPT = (WORST, ONLY, BEST, MEDIAN)  # if there are too many


@dataclass(frozen=True)
class Extreme:
    """A stimulus, or a pair of stimuli, with its mean opinion.

    Attributes:
        name: the system; for pairs "a against b".
        rank: one of `ORDER`, among the stimuli of `name`.
        suite, trial_id: its trial; "" if the key does not say.
        mean: of the ratings that count. For pairs it is positive if the first system is better.
        votes: how many ratings that is.
        sounds: (what it is, id of the stimulus), in the order to listen to.
    """

    name: str
    rank: str
    suite: str
    trial_id: str
    mean: float
    votes: int
    sounds: tuple[tuple[str, str], ...]


def extremes(results: TestResults, most: int) -> tuple[list[Extreme], int]:
    """The best, the median and the worst stimulus of each system, or of each pair of systems.

    The median has as many better as worse ones, or one more worse one. Among equal means the
    stimulus with more votes is the more extreme one, then the first by its id.

    Args:
        results: of the test.
        most: how many are returned at most. The worst of each system come first, then the best.

    Returns:
        They, by name and rank; and how many `most` left out.
    """
    rated = results.unblinded
    if results.test.paired:
        rated = _turned(rated)
    keys = ["name", "suite", "trial_id", "stimulus", "other"]
    rated = rated.assign(name=_names(rated, results.test.paired))
    if "other" not in rated:
        rated = rated.assign(other="")
    groups = rated.groupby(keys, sort=True)
    means = groups["rating"].agg(["mean", "size"]).join(groups["screen"].first()).reset_index()
    chosen = [
        _extreme(results, str(name), rank, row)
        for name, part in means.groupby("name", sort=True)
        for rank, row in _ranked(part)
    ]
    kept = sorted(chosen, key=lambda e: FIRST_KEPT.index(e.rank))[:most]
    kept.sort(key=lambda e: (e.name, ORDER.index(e.rank)))
    return kept, len(chosen) - len(kept)


def _names(rated: pd.DataFrame, paired: bool) -> pd.Series:
    return rated["system"] + " against " + rated["other_system"] if paired else rated["system"]


def _turned(rated: pd.DataFrame) -> pd.DataFrame:
    """Answers to pairs with the systems of each pair in the order of their names."""
    turned = rated.copy()
    swap = turned["system"] > turned["other_system"]
    for one, two in (("system", "other_system"), ("stimulus", "other")):
        turned.loc[swap, [one, two]] = turned.loc[swap, [two, one]].to_numpy()
    turned["rating"] = turned["rating"].where(~swap, -turned["rating"])
    return turned


def _ranked(part: pd.DataFrame) -> Sequence[tuple[str, pd.Series]]:
    """(rank, row) of the extremes of one system."""
    worst_first = part.sort_values(["mean", "size"], ascending=[True, False], kind="stable")
    best_first = part.sort_values(["mean", "size"], ascending=False, kind="stable")
    if len(part) == 1:
        return [(ONLY, part.iloc[0])]
    worst, best = worst_first.iloc[0], best_first.iloc[0]
    if worst["stimulus"] == best["stimulus"]:  # all means are equal
        best = best_first.iloc[1]
    ranked = [(BEST, best), (WORST, worst)]
    if len(part) > 2:
        ends = [worst["stimulus"], best["stimulus"]]
        between = worst_first[~worst_first["stimulus"].isin(ends)]
        ranked.insert(1, (MEDIAN, between.iloc[len(between) // 2]))
    return ranked


def _extreme(results: TestResults, name: str, rank: str, row: pd.Series) -> Extreme:
    facts = results.test.stimuli
    sounds = [(facts[s]["system"] or facts[s]["what"], s) for s in (row["stimulus"], row["other"])
              if s]  # fmt: skip
    reference = results.test.references.get(row["screen"])
    if reference and reference not in (s for _, s in sounds):
        sounds.insert(0, ("reference", reference))
    where = str(row["suite"]), str(row["trial_id"])
    return Extreme(name, rank, *where, float(row["mean"]), int(row["size"]), tuple(sounds))

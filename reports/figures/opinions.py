"""Listeners' mean ratings of the systems, with intervals."""

import pandas as pd

from bench.results import ScoredRun
from reports.figures.base import ANCHOR, Figure, colours, error_bars, finished, new_axes, short


def opinions(results: ScoredRun, scores: pd.DataFrame, head: str) -> Figure:
    """Draws the mean of each system, the best on top.

    Args:
        results: the run, for the systems' colours.
        scores: columns system, mean, low, high, listeners.
        head: "NMOS".
    """
    ordered = scores.sort_values("mean").rename(columns={"mean": "value"})
    colour = colours(results)
    ax = new_axes(0.8 + 0.3 * len(ordered))
    for k, (_, row) in enumerate(ordered.iterrows()):
        look = colour.get(str(row["system"]), ANCHOR)
        ax.errorbar(row["value"], k, xerr=error_bars(row), fmt="o", color=look, capsize=3)
    ax.set_yticks(range(len(ordered)), [short(str(s)) for s in ordered["system"]])
    ax.set_ylim(-0.6, len(ordered) - 0.4)
    ax.set(xlabel=head, title=f"{head} by listeners")
    listeners = int(scores["listeners"].max())
    caption = (
        f"{head} of each system: mean of {listeners} listeners with 95% intervals over listeners, "
        "speakers and sentences."
    )
    return finished(ax, head.lower(), "listeners", f"{head} by listeners", caption)

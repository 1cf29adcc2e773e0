"""The metric of every trial, by system."""

from bench.metrics import METRICS
from bench.results import ScoredRun
from reports.figures.base import (
    Figure,
    colours,
    error_bars,
    finished,
    new_axes,
    pooled_values,
    row_names,
    trial_values,
)
from reports.tables import label, number, systems_of

SCATTERED = 250  # up to so many trials a system are drawn as points
SHAPED = 10  # from so many on, the shape of their distribution is drawn


def distribution(results: ScoredRun, suite: str, judge: str, metric: str) -> Figure:
    import seaborn

    values = trial_values(results, suite, judge, metric)
    pooled = pooled_values(results, suite, judge, metric)
    systems = [s for s in systems_of(results, suite) if s in pooled.index]
    name = METRICS[metric].label
    colour = colours(results)
    ax = new_axes(0.9 + 0.5 * len(systems))
    shared = {
        "data": values,
        "x": "value",
        "y": "system",
        "order": systems,
        "hue": "system",
        "hue_order": systems,
        "palette": {s: colour[s] for s in systems},
        "legend": False,
        "orient": "h",
        "ax": ax,
    }
    if len(values) >= SHAPED * len(systems):
        seaborn.violinplot(
            **shared, inner=None, cut=0, linewidth=0, alpha=0.25, density_norm="width"
        )
    if len(values) <= SCATTERED * len(systems):
        size = 4 if len(values) < 30 * len(systems) else 2.5
        seaborn.stripplot(**shared, size=size, alpha=0.55, jitter=0.16)
    for y, system in enumerate(systems):
        row = pooled.loc[system]
        ax.errorbar(
            row["value"], y, xerr=error_bars(row), fmt="o", color="#111111", markersize=4.5,
            capsize=3, elinewidth=1.4, zorder=5,
        )  # fmt: skip
    ax.set_yticks(range(len(systems)), row_names(results, systems))
    ax.set_ylim(len(systems) - 0.5, -0.5)
    ax.set(xlabel=f"{label(metric)} ({judge})", ylabel="", title=f"{name} of every trial, {suite}")
    return finished(
        ax,
        f"{metric}-{judge}",
        suite,
        f"{name} by system, {suite}",
        f"Each dot is a trial; black marks the pooled value with its 95% interval. Judge: {judge}. "
        + "; ".join(f"{s} {number(metric, pooled.loc[s, 'value'])}" for s in systems),
    )

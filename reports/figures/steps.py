"""A metric by the number of sampling steps, over systems that differ in it."""

from collections.abc import Sequence

from bench.metrics import METRICS
from bench.results import ScoredRun
from reports.figures.base import (
    ANCHOR,
    Figure,
    colours,
    error_bars,
    finished,
    legend_below,
    legend_name,
    markers,
    new_axes,
    pooled_values,
)
from reports.tables import label


def steps_of(results: ScoredRun, suite: str, judge: str, metric: str) -> list[tuple[float, str]]:
    """(steps, system) of every system whose settings say how many steps it samples with."""
    systems = results.facts.get("systems", {})
    pooled = pooled_values(results, suite, judge, metric)
    swept = []
    for system in pooled.index:
        steps = systems.get(system, {}).get("settings", {}).get("steps")
        if isinstance(steps, int | float) and not isinstance(steps, bool):
            swept.append((float(steps), str(system)))
    return sorted(swept)


def by_steps(
    results: ScoredRun, suite: str, judge: str, metric: str, swept: Sequence[tuple[float, str]]
) -> Figure:
    pooled = pooled_values(results, suite, judge, metric)
    colour, marker = colours(results), markers(results)
    ax = new_axes(3.0)
    values = [pooled.loc[system, "value"] for _, system in swept]
    ax.plot([steps for steps, _ in swept], values, color=ANCHOR, linewidth=1, zorder=1)
    for steps, system in swept:
        row = pooled.loc[system]
        ax.errorbar(
            steps, row["value"], yerr=error_bars(row), fmt=marker[system], color=colour[system],
            markersize=6, capsize=3, label=legend_name(system, None),
        )  # fmt: skip
    ticks = sorted({steps for steps, _ in swept})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    name = METRICS[metric].label
    ax.set(
        xlabel="sampling steps",
        ylabel=f"{label(metric)} ({judge})",
        title=f"{name} by sampling steps, {suite}",
    )
    legend_below(ax)
    return finished(
        ax,
        f"steps-{metric}-{judge}",
        suite,
        f"{name} against sampling steps, {suite}",
        f"Pooled {name} by {judge} with 95% intervals, by the sampling steps that each system's "
        "settings name.",
    )

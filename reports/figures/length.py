"""Similarity by the length of the reference."""

import pandas as pd

from bench.metrics import METRICS
from bench.results import ScoredRun
from reports.figures.base import (
    Figure,
    colours,
    finished,
    legend_below,
    legend_name,
    markers,
    new_axes,
)
from reports.tables import label, systems_of


def by_length(
    results: ScoredRun, suite: str, judge: str, metric: str, summary: pd.DataFrame
) -> Figure:
    rows = summary.query("judge == @judge and metric == @metric and n > 0").copy()
    name = METRICS[metric].label
    rows["seconds"] = pd.to_numeric(rows["factor.reference_seconds"], errors="coerce")
    colour, marker = colours(results), markers(results)
    ax = new_axes(3.2)
    for system in [s for s in systems_of(results, suite) if s in set(rows["system"])]:
        points = rows[rows["system"] == system].sort_values("seconds")
        role = results.anchors.get(system)
        ax.plot(
            points["seconds"],
            points["value"],
            color=colour[system],
            marker=marker.get(system, ""),
            markersize=5,
            linestyle={"floor": ":", "ceiling": "--"}.get(role or "", "-"),
            label=legend_name(system, role),
        )
        # No bands for recordings: they would cover those of the systems.
        if role is None:
            ax.fill_between(
                points["seconds"],
                points["low"],
                points["high"],
                color=colour[system],
                alpha=0.18,
                linewidth=0,
            )
    ticks = sorted(rows["seconds"].unique())
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set(
        xlabel="seconds of reference speech",
        ylabel=f"{label(metric)} ({judge})",
        title=f"{name} by length of the reference, {suite}",
    )
    legend_below(ax)
    return finished(
        ax,
        f"length-{judge}",
        suite,
        f"Similarity by reference length, {suite}",
        f"Pooled {name} by {judge} where only the length of the reference varies; bands are 95% "
        "intervals. Floor and ceiling do not depend on the reference.",
    )

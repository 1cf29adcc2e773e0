"""Similarity against intelligibility, one point for each system."""

from bench.metrics import METRICS, Measure
from bench.results import ScoredRun
from reports.figures.base import (
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
from reports.tables import label, systems_of


def trade_off(
    results: ScoredRun, suite: str, similarity: Measure, intelligibility: Measure
) -> Figure:
    similarities = pooled_values(results, suite, *similarity)
    rates = pooled_values(results, suite, *intelligibility)
    (judge, metric), (words, rate) = similarity, intelligibility
    voice, text = METRICS[metric], METRICS[rate]
    colour, marker = colours(results), markers(results)
    ax = new_axes(3.4)
    for system in systems_of(results, suite):
        role = results.anchors.get(system)
        if system in similarities.index and system in rates.index:
            ax.errorbar(
                rates.loc[system, "value"],
                similarities.loc[system, "value"],
                xerr=error_bars(rates.loc[system]),
                yerr=error_bars(similarities.loc[system]),
                fmt=marker.get(system, "x"),
                color=colour[system],
                markersize=7,
                capsize=2,
                elinewidth=1,
            )
            ax.plot(
                [],
                [],
                marker.get(system, "x"),
                color=colour[system],
                label=legend_name(system, role),
            )
        elif system in similarities.index:
            ax.axhline(
                similarities.loc[system, "value"],
                color=colour[system],
                linestyle="--",
                linewidth=1.2,
                label=legend_name(system, role) + f", no {text.label}",
            )
    ax.margins(0.15)
    left, right = ax.get_xlim()
    if text.limits[0] == 0:  # no error rate is negative
        ax.set_xlim(left=max(left, -0.05 * right))
    up = "up" if voice.higher_is_better else "down"
    aside = "right" if text.higher_is_better else "left"
    ax.set(
        xlabel=f"{label(rate)} ({words})",
        ylabel=f"{label(metric)} ({judge})",
        title=f"{voice.label} against {text.label} (better: {up}, {aside}), {suite}",
    )
    legend_below(ax)
    return finished(
        ax,
        f"tradeoff-{judge}-{words}",
        suite,
        f"Voice against words, {suite}",
        f"Pooled {voice.label} ({judge}) and {text.label} ({words}) with 95% intervals. The ideal "
        f"is at the height of the ceiling with the {text.label} of the floor.",
    )

"""Real-time factor by the duration of the output."""

from typing import Any

import pandas as pd

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

MOST_TICKS = 7


def speed(results: ScoredRun, suite: str) -> Figure:
    """Draws every timed conversion, and the ratio of sums in each quarter of the durations."""
    scores = results.scores[results.scores["suite"] == suite]
    timed = scores.dropna(subset=["elapsed_seconds", "audio_seconds"])
    timed = timed[~timed["system"].isin(list(results.anchors))]
    colour, marker = colours(results), markers(results)
    ax = new_axes(3.4)
    for system in [s for s in systems_of(results, suite) if s in set(timed["system"])]:
        rows = timed[timed["system"] == system]
        seconds, elapsed = rows["audio_seconds"], rows["elapsed_seconds"]
        look: dict[str, Any] = {"color": colour[system], "marker": marker[system]}
        ax.scatter(seconds, elapsed / seconds, s=9, alpha=0.4, linewidths=0, **look)
        quarter = pd.qcut(seconds, 4, labels=False, duplicates="drop")
        pooled = rows.groupby(quarter)[["elapsed_seconds", "audio_seconds"]].sum()
        middle = seconds.groupby(quarter).median()
        rtf = pooled["elapsed_seconds"] / pooled["audio_seconds"]
        ax.plot(middle, rtf, label=legend_name(system, None), **look)
    ax.set_yscale("log")
    ticks = [d * 10.0**e for e in range(-6, 4) for d in (1, 2, 5)]
    low, high = ax.get_ylim()
    ticks = [t for t in ticks if low <= t <= high]
    if len(ticks) > MOST_TICKS:
        ticks = [t for t in ticks if f"{t:e}".startswith("1.")]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set(
        xlabel="seconds of generated speech",
        ylabel=label("rtf"),
        title=f"RTF by duration, {suite}",
    )
    legend_below(ax)
    machine = results.facts.get("machine", {})
    hardware = (
        ", ".join(machine.get("gpus") or []) or machine.get("processor") or "unknown hardware"
    )
    return finished(
        ax,
        "rtf",
        suite,
        f"Speed by duration, {suite}",
        "Seconds of computing per second of speech: each dot is a conversion, lines join the "
        f"quarters of the durations (sums over sums). Lower is faster. On {hardware}; "
        "judge: timing.",
    )

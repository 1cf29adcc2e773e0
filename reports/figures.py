"""The figures of a report: small SVGs (seaborn), one suite each, in colours for the colour-blind.

matplotlib and seaborn are imported where they are used: they take seconds to load.
"""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench import audio
from bench.audio import AudioError, Waveform
from bench.files import write_text
from bench.metrics import (
    INTELLIGIBILITY,
    METRICS,
    NATURALNESS,
    SIMILARITY,
    SPEED,
    Measure,
    leading,
)
from bench.run.results import Results
from bench.stats.pooling import TIMING, judge_table, measures_of
from reports.html.clips import spectrogram
from reports.tables import label, number, systems_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito 2008, "Color Universal Design", without black and yellow (too pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
ANCHOR = "#6b6b6b"  # floor and ceiling
WIDTH = 4.8  # inches: the text stays readable on a telephone
LABEL_CHARACTERS = 18  # a line
SCATTERED = 250  # up to so many trials a system are drawn as points
# The families whose leading metrics are drawn against sampling steps.
STEPPED = (SIMILARITY, INTELLIGIBILITY, NATURALNESS, SPEED)
MOST_TICKS = 7
MOST_STRIPS = 6  # systems in a figure of spectrograms
SHAPED = 10  # from so many on, the shape of their distribution is drawn


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: of its file, without the ending.
        suite: what it shows.
        title: what it shows, in a few words.
        caption: how to read it; also its text for those who cannot see it.
        svg: the drawing, a whole SVG document.
    """

    name: str
    suite: str
    title: str
    caption: str
    svg: str

    def write(self, folder: Path) -> Path:
        """Writes `<folder>/<name>.svg`."""
        path = folder / f"{self.name}.svg"
        write_text(path, self.svg)
        return path


def draw(results: Results, slices: Mapping[tuple[str, str], pd.DataFrame]) -> list[Figure]:
    """Every figure that the run has the numbers for, suite by suite.

    Args:
        results: the run.
        slices: as `reports.tables.slices` returns them.
    """
    figures = []
    with _style():
        for suite in results.suites:
            measures = measures_of(results.summary[results.summary["suite"] == suite])
            words = leading(measures, [INTELLIGIBILITY])
            for judge, metric in leading(measures, [SIMILARITY]):
                figures.append(_distribution(results, suite, judge, metric))
                by_length = slices.get((suite, "reference_seconds"))
                if by_length is not None:
                    figures.append(_by_length(results, suite, judge, metric, by_length))
                for other in words:
                    figures.append(_trade_off(results, suite, (judge, metric), other))
                if _covers_genders(results, suite):
                    figures.append(_genders(results, suite, judge, metric))
            for judge, metric in words:
                figures.append(_distribution(results, suite, judge, metric))
            if (TIMING, "rtf") in measures:
                figures.append(_rtf(results, suite))
            for judge, metric in leading(measures, STEPPED):
                if len(swept := _steps(results, suite, judge, metric)) > 1:
                    figures.append(_by_steps(results, suite, judge, metric, swept))
            if (strips := _strips(results, suite)) is not None:
                figures.append(strips)
    return figures


def colours(results: Results) -> dict[str, str]:
    """System → colour, the same in every figure and in the text; grey for recordings."""
    systems = [s for s in systems_of(results) if s not in results.anchors]
    chosen = {s: PALETTE[i % len(PALETTE)] for i, s in enumerate(systems)}
    return {s: chosen.get(s, ANCHOR) for s in systems_of(results)}


def _markers(results: Results) -> dict[str, str]:
    systems = [s for s in systems_of(results) if s not in results.anchors]
    return {s: MARKERS[i % len(MARKERS)] for i, s in enumerate(systems)}


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib
    import seaborn

    settings = {
        **seaborn.axes_style("whitegrid"),
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "legend.fontsize": 8,
        "axes.edgecolor": "#555555",
        "grid.color": "#e3e3e3",
        "text.parse_math": False,  # a "$" in a system's name is a dollar
        "svg.hashsalt": "takin-vc-bench",  # the same bytes every time
    }
    state = np.random.get_state()
    np.random.seed(0)  # seaborn jitters points by the global generator
    try:
        with matplotlib.rc_context(settings):
            yield
    finally:
        np.random.set_state(state)


def _axes(height: float) -> "Axes":
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(canvas)
    return canvas.subplots()


def _figure(axes: "Axes", name: str, suite: str, title: str, caption: str) -> Figure:
    buffer = io.BytesIO()
    canvas = axes.get_figure()
    assert canvas is not None
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[union-attr]
    return Figure(f"{name}-{suite}", suite, title, caption, buffer.getvalue().decode())


def _values(results: Results, suite: str, judge: str, metric: str) -> pd.DataFrame:
    """The metric of every trial: columns system, value and the speakers' genders."""
    scores = results.scores[results.scores["suite"] == suite]
    values = METRICS[metric].per_trial(judge_table(scores, judge))
    columns = ["system", "source_gender", "target_gender"]
    return scores[columns].assign(value=values).dropna(subset="value")


def _pooled(results: Results, suite: str, judge: str, metric: str) -> pd.DataFrame:
    """value, low, high by system, of the systems that have a value."""
    rows = results.summary.query(
        "suite == @suite and judge == @judge and metric == @metric and n > 0"
    )
    return rows.set_index("system")[["value", "low", "high"]]


def _bars(row: pd.Series) -> "list[list[float]] | None":
    """Error bars of a pooled value as matplotlib wants them, None where there is no interval."""
    if not math.isfinite(row["low"] + row["high"]):
        return None
    return [[row["value"] - row["low"]], [row["high"] - row["value"]]]


def _names(results: Results, systems: Sequence[str]) -> list[str]:
    roles = results.anchors
    return [_short(s) + (f"\n({roles[s]})" if s in roles else "") for s in systems]


def _short(system: str) -> str:
    """The name in at most two lines, so that it leaves room for the figure."""
    lines = textwrap.wrap(system, LABEL_CHARACTERS) or [system]
    return "\n".join(lines[:2]) + ("…" if len(lines) > 2 else "")


def _distribution(results: Results, suite: str, judge: str, metric: str) -> Figure:
    import seaborn

    values = _values(results, suite, judge, metric)
    pooled = _pooled(results, suite, judge, metric)
    systems = [s for s in systems_of(results, suite) if s in pooled.index]
    name = METRICS[metric].label
    colour = colours(results)
    ax = _axes(0.9 + 0.5 * len(systems))
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
            row["value"], y, xerr=_bars(row), fmt="o", color="#111111", markersize=4.5, capsize=3,
            elinewidth=1.4, zorder=5,
        )  # fmt: skip
    ax.set_yticks(range(len(systems)), _names(results, systems))
    ax.set_ylim(len(systems) - 0.5, -0.5)
    ax.set(xlabel=f"{label(metric)} ({judge})", ylabel="", title=f"{name} of every trial, {suite}")
    return _figure(
        ax,
        f"{metric}-{judge}",
        suite,
        f"{name} by system, {suite}",
        f"Each dot is a trial; black marks the pooled value with its 95% interval. Judge: {judge}. "
        + "; ".join(f"{s} {number(metric, pooled.loc[s, 'value'])}" for s in systems),
    )


def _by_length(
    results: Results, suite: str, judge: str, metric: str, summary: pd.DataFrame
) -> Figure:
    rows = summary.query("judge == @judge and metric == @metric and n > 0").copy()
    name = METRICS[metric].label
    rows["seconds"] = pd.to_numeric(rows["factor.reference_seconds"], errors="coerce")
    colour, marker = colours(results), _markers(results)
    ax = _axes(3.2)
    for system in [s for s in systems_of(results, suite) if s in set(rows["system"])]:
        own = rows[rows["system"] == system].sort_values("seconds")
        role = results.anchors.get(system)
        ax.plot(
            own["seconds"],
            own["value"],
            color=colour[system],
            marker=marker.get(system, ""),
            markersize=5,
            linestyle={"floor": ":", "ceiling": "--"}.get(role or "", "-"),
            label=_legend(system, role),
        )
        # Anchors are recordings: their line is a yardstick, its band would only hide the systems'.
        if role is None:
            ax.fill_between(
                own["seconds"],
                own["low"],
                own["high"],
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
    _legend_below(ax)
    return _figure(
        ax,
        f"length-{judge}",
        suite,
        f"Similarity by reference length, {suite}",
        f"Pooled {name} by {judge} where only the length of the reference varies; bands are 95% "
        "intervals. Floor and ceiling do not hear the reference.",
    )


def _trade_off(
    results: Results, suite: str, similarity: Measure, intelligibility: Measure
) -> Figure:
    similarities = _pooled(results, suite, *similarity)
    rates = _pooled(results, suite, *intelligibility)
    (judge, metric), (words, rate) = similarity, intelligibility
    voice, text = METRICS[metric], METRICS[rate]
    colour, marker = colours(results), _markers(results)
    ax = _axes(3.4)
    for system in systems_of(results, suite):
        role = results.anchors.get(system)
        if system in similarities.index and system in rates.index:
            ax.errorbar(
                rates.loc[system, "value"],
                similarities.loc[system, "value"],
                xerr=_bars(rates.loc[system]),
                yerr=_bars(similarities.loc[system]),
                fmt=marker.get(system, "x"),
                color=colour[system],
                markersize=7,
                capsize=2,
                elinewidth=1,
            )
            ax.plot(
                [], [], marker.get(system, "x"), color=colour[system], label=_legend(system, role)
            )
        elif system in similarities.index:
            ax.axhline(
                similarities.loc[system, "value"],
                color=colour[system],
                linestyle="--",
                linewidth=1.2,
                label=_legend(system, role) + f", no {text.label}",
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
    _legend_below(ax)
    return _figure(
        ax,
        f"tradeoff-{judge}-{words}",
        suite,
        f"Voice against words, {suite}",
        f"Pooled {voice.label} ({judge}) and {text.label} ({words}) with 95% intervals. The ideal "
        f"is at the height of the ceiling with the {text.label} of the floor.",
    )


def _covers_genders(results: Results, suite: str) -> bool:
    trials = results.suites[suite].trials
    return len({(t.source.gender, t.references[0].gender) for t in trials}) == 4


def _genders(results: Results, suite: str, judge: str, metric: str) -> Figure:
    import seaborn

    values = _values(results, suite, judge, metric)
    pairs = (values["source_gender"] + "→" + values["target_gender"]).rename("pair")
    cells = values["value"].groupby([values["system"], pairs])
    systems = [s for s in systems_of(results, suite) if s in set(values["system"])]
    means = cells.mean().unstack().loc[systems]
    counts = cells.size().unstack().loc[systems]
    asked = counts.max()
    texts = [
        [
            number(metric, mean) + ("" if n == asked[pair] else f"\nn={n:.0f}")
            for pair, mean, n in zip(means.columns, row, ns, strict=True)
        ]
        for row, ns in zip(means.to_numpy(), counts.fillna(0).to_numpy(), strict=True)
    ]
    ax = _axes(0.9 + 0.5 * len(systems))
    seaborn.heatmap(
        means,
        ax=ax,
        annot=texts,
        fmt="",
        cmap="cividis",
        cbar=False,
        linewidths=2,
        xticklabels=[f"{pair}\nn={asked[pair]:.0f}" for pair in means.columns],
        yticklabels=_names(results, systems),
    )
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="gender of source → target", ylabel="")
    ax.set_title(f"Mean {label(metric)} ({judge}), {suite}", x=0, ha="left")
    return _figure(
        ax,
        f"gender-{judge}",
        suite,
        f"Similarity by gender, {suite}",
        f"Mean {METRICS[metric].label} by {judge} for each gender of source and target; lighter is "
        "more similar.",
    )


def _rtf(results: Results, suite: str) -> Figure:
    """Every timed conversion, and the ratio of sums in each quarter of the durations."""
    scores = results.scores[results.scores["suite"] == suite]
    timed = scores.dropna(subset=["elapsed_seconds", "audio_seconds"])
    timed = timed[~timed["system"].isin(list(results.anchors))]
    colour, marker = colours(results), _markers(results)
    ax = _axes(3.4)
    for system in [s for s in systems_of(results, suite) if s in set(timed["system"])]:
        own = timed[timed["system"] == system]
        seconds, elapsed = own["audio_seconds"], own["elapsed_seconds"]
        look: dict[str, Any] = {"color": colour[system], "marker": marker[system]}
        ax.scatter(seconds, elapsed / seconds, s=9, alpha=0.4, linewidths=0, **look)
        quarter = pd.qcut(seconds, 4, labels=False, duplicates="drop")
        pooled = own.groupby(quarter)[["elapsed_seconds", "audio_seconds"]].sum()
        middle = seconds.groupby(quarter).median()
        rtf = pooled["elapsed_seconds"] / pooled["audio_seconds"]
        ax.plot(middle, rtf, label=_legend(system, None), **look)
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
    _legend_below(ax)
    machine = results.provenance.get("machine", {})
    hardware = (
        ", ".join(machine.get("gpus") or []) or machine.get("processor") or "unknown hardware"
    )
    return _figure(
        ax,
        "rtf",
        suite,
        f"Speed by duration, {suite}",
        "Seconds of computing per second of speech: each dot is a conversion, lines join the "
        f"quarters of the durations (sums over sums). Lower is faster. On {hardware}; "
        "judge: timing.",
    )


def _steps(results: Results, suite: str, judge: str, metric: str) -> list[tuple[float, str]]:
    """(steps, system) of every system whose settings say how many steps it samples with."""
    systems = results.provenance.get("systems", {})
    pooled = _pooled(results, suite, judge, metric)
    found = []
    for system in pooled.index:
        steps = systems.get(system, {}).get("settings", {}).get("steps")
        if isinstance(steps, int | float) and not isinstance(steps, bool):
            found.append((float(steps), str(system)))
    return sorted(found)


def _by_steps(
    results: Results, suite: str, judge: str, metric: str, swept: Sequence[tuple[float, str]]
) -> Figure:
    pooled = _pooled(results, suite, judge, metric)
    colour, marker = colours(results), _markers(results)
    ax = _axes(3.0)
    values = [pooled.loc[system, "value"] for _, system in swept]
    ax.plot([steps for steps, _ in swept], values, color=ANCHOR, linewidth=1, zorder=1)
    for steps, system in swept:
        row = pooled.loc[system]
        ax.errorbar(
            steps, row["value"], yerr=_bars(row), fmt=marker[system], color=colour[system],
            markersize=6, capsize=3, label=_legend(system, None),
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
    _legend_below(ax)
    return _figure(
        ax,
        f"steps-{metric}-{judge}",
        suite,
        f"{name} against sampling steps, {suite}",
        f"Pooled {name} by {judge} with 95% intervals, by the sampling steps that each system's "
        "settings name.",
    )


def _strips(results: Results, suite: str) -> Figure | None:
    """Spectrograms of the suite's first trial that everyone converted, one under the other."""
    scores = results.scores[results.scores["suite"] == suite]
    converted = scores[scores["status"] == "ok"]
    systems = [s for s in systems_of(results, suite) if s not in results.anchors][:MOST_STRIPS]
    counts = converted.groupby("trial_id")["system"].nunique()
    whole = set(counts.index[counts == scores["system"].nunique()])
    wavs = converted.set_index(["trial_id", "system"])["wav"]
    for trial in results.suites[suite].trials:
        if trial.trial_id not in whole:
            continue
        paths = [results.folder / wavs[trial.trial_id, system] for system in systems]
        inputs = [utterance.path for utterance in (trial.source, *trial.references)]
        if not all(path.is_file() for path in (*paths, *inputs)):
            continue
        try:
            sounds = {"source": trial.source.load(), "reference": trial.reference()}
            sounds |= {_short(s): audio.load(p) for s, p in zip(systems, paths, strict=True)}
        except AudioError:
            continue
        return _strips_of(trial.trial_id, sounds, suite)
    return None


def _strips_of(trial_id: str, sounds: Mapping[str, Waveform], suite: str) -> Figure:
    longest = max(sound.seconds for sound in sounds.values())
    ax = _axes(0.6 + 0.62 * len(sounds))
    for place, sound in enumerate(sounds.values()):
        ax.imshow(
            spectrogram(sound),
            cmap="Greys",
            vmin=0,
            vmax=1,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, sound.seconds, -place - 0.45, -place + 0.45),
        )
    ax.set_xlim(0, longest)
    ax.set_ylim(-len(sounds) + 0.5, 0.5)
    ax.set_yticks([-place for place in range(len(sounds))], list(sounds))
    ax.grid(False)
    ax.set(xlabel="seconds", ylabel="", title=f"{trial_id}, {suite}")
    return _figure(
        ax,
        "strips",
        suite,
        f"Spectrograms of one trial, {suite}",
        f"{trial_id}, the first trial that every system converted: 0–8 kHz (mel) upwards in "
        "each strip, dark where there is energy, on one time scale.",
    )


def _legend(system: str, role: str | None) -> str:
    name = " ".join(_short(system).split("\n"))
    if name.startswith("_"):  # matplotlib leaves such labels out of the legend
        name = f" {name}"
    return f"{name} ({role})" if role else name


def _legend_below(ax: "Axes") -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)

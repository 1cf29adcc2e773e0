"""What all figures share: style, colours, axes, and the numbers of a run as they are drawn.

matplotlib and seaborn are imported where they are used: they take seconds to load.
"""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.files import write_text
from bench.metrics import METRICS
from bench.results import ScoredRun
from bench.stats.pooling import judge_table
from reports.tables import systems_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito 2008, "Color Universal Design", without black and yellow (too pale on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
ANCHOR = "#6b6b6b"  # floor and ceiling
WIDTH = 4.8  # inches: the text stays readable on a telephone
LABEL_CHARACTERS = 18  # of a line of a label


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


def colours(results: ScoredRun) -> dict[str, str]:
    """System → colour, the same in every figure and in the text; grey for recordings."""
    systems = [s for s in systems_of(results) if s not in results.anchors]
    chosen = {s: PALETTE[i % len(PALETTE)] for i, s in enumerate(systems)}
    return {s: chosen.get(s, ANCHOR) for s in systems_of(results)}


def markers(results: ScoredRun) -> dict[str, str]:
    """System → marker; recordings have none."""
    systems = [s for s in systems_of(results) if s not in results.anchors]
    return {s: MARKERS[i % len(MARKERS)] for i, s in enumerate(systems)}


@contextmanager
def style() -> Iterator[None]:
    """The project's style for everything that is drawn within the block."""
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


def new_axes(height: float) -> "Axes":
    """The axes of a new canvas, `WIDTH` wide and `height` inches high."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(canvas)
    return canvas.subplots()


def finished(axes: "Axes", name: str, suite: str, title: str, caption: str) -> Figure:
    """The drawing as a `Figure`; the suite is added to its name."""
    buffer = io.BytesIO()
    canvas = axes.get_figure()
    assert canvas is not None
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[union-attr]
    return Figure(f"{name}-{suite}", suite, title, caption, buffer.getvalue().decode())


def trial_values(results: ScoredRun, suite: str, judge: str, metric: str) -> pd.DataFrame:
    """The metric of every trial: columns system, value and the speakers' genders."""
    scores = results.scores[results.scores["suite"] == suite]
    values = METRICS[metric].per_trial(judge_table(scores, judge))
    columns = ["system", "source_gender", "target_gender"]
    return scores[columns].assign(value=values).dropna(subset="value")


def pooled_values(results: ScoredRun, suite: str, judge: str, metric: str) -> pd.DataFrame:
    """value, low, high by system, of the systems that have a value."""
    rows = results.summary.query(
        "suite == @suite and judge == @judge and metric == @metric and n > 0"
    )
    return rows.set_index("system")[["value", "low", "high"]]


def error_bars(row: pd.Series) -> "list[list[float]] | None":
    """Error bars of a pooled value as matplotlib wants them, None where there is no interval."""
    if not math.isfinite(row["low"] + row["high"]):
        return None
    return [[row["value"] - row["low"]], [row["high"] - row["value"]]]


def row_names(results: ScoredRun, systems: Sequence[str]) -> list[str]:
    """The systems' names as labels of rows, with the role of recordings."""
    roles = results.anchors
    return [short(s) + (f"\n({roles[s]})" if s in roles else "") for s in systems]


def short(system: str) -> str:
    """The name in at most two lines, so that it leaves room for the figure."""
    lines = textwrap.wrap(system, LABEL_CHARACTERS) or [system]
    return "\n".join(lines[:2]) + ("…" if len(lines) > 2 else "")


def legend_name(system: str, role: str | None) -> str:
    """The system's name in a legend, with its role if it is a recording."""
    name = " ".join(short(system).split("\n"))
    if name.startswith("_"):  # matplotlib leaves such labels out of the legend
        name = f" {name}"
    return f"{name} ({role})" if role else name


def legend_below(ax: "Axes") -> None:
    """Places the legend below the axes."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)

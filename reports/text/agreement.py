"""Agreement of metrics with listeners as tables for the terminal and Markdown."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from bench.metrics import METRICS, NATURALNESS
from bench.results import ScoredRun
from bench.stats.agreement import CEILINGS, LISTENERS, SYSTEM, Agreement
from bench.stats.pooling import measures_of
from reports.text.comparison import NONE, empty_table
from reports.text.markup import escape, grid

HEADS = ("metric", "judge", "n", "Pearson", "Spearman", "Kendall", "pairs %")
COUNT_HEADS = ("system", "ratings", "listeners", "rated", "unrated", "without sound")
READING = (
    "Positive always means agreement: metrics where lower is better (↓) are negated. "
    "Pearson, Spearman, Kendall (tau-b): correlation with the mean rating. pairs: how many of the "
    "pairs with different mean ratings the metric orders as the listeners did; 50% is chance, and "
    "pairs that the metric does not order count half. 95% intervals account for trials that share "
    "speakers, and for listeners who share tastes. Per utterance, a metric that knew what all "
    "listeners think would still stay below 1, since few listeners rate an utterance: compare with "
    "the rows of the listeners. Per system, the systems are taken as given: the intervals say "
    f"nothing about other systems. {NONE}: not known."
)


PAGE = "docs/methods/naturalness.md"


def naturalness_note(results: ScoredRun) -> str:
    """What predictors of naturalness can tell; "" if the run has no value of one."""
    measured = {metric for _, metric in measures_of(results.summary)}
    natural = (m for name, m in METRICS.items() if name in measured and m.family == NATURALNESS)
    labels = [m.label for m in natural]
    if not labels:
        return ""
    return (
        f"{', '.join(labels)}: predictors tell artefacts from clean speech and "
        f"hardly order two clean systems. {PAGE} says what each was trained on; vcbench agreement "
        "compares them with listeners' ratings."
    )


def groups(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of each question, suite and level."""
    titled = []
    for (question, suite, level), rows in table.groupby(["question", "suite", "level"], sort=False):
        noun = "per system: means" if level == SYSTEM else "per utterance"
        titled.append((" · ".join(filter(None, (str(question), str(suite), noun))), rows))
    return titled


def lines_of(rows: pd.DataFrame) -> list[list[str]]:
    """The cells of one group under `HEADS`: first the metrics, then the listeners."""
    lines = []
    for (judge, name), of_metric in rows.groupby(["judge", "metric"], sort=False):
        cells = of_metric.set_index("coefficient")
        if judge == LISTENERS:
            label = CEILINGS[str(name)]
        else:
            metric = METRICS[str(name)]
            label = f"{metric.label} {metric.arrow}"
        numbers = [
            _cell(cells.loc[c], *((100, 1) if c == "pairs" else (1, 2))) for c in cells.index
        ]
        lines.append([label, str(judge), str(of_metric["n"].iloc[0]), *numbers])
    return lines


def agreement_table(title: str, rows: pd.DataFrame) -> Table:
    """One group, for the terminal."""
    table = empty_table(title, HEADS, HEADS[:2])
    for line in lines_of(rows):
        style = "dim" if line[1] == LISTENERS else ""
        table.add_row(*(Text(cell, style=style) for cell in line))
    return table


def count_table(title: str, counts: pd.DataFrame) -> Table:
    """What was rated, for the terminal."""
    table = empty_table(title, COUNT_HEADS, COUNT_HEADS[:1])
    for line in _counts(counts):
        table.add_row(*map(Text, line))
    return table


def count_groups(counts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(title, rows) of each question and suite."""
    return [
        (" · ".join([*filter(None, map(str, key)), "what was rated"]), rows)
        for key, rows in counts.groupby(["question", "suite"], sort=False)
    ]


def agreement_markdown(found: Agreement, run: str) -> str:
    """The agreement as Markdown."""
    lines = [f"# Agreement of the metrics of {escape(run)} with listeners", ""]
    for title, rows in count_groups(found.counts):
        lines += [f"## {escape(title)}", ""]
        cells = [[escape(cell) for cell in line] for line in _counts(rows)]
        lines += [*grid(COUNT_HEADS, ["---", *["---:"] * 5], cells), ""]
    for title, rows in groups(found.table):
        lines += [f"## {escape(title)}", ""]
        cells = [[escape(cell) for cell in line] for line in lines_of(rows)]
        lines += [*grid(HEADS, ["---", "---", *["---:"] * 5], cells), ""]
    lines += [f"- {escape(note)}" for note in (*found.notes, READING)]
    return "\n".join(lines) + "\n"


def _cell(row: pd.Series, scale: float, decimals: int) -> str:
    """ "0.53 [0.41, 0.62]"."""
    if not np.isfinite(row["value"]):
        return NONE
    text = f"{scale * row['value'] + 0.0:.{decimals}f}"
    if np.isfinite(row["low"] + row["high"]):
        low, high = (f"{scale * row[k] + 0.0:.{decimals}f}" for k in ("low", "high"))
        text += f" [{low}, {high}]"
    return text


def _counts(counts: pd.DataFrame) -> Sequence[list[str]]:
    columns = ["system", "ratings", "listeners", "rated", "unrated", "without_sound"]
    return [list(map(str, row)) for row in counts[columns].itertuples(index=False)]

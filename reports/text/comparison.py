"""Comparisons, decisions of the gate and histories as tables for the terminal and Markdown."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bench.metrics import METRICS
from bench.stats.compare import FAILED, SAME
from bench.stats.gate import Decision
from bench.stats.history import History
from bench.stats.variance import Split
from reports.kinship import DAGGER, FAVOURED, KIN, kinship_note
from reports.text.markup import escape, grid

NONE = "–"  # stands for a number that is not known
READING = (
    "Effects over the trials that both completed, with 95% intervals by resampling source and "
    "target speakers. q: p after Benjamini and Hochberg over all rows; a verdict needs q < 0.05. "
    f"detectable: the true effect that such a test detects 4 times of 5. {NONE}: not known."
)


def comparison_markdown(table: pd.DataFrame, notes: Sequence[str]) -> str:
    """The comparison as Markdown."""
    lines = []
    for (baseline, candidate), rows in table.groupby(["baseline", "candidate"], sort=False):
        lines += [f"## {escape(candidate)} against {escape(baseline)}", ""]
        different = rows[rows["verdict"] != SAME].to_dict("records")
        cells = [[_strong(*pair) for pair in cells_of(row)] for row in different]
        aligned = [*["---"] * 3, *["---:"] * (len(HEADS) - 4), "---"]
        lines += [*grid(HEADS, aligned, cells), *_equal(rows), ""]
    lines += [f"- {escape(note)}" for note in (*notes, *kinship_note(table), READING)]
    return "\n".join(lines) + "\n"


def gate_markdown(decisions: Sequence[Decision]) -> str:
    """The decisions as Markdown, for a comment of a CI job."""
    marks = {"pass": "✅ pass", "regression": "❌ regression", "undecided": "❔ undecided"}
    lines = []
    for decision in decisions:
        lines += [f"## {marks[decision.outcome]}: {escape(decision.sentence)}", ""]
        rows = [[escape(c.name), marks[c.outcome], escape(c.reason)] for c in decision.checks]
        lines += [*grid(["check", "outcome", "why"], ["---"] * 3, rows), ""]
        lines += [f"- {escape(note)}" for note in decision.notes]
    return "\n".join(lines) + "\n"


def history_markdown(listed: History) -> str:
    """The history as Markdown."""
    lines = []
    for title, rows in listed.groups():
        lines += [f"## {escape(title)}", ""]
        heads, cells = _history_grid(rows)
        aligned = [*["---"] * 3, *["---:"] * (len(heads) - 3)]
        escaped = [[escape(cell) for cell in line] for line in cells]
        lines += [*grid([escape(head) for head in heads], aligned, escaped), ""]
    lines += [f"- {escape(note)}" for note in history_notes(listed)]
    return "\n".join(lines) + "\n"


HEADS = (
    *("where", "metric", "judge", "baseline", "candidate"),
    *("effect", "q", "detectable", "n", "verdict"),
)


def cells_of(row: Mapping[str, object]) -> list[tuple[str, bool]]:
    """The cells of a row of a comparison under `HEADS`, each with whether it is bold.

    No win is bold where the winner's own network judges, and not the loser's.
    """
    metric = METRICS[str(row["metric"])]
    decimals = metric.decimals

    def number(name: str, sign: str = "", more: int = 0) -> str:
        value = float(row[name])  # type: ignore[arg-type]
        return f"{value + 0.0:{sign}.{decimals + more}f}" if np.isfinite(value) else NONE

    verdict = str(row["verdict"])
    real = verdict.startswith(("better", "worse", "different")) and not row.get(FAVOURED, False)
    judge = f"{row['judge']}{DAGGER if row.get(KIN) else ''}"
    low = number("low", "+", 1)
    bounds = f" [{low}, {number('high', '+', 1)}]" if low != NONE else ""
    q = float(row["q"])  # type: ignore[arg-type]
    where = " · ".join(str(row[k]) for k in ("suite", "slice") if row[k])
    name = f"{metric.label} {metric.arrow} {metric.unit}".strip()
    failed = f"{row['baseline_failed']} and {row['candidate_failed']} failed"
    n = f"{row['n']}" if row["metric"] == FAILED else f"{row['n']} ({failed})"
    n = n.replace(" (0 and 0 failed)", "")
    return [
        (where, False),
        (name, False),
        (judge, False),
        (number("baseline_value"), False),
        (number("candidate_value"), False),
        (number("effect", "+", 1) + bounds, real),
        (NONE if np.isnan(q) else "<0.001" if q < 0.001 else f"{q:.3f}", False),
        (number("detectable", "", 1), False),
        (n, False),
        (verdict, real),
    ]


def _strong(text: str, bold: bool) -> str:
    return f"**{escape(text)}**" if bold else escape(text)


def empty_table(title: str, heads: Sequence[str], left: Sequence[str]) -> Table:
    """A table of the terminal; the columns of `left` are aligned to the left."""
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", overflow="fold")
    return table


def comparison_table(title: str, rows: pd.DataFrame) -> Table:
    """The rows of one pair of systems over one suite and slice, for the terminal."""
    table = empty_table(title, HEADS[1:], ("metric", "judge", "verdict"))
    for row in rows[rows["verdict"] != SAME].to_dict("records"):
        cells = cells_of(row)[1:]
        table.add_row(*(Text(text, style="bold" if real else "") for text, real in cells))
    table.caption = " ".join(_equal(rows)).strip() or None
    return table


def _equal(rows: pd.DataFrame) -> list[str]:
    """A line with the metrics that are left out of a table since they do not differ at all."""
    same = rows[rows["verdict"] == SAME]
    labels = dict.fromkeys(METRICS[str(name)].label for name in same["metric"])
    return ["", f"{SAME.capitalize()}: {', '.join(labels)}."] if labels else []


def decision_table(decision: Decision) -> Table:
    """A decision of the gate, for the terminal."""
    styles = {"pass": "green", "regression": "bold red", "undecided": "yellow"}
    table = empty_table(decision.sentence, ("check", "outcome", "why"), ("check", "outcome", "why"))
    for check in decision.checks:
        mark = Text(check.outcome, style=styles[check.outcome])
        table.add_row(Text(check.name), mark, Text(check.reason))
    return table


def split_table(splits: Sequence[Split]) -> Table:
    """The sources of variance of each metric, for the terminal."""
    heads = ("metric", "value", "source speaker", "target speaker", "trial", "sampling", "n")
    seeds = splits[0].seeds if splits else 0
    title = f"Sources of the variance of single conversions ({seeds} seeds)"
    table = empty_table(title, heads, ("metric",))
    for s in splits:
        metric = METRICS[s.metric]
        shares = [NONE if np.isnan(v) else f"{v:.0%}" for v in s.shares.values()]
        name = f"{metric.label} ({s.suite} · {s.judge})"
        value = f"{s.value:.{metric.decimals}f}"
        table.add_row(*map(Text, (name, value, *shares, str(s.n))))
    return table


OTHER_SCALE = (
    "* measured in another way than in the newest run (judge, list of trials, pooling or, for RTF, "
    "machine): not to be compared with the rest of its column"
)


def history_notes(listed: History) -> list[str]:
    """The notes of a history, and how to read its marks."""
    return [*listed.notes, *([OTHER_SCALE] if (listed.table["scale"] > 0).any() else [])]


def _history_grid(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: one line per run, one column per metric."""
    pairs = list(rows[["judge", "metric"]].drop_duplicates().itertuples(index=False, name=None))
    heads = ["run", "scored", "commit", "n", "failed"]
    for judge, metric in pairs:
        m = METRICS[metric]
        heads.append(" ".join(part for part in (m.label, m.arrow, m.unit, f"({judge})") if part))
    lines = []
    for run, of_run in rows.groupby("run", sort=False):
        first = of_run.iloc[0]
        line = [str(run), str(first["created"])[:16].replace("T", " "), str(first["commit"])[:9]]
        line += [f"{of_run['n'].max()}/{first['trials']}", str(first["failed"])]
        by_pair = of_run.set_index(["judge", "metric"])
        line += [
            _history_cell(metric, by_pair.loc[(judge, metric)])
            if (judge, metric) in by_pair.index
            else NONE
            for judge, metric in pairs
        ]
        lines.append(line)
    return heads, lines


def _history_cell(metric: str, row: pd.Series) -> str:
    decimals = METRICS[metric].decimals
    if not np.isfinite(row["value"]):
        return NONE
    text = f"{row['value']:.{decimals}f}"
    if np.isfinite(row["low"] + row["high"]):
        text += f" [{row['low']:.{decimals}f}, {row['high']:.{decimals}f}]"
    return text + ("*" if row["scale"] else "")


def history_table(title: str, rows: pd.DataFrame) -> Table:
    """The rows of one system in one suite, for the terminal."""
    heads, lines = _history_grid(rows)
    table = empty_table(title, heads, ("run", "scored", "commit"))
    for line in lines:
        table.add_row(*map(Text, line))
    return table

"""The verbs that decide between finished runs: compare, gate, history. They convert nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cli.markdown import escape, grid
from bench.errors import UserError, choose_one_of
from bench.files import write_text
from bench.metrics import METRICS
from bench.run.folder import RUN, write_table
from bench.stats.compare import FAILED, SAME, Run, Side, compare, sides
from bench.stats.gate import DEFAULT, EXIT, Decision, Rules, decide_all, junit, outcome
from bench.stats.history import History, history
from bench.stats.variance import Split, split_variance

OUTPUTS = "outputs"
LOG_WIDTH = 120  # characters of a line in a file or a pipe
NONE = "–"


def compare_verb(arguments: Sequence[str]) -> int:
    """`vcbench compare A[:system] B[:system] … [by=] [metrics=] [margins=] [csv=] [markdown=]`."""
    operands, given = _parse(
        arguments, "compare", ("by", "metrics", "margins", "csv", "markdown", "split", "outputs")
    )
    metrics = _metrics(given.get("metrics"))
    runs = [_operand(o, given.get("outputs", OUTPUTS)) for o in operands]
    if not runs:
        raise UserError("name what to compare: vcbench compare outputs/old outputs/new")
    out = _console()
    if given.get("split", "false") not in ("true", "false"):
        raise UserError(f"split={given['split']}: true or false")
    if given.get("split") == "true":
        repeats = _repeats(runs)
        out.print(_split_table(split_variance(repeats, metrics)))
        return 0
    rules = Rules.load(Path(given.get("margins", DEFAULT)))
    found = compare(sides(runs), metrics, _listed(given.get("by")), rules.margins)
    keys = ["baseline", "candidate", "suite", "slice"]
    for (baseline, candidate, *place), rows in found.table.groupby(keys, sort=False):
        title = " · ".join([f"{candidate} against {baseline}", *filter(None, place)])
        out.print(_comparison(title, rows))
    for note in found.notes:
        out.print(Text(note, style="yellow"))
    out.print(Text(READING, style="dim"))
    if "csv" in given:
        write_table(found.table, Path(given["csv"]))
    if "markdown" in given:
        write_text(Path(given["markdown"]), comparison_markdown(found.table, found.notes))
    return 0


def gate_verb(arguments: Sequence[str]) -> int:
    """`vcbench gate BASELINE[:system] CANDIDATE[:system] [margins=] [junit=] [markdown=]`.

    Returns:
        0 pass, 1 regression, 3 undecided. Runs that cannot be compared are a mistake: 2.
    """
    operands, given = _parse(arguments, "gate", ("margins", "junit", "markdown", "outputs"))
    if len(operands) != 2:
        raise UserError(
            f"gate takes a baseline and a candidate, not {len(operands)} runs: "
            "vcbench gate outputs/v12 outputs/v13"
        )
    rules = Rules.load(Path(given.get("margins", DEFAULT)))
    runs = [_operand(o, given.get("outputs", OUTPUTS)) for o in operands]
    decisions = decide_all(sides(runs), rules)
    out = _console()
    for decision in decisions:
        out.print(_decision_table(decision))
        for note in decision.notes:
            out.print(Text(note, style="yellow"))
    if "junit" in given:
        write_text(Path(given["junit"]), junit(decisions))
    if "markdown" in given:
        write_text(Path(given["markdown"]), gate_markdown(decisions))
    return EXIT[outcome(decisions)]


def history_verb(arguments: Sequence[str]) -> int:
    """`vcbench history [RUN …] [system=] [metrics=] [suite=] [csv=] [markdown=] [outputs=]`."""
    operands, given = _parse(
        arguments, "history", ("system", "metrics", "suite", "csv", "markdown", "outputs")
    )
    outputs = given.get("outputs", OUTPUTS)
    folders = [_folder(o, outputs) for o in operands] or [
        path.parent for path in sorted(Path(outputs).glob(f"*/{RUN}"))
    ]
    if not folders:
        raise UserError(f"no run in {outputs}; make one: vcbench run")
    found = history(
        folders,
        systems=_listed(given.get("system")) or None,
        metrics=_metrics(given.get("metrics")),
        suites=_listed(given.get("suite")) or None,
    )
    out = _console()
    for title, rows in found.groups():
        out.print(_history_table(title, rows))
    for note in _history_notes(found):
        out.print(Text(note, style="yellow"))
    if "csv" in given:
        write_table(found.table, Path(given["csv"]))
    if "markdown" in given:
        write_text(Path(given["markdown"]), history_markdown(found))
    return 0


READING = (
    "Effects over the trials that both completed, with 95% intervals by resampling source and "
    "target speakers. q: p after Benjamini and Hochberg over all rows; a verdict needs q < 0.05. "
    f"detectable: the true effect that such a test finds 4 times of 5. {NONE}: not known."
)


def comparison_markdown(table: pd.DataFrame, notes: Sequence[str]) -> str:
    """The comparison as Markdown."""
    lines = []
    for (baseline, candidate), rows in table.groupby(["baseline", "candidate"], sort=False):
        lines += [f"## {escape(candidate)} against {escape(baseline)}", ""]
        told = rows[rows["verdict"] != SAME].to_dict("records")
        cells = [[_strong(*pair) for pair in cells_of(row)] for row in told]
        aligned = [*["---"] * 3, *["---:"] * (len(HEADS) - 4), "---"]
        lines += [*grid(HEADS, aligned, cells), *_sames(rows), ""]
    lines += [f"- {escape(note)}" for note in (*notes, READING)]
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


def history_markdown(found: History) -> str:
    """The history as Markdown."""
    lines = []
    for title, rows in found.groups():
        lines += [f"## {escape(title)}", ""]
        heads, cells = _history_grid(rows)
        aligned = [*["---"] * 3, *["---:"] * (len(heads) - 3)]
        escaped = [[escape(cell) for cell in line] for line in cells]
        lines += [*grid([escape(head) for head in heads], aligned, escaped), ""]
    lines += [f"- {escape(note)}" for note in _history_notes(found)]
    return "\n".join(lines) + "\n"


def _parse(
    arguments: Sequence[str], verb: str, known: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Operands, and settings written name=value."""
    operands, given = [], {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or "/" in name:
            operands.append(argument)
        elif name not in known:
            raise UserError(f"{verb} has no setting {name!r}; {choose_one_of(name, known)}")
        elif not value:
            raise UserError(f"{name}= needs a value")
        else:
            given[name] = value
    return operands, given


def _operand(text: str, outputs: str) -> tuple[Run, str | None]:
    """RUN or RUN:system; a run is a folder, or a name in `outputs`."""
    run, _, system = text.rpartition(":")
    if not run or (Path(text) / RUN).is_file():
        run, system = text, ""
    return Run.load(_folder(run, outputs)), system or None


def _folder(name: str, outputs: str) -> Path:
    return Path(name) if Path(name).is_dir() else Path(outputs) / name


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").strip("[]").split(",") if part.strip()]


def _metrics(text: str | None) -> list[str] | None:
    names = _listed(text)
    for name in names:
        if name not in METRICS:
            raise UserError(f"unknown metric {name!r}; {choose_one_of(name, METRICS)}")
    return names or None


def _repeats(runs: Sequence[tuple[Run, str | None]]) -> list[Side]:
    found = []
    for run, system in runs:
        if system is None and len(run.systems) != 1:
            raise UserError(
                f"{run.folder} has {', '.join(run.systems) or 'no system'}; say which: "
                f"{run.folder}:SYSTEM"
            )
        found.append(Side(run.name, run, system or run.systems[0]))
    return found


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


HEADS = (
    *("where", "metric", "judge", "baseline", "candidate"),
    *("effect", "q", "detectable", "n", "verdict"),
)


def cells_of(row: Mapping[str, object]) -> list[tuple[str, bool]]:
    """The cells of a comparison's row, each with whether it is stressed."""
    metric = METRICS[str(row["metric"])]
    decimals = metric.decimals

    def number(name: str, sign: str = "", more: int = 0) -> str:
        value = float(row[name])  # type: ignore[arg-type]
        return f"{value + 0.0:{sign}.{decimals + more}f}" if np.isfinite(value) else NONE

    verdict = str(row["verdict"])
    real = verdict.startswith(("better", "worse", "different"))
    low = number("low", "+", 1)
    bounds = f" [{low}, {number('high', '+', 1)}]" if low != NONE else ""
    q = float(row["q"])  # type: ignore[arg-type]
    place = " · ".join(str(row[k]) for k in ("suite", "slice") if row[k])
    name = f"{metric.label} {metric.arrow} {metric.unit}".strip()
    failed = f"{row['baseline_failed']} and {row['candidate_failed']} failed"
    n = f"{row['n']}" if row["metric"] == FAILED else f"{row['n']} ({failed})"
    n = n.replace(" (0 and 0 failed)", "")
    return [
        (place, False),
        (name, False),
        (str(row["judge"]), False),
        (number("baseline_value"), False),
        (number("candidate_value"), False),
        (number("effect", "+", 1) + bounds, real),
        (NONE if np.isnan(q) else "<0.001" if q < 0.001 else f"{q:.3f}", False),
        (number("detectable", "", 1), False),
        (n, False),
        (verdict, real),
    ]


def _strong(text: str, stressed: bool) -> str:
    return f"**{escape(text)}**" if stressed else escape(text)


def _grid_of(title: str, heads: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", overflow="fold")
    return table


def _comparison(title: str, rows: pd.DataFrame) -> Table:
    table = _grid_of(title, HEADS[1:], ("metric", "judge", "verdict"))
    for row in rows[rows["verdict"] != SAME].to_dict("records"):
        cells = cells_of(row)[1:]
        table.add_row(*(Text(text, style="bold" if real else "") for text, real in cells))
    table.caption = " ".join(_sames(rows)).strip() or None
    return table


def _sames(rows: pd.DataFrame) -> list[str]:
    """What is left out of a table since it does not differ at all."""
    same = rows[rows["verdict"] == SAME]
    labels = dict.fromkeys(METRICS[str(name)].label for name in same["metric"])
    return ["", f"{SAME.capitalize()}: {', '.join(labels)}."] if labels else []


def _decision_table(decision: Decision) -> Table:
    styles = {"pass": "green", "regression": "bold red", "undecided": "yellow"}
    table = _grid_of(decision.sentence, ("check", "outcome", "why"), ("check", "outcome", "why"))
    for check in decision.checks:
        mark = Text(check.outcome, style=styles[check.outcome])
        table.add_row(Text(check.name), mark, Text(check.reason))
    return table


def _split_table(splits: Sequence[Split]) -> Table:
    heads = ("metric", "value", "source speaker", "target speaker", "trial", "sampling", "n")
    seeds = splits[0].seeds if splits else 0
    title = f"Where the variance of single conversions comes from ({seeds} seeds)"
    table = _grid_of(title, heads, ("metric",))
    for s in splits:
        metric = METRICS[s.metric]
        shares = [NONE if np.isnan(v) else f"{v:.0%}" for v in s.shares.values()]
        name = f"{metric.label} ({s.suite} · {s.judge})"
        value = f"{s.value:.{metric.decimals}f}"
        table.add_row(*map(Text, (name, value, *shares, str(s.n))))
    return table


OTHER_SCALE = (
    "* measured otherwise than in the newest run (judge, list of trials, pooling or, for RTF, "
    "machine): not to be compared with the rest of its column"
)


def _history_notes(found: History) -> list[str]:
    return [*found.notes, *([OTHER_SCALE] if (found.table["scale"] > 0).any() else [])]


def _history_grid(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: a line a run, a column a metric."""
    pairs = list(rows[["judge", "metric"]].drop_duplicates().itertuples(index=False, name=None))
    heads = ["run", "made", "commit", "n", "failed"]
    for judge, metric in pairs:
        m = METRICS[metric]
        heads.append(" ".join(part for part in (m.label, m.arrow, m.unit, f"({judge})") if part))
    lines = []
    for run, own in rows.groupby("run", sort=False):
        first = own.iloc[0]
        line = [str(run), str(first["created"])[:16].replace("T", " "), str(first["commit"])[:9]]
        line += [f"{own['n'].max()}/{first['trials']}", str(first["failed"])]
        by_pair = own.set_index(["judge", "metric"])
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


def _history_table(title: str, rows: pd.DataFrame) -> Table:
    heads, lines = _history_grid(rows)
    table = _grid_of(title, heads, ("run", "made", "commit"))
    for line in lines:
        table.add_row(*map(Text, line))
    return table

"""The report of a listening test: tables for the terminal, Markdown and CSV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from bench.files import write_text
from bench.run.folder import write_table
from reports.listening.format import MUSHRA
from reports.listening.ratings.checklist import checklist
from reports.listening.ratings.results import TestResults
from reports.text.comparison import NONE, empty_table
from reports.text.markup import escape, grid

LABELS = {"nmos": "NMOS", "smos": "SMOS", "ab": "AB", "abx": "ABX", "cmos": "CMOS"}
LABELS["mushra"] = "MUSHRA"
READING = (
    "Intervals (95%) are about other listeners, speakers and sentences, which are crossed random "
    "effects. q is p after Benjamini and Hochberg over all differences of this table. Scores "
    "depend on the systems beside them (range-equalising bias): do not compare them with those of "
    "another test."
)
READING_OF_PAIRS = (
    "win rate: wins of the first system in % of the choices that are no ties, with Clopper and "
    "Pearson's exact interval, which takes all choices for independent. mean: of the ratings, "
    "positive if the first system is better; its 95% interval, p and verdict are about other "
    "listeners, speakers and sentences. q is p after Benjamini and Hochberg over all rows."
)


def score_grid(results: TestResults) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the main table."""
    label = LABELS[results.test.kind]
    if results.test.paired:
        heads = ["slice", "systems", "n", "wins", "ties", "losses", "win rate % (exact)", "mean"]
        heads += ["q", "verdict"]
        rows = [
            [
                row["slice"] or "all",
                f"{row['system']} against {row['other']}",
                *(str(row[k]) for k in ("n", "wins", "ties", "losses")),
                _with_bounds(row["win_rate"], row["win_low"], row["win_high"], 1),
                _with_bounds(row["mean"], row["low"], row["high"], 2, "+"),
                _q(row["q"]),
                str(row["verdict"]),
            ]
            for row in results.scores.to_dict("records")
        ]
        return heads, rows
    mushra = results.test.kind == MUSHRA
    decimals = 1 if mushra else 2
    heads = ["slice", "system", label, *(["median"] if mushra else []), "ratings", "listeners"]
    heads += ["sentences", "unscreened"]
    rows = []
    for row in results.scores.to_dict("records"):
        before = results.unscreened.get(row["system"], np.nan) if not row["slice"] else np.nan
        rows.append(
            [
                row["slice"] or "all",
                str(row["system"]),
                _with_bounds(row["mean"], row["low"], row["high"], decimals),
                *([f"{row['median']:.1f}"] if mushra else []),
                *(str(row[k]) for k in ("n", "listeners", "trials")),
                _number(before, decimals),
            ]
        )
    return heads, rows


def difference_grid(results: TestResults) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the differences between systems; no rows for pairs."""
    decimals = 1 if results.test.kind == MUSHRA else 2
    rows = [
        [
            row["slice"] or "all",
            f"{row['candidate']} against {row['baseline']}",
            _with_bounds(row["effect"], row["low"], row["high"], decimals, "+"),
            _q(row["q"]),
            str(row["verdict"]),
        ]
        for row in results.differences.to_dict("records")
    ]
    return ["slice", "systems", "difference", "q", "verdict"], rows


def exclusion_grid(results: TestResults) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the exclusions."""
    rows = [
        [
            str(row["listener"]),
            row["screen"] or "all",
            row["rule"],
            row["detail"],
            str(row["answers"]),
        ]
        for row in results.screened.excluded.to_dict("records")
    ]
    return ["listener", "screen", "rule", "why", "answers"], rows


def summary_lines(results: TestResults) -> list[str]:
    """What was answered, excluded and agreed on, a sentence each."""
    people = results.screened.listeners
    out = int((people["excluded_by"] != "").sum())
    answers, kept = len(results.screened.trials), len(results.screened.kept)
    lines = [
        f"{len(people)} listeners gave {answers} answers; {len(people) - out} listeners and {kept} "
        f"answers are kept, {out} listeners are excluded.",
    ]
    if np.isfinite(results.alpha):
        lines.append(
            f"Krippendorff's alpha ({results.alpha_scale}) of the answers that count: "
            f"{results.alpha:.2f}."
        )
    else:
        lines.append("Krippendorff's alpha is not defined: no stimulus has two different ratings.")
    return lines


def tables(results: TestResults) -> list[Table]:
    """The report for the terminal."""
    label = LABELS[results.test.kind]
    shown = [(label, *score_grid(results)), ("Differences", *difference_grid(results))]
    shown.append(("Excluded", *exclusion_grid(results)))
    drawn = []
    for title, heads, rows in shown:
        if rows:
            left = ("slice", "system", "systems", "verdict", "listener", "screen", "rule", "why")
            table = empty_table(title, heads, left)
            for row in rows:
                table.add_row(*map(Text, row))
            drawn.append(table)
    return drawn


def markdown(results: TestResults, notes: Sequence[str] = ()) -> str:
    """The report as GitHub-flavoured Markdown."""
    test = results.test
    lines = [f"# {LABELS[test.kind]}: listening test {escape(test.test_id)}", ""]
    lines += [f"Run: {escape(test.run)}. {' '.join(map(escape, summary_lines(results)))}", ""]
    lines += _section("Scores", *score_grid(results), numeric=2)
    reading = READING_OF_PAIRS if test.paired else READING
    lines += [reading, ""]
    lines += _section("Differences", *difference_grid(results), numeric=2)
    lines += _section("Excluded", *exclusion_grid(results), numeric=4)
    if results.screened.excluded.empty:
        lines += ["## Excluded", "", "Nobody and nothing.", ""]
    every = [*notes, *results.notes]
    if every:
        lines += ["## Notes", "", *(f"- {escape(note)}" for note in every), ""]
    return "\n".join(lines)


def write_report(results: TestResults, folder: Path) -> list[Path]:
    """Writes report.md, scores.csv, differences.csv, exclusions.csv, listeners.csv, unblinded.csv
    and checklist.md into the folder; returns their paths.

    unblinded.csv has the answers that count with systems and trials, for `vcbench agreement`.
    """
    texts = {"report.md": markdown(results), "checklist.md": checklist(results)}
    csvs = {
        "scores.csv": results.scores,
        "differences.csv": results.differences,
        "exclusions.csv": results.screened.excluded,
        "listeners.csv": results.screened.listeners,
        "unblinded.csv": results.unblinded,
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, table in csvs.items():
        if len(table.columns):
            write_table(table, folder / name)
        elif (folder / name).exists():
            (folder / name).unlink()
    return [folder / name for name in (*texts, *csvs) if (folder / name).exists()]


def _section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: int
) -> list[str]:
    """A titled table whose columns from number `numeric` on are aligned to the right."""
    if not rows:
        return []
    align = ["---" if i < numeric or h in ("verdict", "why") else "---:"
             for i, h in enumerate(heads)]  # fmt: skip
    cells = [[escape(cell) for cell in row] for row in rows]
    return [f"## {title}", "", *grid([escape(h) for h in heads], align, cells), ""]


def _number(value: float, decimals: int, sign: str = "") -> str:
    return f"{value + 0.0:{sign}.{decimals}f}" if np.isfinite(value) else NONE


def _with_bounds(value: float, low: float, high: float, decimals: int, sign: str = "") -> str:
    if not np.isfinite(low):
        return _number(value, decimals, sign)
    bounds = f"[{_number(low, decimals, sign)}, {_number(high, decimals, sign)}]"
    return f"{_number(value, decimals, sign)} {bounds}"


def _q(q: float) -> str:
    return NONE if not np.isfinite(q) else "<0.001" if q < 0.001 else f"{q:.3f}"

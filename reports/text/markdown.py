"""report.md: the tables of a run as text, for a repository or a comment of a CI job."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.files import write_text
from bench.results import ScoredRun
from bench.stats.compare import FAILED
from reports.findings import findings_of
from reports.headline import headline
from reports.slices import slice_tables
from reports.tables import HEADLINE, Cell, Table, in_headline, summary_table
from reports.text.agreement import naturalness_note
from reports.text.comparison import comparison_markdown
from reports.text.markup import escape, grid


class MarkdownReport:
    """Writes report.md (GitHub-flavoured Markdown).

    Args:
        max_failures: number of failed conversions listed with their errors; the rest are counted.
    """

    def __init__(self, max_failures: int = 50) -> None:
        self.max_failures = max_failures

    def render(self, results: ScoredRun) -> Path:
        """Writes report.md into the run's folder."""
        path = results.folder / "report.md"
        write_text(path, self.text(results))
        return path

    def text(self, results: ScoredRun) -> str:
        """The whole report as Markdown."""
        lines = [f"# {escape(results.name)}", ""]
        lines += [f"- {escape(sentence)}" for sentence in headline(results).sentences]
        legend: dict[str, None] = {}
        findings = findings_of(results)
        for suite in results.suites:
            notes = findings.notes(suite)
            main = summary_table(results, suite, HEADLINE, best=findings.best, notes=notes)
            rest = summary_table(results, suite, without=HEADLINE, best=findings.best)
            lines += ["", f"## {escape(main.caption)}", "", *_table(main), ""]
            lines += [f"- {escape(note)}" for note in main.notes]
            if rest.columns:
                lines += ["", "Further measures:", "", *_table(rest), ""]
                lines += [f"- {escape(note)}" for note in rest.notes if note not in main.notes]
            legend |= dict.fromkeys([*main.legend, *rest.legend])
        if tables := slice_tables(results, findings.slices):
            lines += ["", "## Slices"]
            for table in tables:
                lines += ["", f"### {escape(table.caption)}", "", *_table(table)]
                lines += ["", *(f"- {escape(note)}" for note in table.notes)] if table.notes else []
        lines += _differences(findings.differences)
        lines += self._failures(results)
        lines += ["", "## How to read the tables", ""]
        lines += ["- ↑ higher is better, ↓ lower is better; the judge is below each metric."]
        lines += [f"- {escape(line)}" for line in legend]
        if about := naturalness_note(results):
            lines += [f"- {escape(about)}"]
        commit = results.facts.get("commit")
        if commit:
            dirty = " with uncommitted changes" if results.facts.get("dirty") else ""
            lines += [f"- Made at commit {escape(str(commit)[:12])}{dirty}."]
        lines += [
            "- Figures, audio and full provenance: report.html and run.json in the run's folder."
        ]
        return "\n".join(lines) + "\n"

    def _failures(self, results: ScoredRun) -> list[str]:
        failed = results.scores[results.scores["status"] == "failed"]
        if failed.empty:
            return []
        lines = ["", f"## Failed conversions ({len(failed)})", ""]
        rows = failed.head(self.max_failures)[["system", "suite", "trial_id", "error"]]
        cells = [[escape(str(cell)) for cell in row] for row in rows.to_numpy()]
        lines += grid(["system", "suite", "trial", "error"], ["---"] * 4, cells)
        if len(failed) > self.max_failures:
            lines += ["", f"… and {len(failed) - self.max_failures} more: see scores.csv."]
        return lines


def _text(cell: Cell) -> str:
    if not cell.best:
        return cell.text
    others = replace(cell, value="", kin=False).text
    return " ".join(part for part in (f"**{cell.marked}**", others) if part)


def _differences(table: pd.DataFrame) -> list[str]:
    """The section on the pairs of systems; empty if there is none."""
    if table.empty:
        return []
    rows = table[in_headline(table) | (table["metric"] == FAILED)]
    text = comparison_markdown(rows, ()).replace("## ", "### ")
    return ["", "## Differences between systems", "", *text.splitlines()]


def _table(table: Table) -> list[str]:
    heads = ["system", "n", "failed"]
    heads += [f"{escape(c.head)}<br>{escape(c.group)}" for c in table.columns]
    rows = [
        [escape(row.name), row.n, str(row.failed), *map(_text, row.cells)] for row in table.rows
    ]
    return grid(heads, ["---", *["---:"] * (len(heads) - 1)], rows)

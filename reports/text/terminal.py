"""The headline metrics in the terminal, at the end of a run."""

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.cli.console import Printed
from bench.results import ScoredRun
from reports.findings import findings_of
from reports.headline import preset_of
from reports.tables import DASH, HEADLINE, chosen, summary_table

LOG_WIDTH = 124  # characters: enough for every interval on one line


class TerminalReport:
    """Prints a table for every suite; writes no file."""

    def render(self, results: ScoredRun) -> None:
        """Prints to standard output; into a file or a pipe in lines of LOG_WIDTH characters."""
        console = Printed()
        if not console.is_terminal:
            console = Printed(width=LOG_WIDTH)
        console.print(terminal_table(results))


def headline_families(results: ScoredRun) -> tuple[str, ...] | None:
    """The families of the terminal: `HEADLINE`, or None for all if a run has few of its metrics."""
    pairs = results.summary[["judge", "metric"]].drop_duplicates()
    metrics = {m for _, m in chosen(pairs.itertuples(index=False, name=None), HEADLINE)}
    return HEADLINE if len(metrics) >= 3 else None


def terminal_table(results: ScoredRun) -> Group:
    """The headline metrics of every suite, to be printed with rich."""
    findings = findings_of(results)
    parts: list[Table | Text] = []
    notes: dict[str, None] = {}
    for suite in results.suites:
        about_suite = findings.notes(suite)
        families = headline_families(results)
        table = summary_table(results, suite, families, best=findings.best, notes=about_suite)
        rich = Table(title=Text(table.caption), title_justify="left", box=SIMPLE_HEAD)
        rich.add_column("system", overflow="fold")
        rich.add_column("n", justify="right", overflow="fold")
        rich.add_column("failed", justify="right", overflow="fold")
        for column in table.columns:
            head = Text(column.head).append(f"\n{column.group}", style="dim")
            rich.add_column(head, justify="right", overflow="fold")
        for row in table.rows:
            name = Text(row.system)
            name.append(f"\n({row.role})" if row.role else "", style="dim")
            failed = Text(str(row.failed), style="bold red" if row.failed else "")
            cells = []
            for cell in row.cells:
                text = Text(cell.marked, style="bold" if cell.best else "")
                for extra in (cell.interval, "" if cell.n is None else f"n={cell.n}"):
                    text.append(f"\n{extra}" if extra else "", style="not bold dim")
                cells.append(text)
            rich.add_row(name, row.n, failed, *cells)
        parts.append(rich)
        notes.update(dict.fromkeys(table.notes))
    reading = (
        f"↑ higher is better, ↓ lower is better. [low, high]: 95% interval. {DASH}: not measured."
    )
    if preset := preset_of(results):
        notes[preset] = None
    return Group(*parts, *(Text(note) for note in notes), Text(reading, style="dim"))

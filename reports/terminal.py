"""The report's main tables in the terminal."""

from rich.console import Console

from bench.results import Results
from reports.tables import terminal_table


class TerminalReport:
    """Prints the tables to standard output."""

    def render(self, results: Results) -> None:
        Console().print(terminal_table(results))

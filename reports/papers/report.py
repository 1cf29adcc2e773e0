"""The report that adds a run to a published table."""

from collections.abc import Sequence
from pathlib import Path

from bench.files import write_text
from bench.results import ScoredRun
from reports.listening.ratings.results import RatingsFiles
from reports.papers import formats
from reports.papers.published import Published
from reports.papers.table import paper_table


class PaperReport:
    """Writes tables/<table>.md, .tex, .csv and .html into a run's folder.

    Args:
        table: name of a published table.
        suite: name of a suite of the run; None for the first that has the table's factor.
        ratings: a file of `vcbench ratings import`, or several: they fill the columns of their kind
            (NMOS, SMOS).
        test: the folders of their exported tests, in the same order.
    """

    def __init__(
        self,
        table: str,
        suite: str | None = None,
        ratings: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
    ) -> None:
        self.table = table
        self.suite = suite
        self.rated = RatingsFiles(ratings, test)

    def render(self, results: ScoredRun) -> Path:
        """Writes the four files and returns the path of the Markdown file."""
        table = paper_table(Published.load(self.table), results, self.suite, self.rated.read())
        folder = results.folder / "tables"
        write_text(folder / f"{self.table}.tex", formats.latex(table))
        write_text(folder / f"{self.table}.csv", formats.csv(table))
        write_text(folder / f"{self.table}.html", formats.html(table))
        write_text(folder / f"{self.table}.md", formats.markdown(table))
        return folder / f"{self.table}.md"

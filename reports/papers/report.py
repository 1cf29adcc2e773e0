"""The report that adds a run to a published table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.files import write_text
from bench.results import ScoredRun
from reports.listening.ratings.results import TestResults, read_results
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
        self.ratings = _listed(ratings)
        self.test = _listed(test)
        if len(self.ratings) != len(self.test):
            raise UserError(
                f"ratings= names {len(self.ratings)} files and test= {len(self.test)} folders; "
                "each file of ratings needs the folder of its exported test"
            )

    def render(self, results: ScoredRun) -> Path:
        """Writes the four files and returns the path of the Markdown file."""
        table = paper_table(Published.load(self.table), results, self.suite, self._rated())
        folder = results.folder / "tables"
        write_text(folder / f"{self.table}.tex", formats.latex(table))
        write_text(folder / f"{self.table}.csv", formats.csv(table))
        write_text(folder / f"{self.table}.html", formats.html(table))
        write_text(folder / f"{self.table}.md", formats.markdown(table))
        return folder / f"{self.table}.md"

    def _rated(self) -> Mapping[str, TestResults]:
        """Kind of each listening test → its results."""
        rated: dict[str, TestResults] = {}
        for file, folder in zip(self.ratings, self.test, strict=True):
            results = read_results(Path(folder), Path(file))
            if results.test.kind in rated:
                raise UserError(
                    f"{file}: two listening tests of kind {results.test.kind}; give one"
                )
            rated[results.test.kind] = results
        return rated


def _listed(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(v) for v in value]

"""Rows and cells of a paper's table, printed or measured."""

from dataclasses import dataclass

from reports.text.comparison import DAGGER


@dataclass(frozen=True)
class PaperCell:
    """One number of a row of a paper's table, printed or measured.

    Attributes:
        value: "" if there is none.
        bounds: of the interval of a measured number, as text.
        judge: that measured it; "" for printed numbers and for times.
        kinship: grade of the kinship of judge and system (`bench.validity.kinship.GRADES`); "" for
            none.
    """

    value: str
    bounds: tuple[str, str] | None = None
    judge: str = ""
    kinship: str = ""

    @property
    def mark(self) -> str:
        """A dagger if the judge is kin to the system, else ""."""
        return DAGGER if self.kinship else ""

    @property
    def interval(self) -> str:
        """ "[low, high]", or "" if there is none."""
        return "" if self.bounds is None else f"[{', '.join(self.bounds)}]"

    @property
    def text(self) -> str:
        """Value with its mark, and interval."""
        return f"{self.value}{self.mark} {self.interval}".strip()


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table, printed or measured.

    Attributes:
        name: as the paper writes it; for a measured row the system's.
        remark: of a printed row, whether the run measured it too; of a measured row, its checkpoint
            and judges.
        cells: one for each column.
        measured: whether this run measured it.
        system: that was measured; "" for a printed row.
        checkpoint: of the system; "" if none is known.
    """

    name: str
    remark: str
    cells: tuple[PaperCell, ...]
    measured: bool = False
    system: str = ""
    checkpoint: str = ""

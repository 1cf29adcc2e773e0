"""Published tables (`reports/papers/tables/`), and the rows that a run adds to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS

PUBLISHED = Path(__file__).parent / "tables"
WEIGHTS = ("public", "none", "recordings")


@dataclass(frozen=True)
class Column:
    """A column of a published table.

    Attributes:
        key: of the printed values.
        head: as the paper writes it.
        metrics: keys of METRICS that measure it, the nearest to the paper's first; empty where
            nothing here does.
        judge: the judge's name that is nearest to the paper's; "" where none is.
        higher: whether higher is better; None where neither.
    """

    key: str
    head: str
    metrics: tuple[str, ...] = ()
    judge: str = ""
    higher: bool | None = None

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher]


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        name: as the paper writes it.
        systems: names of systems of a run that stand for it, the first that the run has.
        weights: "public", "none" or "recordings" (a row that no system made).
        printed: column key → the printed text.
        value: of the table's factor or setting, where it has one.
        only: column keys that mean something for a recording; empty for all.
    """

    name: str
    systems: tuple[str, ...]
    weights: str
    printed: Mapping[str, str]
    value: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A table as it was printed.

    Attributes:
        name: of its file.
        title: what it shows.
        source: paper, venue, place, note.
        setup: how it was measured there: field → text.
        columns: in the paper's order.
        rows: in the paper's order.
        factor: factor of the trials that tells the rows apart; "" for none.
        setting: setting of the systems that tells the rows apart; "" for none.
    """

    name: str
    title: str
    source: Mapping[str, str]
    setup: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    factor: str = ""
    setting: str = ""

    @classmethod
    def load(cls, name: str, folder: Path = PUBLISHED) -> "Published":
        """The table of this name.

        Raises:
            UserError: if there is none, or its file is not whole.
        """
        known = published(folder)
        if name not in known:
            raise UserError(f"no published table {name!r}; {choose_one_of(name, known)}")
        path = folder / f"{name}.yaml"
        try:
            # Numbers stay the texts that were printed: 2.20 has two decimals.
            given = yaml.load(path.read_text(encoding="utf-8"), Loader=_Texts)  # noqa: S506
            columns = tuple(
                Column(
                    column["key"],
                    column["head"],
                    _listed(column.get("metric", ())),
                    column.get("judge", ""),
                    {"true": True, "false": False, "": None}[column.get("higher", "")],
                )
                for column in given["columns"]
            )
            rows = tuple(
                Row(
                    row["name"],
                    tuple(row["systems"]),
                    row["weights"],
                    row["printed"],
                    row.get("value", ""),
                    tuple(row.get("only", ())),
                )
                for row in given["rows"]
            )
            table = cls(
                name,
                given["title"],
                given["source"],
                given.get("setup", {}),
                columns,
                rows,
                given.get("factor", ""),
                given.get("setting", ""),
            )
        except (KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{path} is not a published table: {error!r}") from error
        keys = {column.key for column in columns}
        for column in columns:
            for metric in column.metrics:
                if metric not in METRICS:
                    raise UserError(f"{path}: {column.head}: unknown metric {metric!r}")
        for row in rows:
            if set(row.printed) - keys or row.weights not in WEIGHTS:
                raise UserError(f"{path}: row {row.name} has a column or weights of no known name")
        return table


class _Texts(yaml.SafeLoader):
    """YAML in which every value is a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


@dataclass(frozen=True)
class Cell:
    """One number of a row, printed or measured.

    Attributes:
        value: "" where there is none.
        bounds: of the interval of a measured number, as text.
        judge: who measured it; "" for what was printed, and for times.
    """

    value: str
    bounds: tuple[str, str] | None = None
    judge: str = ""

    @property
    def interval(self) -> str:
        """ "[low, high]", or "" where there is none."""
        return "" if self.bounds is None else f"[{', '.join(self.bounds)}]"

    @property
    def text(self) -> str:
        """Value and interval."""
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Line:
    """A row, printed or measured.

    Attributes:
        name: as the paper writes it; for a measured row the system's.
        remark: of a printed row, whether it was measured here too; of a measured one, which
            checkpoint and which judges stand in it.
        cells: one for each column.
        measured: whether this run measured it.
        system: that was measured; "" for a printed row.
        checkpoint: of the system; "" where none is known.
    """

    name: str
    remark: str
    cells: tuple[Cell, ...]
    measured: bool = False
    system: str = ""
    checkpoint: str = ""


@dataclass(frozen=True)
class Laid:
    """A published table with measured rows.

    Attributes:
        table: as printed.
        lines: printed rows in the paper's order, each followed by the row that was measured for it;
            last the systems of the run that the paper has not.
        deviations: what was done otherwise here: (what, there, here).
    """

    table: Published
    lines: tuple[Line, ...]
    deviations: tuple[tuple[str, str, str], ...] = field(default_factory=tuple)


def published(folder: Path = PUBLISHED) -> dict[str, str]:
    """The names of the published tables, each with the sentence that its file begins with."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.removeprefix("#").strip()
    return found


def _listed(value: Any) -> tuple[str, ...]:
    """One name, or a list of names."""
    return (value,) if isinstance(value, str) else tuple(value)

"""Published tables as they were printed (`reports/papers/tables/`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS

PUBLISHED = Path(__file__).parent / "tables"
WEIGHTS = ("public", "none", "recordings")


@dataclass(frozen=True)
class PublishedColumn:
    """A column of a published table.

    Attributes:
        key: of the printed values.
        head: as the paper writes it.
        metrics: keys of METRICS that measure it, the nearest to the paper's first; empty if no
            metric does.
        judge: name of the judge that is nearest to the paper's; "" if there is none.
        higher: whether higher is better; None if neither.
    """

    key: str
    head: str
    metrics: tuple[str, ...] = ()
    judge: str = ""
    higher: bool | None = None

    @property
    def arrow(self) -> str:
        """The direction of better values: "↑", "↓" or ""."""
        return {True: "↑", False: "↓", None: ""}[self.higher]


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table.

    Attributes:
        name: as the paper writes it.
        systems: names of systems that may stand for it; the first that a run has is taken.
        weights: "public", "none" or "recordings" (a row of recordings).
        printed: column key → the printed text.
        value: of the table's factor or setting, if it has one.
        only: keys of the columns that apply to recordings; empty for all.
        why: there are no public weights; one clause, or "".
    """

    name: str
    systems: tuple[str, ...]
    weights: str
    printed: Mapping[str, str]
    value: str = ""
    only: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Published:
    """A table as it was printed.

    Attributes:
        name: of its file.
        title: of the table.
        source: paper, venue, place (table and page), note.
        setup: how the paper measured: field → text.
        columns: in the paper's order.
        rows: in the paper's order.
        factor: factor of the trials that distinguishes the rows; "" for none.
        setting: setting of the systems that distinguishes the rows; "" for none.
    """

    name: str
    title: str
    source: Mapping[str, str]
    setup: Mapping[str, str]
    columns: tuple[PublishedColumn, ...]
    rows: tuple[PublishedRow, ...]
    factor: str = ""
    setting: str = ""

    @classmethod
    def load(cls, name: str, folder: Path = PUBLISHED) -> "Published":
        """Loads the table of this name.

        Raises:
            UserError: if there is none, or its file is incomplete.
        """
        known = published(folder)
        if name not in known:
            raise UserError(f"no published table {name!r}; {choose_one_of(name, known)}")
        path = folder / f"{name}.yaml"
        try:
            # Numbers stay the texts that were printed: 2.20 has two decimals.
            given = yaml.load(path.read_text(encoding="utf-8"), Loader=_Texts)  # noqa: S506
            columns = tuple(
                PublishedColumn(
                    column["key"],
                    column["head"],
                    _listed(column.get("metric", ())),
                    column.get("judge", ""),
                    {"true": True, "false": False, "": None}[column.get("higher", "")],
                )
                for column in given["columns"]
            )
            rows = tuple(
                PublishedRow(
                    row["name"],
                    tuple(row["systems"]),
                    row["weights"],
                    row["printed"],
                    row.get("value", ""),
                    tuple(row.get("only", ())),
                    row.get("why", ""),
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


def published(folder: Path = PUBLISHED) -> dict[str, str]:
    """The names of the published tables, each with the first line of its file."""
    tables = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        tables[path.stem] = first.removeprefix("#").strip()
    return tables


def _listed(value: Any) -> tuple[str, ...]:
    """One name, or a list of names."""
    return (value,) if isinstance(value, str) else tuple(value)

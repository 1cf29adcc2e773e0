"""Writes a site: its page, the pages of its runs, and all numbers as one CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.files import write_text
from bench.metrics import FAMILIES
from bench.provenance import machine_line
from bench.run.folder import write_table
from reports.html.environment import environment, inlined
from reports.site.boards import Board, boards, overviews
from reports.site.folder import replaced_folder
from reports.site.players import Sounds, write_run_page
from reports.site.runs import ShownRun
from reports.site.trends import Trend, trends
from reports.tables import ROLES

NUMBERS = "numbers.csv"
INDEX = "index.html"


@dataclass(frozen=True)
class Bounds:
    """How much sound a site holds.

    Attributes:
        trials: number of trials of each suite and run, the worst first, that get players.
        megabytes: limit of all sounds and spectrograms together.
    """

    trials: int = 4
    megabytes: float = 100.0


def write_site(
    runs: Sequence[ShownRun],
    out: Path,
    title: str,
    bounds: Bounds,
    left_out: Sequence[str] = (),
) -> int:
    """Writes the folder of a site. An interrupted call leaves `out` as it was.

    Args:
        runs: the newest first.
        out: the folder; missing, empty or a site.
        title: of the page.
        bounds: of the sounds.
        left_out: names of folders that are not shown.

    Returns:
        The bytes of its sounds.

    Raises:
        UserError: if `out` holds anything but an unchanged site.
    """
    with replaced_folder(out) as folder:
        (folder / ".nojekyll").touch()  # GitHub Pages then serves the files as they are
        sounds = Sounds(folder, bounds.megabytes * 1e6)
        for position, shown in enumerate(runs):
            write_run_page(shown, sounds, bounds.trials, sounds.left / (len(runs) - position))
        write_table(_numbers(runs), folder / NUMBERS)
        write_text(folder / INDEX, _index(runs, title, bounds, sounds.size, left_out))
    return sounds.size


def _index(
    runs: Sequence[ShownRun],
    title: str,
    bounds: Bounds,
    size: int,
    left_out: Sequence[str],
) -> str:
    made, listed = boards(runs), trends(runs)
    suites = list(dict.fromkeys(board.suite for board in made))
    return (
        environment()
        .get_template("site.html.j2")
        .render(
            title=title,
            runs=runs,
            machines={s.slug: machine_line(s.run.facts.get("machine") or {}) for s in runs},
            overviews=overviews(made),
            suites=[(name, [board for board in made if board.suite == name]) for name in suites],
            trends=listed,
            choices=_choices(made, listed),
            roles=ROLES,
            families=FAMILIES,
            bounds=bounds,
            megabytes=size / 1e6,
            left_out=left_out,
            numbers=NUMBERS,
            **inlined(["report.css", "site.css"], "site.js"),
        )
    )


def _choices(made: Sequence[Board], listed: Sequence[Trend]) -> dict[str, list[str]]:
    """What the filters offer."""
    columns = [c for board in made for c in board.columns]
    columns += [c for trend in listed for c in trend.columns]
    found: dict[str, list[Any]] = {
        "suite": [board.suite for board in made],
        "family": [family for family in FAMILIES if any(c.family == family for c in columns)],
        "system": [row.system for board in made for row in board.rows],
        "judge": [column.judge for column in columns],
    }
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def _numbers(runs: Sequence[ShownRun]) -> pd.DataFrame:
    """The summaries of all runs: one row per run × suite × system × judge × metric.

    The hashes of the suite and of the judge, which decide what is comparable, are cut to 12 digits.
    """
    tables = []
    for shown in runs:
        facts = shown.run.facts
        table = shown.run.summary.copy()
        table.insert(0, "run", shown.run.name)
        table["created"] = facts.get("created") or ""
        table["commit"] = facts.get("commit") or ""
        table["suite_sha256"] = [facts["suites"][s]["sha256"][:12] for s in table["suite"]]
        table["judge_fingerprint"] = [
            (facts["judges"].get(j, {}).get("fingerprint") or "")[:12] for j in table["judge"]
        ]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)

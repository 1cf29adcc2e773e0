"""Reads the runs of a site, and gives each a name and a folder that no other run has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.metrics import Measure
from bench.results import ScoredRun
from bench.run.folder import read_report, read_run
from bench.run.recordings import TRIALS, stored_suites
from bench.stats.pooling import measures_of
from bench.validity import flags

LONGEST_SLUG = 60  # characters of a run's folder in the site


@dataclass(frozen=True)
class LeftOut:
    """A run that is not shown: the name of its folder, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"Left out: {self.reason}."


@dataclass(frozen=True, eq=False)
class ShownRun:
    """A run of the site.

    Attributes:
        run: its tables; its `name` is one that no other run of the site has. Its `suites` are empty
            if the folder holds no lists of trials.
        flags: every flag raised: see `bench.validity.flags.raised`.
        suspicious: (suite, system) with more flags than chance explains.
        slug: the name of its folder in the site: letters, digits, ".", "_" and "-".
    """

    run: ScoredRun
    slug: str
    flags: pd.DataFrame
    suspicious: frozenset[tuple[str, str]]

    @cached_property
    def measures(self) -> dict[str, list[Measure]]:
        """Suite → the (judge, metric) pairs that have a value over it."""
        summary = self.run.summary
        suites = self.run.facts["suites"]
        return {suite: measures_of(summary[summary["suite"] == suite]) for suite in suites}

    @property
    def created(self) -> str:
        """When it was scored, to the minute."""
        return str(self.run.facts.get("created") or "")[:16].replace("T", " ")

    @property
    def commit(self) -> str:
        """The first digits of its commit, "unknown" if it was not recorded."""
        return str(self.run.facts.get("commit") or "unknown")[:12]

    @property
    def dirty(self) -> bool:
        """Whether the code had changes that the commit does not hold."""
        return bool(self.run.facts.get("dirty"))

    @property
    def page(self) -> str:
        """Relative address of its page."""
        return f"runs/{self.slug}/index.html"


def read_shown(
    folders: Sequence[Path], sounds: bool, skip_damaged: bool
) -> tuple[list[ShownRun], list[LeftOut]]:
    """Reads the runs of these folders, the newest first.

    Args:
        folders: of runs; one that is named twice is read once.
        sounds: whether sounds will be played: each must then be the one that was scored.
        skip_damaged: leaves a damaged run out instead of raising an error.

    Returns:
        The runs, and those that were left out.

    Raises:
        UserError: names the first folder that cannot be read; if no run is left.
    """
    runs: list[ScoredRun] = []
    left_out: list[LeftOut] = []
    for folder in {path.resolve(): path for path in folders}.values():
        folder = folder if folder.name else folder.resolve()  # "." has no name
        try:
            runs.append(_read(folder, sounds))
        except UserError as error:
            if not skip_damaged:
                raise UserError(f"{error}; or leave it out: skip_damaged=true") from error
            left_out.append(LeftOut(folder.name, str(error)))
    if not runs:
        raise UserError(
            f"no run is left of {len(folders)}: {' '.join(map(str, left_out))} Make one: "
            "vcbench run"
        )
    newest_first = sorted(runs, key=lambda r: str(r.facts.get("created") or ""), reverse=True)
    return _named(newest_first), left_out


def _read(folder: Path, sounds: bool) -> ScoredRun:
    run = read_run(folder)
    if not (folder / TRIALS).is_dir():  # the tables alone: enough for all numbers
        return run
    return read_report(folder) if sounds else replace(run, suites=stored_suites(run))


def _named(runs: Sequence[ScoredRun]) -> list[ShownRun]:
    """Gives each run a name and a folder of its own."""
    names = [run.name for run in runs]
    taken: set[str] = set()
    slugs: set[str] = set()
    shown = []
    for run in runs:
        several = names.count(run.name) > 1
        name = f"{run.folder.resolve().parent.name}/{run.name}" if several else run.name
        name = _unused(name, taken)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:LONGEST_SLUG].strip("-.") or "run"
        slug = _unused(plain, slugs)
        shown.append(ShownRun(replace(run, name=name), slug, *_flags(run)))
    return shown


def _flags(run: ScoredRun) -> tuple[pd.DataFrame, frozenset[tuple[str, str]]]:
    """The flags of a run, and its suspicious systems: (suite, system)."""
    floor = next((s for s, role in run.anchors.items() if role == "floor"), None)
    raised = flags.raised(run.scores, run.suites, floor)
    rows = flags.suspicious(run.scores, raised)[["suite", "system"]]
    pairs = rows.itertuples(index=False, name=None)
    return raised, frozenset((str(a), str(b)) for a, b in pairs if b not in run.anchors)


def _unused(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken; upper and lower case count as one."""
    number, candidate = 1, name
    while candidate.lower() in taken:
        number += 1
        candidate = f"{name}-{number}"
    taken.add(candidate.lower())
    return candidate

"""Which systems of which runs are compared, and whether their numbers may be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.results import ScoredRun, timed_on


@dataclass(frozen=True)
class Side:
    """One of the two systems of a comparison.

    Attributes:
        label: its name in the comparison.
        run: the run that scored it.
        system: its name in that run.
    """

    label: str
    run: ScoredRun
    system: str

    def rows(self, suite: str) -> pd.DataFrame:
        """The system's rows of the score table over one suite, indexed by trial id."""
        scores = self.run.scores
        rows = scores[(scores["suite"] == suite) & (scores["system"] == self.system)]
        return rows.set_index("trial_id")


def sides(operands: Sequence[tuple[ScoredRun, str | None]]) -> list[tuple[Side, Side]]:
    """The pairs to compare: each later operand with the first.

    Runs of one name in several folders are labelled by the end of their paths.

    Args:
        operands: runs, each with the name of a system or None for all of its systems. A single run
            without a system is compared within itself: each of its systems with its first.

    Raises:
        UserError: if it is not clear which systems belong together, or a system is named twice.
    """
    named = named_apart([run for run, _ in operands])
    operands = [(run, system) for run, (_, system) in zip(named, operands, strict=True)]
    if len(operands) == 1:
        run, system = operands[0]
        if system is not None or len(run.systems) < 2:
            raise UserError(
                f"nothing to compare {run.name} with; name a second run, or a system: "
                f"{run.folder}:{run.systems[0] if run.systems else 'SYSTEM'}"
            )
        first, *others = run.systems
        return [(Side(first, run, first), Side(other, run, other)) for other in others]
    pairs: list[tuple[Side, Side]] = []
    (base, base_system), *rest = operands
    for run, system in rest:
        for a, b in _matched(base, base_system, run, system):
            if any((p.run.folder, p.system) == (run.folder, b) for _, p in pairs):
                raise UserError(f"{run.folder}:{b} is named twice; name each system once")
            pairs.append((_side(base, a, run, b), _side(run, b, base, a)))
    return pairs


def named_apart(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The runs; those of one name in several folders are called by the end of their path."""
    folders: dict[str, set[Path]] = {}
    for run in runs:
        folders.setdefault(run.name, set()).add(run.folder.absolute())

    def name(run: ScoredRun) -> str:
        path, alike = run.folder.absolute(), folders[run.name]
        if len(alike) == 1:
            return run.name
        parts = 1
        while sum(other.parts[-parts:] == path.parts[-parts:] for other in alike) > 1:
            parts += 1
        return "/".join(path.parts[-parts:])

    return [replace(run, name=name(run)) for run in runs]


def without_partner(operands: Sequence[tuple[ScoredRun, str | None]]) -> list[str]:
    """Notes on the systems of whole runs that `sides` leaves out: another run has none like them.

    Args:
        operands: as `sides` takes them.
    """
    notes: dict[str, None] = {}
    whole = [run for run, system in operands if system is None]
    for run in whole[1:] if operands[0][1] is None else ():
        if set(run.systems) & set(whole[0].systems):
            for one, other in ((whole[0], run), (run, whole[0])):
                if alone := [s for s in one.systems if s not in other.systems]:
                    names = ", ".join(alone)
                    notes[f"{names} of {one.folder} left out: {other.folder} has none."] = None
    return [*notes]


def check_comparable(a: ScoredRun, b: ScoredRun) -> list[str]:
    """Checks that the same name means the same suite, judge and pooling in both runs.

    Returns:
        Notes on suites and judges that only one of the runs has, which are left out, and on
        suites whose recordings are perhaps not the same in both runs.

    Raises:
        UserError: names the first field that differs: such numbers are on different scales. Also
            if the runs have no suite or no judge in common.
    """

    def refuse(*path: str) -> None:
        if difference := differs(a, b, *path):
            raise UserError(
                f"{a.folder} and {b.folder} differ in {difference}: their numbers cannot be "
                "compared; make one of them again"
            )

    notes = []
    for kind, keys in (("suites", ("sha256", "trials")), ("judges", ("fingerprint",))):
        names_of_a, names_of_b = _fact(a, kind) or {}, _fact(b, kind) or {}
        for name in [n for n in names_of_a if n in names_of_b]:
            for key in keys:
                refuse(kind, name, key)
        if not set(names_of_a) & set(names_of_b):
            raise UserError(
                f"{a.folder} and {b.folder} have no {kind} in common "
                f"({', '.join(names_of_a) or 'none'} against {', '.join(names_of_b) or 'none'})"
            )
        for name in sorted(set(names_of_a) ^ set(names_of_b)):
            notes.append(f"{name} is in only one of the runs and is left out.")
    for name in _fact(a, "suites") or {}:
        if differs(a, b, "suites", name, "list"):
            notes.append(
                f"{name}: the stored lists of trials differ, though made of one manifest: its "
                "recordings were changed between the runs, or another version wrote a list."
            )
    for metric in _fact(a, "pooling") or {}:
        refuse("pooling", metric)
    return notes


def differs(a: ScoredRun, b: ScoredRun, *path: str) -> str:
    """How an entry of run.json differs: "suites.mini.trials (8 against 72)".

    Args:
        a: one run.
        b: the other.
        path: keys of the entry, from the outermost.

    Returns:
        The entry with both values; "" if they are equal or one run has no such entry.
    """
    of_a, of_b = _fact(a, *path), _fact(b, *path)
    if of_a is None or of_b is None or of_a == of_b:
        return ""
    return f"{'.'.join(path)} ({brief(of_a)} against {brief(of_b)})"


def other_machines(baseline: Side, candidate: Side, suite: str) -> str:
    """The first two machines that differ between the sides: their times cannot be compared.

    Returns:
        "machine against machine", or "" where both timed every trial of the suite on one machine.
    """
    return machines_apart(*(timed_on(s.rows(suite), s.run.facts) for s in (baseline, candidate)))


def machines_apart(before: pd.Series, after: pd.Series) -> str:
    """As `other_machines`, of two results of `bench.results.timed_on`."""
    trials = before.index.intersection(after.index, sort=False)
    pairs = zip(before[trials], after[trials], strict=True)
    return next((f"{a} against {b}" for a, b in pairs if a != b), "")


def brief(value: Any) -> str:
    """The value for an error message: the beginning of a long one."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _fact(run: ScoredRun, *path: str) -> Any:
    """A nested entry of run.json; None where it is missing."""
    value: Any = run.facts
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _side(run: ScoredRun, system: str, other: ScoredRun, other_system: str) -> Side:
    if run.folder == other.folder:
        return Side(system, run, system)
    return Side(run.name if system == other_system else f"{run.name}:{system}", run, system)


def _matched(
    a: ScoredRun, system_of_a: str | None, b: ScoredRun, system_of_b: str | None
) -> list[tuple[str, str]]:
    """Systems that belong together: of the same name, or each the only one of its run."""
    for run, system in ((a, system_of_a), (b, system_of_b)):
        known = list(run.scores["system"].unique())
        if system is not None and system not in known:
            raise UserError(
                f"{run.folder} has no system {system!r}; {choose_one_of(system, known)}"
            )
    of_a = [system_of_a] if system_of_a else a.systems
    of_b = [system_of_b] if system_of_b else b.systems
    if a.folder == b.folder and system_of_a is None and system_of_b is None:
        raise UserError(f"{a.folder} is named twice; name the systems: {a.folder}:SYSTEM")
    if system_of_a and system_of_b:
        return [(system_of_a, system_of_b)]
    if common := [system for system in of_a if system in of_b]:
        return [(system, system) for system in common]
    if len(of_a) == len(of_b) == 1:
        return [(of_a[0], of_b[0])]
    raise UserError(
        f"{a.folder} has {', '.join(of_a) or 'no system'}, {b.folder} has "
        f"{', '.join(of_b) or 'no system'}; "
        f"say which are meant: {a.folder}:SYSTEM {b.folder}:SYSTEM"
    )

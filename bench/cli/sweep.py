"""Runs a command once for every value of a setting: `vcbench run -m system.x.checkpoint=a,b,c`.

All runs convert first, one after another. Then each judge is built once and scores every run, so
that it processes the sources, references and enrolments of all runs once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from bench.cli.settings import GROUPS
from bench.errors import UserError

FLAGS = ("-m", "--multirun")
LONGEST = 60  # characters of a value in a run's name
MOST = 1000  # runs


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        overrides: its settings, with single values.
        suffix: what is added to the name of the run, such as ".checkpoint-a".
    """

    overrides: tuple[str, ...]
    suffix: str


def points(arguments: Sequence[str]) -> list[Point]:
    """The runs of a sweep: every combination of the values of its swept settings.

    `name=a,b`, `name=range(1,4)` and the like are Hydra's; `name=[a,b]` is one value, and
    `system=a,b` are two systems of one run, as without `-m`.

    Raises:
        UserError: if nothing is swept, a value cannot be in a name, or there are over `MOST` runs.
    """
    given = [a for a in arguments if a not in FLAGS]
    swept: dict[str, list[str]] = {}
    for argument in given:
        name = argument.partition("=")[0]
        if name in (*GROUPS, "name", "shard"):
            continue
        try:
            override = OverridesParser.create().parse_override(argument)
        except OverrideParseException:
            continue  # `load` raises the error
        if override.is_sweep_override():
            swept[argument] = list(map(str, override.sweep_string_iterator()))
    if not swept:
        raise UserError(
            "-m needs a setting with several values: vcbench run -m system.takin_vc.checkpoint=a,b"
        )
    total = 1
    for values in swept.values():
        total *= len(values)
    if total > MOST:
        raise UserError(f"-m: {total} runs; at most {MOST} in one sweep")
    runs = []
    for combination in product(*swept.values()):
        chosen = dict(zip(swept, combination, strict=True))
        overrides, suffix = [], ""
        for argument in given:
            if (value := chosen.get(argument)) is None:
                overrides.append(argument)
                continue
            key = argument.partition("=")[0]
            overrides.append(f"{key}={value}")
            suffix += f".{key.rpartition('.')[2].lstrip('+')}-{_shortened(value, swept[argument])}"
        runs.append(Point(tuple(overrides), suffix))
    names = [run.suffix for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"-m: two values would both give the run's name {twice[0]!r}; rename one")
    return runs


def _shortened(value: str, values: Sequence[str]) -> str:
    """The value in a run's name: of a path as many last parts as tell it from the others."""
    text = value.strip("'\"")
    parts = [v.strip("'\"").rstrip("/").split("/") for v in values]
    kept = next(
        (n for n in range(1, 20) if len({tuple(p[-n:]) for p in parts}) == len(parts)),
        20,
    )
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", "_".join(text.rstrip("/").split("/")[-kept:]))
    if not name or len(name) > LONGEST:
        raise UserError(
            f"-m: {value!r} cannot be part of a run's name; use a shorter path or value"
        )
    return name

"""The verb `vcbench baseline`: environments of systems that need an interpreter of their own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from baselines.worker.environments import (
    Environment,
    adapter_path,
    adapters,
    environments_folder,
    install,
    remove,
)
from bench.cli.arguments import Setting, boolean, first_operand, parse_settings, run_verb
from bench.cli.settings import FOLDER
from bench.errors import UserError, choose_one_of

SYSTEM = "baselines.worker.system.IsolatedBaseline"
USAGE = """\
vcbench baseline ls
    the systems that run in environments of their own, and what is installed
vcbench baseline install NAME [from=FOLDER] [accept=true] [python=3.11]
    show the licences, then make the environment; NAME is a system, its adapter or an adapter's
    file (mine.py). from=FOLDER has repository/, weights/ or wheels/ in place of the network; a
    licence that is not permissive needs accept=true
vcbench baseline remove NAME
    remove the environment with its weights
vcbench baseline check NAME [checks=level,seed] [trials=20] [long=true] [call_seconds=120]
        [system.NAME.key=value …]
    check a system against the wrapper contract: one verdict a line
"""

SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "baseline ls": {},
    "baseline install": {
        "from": Setting("folder with repository/, weights/ or wheels/; default: the network"),
        "accept": Setting("true: accepts a licence that is not permissive", boolean),
        "python": Setting("interpreter, such as 3.11; default: the recipe's version"),
    },
    "baseline remove": {},
}


def baseline(arguments: Sequence[str]) -> int:
    """`vcbench baseline ls | install | remove | check`.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong, or an environment cannot be made.
    """
    verbs: Mapping[str, Callable[[Sequence[str]], int]] = {
        "ls": _ls,
        "install": _install,
        "remove": _remove,
        "check": _check,
    }
    return run_verb("baseline", arguments, verbs, USAGE)


def _ls(arguments: Sequence[str]) -> int:
    parse_settings(arguments, "baseline ls", SETTINGS["baseline ls"])
    systems = isolated_systems()
    print(f"environments in {environments_folder()}")
    for name, path in adapters().items():
        environment = Environment.of(path)
        licences = ", ".join(f"{k} {v}" for k, v in environment.recipe.licences.items())
        print(f"\n{name}: {licences}")
        print(f"  systems: {', '.join(s for s, adapter in systems.items() if adapter == name)}")
        receipt = environment.receipt() or {}
        wanted = len(environment.recipe.weights)
        there = wanted - len(environment.absent_weights())
        print(f"  packages: {'installed ' + receipt['created'] if receipt else 'missing'}")
        print(f"  weights: {there} of {wanted} files" if wanted else "  weights: none to fetch")
        if missing := environment.missing():
            print(f"  {missing}")
    return 0


def _install(arguments: Sequence[str]) -> int:
    name, rest = first_operand(arguments, "baseline install", "a system")
    settings: dict[str, Any] = parse_settings(
        rest, "baseline install", SETTINGS["baseline install"]
    )
    environment = _environment(name)
    recipe = environment.recipe
    for what, licence in recipe.licences.items():
        print(f"{environment.name}: licence of the {what}: {licence}")
    if recipe.to_accept and not settings.get("accept"):
        raise UserError(
            f"{environment.name}: read {' and '.join(recipe.to_accept.values())}; if your use is "
            f"allowed, run: vcbench baseline install {name} accept=true"
        )
    source = None
    if "from" in settings:
        source = Path(settings["from"]).expanduser()
        if not source.is_dir():
            raise UserError(f"from={source}: no such folder")
    install(environment, source=source, python=settings.get("python"))
    print(f"{environment.folder}: installed")
    return 0


def _remove(arguments: Sequence[str]) -> int:
    name, rest = first_operand(arguments, "baseline remove", "a system")
    parse_settings(rest, "baseline remove", SETTINGS["baseline remove"])
    environment = _environment(name)
    if not remove(environment):
        raise UserError(f"{environment.name}: nothing is installed in {environment.folder}")
    print(f"{environment.folder}: removed")
    return 0


def _check(arguments: Sequence[str]) -> int:
    from baselines.contract.commands import check  # torch comes with it

    return check(arguments)


def _environment(name: str) -> Environment:
    """The environment of an adapter, of a system that uses it, or of an adapter's file."""
    if name.endswith(".py"):
        return Environment.of(adapter_path(name))
    systems = isolated_systems()
    if name not in (known := adapters()) and name not in systems:
        names = sorted({*known, *systems})
        raise UserError(f"unknown baseline {name!r}; {choose_one_of(name, names)}")
    return Environment.of(adapter_path(systems.get(name, name)))


def isolated_systems() -> dict[str, str]:
    """The systems that run in environments of their own: name → adapter."""
    adapter_of = {}
    for path in sorted((FOLDER / "system").glob("*.yaml")):
        for name, settings in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if settings.get("_target_") == SYSTEM:
                adapter_of[str(name)] = str(settings["adapter"])
    return adapter_of

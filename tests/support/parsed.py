"""Parses commands of the documents by the parsers of their programs, without running them."""

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.cli import VERBS, arguments, settings
from bench.errors import UserError
from bench.objects import locate
from takin_vc.config import load as load_training

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "suites", "reports", "baselines")
PARSERS = {
    "parse": arguments.parse,
    "parse_settings": arguments.parse_settings,
    "load": settings.load,
}
# Modules that ask several parsers → the last one.
LAST = {"baselines.contract.commands": "load"}


class Understood(BaseException):
    """A parser accepted a command."""


@cache
def _users() -> tuple[ModuleType, ...]:
    """The modules that import a parser, except those that hold one."""
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in files
        if "from bench.cli." in path.read_text(encoding="utf-8")
    ]
    return tuple(import_module(name) for name in names)


@contextmanager
def _stopped_at_the_parser() -> Iterator[None]:
    """A verb raises `Understood` as soon as its parser has accepted the arguments."""

    def stopping(parser: Callable[..., Any]) -> Callable[..., Any]:
        def parse(*given: Any, **more: Any) -> Any:
            result = parser(*given, **more)
            if parser is settings.load:
                judges_of(result)
            raise Understood

        return parse

    from bench.cli.verbs import judges_of

    users = _users()
    with pytest.MonkeyPatch.context() as patch:
        for module in users:
            for name, parser in PARSERS.items():
                asked = LAST.get(module.__name__, name) == name
                if asked and getattr(module, name, None) is parser:
                    patch.setattr(module, name, stopping(parser))
        yield


def check(command: str) -> None:
    """Checks a command: of `vcbench` verb, settings and choices, against the real configuration.

    Of `make` the target is checked, of `python -m` the module, of a Takin-VC training its settings.

    Raises:
        UserError: as `vcbench` itself would.
        AssertionError: if there is no such target or module, or no parser was asked.
    """
    program, *given = shlex.split(command, comments=True)
    if program == "vcbench":
        _check_verb(*given)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{re.escape(given[0])}:", makefile, re.MULTILINE), command
    elif program == "python" and given[0] == "-m":
        assert find_spec(given[1]), command
        if given[1] == "takin_vc.train":
            load_training(given[2:], "train")


def _check_verb(verb: str, *given: str) -> None:
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}")
    function = locate(VERBS[verb], "verb")
    with _stopped_at_the_parser():
        try:
            function(given)
        except Understood:
            return
    raise AssertionError(f"vcbench {verb}: no parser read its arguments")

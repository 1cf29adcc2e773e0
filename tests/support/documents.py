"""Fenced blocks of the documents, and the comment before each that says how it is tested.

A comment stands on a line of its own before the block:

    <!-- run -->                    it is run; blocks of a page run in order, in one folder
    <!-- run: limit=1 exit=3 -->    the same, with these settings and this exit code
    <!-- file: my_systems.py -->    it is written to this file of the folder, for later blocks
    <!-- not run: why -->           it is not run; its `vcbench` commands are parsed
    <!-- run by: tests/x.py -->     that test runs it

A comment `<!-- folder: run, corpus -->` anywhere in a page names what the folder has before the
first block: keys of `tests.support.pages.CONTENTS`.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
MARKED = ("bash", "python", "yaml", "json")  # languages whose blocks need a comment
FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*(\S*).*")
MARK = re.compile(r"\s*<!-- (run by|not run|run|file)(?:: (.+))? -->")
FOLDER = re.compile(r"<!-- folder: (.+) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: path of the page, relative to the project's folder.
        line: number of the opening fence.
        language: after the fence; "" if none is given.
        text: the lines between the fences.
        mark: "run", "not run", "run by" or "file"; "" if no comment precedes the block.
        detail: what follows the colon in the comment, or "".
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    detail: str

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a bash block, without comments; continued lines are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[Path]:
    """README.md and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: if a block has no end.
    """
    name = page.relative_to(ROOT).as_posix()
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    mark = ("", "")
    for number, line in lines:
        if opening := FENCE.fullmatch(line):
            body = list(_body(lines, opening[1], f"{name}:{number}"))
            text = dedent("\n".join(body)) + "\n"
            yield Block(name, number, opening[2], text, *mark)
            mark = ("", "")
        elif found := MARK.fullmatch(line):
            mark = (found[1], found[2] or "")
        elif line.strip():
            mark = ("", "")


def _body(lines: Iterator[tuple[int, str]], fence: str, place: str) -> Iterator[str]:
    """The lines up to the closing fence, which is taken from `lines` too."""
    for _, line in lines:
        if (closing := line.strip()).startswith(fence) and not closing.strip(fence[0]):
            return
        yield line
    raise ValueError(f"{place}: the block has no end")


def folder_of(page: Path) -> list[str]:
    """What the page's folder has before its first block runs."""
    found = FOLDER.search(page.read_text(encoding="utf-8"))
    return [part.strip() for part in found[1].split(",")] if found else []


def fault(block: Block) -> str | None:
    """Why it is not said how a block is tested, or None."""
    if not block.language:
        return "names no language; write text for what a program prints"
    if block.language in ("sh", "shell", "console"):
        return f"is called {block.language}; write bash, or text for what a program prints"
    if block.language in MARKED and not block.mark:
        return (
            "has no comment <!-- run -->, <!-- not run: why -->, …: see tests/support/documents.py"
        )
    if block.mark in ("not run", "run by", "file") and not block.detail:
        return f"has the comment {block.mark!r} without a reason, a test or a name"
    if block.mark == "run by" and Path(block.page).name not in _text(block.detail):
        return f"is not run by {block.detail}, which does not name {block.page}"
    if block.mark == "run" and block.language not in ("bash", "python"):
        return f"is {block.language}: it can be a file, but it cannot be run"
    return None


def _text(test: str) -> str:
    """A test's text, or nothing if there is no such file."""
    path = ROOT / test
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def changed(
    arguments: Sequence[str], settings: Mapping[str, str], more: Sequence[str]
) -> list[str]:
    """The arguments of a command with other values of its settings.

    Args:
        arguments: of the command.
        settings: name → value. A name that the command does not have is left out.
        more: names that are added instead.
    """
    given = {a.partition("=")[0] for a in arguments if "=" in a}
    used = {name: value for name, value in settings.items() if name in given or name in more}
    kept = [a for a in arguments if "=" not in a or a.partition("=")[0] not in used]
    return [*kept, *(f"{name}={value}" for name, value in used.items())]


def settings_of(detail: str) -> dict[str, str]:
    """Converts "limit=1 exit=3"."""
    return dict(part.split("=", 1) for part in shlex.split(detail))

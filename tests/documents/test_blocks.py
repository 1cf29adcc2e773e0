"""Every fenced block of README.md and docs runs, or its comment says why it does not.

`tests/support/documents.py` describes the comments. Commands of `vcbench` that are not run, or that
run with cheaper settings than the page shows, are parsed by the real parsers against the real
configuration.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bench.__main__ import main
from tests.support.documents import (
    ROOT,
    Block,
    blocks,
    changed,
    fault,
    folder_of,
    pages,
    settings_of,
)
from tests.support.pages import CONTENTS, copied, scored_run
from tests.support.parsed import check

PAGES = pages()
COMMON = ("limit", "suite", "system", "judge", "report")
MORE = {  # verb → settings that a comment may add
    **dict.fromkeys(("run", "convert", "score", "report"), COMMON),
    "stimuli": ("trials", "listeners"),
}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


with_blocks = pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p))], ids=named)


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory):
    with scored_run(tmp_path_factory.mktemp("scored")) as folder:
        yield folder


@pytest.fixture
def folder(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> Path:
    """The page's folder, with what the page says; also the working directory."""
    for name in folder_of(page):
        if name == "run":
            (tmp_path / "outputs").mkdir()
            copied(request.getfixturevalue("scored"), tmp_path / "outputs" / "mini")
        else:
            CONTENTS[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("VCBENCH_ENVIRONMENTS", raising=False)
    modules = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - modules:  # of the page's files
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@with_blocks
def test_every_block_says_how_it_is_tested(page):
    faults = [f"{block.place} {fault(block)}" for block in blocks(page) if fault(block)]
    assert not faults, "\n".join(faults)


@with_blocks
def test_the_blocks_work(page, folder):
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        try:
            work(block, names)
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{block.place}: {error}") from error


def work(block: Block, names: dict[str, object]) -> None:
    """Checks one block as its comment says, in the working directory."""
    if block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    values = list(values_of(block.text)) if block.language == "json" else []
    if block.language == "python":
        compile(block.text, block.place, "exec")
    if block.language == "bash" and block.mark != "run by":
        for command in block.commands:
            check(command)
    if block.mark == "file":
        Path(block.detail).parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps(value)}\n" for value in values)
        text = lines if block.detail.endswith(".jsonl") else block.text
        Path(block.detail).write_text(text, encoding="utf-8")
    elif block.mark == "run" and block.language == "python":
        exec(compile(block.text, block.place, "exec"), names)
    elif block.mark == "run":
        settings = settings_of(block.detail)
        code = int(settings.pop("exit", 0))
        for command in block.commands:
            assert run(command, settings) == code, f"{command}: not {code}"


def values_of(text: str) -> Iterator[object]:
    """The JSON values of a block, one after another."""
    text = text.strip()
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:].lstrip()


def run(command: str, settings: dict[str, str]) -> int:
    """The exit code of a command; `vcbench` runs in this process, which has imported torch."""
    program, *arguments = shlex.split(command, comments=True)
    if program != "vcbench":
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {**os.environ, "PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}
        return subprocess.run(["bash", "-euc", command], env=environment, check=False).returncode
    arguments = changed(arguments, settings, MORE.get(arguments[0], ()))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_there_are_many_blocks():
    marks = [block.mark for page in PAGES for block in blocks(page)]
    assert marks.count("run") >= 20

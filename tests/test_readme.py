"""Every command of the documents is one that the command line understands."""

import re
import shlex
from pathlib import Path

import pytest

from bench.cli import VERBS
from bench.cli.settings import load

ROOT = Path(__file__).parents[1]


def commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("vcbench "):
                yield line.partition("  #")[0]


COMMANDS = list(commands())


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command):
    _, verb, *settings = shlex.split(command.replace(" | score | report", ""))
    assert verb in VERBS
    if verb == "suite" and settings[0] == "check":
        load([f"suite={settings[1]}", *(s for s in settings[2:] if not s.startswith("train="))])
    elif verb in ("suite", "corpus"):
        assert settings[0] in ("build", "import", "ls", "fetch", "index")
    elif verb != "ls":
        load([s for s in settings if s != "--fetch"])


@pytest.mark.parametrize("target", ["bench", "test", "doctor", "benchmarks", "lint"])
def test_make_has_the_targets_that_the_documents_name(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda p: p.name)
def test_links_of_the_documents_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link

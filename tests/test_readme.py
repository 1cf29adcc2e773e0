"""Every command in the documents parses, every link exists, every Python example runs."""

import re
import shlex
from pathlib import Path

import pytest

import bench
from bench.cli import VERBS
from bench.cli.settings import load
from bench.errors import UserError
from bench.objects import locate
from suites.build import MANIFESTS, MINI

ROOT = Path(__file__).parents[1]


def commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    for block in (lines for language, lines in fences if not language):
        for line in block.splitlines():
            if line.startswith("vcbench "):
                yield line.partition("  #")[0]


COMMANDS = list(commands())


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no runs are here
    _, verb, *settings = shlex.split(command.replace(" | score | report", ""))
    assert verb in VERBS
    if verb == "suite" and settings[0] == "check":
        load([f"suite={settings[1]}", *(s for s in settings[2:] if not s.startswith("train="))])
    elif verb == "baseline":
        assert settings[0] == "check"
        load([f"system=[{settings[1]}]", *settings[2:]])
    elif verb in ("suite", "corpus"):
        assert settings[0] in ("build", "import", "ls", "fetch", "index")
    elif verb in ("compare", "gate", "history", "agreement", "site", "stimuli"):
        with pytest.raises(UserError, match=r"no run|no scored run"):  # the settings are known
            locate(VERBS[verb], "verb")(settings)
    elif verb != "ls":
        load([s for s in settings if s != "--fetch"])


@pytest.mark.parametrize("target", ["bench", "test", "doctor", "benchmarks", "lint"])
def test_make_has_the_targets_that_the_documents_name(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("takin_vc/*.md")})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_of_the_documents_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_the_notebook_runs(tmp_path, monkeypatch):
    trials = (MANIFESTS / "mini_cross_gender.v2.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "trials.jsonl").write_text("\n".join(trials[:4]) + "\n", encoding="utf-8")
    (tmp_path / "corpus").symlink_to(MINI)
    text = (ROOT / "docs" / "guide" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "notebook.md", "exec"), names)
    run = names["run"]
    assert isinstance(run, bench.Run)
    assert run.scores["secs.secs"].notna().all()
    assert set(run.summary["system"]) == {"mine", "world"}
    assert (tmp_path / "outputs" / "mine" / "report.html").is_file()

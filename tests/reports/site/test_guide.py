"""Every `vcbench` command of docs/guide/leaderboard.md runs, that of its workflow included."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from bench.__main__ import main

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "leaderboard.md"
BLOCKS = re.findall(
    r"^```(\w*)\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
NOT_RUN = ["python -m http.server --directory public"]  # serves until it is stopped


def execute(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    assert ended.value.code == 0


def copy_tables(run: Path, folder: Path) -> None:
    """Copies what a run's numbers need."""
    folder.mkdir(parents=True)
    for name in ("run.json", "scores.csv", "summary.csv"):
        shutil.copyfile(run / name, folder / name)


def test_the_commands_run_one_after_the_other(outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(outputs / "short", "outputs/mini")
    copy_tables(outputs / "v3", Path("outputs/quick"))
    ours = [command for command in COMMANDS if command not in NOT_RUN]
    assert len(ours) == len(COMMANDS) - 1 == 6
    for command in ours:
        execute(command)
        assert Path("public/index.html").is_file()
        assert len(list(Path("public/runs").iterdir())) == 2


def test_the_workflow_builds_what_it_publishes(outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = yaml.safe_load(next(block for kind, block in BLOCKS if kind == "yaml"))
    steps = workflow["jobs"]["site"]["steps"]
    for run in ("v1", "v3"):
        copy_tables(outputs / run, Path("runs") / run)
    for command in (step["run"] for step in steps if "vcbench" in step.get("run", "")):
        execute(command)
    published = next(step["with"]["path"] for step in steps if "upload" in step.get("uses", ""))
    assert (tmp_path / published / "index.html").is_file()

"""The steps of the GitHub Action, run as a runner runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.made_up import run, scores, write

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
BASE = 0.6 + 0.05 * np.random.default_rng(0).normal(size=72)
NOISE = 0.01 * np.random.default_rng(1).normal(size=72)


@pytest.fixture
def gate(tmp_path):
    """Runs the step "Gate" over runs with planted scores.

    Returns:
        (exit code, outputs, summary)
    """
    for name, values in {
        "old": BASE,
        "better": BASE + 0.03 + NOISE,
        "worse": BASE - 0.06 + NOISE,
        "close": BASE + 10 * (NOISE - NOISE.mean()),
    }.items():
        write(run(name, scores("a", values), folder=tmp_path))
    (tmp_path / "margins.yaml").write_text("margins: {secs: 0.02}\n")
    program = tmp_path / "bin" / "vcbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vcbench "$@"\n')
    program.chmod(0o755)

    def start(**given):
        inputs = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()}
        inputs |= {"baseline": "old", "margins": "margins.yaml", **given}
        files = {n: tmp_path / n.lower() for n in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", STEPS["Gate"]["run"]],
            cwd=tmp_path,
            env={
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(tmp_path),
                **{name: str(file) for name, file in files.items()},
                **{name: filled(text, inputs) for name, text in STEPS["Gate"]["env"].items()},
            },
            capture_output=True,
            text=True,
        )
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        outputs = dict(line.split("=", 1) for line in lines)
        return ended.returncode, outputs, files["GITHUB_STEP_SUMMARY"].read_text()

    return start


def filled(text, inputs):
    """The value of a step's variable, as a runner fills it in."""
    name = re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text)[1]
    return inputs[name]


@pytest.mark.parametrize(
    ("given", "code", "outcome", "summary"),
    [
        ({"candidate": "better"}, 0, "pass", "## ✅ pass: better may replace old"),
        ({"candidate": "worse"}, 1, "regression", "## ❌ regression: worse is worse than old"),
        ({"candidate": "close"}, 3, "undecided", "## ❔ undecided: whether close may replace"),
        ({"candidate": "close", "undecided": "pass"}, 0, "undecided", "## ❔ undecided: whether"),
        ({"candidate": "worse", "undecided": "pass"}, 1, "regression", "## ❌ regression"),
        (
            {"candidate": "none"},
            2,
            "mistake",
            "## The gate could not run\n\n    vcbench: outputs/none holds",
        ),
        ({"candidate": "help"}, 2, "mistake", "## The gate could not run"),
        ({"candidate": "better", "undecided": "maybe"}, 2, "mistake", ""),
    ],
)
def test_the_job_fails_by_the_decision_and_shows_it(gate, given, code, outcome, summary):
    ended, outputs, written = gate(**given)
    assert (ended, outputs) == (code, {"outcome": outcome})
    assert written.startswith(summary)


def test_junit_is_written_and_names_with_spaces_are_names(gate, tmp_path):
    (tmp_path / "better").rename(tmp_path / "the better one")
    ended, _, _ = gate(candidate=f"{tmp_path}/the better one", junit="my results.xml")
    assert ended == 0
    assert (tmp_path / "my results.xml").read_text().startswith("<?xml")


def test_an_input_is_never_a_command(gate, tmp_path):
    for candidate in ('$(touch taken)"; `touch taken`; "', "a\ntouch taken"):
        ended, outputs, summary = gate(candidate=candidate)
        assert (ended, outputs) == (2, {"outcome": "mistake"})
        assert all(line.startswith(("    ", "#")) or not line for line in summary.splitlines())
    assert not (tmp_path / "taken").exists()


def test_no_script_contains_an_expression():
    assert [name for name, step in STEPS.items() if "${{" in step["run"]] == []


def test_every_input_is_used_and_every_expression_is_known():
    text = (ROOT / ".github/actions/gate/action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"inputs\.(\w+)", text))
    assert used == set(ACTION["inputs"])
    others = set(re.findall(r"\$\{\{ (?!inputs\.)(.*?) \}\}", text))
    assert others == {"github.action_path", "steps.gate.outputs.outcome"}


def test_the_installed_project_is_the_repository_of_the_action():
    repository = STEPS["Install"]["env"]["REPOSITORY"]
    path = repository.replace("${{ github.action_path }}", str(ROOT / ".github/actions/gate"))
    assert (Path(path) / "pyproject.toml").resolve() == ROOT / "pyproject.toml"
    ended = subprocess.run(["bash", "-n", "-c", STEPS["Install"]["run"]], capture_output=True)
    assert ended.stderr == b""

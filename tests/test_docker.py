"""The Dockerfile's steps as far as they run without Docker: its files, its user, its commands.

Not run here: the base image, the installation from PyTorch's index for the CPU, a GPU.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vcbench

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def steps() -> list[tuple[str, str]]:
    """(instruction, rest) of each step, comments and line breaks removed."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


STEPS = steps()


def rests(instruction: str) -> list[str]:
    return [rest for name, rest in STEPS if name == instruction]


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Path:
    """What `COPY . .` copies of a checkout, with files that .dockerignore leaves out."""
    whole = tmp_path_factory.mktemp("docker") / "checkout"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert not any("*" in p.removeprefix("**/").removeprefix("*.") for p in patterns)
    for name in [*names, ".git/HEAD", ".venv/bin/python", "outputs/a/run.json", "x/__pycache__/y"]:
        path = Path(name)
        parts = path.parts
        ignored = any(
            pattern.removeprefix("**/") in parts
            if pattern.startswith("**/")
            else parts[:1] == (pattern,) or (pattern.startswith("*.") and path.match(pattern))
            for pattern in patterns
        )
        if name and not ignored and (ROOT / name).is_file():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(ROOT / name, whole / name) if same_disk(whole) else shutil.copy(
                ROOT / name, whole / name
            )
    return whole


def same_disk(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.stat().st_dev == ROOT.stat().st_dev


def test_the_context_has_what_the_installation_reads_and_no_more(context):
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "vcbench.py"):
        assert (context / name).is_file()
    for package in vcbench.PACKAGES:
        tracked = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if wanted(p)}
        assert {p.relative_to(context) for p in (context / package).rglob("*") if wanted(p)} == (
            tracked
        )
    for name in (".git", ".venv", "outputs", "x"):
        assert not (context / name).exists()


def wanted(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def test_it_builds_the_environment_by_make_and_a_run_installs_nothing(context):
    [build] = [rest for rest in rests("RUN") if "make " in rest.partition("apt-get")[0]]
    target = re.search(r"make (\S+)", build)[1]
    assert target == ".venv/.installed"
    assert "$(VENV)/.installed:" in MAKEFILE
    assert json.loads(rests("CMD")[0]) == ["make", "bench"]
    (context / ".venv").mkdir()
    (context / ".venv" / ".installed").touch()  # the last command of the build
    printed = subprocess.run(
        ["make", "--no-print-directory", "-n", "bench"],
        cwd=context,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.split() == [".venv/bin/vcbench", "run"]


def test_an_ordinary_user_copies_builds_and_runs():
    names = [name for name, _ in STEPS]
    [user] = rests("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert names.index("USER") < names.index("COPY") < names.index("CMD")
    assert f"--chown={user}" in rests("COPY")[0]


def test_the_base_image_has_a_python_that_the_project_supports():
    [python] = [rest.partition("=")[2] for rest in rests("ARG") if rest.startswith("PYTHON=")]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"Programming Language :: Python :: {python}"' in project
    assert rests("FROM") == ["python:${PYTHON}-slim"]


@pytest.mark.parametrize(("backend", "variable"), [("cpu", "cpu"), ("cuda", None)])
def test_the_argument_chooses_the_build_of_pytorch(tmp_path, backend, variable):
    [build] = [rest for rest in rests("RUN") if "UV_TORCH_BACKEND" in rest]
    made = tmp_path / "make"
    made.write_text('#!/bin/sh\necho "$1 ${UV_TORCH_BACKEND:-none}"\n')
    made.chmod(0o755)
    ended = subprocess.run(
        ["/bin/sh", "-c", build],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "BACKEND": backend},
        check=True,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == f".venv/.installed {variable or 'none'}\n"
    assert (tmp_path / "outputs").is_dir()


def test_hadolint_has_no_remark():
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("no hadolint")
    ended = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == ""

"""Another package called `bench`, `suites` or `reports` is one line that names it."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vcbench

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def package(folder: Path, name: str, text: str = "") -> Path:
    path = folder / name / "__init__.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def start(*path: Path, module: str = "vcbench", cwd: Path = ROOT) -> tuple[int, str]:
    """The exit code and the errors of `vcbench ls presets` with these folders on Python's path."""
    ended = subprocess.run(
        [sys.executable, "-P", "-m", module, "ls", "presets"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("name", ["suites", "bench"])
def test_a_package_that_comes_first_is_named_with_the_way_out(tmp_path, name):
    other = package(tmp_path / "theirs", name, "raise AssertionError('imported')")
    code, errors = start(other.parents[1], ROOT)
    assert code == 2
    assert errors == (
        f"vcbench: {other} is used as the package {name} in place of "
        f"{ROOT / name / '__init__.py'}; remove it from Python's path (PYTHONPATH, current "
        "folder), or install takin-vc-bench into an environment of its own\n"
    )


def test_a_folder_of_that_name_without_python_is_no_clash(tmp_path):
    (tmp_path / "reports").mkdir()
    assert start(tmp_path, ROOT) == (0, "")


def test_the_module_bench_starts_in_the_same_way(tmp_path):
    other = package(tmp_path / "theirs", "reports")
    code, errors = start(other.parents[1], ROOT, module="bench")
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith(f"vcbench: {other} is used as the package reports in place of ")


def site(folder: Path) -> Path:
    """A site-packages with this project as pip installs it, its packages empty."""
    shutil.copy(ROOT / "vcbench.py", folder)
    for name in vcbench.PACKAGES:
        package(folder, name, f'"""This project\'s {name}."""\n')
    distribution(folder, "takin-vc-bench", [f"{name}/__init__.py" for name in vcbench.PACKAGES])
    return folder


def distribution(folder: Path, name: str, files: list[str]) -> None:
    """Records that a distribution installed these files as they are now."""
    info = folder / f"{name.replace('-', '_')}-5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 5.0\n")
    lines = []
    for file in files:
        digest = hashlib.sha256((folder / file).read_bytes()).digest()
        encoded = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        lines.append(f"{file},sha256={encoded},\n")
    (info / "RECORD").write_text("".join(lines))


def test_a_distribution_that_wrote_over_a_package_is_named(tmp_path):
    folder = site(tmp_path)
    path = folder / "bench" / "__init__.py"
    path.write_text("raise AssertionError('imported')\n")
    distribution(folder, "frappe-bench", ["bench/__init__.py"])
    code, errors = start(folder, cwd=tmp_path)
    assert code == 2
    assert errors == (
        f"vcbench: {path} was replaced by frappe-bench; uninstall that and install "
        "takin-vc-bench again, or install takin-vc-bench into an environment of its own\n"
    )


def test_a_package_that_another_distribution_removed_is_missing(tmp_path):
    folder = site(tmp_path)
    shutil.rmtree(folder / "suites")
    code, errors = start(folder, cwd=tmp_path)
    assert (code, errors) == (
        2,
        f"vcbench: the package suites is missing at {folder / 'suites'}; "
        "install takin-vc-bench again\n",
    )


def test_the_start_knows_every_package_and_is_installed():
    includes = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(vcbench.PACKAGES) == sorted(name for name in includes if "*" not in name)
    assert PROJECT["tool"]["setuptools"]["py-modules"] == [vcbench.__name__]
    assert PROJECT["project"]["scripts"] == {"vcbench": "vcbench:main"}
    assert vcbench.clash() is None


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, vcbench.SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_waiting_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch, given, spins):
    environment = dict(given)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr("bench.__main__.main", lambda: None)
    vcbench.main()
    assert environment.get("GOMP_SPINCOUNT") == spins


def test_every_package_is_marked_as_typed():
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["*"]
    assert [n for n in vcbench.PACKAGES if not (ROOT / n / "py.typed").is_file()] == []

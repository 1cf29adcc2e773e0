"""The parts of `make test-install`; that target takes minutes and does not run here."""

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.install.wheel import (
    MEASURED,
    PROJECT,
    ROOT,
    Failed,
    call,
    check_run,
    defaults,
    find,
    main,
    outside,
    supported,
)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Writes shell scripts into a folder that is the only one on PATH, and returns it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, body: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


def test_the_pythons_that_are_tried_are_those_that_may_install_it():
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert supported() == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]


def test_torch_and_torchaudio_are_one_exact_release_everywhere():
    pins = {}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for line in (*PROJECT["project"]["dependencies"], *lines):
        if line.startswith(("torch==", "torchaudio==")):
            pins.setdefault(Requirement(line).name, set()).add(str(Requirement(line).specifier))
    assert pins["torch"] == pins["torchaudio"]
    assert len(pins["torch"]) == 1
    assert "*" not in next(iter(pins["torch"]))


def test_the_constraints_are_versions_that_the_project_allows():
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#") and applies(Requirement(line)):
            pinned[Requirement(line).name.lower()] = Requirement(line).specifier
    for requirement in filter(applies, map(Requirement, wanted)):
        [exact] = pinned[requirement.name.lower()]
        assert requirement.specifier.contains(exact.version), requirement


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def test_a_python_is_located_on_path(programs):
    path = programs("python3.42", "echo 3.42")
    assert find("3.42") == path
    assert find(str(path)) == path


def test_a_shim_that_does_not_run_is_passed_over_and_pyenv_is_asked(programs):
    programs("python3.42", "echo 'not selected' >&2; exit 127")
    programs("3.42.1/bin/python", "echo 3.42")
    newest = programs("3.42.7/bin/python", "echo 3.42")
    programs(
        "pyenv",
        f'if [ "$1" = prefix ]; then echo "{newest.parents[2]}/$2"; '
        "else printf '3.4.2\\n3.42.1\\n3.42.7\\n'; fi",
    )
    assert find("3.42") == newest
    assert find("3.43") is None


def test_a_python_of_another_version_is_not_it(programs):
    programs("python3.42", "echo 3.41")
    assert find("3.42") is None


def test_a_missing_python_is_named_and_none_at_all_is_a_failure(programs, capsys):
    with pytest.raises(SystemExit, match="no Python to try; name one: make test-install PYTHONS="):
        main(["3.42", "no/such/python"])
    out = capsys.readouterr().out
    assert "Python 3.42: not found" in out
    assert "Python no/such/python: not found" in out


def test_a_failed_step_shows_its_code_and_the_end_of_what_it_printed(tmp_path):
    script = "print('\\n'.join(map(str, range(99)))); raise SystemExit(3)"
    with pytest.raises(Failed, match=r"exit code 3: .*\n59\n(.*\n)*98$"):
        call(sys.executable, "-c", script, cwd=tmp_path)


def test_neither_the_checkout_nor_constraints_nor_a_compiler_is_visible(monkeypatch):
    for name in ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    environment = outside(HOME="h")
    assert not {"PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV"} & set(environment)
    assert (environment["CC"], environment["HOME"]) == ("false", "h")


def test_the_default_run_is_read_from_the_settings():
    assert defaults("system")[:3] == ["source", "target", "world"]
    assert "takin_vc" in defaults("system")
    assert defaults("suite")[0] == "mini_cross_gender"


def run_folder(folder, **changed):
    """A run of two systems with one suite; the row of world's first trial is changed."""
    columns = ["system", "suite", "trial_id", "status", *MEASURED]
    rows = [
        {"system": system, "suite": "s", "trial_id": trial, "status": "ok"}
        | dict.fromkeys(MEASURED, "" if system == "target" else "1")
        for system in ("target", "world")
        for trial in "ab"
    ]
    rows[2].update(changed)
    lines = [",".join(columns), *(",".join(row[c] for c in columns) for row in rows)]
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    (folder / "report.html").write_text("")
    return folder


def test_a_run_is_complete_if_all_but_the_ceiling_are_measured(tmp_path):
    check_run(run_folder(tmp_path), ["world", "target"], ["s"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"status": "failed"}, "world, s, a: failed"),
        ({"dnsmos.ovrl": ""}, "world, s, a: nothing in dnsmos.ovrl"),
        ({"suite": "t"}, "scores.csv has rows of"),
    ],
)
def test_a_run_that_lacks_something_is_a_failure(tmp_path, changed, message):
    with pytest.raises(Failed, match=message):
        check_run(run_folder(tmp_path, **changed), ["world", "target"], ["s"])

"""`vcbench doctor`: which weights systems lack, and which it downloads."""

import pytest

from bench.__main__ import main

COMMON = ["judge=[]", "+system.fetched_system.path=weights.txt"]
SYSTEM = "tests.support.fakes.FetchedSystem"


def doctor(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    assert ended.value.code == code


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_shows_what_a_system_lacks_and_fetches_it_when_asked(folder, capsys):
    (folder / "weights.published").write_text("right")
    doctor(f"system=[source,{SYSTEM}]", *COMMON)
    printed = capsys.readouterr().out
    assert "– fetched_system not available: no word; get it (5 MB)" in printed
    assert "source" not in printed
    assert not (folder / "weights.txt").exists()
    doctor("--fetch", f"system={SYSTEM}", *COMMON)
    printed = capsys.readouterr().out
    assert "fetched_system 5 MB: hf download owner/name" in printed
    assert "✓ fetched_system has its weights" in printed
    doctor("--fetch", f"system={SYSTEM}", *COMMON)
    assert "hf download" not in capsys.readouterr().out


def test_it_goes_on_to_the_judges_without_a_connection(capsys):
    doctor("--fetch", f"system={SYSTEM}", "judge=energy", COMMON[1])
    printed = capsys.readouterr().out
    assert "– fetched_system not available: owner/name: no download (no route)" in printed
    assert "✓ energy" in printed


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (SYSTEM, "✗ fetched_system: weights.txt: a folder, no word"),
        ("tests.support.fakes.FetchdSystem", "✗ fetchd_system: "),
    ],
    ids=["settings", "class"],
)
def test_a_system_whose_settings_are_wrong_fails_it_and_judges_are_still_checked(
    folder, capsys, system, message
):
    (folder / "weights.txt").mkdir()
    doctor(f"system={system}", "judge=energy", *COMMON[1:] * (system == SYSTEM), code=1)
    printed = capsys.readouterr().out
    assert message in printed
    assert "✓ energy" in printed

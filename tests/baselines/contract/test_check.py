"""Every faulty system fails exactly the check of its fault; good ones pass."""

import pytest

from baselines.commands import baseline
from baselines.contract.commands import CHECKS
from bench.errors import UserError

FAULTS = {
    "WrongRate": "rate",
    "Stereo": "waveform",
    "Array": "waveform",
    "Raises": "waveform",
    "Interleaved": "waveform",
    "Clipped": "level",
    "BeyondFullScale": "level",
    "Offset": "dc",
    "Unseeded": "seed",
    "OrderOfASet": "seed",
    "Leaking": "state",
    "KeepsFirstReference": "state",
    "Hanging": "time",
    "HangsOnShort": "inputs",
    "Watermarked": "watermark",
    "Cutting": "reference",
    "WrongDeclaration": "reference",
    "IgnoresReference": "reference",
    "WritesHere": "writes",
    "WritesHome": "writes",
    "ChildWrites": "writes",
    "LeavesTemporary": "writes",
    "ChangesDtype": "globals",
    "ChangesThreads": "globals",
    "Growing": "memory",
    "NaNOnSilence": "inputs",
    "ExitsOnNoise": "inputs",
    "CutsSource": "inputs",
}


@pytest.fixture
def verdicts(tmp_path, monkeypatch, capsys):
    """Checks a mock; the exit code, and check → (verdict, reason)."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    def run(name, *settings):
        code = baseline(["check", f"tests.support.contract.{name}", "trials=8", *settings])
        lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
        table = {check: (v, reason) for v, check, reason in lines if v in ("pass", "note", "FAIL")}
        return code, table

    return run


def test_a_good_system_passes_every_check(verdicts):
    code, table = verdicts("Good")
    assert code == 0
    assert list(table) == list(CHECKS)
    assert {check for check, (verdict, _) in table.items() if verdict != "pass"} == set()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_exactly_its_check(name, verdicts):
    # a hanging call is waited for
    code, table = verdicts(name, *(["call_seconds=2"] if name.startswith("Hang") else []))
    assert {check for check, (verdict, _) in table.items() if verdict == "FAIL"} == {FAULTS[name]}
    assert code == 1
    assert set(table) == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "check", "verdict", "words"),
    [
        ("Padding", "length", "note", "blocks of 1280 samples (80.0 ms)"),
        ("FixedLoudness", "level", "note", "rewrites loudness to -20.0 dBFS"),
        ("DeclaredCut", "reference", "pass", "the first 10.0 s"),
        ("Cutting", "reference", "FAIL", "only the first 10.0 s"),
        ("WrongDeclaration", "reference", "FAIL", "declares 15 s"),
        ("Steps", "steps", "pass", "20 calls of Linear at steps=null, 8 at 4, 16 at 8: 10 steps"),
        ("WrongRate", "rate", "FAIL", "as samples at 16000 Hz would"),
        ("Interleaved", "waveform", "FAIL", "interleaved"),
        ("Watermarked", "watermark", "FAIL", "about -60 dBFS"),
        ("KeepsScratch", "writes", "note", "temporary files, and keeps 1"),
        (
            "LeavesTemporary",
            "writes",
            "FAIL",
            "temporary files and leaves 4, 3 more than 3 calls ago",
        ),
        ("WritesHome", "writes", "FAIL", "writes ~/converted.txt"),
        ("ChildWrites", "writes", "FAIL", "of_a_child.txt in the working directory"),
        ("ChangesDtype", "globals", "FAIL", "default dtype to torch.float64"),
        ("ExitsOnNoise", "inputs", "FAIL", "noise as source: ended its process"),
    ],
)
def test_a_verdict_names_the_value(name, check, verdict, words, verdicts):
    code, table = verdicts(name, f"checks={check}")
    assert list(table) == [check]
    assert table[check][0] == verdict
    assert words in table[check][1]
    assert code == (verdict == "FAIL")


def test_a_first_conversion_that_fails_is_shown_whatever_is_chosen(verdicts):
    code, table = verdicts("Raises", "checks=level")
    assert code == 1
    assert table["waveform"] == ("FAIL", "its first conversion raised RuntimeError: no weights")
    assert table["level"][1].startswith("not checked")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "needs a system first"),
        (["wrld"], "did you mean 'world'"),
        (["source"], "exists already"),
        (["world", "checks=levels"], "did you mean 'level'"),
        (["world", "trials=0"], "trials=0"),
        (["world", "call_seconds=-1"], "call_seconds=-1"),
        (["world", "system.world.borow=1"], "borow"),
        (["world", "takin_vc"], "'takin_vc' is not a setting"),
        (["tests.support.contract.Missing"], "no 'Missing'"),
    ],
)
def test_a_mistake_is_named(arguments, words):
    with pytest.raises(UserError, match=words):
        baseline(["check", *arguments])


def test_the_verb_shows_its_usage(capsys):
    assert baseline([]) == 2
    assert "baseline check NAME" in capsys.readouterr().out
    with pytest.raises(UserError, match="did you mean 'check'"):
        baseline(["chek"])

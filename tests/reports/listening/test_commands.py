"""`vcbench stimuli`: what it writes, and its mistakes."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.audio import Waveform
from bench.errors import UserError
from reports.listening import commands as commands_of_stimuli
from reports.listening.commands import stimuli
from reports.listening.wording import DEFAULT, FOLDER, read_wording
from tests.reports.listening.conftest import SYSTEMS


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    """A working folder with outputs/mini, and recordings of instructions."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mini").symlink_to(run.folder)
    sounds = sorted((run.folder / "wav" / "knn").rglob("*.wav"))
    for name, path in zip(("two.wav", "four.wav"), sounds, strict=False):
        (tmp_path / name).symlink_to(path)
    ratings = ["listener,system,trial_id,rating"]
    trials = [t.trial_id for t in run.suites["mini_cross_gender"].trials[:12]]
    for listener in range(6):
        for t, trial in enumerate(trials):
            system = SYSTEMS[(listener + t) % 3]
            ratings.append(f"l{listener},{system},{trial},{1 + (listener * t + t) % 5}")
    (tmp_path / "earlier.csv").write_text("\n".join(ratings) + "\n")
    (tmp_path / "german.yaml").write_text(
        DEFAULT.read_text().replace("language: en", "language: de")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_test_is_written_with_its_wording(folder, capsys):
    assert stimuli(shlex.split("run=outputs/mini test=nmos out=made wording=german.yaml")) == 0
    assert "keep to yourself" in capsys.readouterr().out
    test = json.loads(Path("made/test.json").read_text())
    assert len(test["groups"]) >= 4
    assert test["language"] == "de"
    assert Path("made/page/index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run=outputs/mini out=x", "test=… is missing"),
        ("run=outputs/mini test=mos out=x", "test=mos: must be nmos or smos"),
        ("run=outputs/mini test=nmos out=x trails=3", "did you mean 'trials'"),
        ("run=outputs/mini test=nmos out=x trials=0", "trials=0: must be 1 or more"),
        ("run=outputs/mini test=nmos out=x url=ftp://x", "url=ftp://x: not an address"),
        ("run=outputs/mini test=nmos out=x trap_audio=two.wav", "trap_audio has 1 files"),
        ("run=outputs/mini test=nmos out=x trap_audio=two.wav trap_ratings=7", "7 is no rating"),
        ("run=outputs/mini test=nmos out=x trap_audio=x.wav trap_ratings=2", "no file x.wav"),
        ("run=outputs/mini test=nmos out=x wording=x.yaml", "no wording at x.yaml"),
        ("run=outputs/mini test=nmos out=x wording=dee", "no wording at dee; give de, en"),
        ("run=outputs/mini test=nmos out=x skip=t9999", "skip=t9999: no such trial"),
        ("run=outputs/mini test=nmos out=x training=-1", "training=-1: must be 0 or more"),
        ("run=outputs/none test=nmos out=x", "holds no scored run"),
        ("plans", "did you mean 'plan'"),
        ("plan", "needs half_width"),
        ("plan half_width=-1", "half_width=-1: must be over 0"),
        ("plan half_width=0.1 trials=3 systems=5", "trials=3: a listener needs one for each"),
        ("plan half_width=0.1 ratings=earlier.csv", "needs the run"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, folder):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        stimuli(shlex.split(arguments))
    assert "\n" not in str(error.value)
    assert not (folder / "x").exists()


def test_the_usage_is_printed(capsys):
    assert stimuli([]) == 2
    assert "vcbench stimuli plan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labels: {5: Excellent, 4: Good", "labels: {4: Good", "the labels of nmos"),
        ("{answers}", "it", "no {answers}"),
        ("  nmos:", "  nmoss:", "no usable wording of nmos"),
        ("language: en", "language: [", "no YAML"),
    ],
)
def test_a_damaged_wording_is_named(tmp_path, old, new, message):
    text = DEFAULT.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "w.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)):
        read_wording("nmos", tmp_path / "w.yaml")


def test_html_in_the_wording_is_escaped(make, tmp_path):
    from dataclasses import replace

    from reports.listening.export import write_test

    test = make("nmos", trials=4, listeners=4)
    evil = "</script><img src=x onerror=alert(1)>"
    words = replace(test.wording, instructions=evil, page={**test.wording.page, "title": evil})
    write_test(replace(test, wording=words), tmp_path / "test")
    assert evil not in (tmp_path / "test" / "page" / "index.html").read_text()
    for path in (tmp_path / "test" / "webmushra" / "configs").glob("*.yaml"):
        assert "<img" not in path.read_text()


def keys(words):
    """All keys of nested mappings, with the fields that each text is filled with."""
    if isinstance(words, dict):
        return {key: keys(value) for key, value in words.items()}
    return sorted(re.findall(r"{\w+}", str(words)))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_wording_has_the_keys_of_the_english_one(file):
    words = yaml.safe_load(file.read_text(encoding="utf-8"))
    english = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    assert keys(words) == keys(english)
    assert words["language"] == file.stem
    for kind in english["kinds"]:
        read_wording(kind, file)


def test_german_is_included(folder):
    arguments = "run=outputs/mini test=smos out=x trials=5 listeners=5 wording=de training=0"
    assert stimuli(shlex.split(arguments)) == 0
    test = json.loads((folder / "x" / "test.json").read_text())
    assert test["language"] == "de"
    assert "1 – Schlecht" in test["notice"]
    page = (folder / "x" / "page" / "index.html").read_text(encoding="utf-8")
    assert '<html lang="de">' in page
    assert "Wie ähnlich ist die Stimme" in page


def test_unusable_trials_are_skipped_on_request(folder, run, capsys, monkeypatch):
    """The design stays balanced, and the same command writes the same test again."""
    arguments = shlex.split("run=outputs/mini test=nmos out=x trials=4 listeners=4 unusable=skip")
    assert stimuli(arguments) == 0
    key = json.loads((folder / "x" / "key.json").read_text())
    trial = next(f["trial_id"] for f in key["stimuli"].values() if f["system"] == "knn")
    path = run.folder / "wav" / "knn" / "mini_cross_gender" / f"{trial}.wav"
    old = path.read_bytes()
    monkeypatch.setattr(commands_of_stimuli, "read", lambda *_: run)  # the sound changes below
    try:
        Waveform.from_numpy(np.zeros(16000), 16000).save(path)
        for _ in range(2):
            assert stimuli([a.replace("out=x", "out=y") for a in arguments]) == 0
            assert f"cannot be used: mini_cross_gender/{trial}." in capsys.readouterr().err
    finally:
        path.write_bytes(old)
    key = json.loads((folder / "y" / "key.json").read_text())
    assert key["options"]["skip"] == [f"mini_cross_gender/{trial}"]
    assert trial not in {f["trial_id"] for f in key["stimuli"].values()}

"""The state file of a training: what resumes, what is refused, what survives a full disk."""

import json
import shutil

import pytest
import torch
from safetensors import SafetensorError

from takin_vc.tensors import WeightsError
from takin_vc.train.loop import Trainer
from takin_vc.train.stage import TrainingError
from tests.support.tiny_training import STAGES, losses, train, write_corpus


@pytest.fixture
def full(monkeypatch):
    """A full disk, as safetensors reports it."""

    def save(tensors, path):
        path.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("takin_vc.tensors.save_file", save)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(trained, table, tmp_path, stage):
    out, _ = trained
    if stage == "conversion":
        (tmp_path / "voiceprint").mkdir()
        source = out / "voiceprint" / "voiceprint.safetensors"
        (tmp_path / "voiceprint" / source.name).write_bytes(source.read_bytes())
        vocoder = out / "vocoder" / "vocoder.safetensors"
        (tmp_path / "vocoder").mkdir()
        (tmp_path / "vocoder" / vocoder.name).write_bytes(vocoder.read_bytes())
    shared = f"features.folder={out}/features"
    # A checkpoint at every step, and a kill after the second: its schedule is that of four steps.
    always = f"{stage}.settings.save_minutes=0"

    class Killed(Exception):
        pass

    save, count = Trainer.save, []

    def save_and_die(trainer):
        save(trainer)
        count.append(trainer.steps)
        if trainer.steps == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", save_and_die)
        with pytest.raises(Killed):
            train(table, tmp_path, stage, shared, always)
    assert count == [1, 2]
    train(table, tmp_path, stage, shared)
    assert losses(tmp_path, stage) == losses(out, stage)


def test_a_checkpoint_of_other_settings_is_refused_and_stays(trained, table):
    out, _ = trained
    state = (out / "vocoder" / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"vocoder\.batch=3, not 2"):
        train(table, out, "vocoder", "vocoder.batch=2")
    assert (out / "vocoder" / "state.pt").read_bytes() == state


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        ("voiceprint", "features.speeds=[1.0]", r"features\.speeds=\[1\.0, 1\.1\], not \[1\.0\]"),
        ("voiceprint", "features.sound_speeds=[]", r"features\.sound_speeds=\[0\.9\], not \[\]"),
        ("voiceprint", "held_out.speakers=1", r"held_out\.speakers=2, not 1"),
        ("voiceprint", "held_out.seed=3", r"held_out\.seed=0, not 3"),
        ("conversion", "features.noise=0", r"features\.noise=0\.5, not 0"),
    ],
)
def test_a_checkpoint_of_other_features_is_refused(
    trained, table, tmp_path, stage, override, message
):
    out, _ = trained
    for name in {"voiceprint", stage}:
        shutil.copytree(out / name, tmp_path / name)
    with pytest.raises(TrainingError, match=message):
        train(table, tmp_path, stage, override)


def test_a_checkpoint_of_other_recordings_is_refused(trained, tmp_path):
    out, _ = trained
    shutil.copytree(out / "voiceprint", tmp_path / "voiceprint")
    fewer = write_corpus(tmp_path / "corpus", unlabelled=1)
    message = r"data='20 recordings, sha256 \w{12}…', not '19 recordings, sha256 \w{12}…'"
    with pytest.raises(TrainingError, match=message):
        train(fewer, tmp_path, "voiceprint")


def test_what_moves_no_number_may_change_when_a_training_goes_on(trained, tmp_path):
    out, results = trained
    shutil.copytree(out / "voiceprint", tmp_path / "voiceprint")
    moved = write_corpus(tmp_path / "corpus")
    features = {"folder": tmp_path / "f", "threads": 1, "batch_seconds": 9, "resident": "false"}
    # The stage of the voiceprint uses no front end.
    features |= {"noise": 0, "stored": "false"}
    changed = [f"features.{key}={value}" for key, value in features.items()]
    again = train(moved, tmp_path, "voiceprint", *changed)
    assert again["steps"] == results["voiceprint"]["steps"]
    assert again["validation"] == results["voiceprint"]["validation"]


def test_a_checkpoint_of_another_precision_or_format_is_refused(trained, table, tmp_path):
    out, _ = trained
    (tmp_path / "voiceprint").mkdir()
    state = torch.load(out / "voiceprint" / "state.pt", weights_only=True)
    other = json.dumps(json.loads(state["described"]) | {"precision": "bf16"})
    for changes, message in (
        ({"described": other}, "precision='bf16', not 'float32'"),
        ({"format": 1}, "is of format 1, this version resumes format 2"),
    ):
        torch.save(state | changes, tmp_path / "voiceprint" / "state.pt")
        with pytest.raises(TrainingError, match=message):
            train(table, tmp_path, "voiceprint", f"features.folder={out}/features")


def test_a_damaged_checkpoint_is_named(trained, table, tmp_path):
    out, _ = trained
    (tmp_path / "voiceprint").mkdir()
    state = (out / "voiceprint" / "state.pt").read_bytes()
    (tmp_path / "voiceprint" / "state.pt").write_bytes(state[: len(state) // 2])
    with pytest.raises(TrainingError, match=r"state\.pt is no whole checkpoint"):
        train(table, tmp_path, "voiceprint", f"features.folder={out}/features")


def test_a_full_disk_costs_no_finished_checkpoint(trained, table, tmp_path, monkeypatch):
    out, _ = trained
    save, count = torch.save, []

    def full(state, path):
        count.append(1)
        if len(count) == 2:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    settings = (f"features.folder={out}/features", "voiceprint.settings.save_minutes=0")
    with pytest.raises(TrainingError, match=r"No space left on device.*that of step 1 stays"):
        train(table, tmp_path, "voiceprint", *settings)
    monkeypatch.undo()
    files = {path.name for path in (tmp_path / "voiceprint").iterdir()}
    assert "state.pt" in files
    assert not any(name.endswith(".part") for name in files)
    train(table, tmp_path, "voiceprint", settings[0])
    assert losses(tmp_path, "voiceprint")[-1] == losses(out, "voiceprint")[-1]


def test_features_and_results_for_which_the_disk_has_no_room_are_one_line(
    trained, table, tmp_path, full
):
    out, _ = trained
    with pytest.raises(WeightsError, match=r"safetensors: cannot be written \(.*No space left"):
        train(table, tmp_path, "voiceprint")
    message = r"cannot export to .*No space left.*state\.pt is whole"
    with pytest.raises(TrainingError, match=message):
        train(table, tmp_path, "voiceprint", f"features.folder={out}/features")
    assert not list(tmp_path.rglob("*.part"))

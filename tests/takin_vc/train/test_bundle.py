"""Bundles: the stages' weights become one checkpoint, or one line says why not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import SafetensorError

import takin_vc
from takin_vc.checkpoint import Checkpoint, load_checkpoint, read_settings, save_checkpoint
from takin_vc.config import build_model, load, load_public_weights, weight_nodes
from takin_vc.tensors import WeightsError, write_tensors
from takin_vc.train import bundle
from takin_vc.train.data.corpus import CorpusError
from takin_vc.train.run import _trained_before
from tests.support import tiny_models as tiny
from tests.support.tiny_training import train


def test_the_stages_become_a_checkpoint_that_converts(trained, tmp_path):
    out, _ = trained
    assert bundle.main([str(out), str(tmp_path / "c")]) == 0
    loaded = load_checkpoint(tmp_path / "c")
    # The voiceprint and the vocoder are those that were trained, the flow's network has moved.
    fresh = load_checkpoint(out / "conversion" / "checkpoint")
    assert len(loaded.trained_on) == 5  # four speakers, and the corpus of those unknown
    assert set(loaded.facts) == {"conversion", "voiceprint", "vocoder"}
    speech = loaded.model.convert(tiny.speech(1.0), tiny.speech(1.0, 2), seed=0)
    assert len(speech.samples) == 16000
    assert fresh.config == loaded.config


def test_a_bundle_declares_the_training_data_of_every_stage(trained, tmp_path):
    out, _ = trained
    of_conversion = load_checkpoint(out / "conversion" / "checkpoint").trained_on
    others = tmp_path / "others"
    shutil.copytree(out, others, ignore=shutil.ignore_patterns("features"))
    for stage, name in (("voiceprint", "VoxCeleb:7"), ("vocoder", "LibriTTS:103")):
        path = others / stage / "result.json"
        result = json.loads(path.read_text())
        assert result["trained_on"] == sorted(of_conversion)  # the same recordings
        path.write_text(json.dumps({**result, "trained_on": [name]}))
    bundle.bundle(others, tmp_path / "c")
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.trained_on == of_conversion | {"VoxCeleb:7", "LibriTTS:103"}
    assert "trained_on" not in loaded.facts["vocoder"]


def test_a_stage_declares_what_the_first_checkpoint_was_trained_on(trained, table, tmp_path):
    out, _ = trained
    bundle.bundle(out, tmp_path / "first")
    config = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())
    config["trained_on"] = ["LibriTTS:103"]
    (tmp_path / "first" / "config.yaml").write_text(yaml.safe_dump(config))
    for stage in ("voiceprint", "vocoder"):
        train(table, tmp_path / "out", stage, f"start={tmp_path / 'first'}")
        result = json.loads((tmp_path / "out" / stage / "result.json").read_text())
        assert set(result["trained_on"]) > {"LibriTTS:103"}


def test_a_training_on_fewer_speakers_declares_those_alone(trained, table, tmp_path):
    out, _ = trained
    given = [f"features.folder={out / 'features'}", "conversion.train_voiceprint=true"]
    train(table, tmp_path, "conversion", *given, "conversion.speakers=2")
    of_two = load_checkpoint(tmp_path / "conversion" / "checkpoint").trained_on
    of_all = load_checkpoint(out / "conversion" / "checkpoint").trained_on - {"Made"}
    assert len(of_two) == 2
    assert of_two < of_all
    with pytest.raises(CorpusError, match=r"speakers=9: it must be from 1 to 4"):
        train(table, tmp_path / "more", "conversion", *given, "conversion.speakers=9")


def test_a_bundle_without_a_vocoder_is_refused(trained, tmp_path):
    out, _ = trained
    (tmp_path / "conversion").mkdir()
    (tmp_path / "conversion" / "checkpoint").symlink_to(out / "conversion" / "checkpoint")
    with pytest.raises(WeightsError, match=r"vocoder\.safetensors: no such weight file"):
        bundle.bundle(tmp_path, tmp_path / "c")


def test_a_public_vocoder_needs_no_training(tmp_path):
    config = load(["model=global_timbre"])["model"]
    model = build_model(config).eval()
    load_public_weights(model, config)
    public = [name for name, _ in weight_nodes(config)]
    checkpoint = Checkpoint(model, config, frozenset({"Made:1"}))
    save_checkpoint(tmp_path / "conversion" / "checkpoint", checkpoint, leave_out=public)
    assert bundle.main([str(tmp_path), str(tmp_path / "c")]) == 0
    assert load_checkpoint(tmp_path / "c").trained_on == {"Made:1"}
    # One that was trained all the same takes the place of the public one.
    trained = {name: tensor.half() for name, tensor in model.vocoder.state_dict().items()}
    name = next(name for name in trained if name.endswith("bias"))
    trained[name] = trained[name] + 1
    (tmp_path / "vocoder").mkdir()
    write_tensors(trained, tmp_path / "vocoder" / "vocoder.safetensors")
    (tmp_path / "vocoder" / "result.json").write_text('{"trained_on": ["Made:2"]}')
    assert bundle.main([str(tmp_path), str(tmp_path / "c")]) == 0
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded.trained_on == {"Made:1", "Made:2"}
    assert torch.equal(loaded.model.vocoder.state_dict()[name], trained[name].float())
    assert "voiceprint" in read_settings(tmp_path / "c")["left_out"]


def test_a_bundle_of_or_to_a_bad_folder_is_one_line(trained, tmp_path, capsys):
    out, _ = trained
    file = tmp_path / "file"
    file.touch()
    torn = tmp_path / "torn"
    shutil.copytree(out, torn, ignore=shutil.ignore_patterns("features"))
    (torn / "vocoder" / "result.json").write_text('{"steps": 4')
    old = tmp_path / "old"
    shutil.copytree(out, old, ignore=shutil.ignore_patterns("features"))
    (old / "voiceprint" / "result.json").write_text('{"steps": 4}')
    no_yaml = tmp_path / "no_yaml" / "conversion" / "checkpoint"
    no_yaml.mkdir(parents=True)
    (no_yaml / "config.yaml").write_text("format: 2\nmodel: [")
    for folders, message in (
        ((tmp_path / "nowhere", tmp_path / "c"), "checkpoint/config.yaml: no such file"),
        ((out, file), "file: cannot be written (File exists); name another folder"),
        ((out, file / "c"), "file/c: cannot be written (Not a directory); name another folder"),
        ((torn, tmp_path / "c"), "vocoder/result.json: not JSON ("),
        ((old, tmp_path / "c"), "voiceprint/result.json: does not name the training data; run"),
        ((tmp_path / "no_yaml", tmp_path / "c"), "config.yaml: not plain YAML ("),
    ):
        assert bundle.main([str(folder) for folder in folders]) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert message in line
        assert line.count("\n") == 1


@pytest.fixture
def full(monkeypatch):
    """A full disk, as safetensors reports it."""

    def save(tensors, path):
        path.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("takin_vc.tensors.save_file", save)


def test_a_bundle_for_which_the_disk_has_no_room_is_one_line(trained, tmp_path, capsys, full):
    assert bundle.main([str(trained[0]), str(tmp_path / "c")]) == 1
    line = capsys.readouterr().err
    assert "safetensors: cannot be written (I/O error: No space left" in line
    assert line.count("\n") == 1
    assert not list((tmp_path / "c").iterdir())


def test_what_the_first_checkpoint_was_trained_on_is_kept():
    mini = Path(takin_vc.__file__).parent / "weights" / "mini"
    trained_on = load_checkpoint(mini).trained_on
    none = {"start": None, "stage": "conversion", "features": {"voices": None}}
    assert _trained_before(none) == frozenset()
    assert _trained_before(none | {"start": str(mini)}) == trained_on
    assert _trained_before(none | {"features": {"voices": {"checkpoint": str(mini)}}}) == trained_on

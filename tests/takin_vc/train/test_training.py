"""Whole trainings: every stage of the recipe `tiny`, and its output files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import takin_vc
from takin_vc.checkpoint import load_checkpoint, read_settings, shipped
from takin_vc.config import load
from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.train import bundle
from takin_vc.train.__main__ import main
from takin_vc.train.loop import TrainingSettings
from takin_vc.train.run import _public
from tests.support.tiny_training import STAGES, arguments, losses, train


def test_every_stage_trains_and_validates(trained):
    out, results = trained
    for stage, result in results.items():
        assert result["steps"] == 4
        assert result["validation"]
        assert len(losses(out, stage)) == 4
        assert (out / stage / "tensorboard").is_dir()


def test_training_starts_with_the_weights_of_a_checkpoint(trained, table, tmp_path):
    out, _ = trained
    assert bundle.main([str(out), str(tmp_path / "c")]) == 0
    begun = load_checkpoint(tmp_path / "c").model
    # A rate of zero moves nothing: what comes out is what training began with.
    still = [f"start={tmp_path / 'c'}", "seed=5"]
    for stage in ("vocoder", "conversion"):
        frozen = [f"{stage}.settings.learning_rate=0", f"{stage}.settings.average=0"]
        train(table, tmp_path / "own", stage, *still, *frozen)
    vocoder = load_file(tmp_path / "own" / "vocoder" / "vocoder.safetensors")
    for name, tensor in begun.vocoder.state_dict().items():
        assert float((vocoder[name].float() - tensor).abs().max()) < 1e-4
    ended = load_checkpoint(tmp_path / "own" / "conversion" / "checkpoint").model
    for part in ("timbre", "memory", "estimator", "voiceprint"):
        trained_state = ended.get_submodule(part).state_dict()
        for name, tensor in begun.get_submodule(part).state_dict().items():
            assert float((trained_state[name].float() - tensor.float()).abs().max()) < 2e-3, name


@pytest.mark.parametrize("recipe", ["mini", "ablation", "paper", "tiny"])
def test_every_recipe_has_a_schedule_for_every_stage(recipe):
    for stage in (*STAGES, "content", "ctc"):
        config = load([f"recipe={recipe}", f"stage={stage}", "data=x.csv"], "train")
        schedule = TrainingSettings(seed=config["seed"], **config[stage]["settings"])
        assert schedule.steps or schedule.minutes


def test_features_alone_are_prepared_where_the_settings_say(table, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "features"
    given = [*arguments(table, tmp_path / "out", "features"), f"features.folder={folder}"]
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)  # as an earlier training left it
    assert main(given) == 0
    assert capsys.readouterr().out.strip().endswith(f"in {folder}")
    assert list((folder / "training").glob("speed-1-*.safetensors"))
    # Recordings have many lengths: kernels are only compared once batches are of few.
    assert not torch.backends.cudnn.benchmark


def test_errors_are_one_line(table, tmp_path, capsys):
    assert main(arguments(table, tmp_path, "singing")) == 1
    assert "error: unknown stage 'singing'; there are voiceprint" in capsys.readouterr().err
    assert main(arguments("nowhere.csv", tmp_path, "vocoder")) == 1
    assert "nowhere.csv: no such list of recordings" in capsys.readouterr().err
    assert main(arguments(table, tmp_path, "ctc", "start=there")) == 1
    assert "start=there: stage ctc cannot start with a checkpoint" in capsys.readouterr().err


def test_a_public_voiceprint_that_is_trained_on_is_part_of_the_checkpoint(table, tmp_path):
    weights = "_weights_: {part: shipped, source: mini, name: voiceprint}"
    voiceprint = f"{{part: mel_voiceprint, dim: 192, channels: 256, layers: 4, {weights}}}"
    anew = ("~model.voiceprint", f"+model.voiceprint={voiceprint}")
    train(table, tmp_path, "conversion", "conversion.train_voiceprint=true", *anew)
    checkpoint = tmp_path / "conversion" / "checkpoint"
    assert read_settings(checkpoint)["left_out"] == {}
    trained = load_checkpoint(checkpoint).model.voiceprint.state_dict()
    public = shipped(source="mini", name="voiceprint").state_dict()
    assert any(float((trained[name] - public[name]).abs().max()) > 1e-5 for name in public)


def test_parts_that_are_trained_or_start_with_other_weights_are_not_left_out():
    settings = {"model": load(["model=global_timbre"])["model"], "start": None}
    front_ends = ("content.ssl", "content.ppg")
    assert set(_public(settings, set())) == {*front_ends, "voiceprint", "vocoder"}
    assert set(_public(settings, {"vocoder"})) == {*front_ends, "voiceprint"}
    mini = Path(takin_vc.__file__).parent / "weights" / "mini"  # it holds both others
    assert set(_public({**settings, "start": str(mini)}, set())) == set(front_ends)


def test_a_public_voiceprint_needs_no_training(table, tmp_path):
    """Its weights are named inside the part, as those of CAM++ are in `model=acl`."""
    path = tmp_path / "campplus.pt"
    torch.save(CAMPPlus().state_dict(), path)
    model = f"{{part: campplus, _weights_: {{part: campplus.pretrained, source: {path}}}}}"
    voiceprint = f"+model.voiceprint={{part: campplus_voiceprint, model: {model}}}"
    result = train(table, tmp_path / "out", "conversion", "~model.voiceprint", voiceprint)
    assert result["steps"] == 4

"""The training loop: its schedule, its moving average, losses that are not finite."""

import json

import pytest
import torch

from takin_vc.train.loop import TrainingSettings
from takin_vc.train.stage import TrainingError
from tests.support.tiny_training import train


def test_the_schedule_ends_by_steps_or_by_the_clock_whichever_comes_first():
    both = TrainingSettings(steps=100, minutes=1.0, learning_rate=1.0, warmup_steps=10)
    assert both.progress(50, 6.0) == 0.5
    assert both.progress(50, 54.0) == 0.9
    assert both.rate(0, 0.0) == pytest.approx(0.1)  # the first of ten warm-up steps
    assert both.rate(99, 0.0) == pytest.approx(1.0)
    assert both.rate(99, 0.5) == pytest.approx(0.505)  # half a cosine's middle
    assert both.rate(99, 1.0) == pytest.approx(0.01)
    with pytest.raises(TrainingError, match="needs an end"):
        TrainingSettings()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(
    trained, table, tmp_path, monkeypatch
):
    out, _ = trained
    from takin_vc.train.stages.voiceprint import VoiceprintStage

    learn, steps = VoiceprintStage.learn, []

    def broken(self, batch, phase, apply):
        steps.append(1)
        found = learn(self, batch, phase, apply)
        return found if len(steps) < 3 else found | {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(VoiceprintStage, "learn", broken)
    settings = (f"features.folder={out}/features", "voiceprint.settings.save_minutes=0")
    with pytest.raises(TrainingError, match=r"loss not finite by step 3; the checkpoint of step 2"):
        train(table, tmp_path, "voiceprint", *settings)
    monkeypatch.undo()
    assert train(table, tmp_path, "voiceprint", settings[0])["steps"] == 4


def test_without_an_average_each_validation_sees_the_weights_of_its_step(trained, table, tmp_path):
    out, _ = trained
    options = (f"features.folder={out}/features", "voiceprint.settings.average=0")
    every_step = "voiceprint.settings.validate_minutes=0"
    train(table, tmp_path, "voiceprint", *options, every_step)
    lines = (tmp_path / "voiceprint" / "validation.jsonl").read_text().splitlines()
    values = [{k: v for k, v in json.loads(line).items() if k != "step"} for line in lines]
    assert len(values) == 5  # four steps and the end
    assert values[0] != values[3] == values[4]

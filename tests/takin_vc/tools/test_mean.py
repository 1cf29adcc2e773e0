"""The mean of checkpoints' weights, and what has none."""

from pathlib import Path

import pytest
import torch

from takin_vc.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from takin_vc.config import load
from takin_vc.tools.mean import main
from tests.support import tiny_models as tiny


def written(folder: Path, seed: int, *overrides: str) -> Path:
    """A checkpoint whose weights are drawn with this seed; its codes are those of seed 0."""
    model, first = tiny.new(*overrides, seed=seed), tiny.new(*overrides)
    model.content.quantizer.load_state_dict(first.content.quantizer.state_dict())
    config = load(["model=tiny", *overrides])["model"]
    names = frozenset({"LibriTTS:1", f"VCTK:p{seed}"})
    save_checkpoint(folder, Checkpoint(model, config, names, {"steps": seed}))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [written(tmp_path / name, seed) for seed, name in enumerate("ab", start=1)]


def mean_of(tmp_path, capsys, *arguments) -> Checkpoint:
    out = tmp_path / "mean"
    assert main([str(out), *map(str, arguments)]) == 0, capsys.readouterr().err
    assert f"system.takin_vc.checkpoint={out}" in capsys.readouterr().out
    return load_checkpoint(out)


@pytest.mark.parametrize(("weights", "share"), [(("", ""), 0.5), (("=1", "=3"), 0.25)])
def test_every_weight_is_the_weighted_mean(folders, tmp_path, capsys, weights, share):
    given = [f"{folder}{weight}" for folder, weight in zip(folders, weights, strict=True)]
    mean = mean_of(tmp_path, capsys, *given)
    states = [load_checkpoint(folder).model.state_dict() for folder in folders]
    moved = 0
    for name, tensor in mean.model.state_dict().items():
        first, second = (state[name] for state in states)
        if not tensor.is_floating_point():
            assert torch.equal(tensor, first), name
            continue
        wanted = share * first.double() + (1 - share) * second.double()
        # stored in 16 bits
        assert torch.allclose(tensor.double(), wanted, rtol=1e-3, atol=1e-6), name
        moved += int(not torch.equal(first, second))
    assert moved > 50


def test_it_declares_the_data_and_the_training_of_all(folders, tmp_path, capsys):
    mean = mean_of(tmp_path, capsys, folders[0], f"{folders[1]}=3")
    assert mean.trained_on == {"LibriTTS:1", "VCTK:p1", "VCTK:p2"}
    assert mean.facts == {
        "mean_of": [
            {"weight": 0.25, "steps": 1},
            {"weight": 0.75, "steps": 2},
        ]
    }
    assert (
        mean.model.convert(tiny.speech(0.5), tiny.speech(0.5, 1), seed=3).samples.isfinite().all()
    )


def test_what_has_no_mean_is_one_line(folders, tmp_path, capsys):
    first = str(folders[0])
    other = written(tmp_path / "other", 3, "model.steps=9")
    out = tmp_path / "mean"
    for arguments, message in [
        ([first, str(other)], "is of another model"),
        ([first, f"{folders[1]}=half"], "'half' is no number"),
        ([first, f"{folders[1]}=-1"], "weights must be positive"),
        ([first, f"{folders[1]}=nan"], "weights must be positive"),
        ([first, f"{first}=2"], "twice"),
        ([first, str(tmp_path / "nowhere")], "nowhere"),
    ]:
        assert main([str(out), *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
        assert not out.exists()
    assert main([first, *map(str, folders)]) == 1
    assert "is one of the checkpoints" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "mean"), *map(str, folders)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_without_checkpoints_it_says_how_it_is_called(capsys):
    assert main(["out", "a"]) == 1
    assert "python -m takin_vc.tools.mean OUT FOLDER FOLDER" in capsys.readouterr().out

"""The speed tool: its arguments and its errors."""

import pytest
import torch

from takin_vc.config import build_model, load
from takin_vc.tools import speed


def test_settings_are_separated_from_the_models():
    settings, rest = speed.parse(["model=tiny", "seconds=[1,2.5]", "batch=8", "model.steps=3"])
    assert settings.seconds == [1, 2.5]
    assert settings.batch == [8]
    assert settings.repeats == 20
    assert rest == ["model=tiny", "model.steps=3"]


def test_real_time_factor():
    timing = speed.Timing(speech=20, total=0.1, stages={})
    assert timing.rtf == pytest.approx(0.005)


def test_relative_error():
    assert speed.relative_error(
        torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])
    ) == pytest.approx(0.1)


def test_noise_is_seeded_and_as_long_as_asked():
    a, b, c = speed.noise(0.5, 16000, 1), speed.noise(0.5, 16000, 1), speed.noise(0.5, 16000, 2)
    assert len(a.samples) == 8000
    assert torch.equal(a.samples, b.samples)
    assert not torch.equal(a.samples, c.samples)


def test_random_weights_leave_nothing_silent():
    model = build_model(load(["model=tiny"])["model"])
    speed.randomise(model)
    assert bool(model.estimator.time_modulation.weight.any())
    # Small enough that nothing is clipped, and far from the silence of a fresh model.
    waveform = model.vocoder(torch.randn(1, model.mel.n_mels, 20))
    assert 1e-3 < float(waveform.detach().std()) < 1


def test_table(capsys):
    speed.main(
        [
            "model=tiny",
            "seconds=[0.3]",
            "batch=[1]",
            "repeats=1",
            "fast=true",
            "dtype=float32",
            "device=cpu",
            "compare=true",
            "sample_rate=24000",
        ]
    )
    out = capsys.readouterr().out.splitlines()
    assert "at 24000 Hz" in out[1]
    assert out[0].startswith("model=tiny on ")
    header, row = out[2].split(), out[3].split()
    assert header == ["seconds", "batch", *speed.STAGES, "total", "RTF", "speech/s", "GB"]
    assert row[:2] == ["0.3", "1"]
    total, rtf = float(row[-4]) / 1000, float(row[-3])
    assert rtf == pytest.approx(total / 0.3, rel=0.01)
    errors = dict(part.rsplit(" ", 1) for part in out[4].split(": ")[1:][-1].split(", "))
    assert list(errors) == ["source", "reference mel", "mel", "waveform"]
    assert all(float(error) < 1e-4 for error in errors.values())


def test_help_is_what_the_module_says(capsys):
    speed.main(["--help"])
    assert "reference_seconds" in capsys.readouterr().out


NUMBERS, COUNTS = "numbers from 0.1 on: [2,5,10,30]", "whole numbers from 1 on: [1,8]"


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("seconds=abc", f"seconds=['abc']; they must be {NUMBERS}"),
        ("seconds=[-1]", f"seconds=[-1]; they must be {NUMBERS}"),
        ("seconds=[1,0.05]", f"seconds=[1, 0.05]; they must be {NUMBERS}"),
        ("seconds=[.inf]", f"seconds=[inf]; they must be {NUMBERS}"),
        ("seconds=[]", f"seconds=[]; they must be {NUMBERS}"),
        ("seconds=[1", "seconds=[1: not a value as YAML has it"),
        ("batch=[0]", f"batch=[0]; they must be {COUNTS}"),
        ("batch=1.5", f"batch=[1.5]; they must be {COUNTS}"),
        ("batch=true", f"batch=[True]; they must be {COUNTS}"),
        ("reference_seconds=0", "reference_seconds=0; it must be a number from 0.25 on"),
        ("sample_rate=0", "sample_rate=0; it must be a whole number from 4000 on, in Hz"),
        ("repeats=0", "repeats=0; it must be a whole number from 1 on"),
        ("repeats=20.0", "repeats=20.0; it must be a whole number from 1 on"),
        ("dtype=float8", "dtype=float8; there are bfloat16, float16, float32"),
        ("dtype=[float32]", "dtype=['float32']; there are bfloat16, float16, float32"),
        ("device=gpu7", "device=gpu7; it must be cpu or cuda here"),
        ("fast=maybe", "fast=maybe; it must be true or false"),
        ("compare=1", "compare=1; it must be true or false"),
        ("fast", "fast is no setting; there are model=, model.…=, seconds=, batch=, "),
        ("speed=3", "speed=3 is no setting; there are model=, model.…=, seconds=, batch=, "),
        ("model=nope", "models: acl, global_timbre, iclr, mini, tiny"),
        ("model.nope=1", "Could not override 'model.nope'"),
        ("model.steps=0", "error: steps (0) must be at least 1"),
        ("model.solver=rk", "error: unknown solver 'rk'; there are euler, midpoint, heun"),
    ],
)
def test_a_wrong_argument_is_one_line_with_the_way_out(slip, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit) as ended:
        speed.main(["model=tiny", slip])
    line = str(ended.value.code)
    assert line.startswith("error: ")
    assert message in line
    assert "\n" not in line


def test_a_gpu_that_is_not_there_is_no_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"error: device=cuda; it must be cpu here"):
        speed.main(["model=tiny", "device=cuda"])

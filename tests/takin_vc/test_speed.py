import pytest
import torch

from takin_vc import speed
from takin_vc.config import build_model, load


def test_settings_are_told_from_the_models():
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
        ]
    )
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("model=tiny on ")
    header, row = out[2].split(), out[3].split()
    assert header == ["seconds", "batch", *speed.STAGES, "total", "RTF", "speech/s", "GB"]
    assert row[:2] == ["0.3", "1"]
    total, rtf = float(row[-4]) / 1000, float(row[-3])
    assert rtf == pytest.approx(total / 0.3, rel=0.01)
    assert float(out[4].split("mel ")[1].split(",")[0]) < 1e-4


def test_help_and_slips_are_answered_without_a_traceback(capsys):
    speed.main(["--help"])
    assert "reference_seconds" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: .*models: acl, iclr, mini, tiny"):
        speed.main(["model=nope"])
    with pytest.raises(SystemExit, match="error: dtype=int8; there are bfloat16, float16, float32"):
        speed.main(["model=tiny", "dtype=int8"])

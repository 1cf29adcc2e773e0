"""A signal that is added to all outputs is detected; what unrelated speech has in common is not."""

import sys
from types import ModuleType

import numpy as np
import pytest

from baselines.contract.subject import Clips
from baselines.contract.watermark import ADDED, SIGNIFICANT, common_signal, detected
from baselines.degenerate import Resynthesis
from bench.audio import Waveform


@pytest.fixture(scope="module")
def speech(recordings):
    return [source.numpy() for source, _ in Clips(recordings).pairs]


def test_unrelated_speech_shares_nothing(speech):
    assert common_signal(speech, 16000).surprise < SIGNIFICANT / 2


@pytest.mark.parametrize("level", [-50, -60, -70])
def test_an_added_noise_is_detected_with_its_level(speech, level):
    mark = np.random.default_rng(1).standard_normal(len(speech[0])) * 10 ** (level / 20)
    common = common_signal([samples + mark for samples in speech], 16000)
    assert common.surprise > SIGNIFICANT
    assert common.spread < ADDED
    assert common.level == pytest.approx(level, abs=1.5)


def test_another_noise_in_each_output_is_none(speech):
    rng = np.random.default_rng(2)
    noisy = [samples + 1e-3 * rng.standard_normal(len(samples)) for samples in speech]
    assert common_signal(noisy, 16000).surprise < SIGNIFICANT / 2


def test_hum_is_no_watermark(speech):
    hum = 1e-3 * np.sin(2 * np.pi * 120 * np.arange(len(speech[0])) / 16000)
    assert common_signal([samples + hum for samples in speech], 16000).surprise < SIGNIFICANT


def test_the_fixed_noise_of_a_vocoder_is_shared_but_not_added(speech):
    outputs = [Waveform.from_numpy(samples, 16000) for samples in speech]
    vocoder = Resynthesis()
    converted = [vocoder.convert(w, w, seed=0).numpy() for w in outputs]
    common = common_signal(converted, 16000)
    assert common.surprise > SIGNIFICANT
    assert common.spread > ADDED


@pytest.fixture
def perth(monkeypatch):
    """A detector that takes loud audio for marked."""

    class Detector:
        def get_watermark(self, samples, sample_rate):
            print("loaded")
            return np.array([float(np.abs(samples).max() > 0.5)])

    module = ModuleType("perth")
    module.__spec__ = sys.__spec__
    module.PerthImplicitWatermarker = Detector
    monkeypatch.setitem(sys.modules, "perth", module)
    return module


def test_an_installed_detector_is_asked(perth, capsys):
    outputs = [Waveform.from_numpy(np.full(1000, peak), 16000) for peak in (0.1, 0.9, 0.8)]
    assert detected(outputs) == (2, "perth detects its watermark in 2 of 3 outputs")
    assert detected(outputs[:1]) == (0, "perth detects none")
    assert capsys.readouterr().out == ""


def test_a_detector_that_lacks_its_parts_is_said(perth):
    perth.PerthImplicitWatermarker = None  # as the package does without librosa
    marked, text = detected([Waveform.from_numpy(np.ones(1000), 16000)])
    assert marked == 0
    assert text.startswith("perth cannot be asked")

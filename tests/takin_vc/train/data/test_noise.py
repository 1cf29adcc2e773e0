"""Noise and reverberation that are added to the inputs of the content front ends."""

import numpy as np
import pytest

from takin_vc.train.data import noise
from takin_vc.train.data.batches import generator

RATE = 16000
SPEECH = np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE).astype(np.float32) * 0.1
OTHERS = [np.sin(2 * np.pi * f * np.arange(RATE) / RATE) for f in (1100, 1700, 2300)]


def at(samples, frequency):
    """The magnitude at a frequency, in Hz."""
    return np.abs(np.fft.rfft(samples))[round(frequency * len(samples) / RATE)]


def test_disturbed_speech_is_as_long_and_as_loud_and_the_noise_is_within_its_range():
    parts = []
    for seed in range(20):
        noisy = noise.disturbed(SPEECH, generator(seed), RATE, [])
        assert noisy.dtype == np.float32
        assert noisy.shape == SPEECH.shape
        assert np.sqrt((noisy**2).mean()) == pytest.approx(np.sqrt((SPEECH**2).mean()), rel=1e-4)
        parts.append(2 * at(noisy, 300) ** 2 / len(noisy) / (noisy.astype(float) ** 2).sum())
    # The tone's share of the power: at 30 dB 0.999, at 5 dB 0.76, less its room's tail.
    assert 0.5 < min(parts) < 0.85
    assert 0.98 < max(parts) < 1.0


def test_the_same_numbers_give_the_same_noise_and_others_another():
    one, again, other = (noise.disturbed(SPEECH, generator(k), RATE, OTHERS) for k in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_others_babble_in_half_of_the_cases():
    def babbles(seed):
        noisy = noise.disturbed(SPEECH, generator(seed), RATE, OTHERS)
        return max(at(noisy, f) for f in (1100, 1700, 2300)) > 20 * at(noisy, 1400)

    assert 25 < sum(babbles(seed) for seed in range(80)) < 55


def test_a_room_delays_nothing(monkeypatch):
    click = np.zeros(RATE, dtype=np.float32)
    click[4000] = 1.0
    monkeypatch.setattr(noise, "SPEECH_DB", (80.0, 80.0))
    noisy = [noise.disturbed(click, generator(seed), RATE, []) for seed in range(20)]
    assert {int(np.abs(x).argmax()) for x in noisy} == {4000}
    tails = [float((x[4100:8000] ** 2).sum() / (x**2).sum()) for x in noisy]
    assert 4 <= sum(tail > 0.01 for tail in tails) <= 16  # every second one is in a room


def test_silence_stays_silence():
    assert not noise.disturbed(np.zeros(100), generator(0), RATE, OTHERS).any()


def test_a_share_of_the_recordings_is_disturbed():
    noisy = [noise.disturbed(SPEECH, generator(k), RATE, OTHERS, 0.3) for k in range(100)]
    assert 15 <= sum(result is not SPEECH for result in noisy) <= 45
    assert noise.disturbed(SPEECH, generator(0), RATE, OTHERS, 0.0) is SPEECH
    assert noise.disturbed(SPEECH, generator(0), RATE, OTHERS, 1.0) is not SPEECH

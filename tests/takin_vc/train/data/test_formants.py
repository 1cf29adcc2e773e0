"""Moved formants and random smooth filters."""

import math

import numpy as np
import pytest
import torch

from takin_vc.train.data.batches import generator
from takin_vc.train.data.formants import TRACT_POINTS, coloured, colours, move_formants, tracts

RATE = 16000
PITCH = 100.0  # Hz
FORMANTS = (700.0, 1900.0, 3300.0)


def vowel(tract: float = 1.0) -> torch.Tensor:
    """Pulses through resonances at `tract` times `FORMANTS`: two seconds of a known voice."""
    pulses = np.zeros(2 * RATE)
    pulses[:: round(RATE / PITCH)] = 1.0
    spectrum = np.fft.rfft(pulses)
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(len(pulses)))
    for formant in FORMANTS:
        pole = math.exp(-math.pi * 150 / RATE) * np.exp(2j * math.pi * tract * formant / RATE)
        spectrum = spectrum / ((1 - pole * z) * (1 - np.conj(pole) * z))
    samples = np.fft.irfft(spectrum)
    return torch.from_numpy(0.5 * samples / np.abs(samples).max()).float()


def harmonics(samples: torch.Tensor) -> np.ndarray:
    """Levels of the harmonics up to 5 kHz, in dB about their mean."""
    magnitude = np.abs(np.fft.rfft(samples.double().numpy()))
    bins = np.round(np.arange(PITCH, 5000, PITCH) * len(samples) / RATE).astype(int)
    levels = 20 * np.log10(np.stack([magnitude[bins + k] for k in (-1, 0, 1)]).max(0))
    return levels - levels.mean()


@pytest.mark.parametrize("factor", [0.88, 1.12])
def test_formants_move_and_the_pitch_stays(factor):
    moved = move_formants(vowel()[None], torch.full((1, TRACT_POINTS), factor), RATE)[0]
    wanted = harmonics(vowel(factor))
    before = np.abs(harmonics(vowel()) - wanted).mean()
    assert np.abs(harmonics(moved) - wanted).mean() < 0.25 * before
    power = np.abs(np.fft.rfft(moved.double().numpy(), n=2 * len(moved))) ** 2
    likeness = np.fft.irfft(power)[: RATE // 50]  # to itself, some samples later
    assert RATE // 400 + likeness[RATE // 400 :].argmax() == round(RATE / PITCH)


def test_a_factor_of_one_changes_nothing():
    noise = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    still = move_formants(noise, torch.ones(2, TRACT_POINTS), RATE)
    torch.testing.assert_close(still, noise, atol=1e-5, rtol=0)


def test_each_voice_has_different_factors():
    speech = vowel()[None].expand(2, -1)
    factors = torch.tensor([[1.0] * TRACT_POINTS, [1.1] * TRACT_POINTS])
    moved = move_formants(speech, factors, RATE)
    torch.testing.assert_close(moved[0], speech[0], atol=1e-5, rtol=0)
    alone = move_formants(speech[1:], factors[1:], RATE)
    torch.testing.assert_close(moved[1:], alone, atol=1e-5, rtol=0)


def test_tracts_are_as_wide_as_set_and_keep_the_order_of_frequencies():
    drawn = tracts(generator(0), 5000, widest=0.2)
    assert drawn.shape == (5000, TRACT_POINTS)
    logs = np.log(drawn)
    # A uniform of half-width log 1.2, and at 0 Hz both cosines of a third of it on top.
    assert np.abs(logs).max() <= np.log(1.2) * 5 / 3 + 1e-6
    assert logs[:, 0].std() == pytest.approx(np.log(1.2) / np.sqrt(3) * np.sqrt(11 / 9), rel=0.05)
    assert np.abs(logs.mean(axis=0)).max() < 0.01
    widest = tracts(generator(1), 5000, widest=0.5)
    warped = np.linspace(0, 1, TRACT_POINTS) / widest
    assert (np.diff(warped, axis=1) > 0).all()


def test_random_colours_are_smooth_and_as_strong_as_set():
    drawn = colours(generator(0), 20_000, 80, deviation=4.0)
    assert drawn.shape == (20_000, 80)
    in_db = 20 / np.log(10) * drawn
    assert float(in_db.std()) == pytest.approx(4.0, rel=0.02)
    assert np.abs(in_db.mean(axis=0)).max() < 0.15
    assert np.abs(in_db.mean(axis=1)).max() < 1e-3  # no louder and no quieter
    # The slope of cosines 1 to 4 over 80 bands, whose squares' mean is 7.5.
    step = 4.0 * np.pi * np.sqrt(7.5) / 80
    assert float(np.diff(in_db, axis=1).std()) == pytest.approx(step, rel=0.02)


def test_a_filter_changes_each_frequency_by_its_response():
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    tones = [torch.sin(2 * math.pi * f * time).float() for f in (1000, 4000)]
    slope = torch.linspace(0, math.log(10), 33)[None]  # 0 dB at 0 Hz, 20 dB at 8 kHz
    filtered = coloured((tones[0] + tones[1])[None], slope)[0]
    expected = tones[0] * 10 ** (1000 / 8000) + tones[1] * 10 ** (4000 / 8000)
    torch.testing.assert_close(filtered, expected, atol=2e-3, rtol=0)

"""Energy contours and their correlation on sounds with known levels."""

import numpy as np
import pytest

from bench.audio import Waveform
from bench.judges import Converted
from bench.judges.energy import FLOOR_DB, Energy, contour, correlation


def steps(decibels, rate=16000, seconds=0.1, seed=0):
    """Noise whose level in dB goes through `decibels`, each for `seconds`."""
    gains = np.repeat(10 ** (np.asarray(decibels) / 20), int(seconds * rate))
    noise = np.random.default_rng(seed).uniform(-1, 1, len(gains)) * 0.5
    return Waveform.from_numpy(noise * gains, rate)


def score(converted, source):
    [columns] = Energy().score([Converted("t", converted=converted, source=source)])
    return columns["energy_correlation"]


RISING = [-30, -24, -18, -12, -6, 0]


def test_the_contour_is_the_level_in_decibels():
    """Uniform noise in ±a has a mean square of a² / 3."""
    measured = contour(steps(RISING, seconds=1.0)).reshape(6, 100).mean(axis=1)
    expected = np.asarray(RISING) + 10 * np.log10(0.25 / 3)
    np.testing.assert_allclose(measured, expected, atol=0.1)


def test_what_is_far_below_the_peak_is_background():
    measured = contour(steps([0, -80]))
    assert measured.min() == pytest.approx(measured.max() - FLOOR_DB)


def test_a_gain_and_another_rate_change_nothing():
    source = steps(RISING)
    softer = Waveform(source.samples * 0.1, 16000)
    assert score(softer, source) == pytest.approx(1.0)
    assert score(steps(RISING, rate=24000, seed=1), source) > 0.99


def test_a_contour_turned_over_correlates_with_minus_1():
    assert score(steps(RISING[::-1], seed=1), steps(RISING)) < -0.99


def test_a_slower_copy_keeps_its_contour():
    assert score(steps(RISING, seconds=0.2, seed=1), steps(RISING)) > 0.99


def test_by_hand():
    """(1, 2, 3) against (1, 3, 2), each twenty times over: r = 1/2."""
    a, b = np.tile([1.0, 2, 3], 20), np.tile([1.0, 3, 2], 20)
    assert correlation(a, b) == pytest.approx(0.5)


def test_without_a_contour_there_is_no_number():
    assert score(steps([0], seconds=0.1), steps([0], seconds=0.1)) is None  # 10 frames
    flat = Waveform.from_numpy(np.tile([0.5, -0.5], 8000), 16000)
    assert score(flat, steps(RISING)) is None


def test_the_batch_moves_no_number():
    items = [
        Converted(str(i), converted=steps(RISING, seed=i), source=steps(RISING)) for i in (1, 2)
    ]
    one = [Energy().score([item])[0] for item in items]
    assert Energy().score(items) == one
    assert Energy().score(items[::-1]) == one[::-1]


def test_it_passes_its_self_test_on_real_speech(recordings):
    measured = Energy().self_test(recordings)
    assert measured.passed, measured.findings

"""F0 correlation, F0 error and duration ratio on sounds with known contours."""

import numpy as np
import pytest

from bench.audio import Waveform
from bench.judges import Converted
from bench.judges.prosody import Prosody, compare_contours, steady, stretch


def glide(start, end, seconds=2.0, rate=16000):
    """A pulse-like voice whose F0 glides in octaves from `start` to `end` Hz."""
    octaves = np.linspace(np.log2(start), np.log2(end), int(seconds * rate))
    phase = 2 * np.pi * np.cumsum(2**octaves) / rate
    return Waveform.from_numpy(sum(np.sin(k * phase) / k for k in range(1, 10)) / 4, rate)


def test_a_contour_follows_a_known_glide():
    f0 = Prosody().contour(glide(100, 200))
    voiced = np.flatnonzero(f0)[5:-5]
    expected = 100 * 2 ** (voiced * 0.01 / 2.0)
    np.testing.assert_allclose(f0[voiced], expected, rtol=0.02)


def test_moving_a_contour_up_costs_nothing():
    source, higher = glide(100, 150), glide(160, 240)
    [scores] = Prosody().score([Converted("t", converted=higher, source=source)])
    assert scores["f0_correlation"] == pytest.approx(1.0, abs=0.01)
    assert scores["f0_rmse"] == pytest.approx(0.0, abs=0.1)
    assert scores["duration_ratio"] == 1.0


def test_a_contour_turned_over_correlates_negatively():
    [scores] = Prosody().score([Converted("t", converted=glide(150, 100), source=glide(100, 150))])
    assert scores["f0_correlation"] == pytest.approx(-1.0, abs=0.02)


def test_rmse_in_semitones_by_hand():
    """Contours of ±1 and ±3 semitones about their means differ by 2 everywhere."""
    sign = np.tile([1.0, -1.0], 50)
    a, b = 200 * 2 ** (sign / 12), 120 * 2 ** (3 * sign / 12)
    correlation, rmse = compare_contours(a, b, 20)
    assert correlation == pytest.approx(1.0)
    assert rmse == pytest.approx(2.0)


def test_only_frames_voiced_in_both_count():
    a = np.r_[np.zeros(50), np.linspace(100, 200, 50)]
    b = np.r_[np.full(50, 400.0), np.linspace(100, 200, 50)]
    assert compare_contours(a, b, 20) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_too_little_voice_is_not_measurable_rather_than_zero():
    assert compare_contours(np.full(10, 100.0), np.full(10, 100.0), 20) == (None, None)
    assert compare_contours(np.zeros(100), np.full(100, 100.0), 20) == (None, None)


def test_a_flat_contour_has_no_correlation():
    correlation, rmse = compare_contours(np.full(50, 100.0), np.linspace(100, 200, 50), 20)
    assert correlation is None
    assert rmse > 1


def test_a_slower_rendering_is_stretched_onto_the_source():
    [scores] = Prosody().score(
        [Converted("t", converted=glide(100, 150, seconds=3.0), source=glide(100, 150))]
    )
    assert scores["duration_ratio"] == 1.5
    assert scores["f0_correlation"] == pytest.approx(1.0, abs=0.01)


def test_it_measures_speech_raised_by_two_semitones(recordings):
    test = Prosody().self_test(recordings[:3])
    assert test.passed, test.findings


def test_a_judge_with_a_wrong_scale_fails_its_self_test(recordings):
    class Wrong(Prosody):
        def contour(self, waveform):
            return super().contour(waveform) ** 2

    assert not Wrong().self_test(recordings[:2]).passed


def test_a_leap_of_the_tracker_is_left_out_and_a_glide_is_not():
    glide_up = 100 * 2 ** (0.5 * np.arange(10) / 12)  # half a semitone a frame
    assert (steady(glide_up) == glide_up).all()
    octave = glide_up.copy()
    octave[5:] *= 2
    assert np.flatnonzero(steady(octave) == 0).tolist() == [4, 5]
    begins = np.r_[0.0, 0.0, glide_up]
    assert np.flatnonzero(steady(begins) == 0).tolist() == [0, 1, 2]  # an edge is in doubt too


def test_stretching_keeps_first_and_last():
    assert stretch(np.arange(5.0), 9)[[0, 4, 8]].tolist() == [0, 2, 4]
    assert stretch(np.arange(9.0), 3).tolist() == [0, 4, 8]

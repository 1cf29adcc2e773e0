"""The resampler on the device gives what soxr gives."""

import numpy as np
import pytest
import soxr
import torch

from takin_vc.fast.resample import Resampler, resampled_length

EDGE = 0.004  # seconds in which soxr's own start is wrong at multiples of 11025 Hz


def noise(samples: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(samples).standard_normal(samples).astype(np.float32)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (24000, 16000),
        (16000, 24000),
        (48000, 16000),
        (48000, 24000),
        (32000, 16000),
        (8000, 16000),
        (44100, 16000),
        (22050, 16000),
        (44100, 24000),
        (16000, 22050),
    ],
)
def test_it_agrees_with_soxr(old, new):
    resampler = Resampler()
    for samples in (old // 10 + 1, old + 37):
        x = noise(samples)
        expected = soxr.resample(x, old, new)
        resampled = resampler(torch.from_numpy(x)[None], old, new)[0].numpy()
        assert len(resampled) == len(expected) == resampled_length(samples, old, new)
        error = np.abs(resampled - expected) / np.abs(expected).max()
        start = round(EDGE * new) if 0 in (old % 11025, new % 11025) else 0
        assert error[start:].max() < 2e-6
        assert error.max() < 0.02


def test_one_rate_leaves_the_waveform_as_it_is():
    x = torch.from_numpy(noise(100))[None]
    assert Resampler()(x, 16000, 16000) is x


def test_a_batch_is_resampled_row_by_row():
    resampler, x = Resampler(), torch.from_numpy(noise(4000)).view(2, 2000)
    both = resampler(x, 24000, 16000)
    for i in range(2):
        torch.testing.assert_close(both[i], resampler(x[i : i + 1], 24000, 16000)[0])


def test_filters_too_large_for_a_matrix_are_not_supported():
    assert Resampler.supports(44100, 16000)
    assert not Resampler.supports(44101, 16000)

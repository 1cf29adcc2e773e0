"""Mel spectrograms of sounds as pictures show them."""

from functools import lru_cache

import numpy as np

from bench.audio import Waveform

TOP_HERTZ = 8000  # of every picture, whatever the sample rate, so that pictures can be compared
ROWS = 72
WINDOW_SECONDS = 0.032
COLUMN_SECONDS = 0.016
RANGE_DB = 70  # under the loudest point; quieter points are white


def spectrogram(waveform: Waveform) -> np.ndarray:
    """Levels from 0 (`RANGE_DB` under the loudest, or less) to 1: (ROWS, L), 0 Hz first."""
    rate = waveform.sample_rate
    window = round(WINDOW_SECONDS * rate)
    samples = np.pad(waveform.numpy(), window // 2)
    hop = round(COLUMN_SECONDS * rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]  # (L, window)
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)) ** 2
    starts, widths = _bands(rate, window)
    rows = np.add.reduceat(power, starts, axis=1)[:, :ROWS] / widths  # (L, ROWS): mean of each band
    level = 10 * np.log10(np.maximum(rows, 1e-12))
    return np.clip(1 + (level - level.max()) / RANGE_DB, 0, 1).T


@lru_cache
def _bands(rate: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """FFT bins of ROWS bands, evenly spaced in mel from 0 to TOP_HERTZ.

    Returns:
        (ROWS + 1,) first bin of each band and of what follows; (ROWS,) bins in each band, at least
        one, and infinite for bands above half the sample rate, which are empty.
    """
    # 2595 log10(1 + f / 700): O'Shaughnessy 1987
    edges = 700 * (
        10 ** (np.linspace(0, 2595 * np.log10(1 + TOP_HERTZ / 700), ROWS + 1) / 2595) - 1
    )
    starts = np.minimum(np.round(edges * window / rate).astype(int), window // 2)
    widths = np.maximum(np.diff(starts), 1.0)
    return starts, np.where(edges[:-1] < rate / 2, widths, np.inf)

"""Prepares a sound for listeners: rate, silence, length, fades, and loudness by ITU-R BS.1770."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyloudnorm
from scipy.signal import butter, resample_poly, sosfiltfilt

from bench.audio import Waveform

TARGET_LUFS = -23.0  # EBU R 128
HIGHEST_PEAK = -1.0  # dBTP: true peak, BS.1770-4 annex 2
QUIETEST_LUFS = -60.0  # what is quieter is no speech that could be matched
OVERSAMPLING = 4  # of the true peak, as in BS.1770-4 for 48 kHz
FRAME_SECONDS = 0.01  # of the detection of silence
SILENCE_DB = -45.0  # of a frame against the loudest one
MARGIN_SECONDS = 0.05  # kept around the speech
LEAD_SECONDS = 0.1  # of silence before and after
FADE_SECONDS = 0.01
TONE_SECONDS, BETWEEN_TONES_SECONDS = 0.2, 0.3  # of traps
SHORTEST_SECONDS = 0.5  # of a file; BS.1770 needs a block of 0.4 s


@dataclass(frozen=True)
class Trimmed:
    """Speech without the silence around it.

    Attributes:
        samples: float64 (T,), faded in and out.
        removed: seconds cut at the beginning and at the end.
        rate_before: sample rate of the sound as it came, in Hz.
    """

    samples: np.ndarray
    removed: tuple[float, float]
    rate_before: int


def trimmed(sound: Waveform, rate: int, longest: int | None = None) -> Trimmed:
    """Resamples, cuts silence at both ends, and fades.

    Args:
        sound: any.
        rate: of the result, in Hz.
        longest: samples that are kept at most; None for all.
    """
    samples = sound.resample(rate).numpy().astype(np.float64)
    first, end = _speech(samples, rate)
    removed = (first / rate, (len(samples) - end) / rate)
    kept = samples[first:end][:longest].copy()
    fade = min(round(FADE_SECONDS * rate), len(kept) // 2)
    if fade:
        ramp = (1 - np.cos(np.pi * (np.arange(fade) + 0.5) / fade)) / 2
        kept[:fade] *= ramp
        kept[-fade:] *= ramp[::-1]
    return Trimmed(kept, removed, sound.sample_rate)


def padded(samples: np.ndarray, length: int, rate: int) -> np.ndarray:
    """Digital silence around the samples: `LEAD_SECONDS` before, and to `length` in all after.

    Args:
        samples: (T,).
        length: of the longest sound of its trial, in samples; the result has the silence on top.
        rate: in Hz.
    """
    lead = round(LEAD_SECONDS * rate)
    whole = max(length + 2 * lead, round(SHORTEST_SECONDS * rate))
    result = np.zeros(whole)
    result[lead : lead + len(samples)] = samples
    return result


def loudness(samples: np.ndarray, rate: int) -> float:
    """Integrated gated loudness in LUFS (ITU-R BS.1770-4); -inf without a block over -70 LUFS."""
    shortest = round(SHORTEST_SECONDS * rate)
    if len(samples) < shortest:
        samples = np.pad(samples, (0, shortest - len(samples)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_meter(rate).integrated_loudness(samples))


def gain_to(level: float, samples: np.ndarray, rate: int) -> tuple[float, float, float]:
    """The gain in dB at which the samples have a loudness of `level` LUFS.

    It is found by repetition: the gate at -70 LUFS is absolute, so more gain lets quieter blocks
    through.

    Returns:
        The gain; the loudness before and after it. A loudness of -inf needs an infinite gain.
    """
    before = after = loudness(samples, rate)
    gain = 0.0
    for _ in range(4):
        gain += level - after
        if not np.isfinite(gain):
            break
        after = loudness(samples * 10 ** (gain / 20), rate)
        if abs(level - after) < 0.01:
            break
    return gain, before, after


def true_peak(samples: np.ndarray) -> float:
    """Largest magnitude between the samples too, in dBTP, by oversampling (BS.1770-4 annex 2)."""
    peak = np.abs(resample_poly(samples, OVERSAMPLING, 1)).max(initial=0.0)
    peak = max(peak, np.abs(samples).max(initial=0.0))
    return float(20 * np.log10(peak)) if peak > 0 else -np.inf


def low_pass(samples: np.ndarray, rate: int, cut: float) -> np.ndarray:
    """The samples below `cut` Hz: a Butterworth filter of order 8, forwards and backwards."""
    if cut >= rate / 2:
        return samples
    return sosfiltfilt(butter(8, cut, fs=rate, output="sos"), samples)


def degraded(samples: np.ndarray, rate: int) -> np.ndarray:
    """Speech that an attentive listener must rate lowest.

    It is band-limited to 1 kHz and has modulated noise of the speech's power added (the modulated
    noise reference unit of ITU-T P.810 at Q = 0 dB).
    """
    noise = np.random.default_rng(0).standard_normal(len(samples))
    return low_pass(samples * (1 + noise), rate, 1000.0)


def with_tones(samples: np.ndarray, rate: int, count: int) -> np.ndarray:
    """The samples and `count` tones of 1 kHz after them, with the samples' power."""
    time = np.arange(round(TONE_SECONDS * rate)) / rate
    edge = np.minimum(1, np.minimum(time, TONE_SECONDS - time) / FADE_SECONDS)
    power = np.square(samples).mean() if len(samples) else 0.0
    tone = np.sqrt(2 * power) * edge * np.sin(2 * np.pi * 1000 * time)
    pause = np.zeros(round(BETWEEN_TONES_SECONDS * rate))
    return np.concatenate([samples, *(part for _ in range(count) for part in (pause, tone))])


@lru_cache
def _meter(rate: int) -> pyloudnorm.Meter:
    return pyloudnorm.Meter(rate)


def _speech(samples: np.ndarray, rate: int) -> tuple[int, int]:
    """First sample and end of what is over the silence, with a margin; all if nothing is."""
    frame = max(round(FRAME_SECONDS * rate), 1)
    count = len(samples) // frame
    if count == 0:
        return 0, len(samples)
    power = np.square(samples[: count * frame].reshape(count, frame)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SILENCE_DB / 10))
    if not len(loud):
        return 0, len(samples)
    margin = round(MARGIN_SECONDS * rate)
    first, end = int(loud[0]) * frame, (int(loud[-1]) + 1) * frame
    return max(first - margin, 0), min(end + margin, len(samples))

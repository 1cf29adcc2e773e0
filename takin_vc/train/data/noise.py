"""Adds noise and reverberation to the input of the front ends.

Recordings for training are clean, sources are not, and conversions of noisy sources lose words that
are intelligible in the sources. Measured effects: weights/mini/README.md.
"""

from collections.abc import Sequence

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

VERSION = 1  # of the result of `disturbed` for given random numbers; stored features depend on it
DECAY_SECONDS = (0.1, 0.6)  # until a room is 60 dB quieter
DIRECT_DB = (0.0, 15.0)  # of the direct sound over the reflections
SPEECH_DB = (5.0, 30.0)  # of speech over noise
SLOPES = (0.0, 2.0)  # of the noise's power over frequency: 0 is white, 1 pink, 2 brown
LOWEST_HZ = 50.0  # under which the noise grows no further
VOICES = 4  # of a babble


def disturbed(
    samples: np.ndarray,
    rng: np.random.Generator,
    sample_rate: int,
    others: Sequence[np.ndarray],
    share: float | None = None,
) -> np.ndarray:
    """A recording with added noise, and in every second case with the reverberation of a room.

    The noise is equally often steady, of a random slope, and the babble of some recordings; its
    loudness is random. Nothing is shifted in time.

    Args:
        samples: (T,), in [-1, 1].
        rng: random numbers.
        sample_rate: in Hz.
        others: recordings for the babble, (T',) each, this one among them if it is in the list;
            if there are none, there is no babble.
        share: the probability, 0 to 1, that the recording is changed; None changes it always.

    Returns:
        (T,) float32, as loud as `samples` (root mean square).
    """
    if share is not None and rng.random() >= share:
        return samples
    output = samples.astype(np.float64)
    loudness = _loudness(output)
    if loudness == 0:
        return samples.astype(np.float32)
    if rng.random() < 0.5:
        output = fftconvolve(output, _room(rng, sample_rate))[: len(samples)]
    babbles = rng.random() < 0.5 and len(others) > 0
    noise = _babble(rng, len(samples), others) if babbles else _hiss(rng, len(samples), sample_rate)
    level = _loudness(noise)
    if level > 0:
        output = output + noise * (
            _loudness(output) / level * 10 ** (-rng.uniform(*SPEECH_DB) / 20)
        )
    return (output * (loudness / _loudness(output))).astype(np.float32)


def _room(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """An impulse response: the direct sound, then a decaying tail of noise."""
    decay = rng.uniform(*DECAY_SECONDS)
    time = np.arange(1, round(decay * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= 10 ** (-rng.uniform(*DIRECT_DB) / 20) / np.linalg.norm(tail)
    return np.concatenate([[1.0], tail])


def _hiss(rng: np.random.Generator, count: int, sample_rate: int) -> np.ndarray:
    """Steady noise, (count,)."""
    size = next_fast_len(count, real=True)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / sample_rate), LOWEST_HZ)
    return np.fft.irfft(spectrum * frequencies ** (-rng.uniform(*SLOPES) / 2), size)[:count]


def _babble(rng: np.random.Generator, count: int, others: Sequence[np.ndarray]) -> np.ndarray:
    """Some of the others at once, each as loud, from anywhere in it and over again, (count,)."""
    babble = np.zeros(count)
    for k in rng.integers(len(others), size=VOICES):
        voice = others[k]
        at = (int(rng.integers(len(voice))) + np.arange(count)) % len(voice)
        babble += voice[at] / max(_loudness(voice), 1e-5)
    return babble


def _loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0

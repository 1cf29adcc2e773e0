"""Systems that convert nothing: what a report must not mistake for a good one.

Each games one metric or another: the source itself has the best WER, the reference itself the best
SECS. `vcbench run system='[source,world,splice,…]'` shows that each is called out.
"""

import numpy as np
import pyworld
import torch

from bench import audio
from bench.audio import Waveform


class Silence:
    """Next to nothing: faint noise, just loud enough not to count as a failed conversion.

    Args:
        peak_dbfs: its peak, in dB of full scale; below -70 the harness calls it silent, a failure.
    """

    trained_on: frozenset[str] = frozenset()

    def __init__(self, peak_dbfs: float = -60.0) -> None:
        self.peak_dbfs = peak_dbfs

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """As long as `source`."""
        noise = np.random.default_rng(seed).uniform(-1, 1, len(source.samples))
        noise /= np.abs(noise).max()
        return Waveform.from_numpy(noise * 10 ** (self.peak_dbfs / 20), source.sample_rate)


class Noise:
    """White noise, as long and as loud as the source."""

    trained_on: frozenset[str] = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        noise = np.random.default_rng(seed).normal(size=len(source.samples))
        noise *= np.sqrt(np.mean(source.numpy().astype(np.float64) ** 2))
        return Waveform.from_numpy(np.clip(noise, -1, 1), source.sample_rate)


class Reversed:
    """The source backwards: its voice and its spectrum, and no word."""

    trained_on: frozenset[str] = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        return Waveform(torch.flip(source.samples, (0,)), source.sample_rate)


class Resynthesis:
    """The source through the WORLD vocoder, unchanged: a copy that is no copy, sample by sample."""

    trained_on: frozenset[str] = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        rate = max(16000, source.sample_rate)  # D4C needs as much
        x = source.resample(rate).numpy().astype(np.float64)
        f0, times = pyworld.harvest(x, rate)
        envelope = pyworld.cheaptrick(x, f0, times, rate)
        aperiodicity = pyworld.d4c(x, f0, times, rate)
        y = pyworld.synthesize(f0, envelope, aperiodicity, rate)[: len(x)]
        return Waveform.from_numpy(y / max(1.0, float(np.abs(y).max())), rate)


class CopyReference:
    """The reference itself: the voice asked for, and other words."""

    trained_on: frozenset[str] = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        return reference


class Splice:
    """The reference, then the source: half in the right voice, and every word there."""

    trained_on: frozenset[str] = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        return audio.concatenate([reference.resample(source.sample_rate), source])


class NarrowBand:
    """The source as a telephone carries it: a copy at another sample rate.

    Args:
        sample_rate: in Hz.
    """

    trained_on: frozenset[str] = frozenset()

    def __init__(self, sample_rate: int = 8000) -> None:
        self.sample_rate = sample_rate

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        return source.resample(self.sample_rate)

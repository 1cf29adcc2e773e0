"""Systems that do not convert, to test that a report detects them.

Each one exploits a metric: the source itself has the best WER, the reference itself the best SECS.
`vcbench run system='[source,world,splice,…]'` shows that the report marks each of them.
"""

from collections.abc import Mapping

import numpy as np
import pyworld
import torch

from bench import audio
from bench.audio import Waveform


class Silence:
    """Faint noise, just loud enough not to count as a failed conversion.

    Args:
        peak_dbfs: its peak, in dB of full scale; below -70 it is silent, and the conversion fails.
    """

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def __init__(self, peak_dbfs: float = -60.0) -> None:
        self.peak_dbfs = peak_dbfs

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """Uniform noise, as long as `source`, at its sample rate."""
        noise = np.random.default_rng(seed).uniform(-1, 1, len(source.samples))
        noise /= np.abs(noise).max()
        return Waveform.from_numpy(noise * 10 ** (self.peak_dbfs / 20), source.sample_rate)


class Noise:
    """White noise, as long and as loud as the source."""

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """White noise with the power of `source`, as long, at its sample rate."""
        noise = np.random.default_rng(seed).normal(size=len(source.samples))
        noise *= np.sqrt(np.mean(source.numpy().astype(np.float64) ** 2))
        return Waveform.from_numpy(np.clip(noise, -1, 1), source.sample_rate)


class Reversed:
    """The source backwards: it keeps the voice and the spectrum, but no words."""

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The samples of `source` in reverse order."""
        return Waveform(torch.flip(source.samples, (0,)), source.sample_rate)


class Resynthesis:
    """The source through the WORLD vocoder: the same speech with different samples."""

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`source` analysed and synthesised, at 16 kHz or its sample rate if that is higher."""
        rate = max(16000, source.sample_rate)  # D4C needs as much
        x = source.resample(rate).numpy().astype(np.float64)
        f0, times = pyworld.harvest(x, rate)
        envelope = pyworld.cheaptrick(x, f0, times, rate)
        aperiodicity = pyworld.d4c(x, f0, times, rate)
        y = pyworld.synthesize(f0, envelope, aperiodicity, rate)[: len(x)]
        return Waveform.from_numpy(y / max(1.0, float(np.abs(y).max())), rate)


class CopyReference:
    """The reference itself: the right voice with the wrong words."""

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`reference`, unchanged."""
        return reference


class Splice:
    """The reference, then the source: partly in the right voice, and with all words."""

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`reference` followed by `source`, at the sample rate of `source`."""
        return audio.concatenate([reference.resample(source.sample_rate), source])


class NarrowBand:
    """The source in telephone bandwidth: a copy at a lower sample rate.

    Args:
        sample_rate: in Hz.
    """

    trained_on: frozenset[str] = frozenset()
    networks: tuple[Mapping[str, str], ...] = ()

    def __init__(self, sample_rate: int = 8000) -> None:
        self.sample_rate = sample_rate

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`source` resampled."""
        return source.resample(self.sample_rate)

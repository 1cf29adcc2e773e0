"""Varies the voices of targets and references: moved formants and smooth random filters.

A recording at another speed (`takin_vc.train.data.features`) has another pitch and other formants,
both by the same factor. `move_formants` moves the formants alone, as another vocal tract would, so
that the two together give every pitch with every tract. `colours` imitate microphones, rooms and
spectral slopes. A model that is trained on a few hundred voices, each thousands of times, memorises
them. Tracts and colours are drawn from a continuum and never repeat, so it must use the
reference.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW_SECONDS = 0.032  # of the spectra whose envelopes are moved
CEPSTRUM_SECONDS = 0.002  # what varies faster over frequency is pitch, up to 500 Hz, not formants
TRACT_POINTS = 33  # frequencies at which a tract's factors are given
LARGEST_GAIN = math.log(10 ** (24 / 20))  # of a moved envelope over the old one: 24 dB


def move_formants(waveform: Tensor, factors: Tensor, sample_rate: int) -> Tensor:
    """The same speech, its formants at `factors` times their frequencies, its pitch where it was.

    The envelope of every spectrum is stretched over frequency, and the speech filtered by what
    stands between the old envelope and the new. The envelope is the part of the log spectrum that
    varies slowly over frequency (the cepstrum's first 2 ms). Above the old envelope's end its last
    value is held.

    Args:
        waveform: (B, T), at least 0.032 s.
        factors: at evenly spaced frequencies from 0 to half the sample rate, (B, points); straight
            lines in between. Positive; 1 changes nothing.
        sample_rate: in Hz.

    Returns:
        (B, T).
    """
    size = 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))
    hop = size // 4
    window = torch.hann_window(size, device=waveform.device)
    spectrum = torch.stft(waveform, size, hop, window=window, return_complex=True)
    logs = spectrum.abs().clamp(min=1e-5).log()  # (B, K, L)
    cepstrum = torch.fft.irfft(logs, n=size, dim=1)
    kept = round(CEPSTRUM_SECONDS * sample_rate)
    cepstrum[:, kept : size - kept + 1] = 0
    envelope = torch.fft.rfft(cepstrum, dim=1).real
    bins = envelope.shape[1]
    factors = F.interpolate(
        factors.to(envelope)[:, None], size=bins, mode="linear", align_corners=True
    )
    position = torch.arange(bins, device=waveform.device) / factors[:, 0]
    position = position.clamp(max=bins - 1)[:, :, None].expand_as(envelope)
    low = position.floor().long()
    high = (low + 1).clamp(max=bins - 1)
    moved = torch.lerp(envelope.gather(1, low), envelope.gather(1, high), position - low)
    gain = (moved - envelope).clamp(-LARGEST_GAIN, LARGEST_GAIN).exp()
    frames = torch.fft.irfft(spectrum * gain, n=size, dim=1) * window[:, None]
    weights = window.square()[None, :, None].expand(1, -1, frames.shape[2])
    # By hand, since torch.istft waits for the device: a training step should not.
    middle = slice(size // 2, size // 2 + waveform.shape[1])
    return (_overlap_add(frames, hop) / _overlap_add(weights, hop).clamp(min=1e-8))[:, middle]


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """frames (B, size, L), `hop` samples apart -> (B, size + (L - 1) hop)."""
    size, count = frames.shape[1:]
    whole = (1, size + (count - 1) * hop)
    return F.fold(frames, whole, kernel_size=(1, size), stride=(1, hop))[:, 0, 0]


def tracts(rng: np.random.Generator, count: int, widest: float) -> np.ndarray:
    """Random vocal tracts: the factors of `move_formants`.

    A factor over all frequencies, its logarithm uniform up to that of 1 + `widest` either way, and
    two cosines over frequency (half a period and a whole one) of up to a third of that each.

    Args:
        rng: random numbers.
        count: of tracts.
        widest: 0.15 moves all formants by up to 15 %; under 0.6, or frequencies change places.

    Returns:
        (count, TRACT_POINTS) float32.
    """
    frequencies = np.linspace(0, 1, TRACT_POINTS)
    shapes = np.cos(np.pi * np.arange(3)[:, None] * frequencies) * [[1], [1 / 3], [1 / 3]]
    amounts = rng.uniform(-1, 1, (count, 3)) * np.log1p(widest)
    return np.exp(amounts @ shapes).astype(np.float32)


def colours(rng: np.random.Generator, count: int, bands: int, deviation: float) -> np.ndarray:
    """Frequency responses of random smooth filters: what is added to log mels.

    The first four cosines over the bands, the slope of a spectrum among them, of random amounts.

    Args:
        rng: random numbers.
        count: of filters.
        bands: of the mel.
        deviation: of the response over filters and bands, in dB.

    Returns:
        (count, bands) float32, natural logarithms of magnitudes.
    """
    centres = (np.arange(bands) + 0.5) / bands
    cosines = np.cos(np.pi * np.arange(1, 5)[:, None] * centres)
    amounts = rng.normal(scale=deviation * np.log(10) / 20 / np.sqrt(2), size=(count, 4))
    return (amounts @ cosines).astype(np.float32)


def coloured(waveform: Tensor, colour: Tensor) -> Tensor:
    """Waveforms (B, T) that passed the filters `colours` (B, points), linear over frequency.

    The filter is applied to the spectrum of the whole waveform, so its response wraps at the ends.
    """
    spectrum = torch.fft.rfft(waveform)
    gain = F.interpolate(
        colour.to(waveform)[:, None], size=spectrum.shape[1], mode="linear", align_corners=True
    )
    return torch.fft.irfft(spectrum * gain[:, 0].exp(), n=waveform.shape[1])

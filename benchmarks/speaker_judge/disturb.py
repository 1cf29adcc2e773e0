"""Disturbs crops of speech, each in another way: rooms, noise, microphones, codecs and levels.

A speaker with one recording has one microphone and one room. Without these disturbances a network
would tell such speakers apart by them. Everything is synthetic and runs in batches on any device.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16_000  # Hz
ROOM = 8_000  # samples of a room's response: 0.5 s
KNOTS = 10  # of a microphone's response, evenly on a logarithmic axis
LOWEST, HIGHEST = 60.0, 8000.0  # Hz: the ends of that axis
MU = 255.0  # of mu-law companding
FRAME, STEP = 512, 256  # samples, of the spectral codec


def disturb(wave: Tensor) -> Tensor:
    """wave (B, T) at 16 kHz in [-1, 1] -> the same, disturbed."""
    wave = wave / _loudness(wave)
    wave = _either(0.35, rooms(wave), wave)
    wave = _either(0.35, at_ratio(wave, noise(wave), 0, 25), wave)
    wave = _either(0.25, at_ratio(wave, babble(wave), 3, 25), wave)
    wave = channels(wave)
    wave = _coded(wave, share=0.15)
    wave = _either(0.15, clipped(wave), wave)
    wave = _either(0.1, companded(wave), wave)
    level = 10 ** (_uniform(wave, -40, -12) / 20)
    return wave / _loudness(wave) * level


def rooms(wave: Tensor) -> Tensor:
    """Each in another room: the direct sound and noise that decays.

    Decay times (to -60 dB) of 0.1 to 0.8 s; direct sound 0 to 15 dB above the reverberation.
    """
    batch, samples = wave.shape
    seconds = torch.arange(ROOM, device=wave.device) / SAMPLE_RATE
    decay = 10 ** (-3 * seconds / _uniform(wave, 0.1, 0.8))
    tail = torch.randn(batch, ROOM, device=wave.device) * decay
    tail[:, :40] = 0  # 2.5 ms: nothing is reflected sooner
    ratio = 10 ** (_uniform(wave, 0, 15) / 20)
    response = tail / tail.norm(dim=1, keepdim=True) / ratio
    response[:, 0] = 1
    size = _fast_size(samples + ROOM)
    spectrum = torch.fft.rfft(wave, size) * torch.fft.rfft(response, size)
    return torch.fft.irfft(spectrum, size)[:, :samples]


def noise(wave: Tensor) -> Tensor:
    """Stationary noise (B, T), from white to -20 dB a decade and beyond: no two alike."""
    batch, samples = wave.shape
    size = _fast_size(samples)
    white = torch.randn(batch, size // 2 + 1, 2, device=wave.device)
    hertz = torch.arange(size // 2 + 1, device=wave.device) * SAMPLE_RATE / size
    coloured = torch.view_as_complex(white) * (hertz + 50) ** -_uniform(wave, 0, 1.2)
    return torch.fft.irfft(coloured, size)[:, :samples]


def babble(wave: Tensor) -> Tensor:
    """Four other crops of the batch at once, played backwards."""
    others = [wave.roll(shift, dims=0) for shift in (1, 2, 3, 5)]
    return torch.stack(others).sum(0).flip(1)


def at_ratio(wave: Tensor, other: Tensor, lowest: float, highest: float) -> Tensor:
    """`wave` with `other` added, each at another ratio in dB from `lowest` to `highest`."""
    ratio = 10 ** (_uniform(wave, lowest, highest) / 20)
    return wave + other / _loudness(other) * _loudness(wave) / ratio


def channels(wave: Tensor) -> Tensor:
    """Each through another microphone: a smooth response, and often a limited band."""
    samples = wave.shape[1]
    size = _fast_size(samples + 1024)
    hertz = torch.arange(size // 2 + 1, device=wave.device) * SAMPLE_RATE / size
    gain = 10 ** (responses(wave, hertz) / 20)
    return torch.fft.irfft(torch.fft.rfft(wave, size) * gain, size)[:, :samples]


def responses(wave: Tensor, hertz: Tensor) -> Tensor:
    """Gains in dB (B, F) of random microphones at the frequencies `hertz` (F,)."""
    axis = hertz.clamp(LOWEST, HIGHEST).log() - math.log(LOWEST)
    place = axis / math.log(HIGHEST / LOWEST) * (KNOTS - 1)
    left = place.floor().clamp(max=KNOTS - 2)
    right_share = place - left
    knots = torch.randn(len(wave), KNOTS, device=wave.device) * _uniform(wave, 0, 8)
    below, above = knots[:, left.long()], knots[:, left.long() + 1]
    gain = below * (1 - right_share) + above * right_share
    top, bottom = _uniform(wave, 2500, 8000), _uniform(wave, 60, 350)
    low_pass = -600 * F.relu(hertz / top - 1)
    high_pass = -24 * F.relu(torch.log2(bottom / hertz.clamp(min=1)))
    gain = gain + _either(0.3, low_pass, torch.zeros_like(low_pass))
    gain = gain + _either(0.3, high_pass, torch.zeros_like(high_pass))
    return gain.clamp(-80, 40)


def _coded(wave: Tensor, share: float) -> Tensor:
    """The first `share` of the batch through the spectral codec; draw the batch in random order."""
    count = round(share * len(wave))
    return torch.cat([coded(wave[:count]), wave[count:]]) if count else wave


def coded(wave: Tensor) -> Tensor:
    """As a sparing codec does: each frame without the bins far below its loudest one."""
    window = torch.hann_window(FRAME, device=wave.device)
    spectrum = torch.stft(wave, FRAME, STEP, window=window, return_complex=True)
    size = spectrum.abs()
    least = size.amax(1, keepdim=True) * 10 ** (-_uniform(wave, 20, 50)[..., None] / 20)
    kept = torch.where(size >= least, spectrum, torch.zeros_like(spectrum))
    return torch.istft(kept, FRAME, STEP, window=window, length=wave.shape[1])


def clipped(wave: Tensor) -> Tensor:
    """Softly clipped at 0 to 12 dB below its peak."""
    top = wave.abs().amax(1, keepdim=True) * 10 ** (-_uniform(wave, 0, 12) / 20) + 1e-6
    return top * torch.tanh(wave / top)


def companded(wave: Tensor) -> Tensor:
    """Mu-law with 8 bits, as telephones have it."""
    peak = wave.abs().amax(1, keepdim=True) + 1e-6
    scaled = wave / peak
    code = scaled.sign() * torch.log1p(MU * scaled.abs()) / math.log1p(MU)
    code = (code * 127).round() / 127
    return code.sign() * torch.expm1(code.abs() * math.log1p(MU)) / MU * peak


def masked_features(features: Tensor, times: int = 2, bands: int = 2) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779): stretches and bands become the mean, 0.

    Args:
        features: (B, L, C), their mean over time taken off.
        times: masked stretches, each up to a tenth of the frames.
        bands: masked bands, each up to a tenth of the channels.
    """
    for axis, count in ((1, times), (2, bands)):
        size = features.shape[axis]
        at = torch.arange(size, device=features.device)
        for _ in range(count):
            width = _uniform(features[:, 0], 0, size / 10)
            start = torch.rand_like(width) * (size - width)
            hidden = (at >= start) & (at < start + width)  # (B, size)
            shape = hidden[:, :, None] if axis == 1 else hidden[:, None]
            features = features.masked_fill(shape, 0)
    return features


def at_speed(wave: Tensor, samples: int) -> Tensor:
    """wave (B, T) resampled to `samples`, as if played faster or slower: its pitch moves too."""
    if wave.shape[1] == samples:
        return wave
    spectrum = torch.fft.rfft(wave)
    wanted = samples // 2 + 1
    spectrum = F.pad(spectrum, (0, max(0, wanted - spectrum.shape[1])))[:, :wanted]
    return torch.fft.irfft(spectrum, samples) * (samples / wave.shape[1])


def _either(share: float, changed: Tensor, wave: Tensor) -> Tensor:
    """Rows of `changed` with probability `share`, else of `wave`."""
    return torch.where(torch.rand(len(wave), 1, device=wave.device) < share, changed, wave)


def _uniform(like: Tensor, lowest: float, highest: float) -> Tensor:
    """(B, 1)"""
    return lowest + (highest - lowest) * torch.rand(len(like), 1, device=like.device)


def _loudness(wave: Tensor) -> Tensor:
    """RMS (B, 1), never 0."""
    return wave.square().mean(1, keepdim=True).sqrt() + 1e-5


def _fast_size(samples: int) -> int:
    """The least length from `samples` on, even, that transforms fast: 2^a, 3 * 2^a or 5 * 2^a."""
    sizes = [m * 2 ** max(1, math.ceil(math.log2(samples / m))) for m in (1, 3, 5)]
    return min(sizes)

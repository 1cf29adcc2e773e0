"""Waveforms to spectra: the log mel of flow and vocoder, and the filter bank of CAM++.

Neither version of the Takin-VC paper states its mel. The default here is that of the public vocoder
`nvidia/bigvgan_v2_24khz_100band_256x`, so that its weights can be used.

Checked against (largest absolute difference, `tests/takin_vc/test_mel.py`):
    `LogMel`: NVIDIA/BigVGAN `meldataset.py` at commit 7d2b454, on noise and tones: 4.8e-7.
    `KaldiFbank`: torchaudio 2.11 `compliance.kaldi.fbank`, on noise and tones: 2.7e-4; on 20
    utterances of LibriSpeech: 2.8e-4.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

LOG_FLOOR = 1e-5  # smallest mel magnitude: log mel is never under -11.513
POWER_FLOOR = 1e-9  # added under the square root, so that its gradient exists in silence
KALDI_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's smallest mel energy: -15.942 after the log


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """True on the first `lengths` (B,) of `frames` frames: (B, frames)."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def mask_if_padded(lengths: Tensor, frames: int) -> Tensor | None:
    """`frame_mask`, or None where every length is `frames`: parts run faster without a mask."""
    return None if bool((lengths == frames).all()) else frame_mask(lengths, frames)


class LogMel(nn.Module):
    """Log mel magnitudes as HiFi-GAN and BigVGAN compute them.

    Magnitude (not power) spectrogram of a Hann window; the waveform is reflected at both ends by
    `(n_fft - hop_length) / 2` samples, so that T samples give exactly `T // hop_length` frames;
    Slaney's mel scale with filters of equal area; natural logarithm of at least 1e-5. Always
    float32, also under autocast.

    Args:
        sample_rate: of the waveform, in Hz.
        n_fft: samples of a Fourier transform.
        hop_length: samples from frame to frame.
        win_length: samples of the window, at most `n_fft`.
        n_mels: filters.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz; half the sample rate where None.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        *,
        sample_rate: int = 24000,
        n_fft: int = 1024,
        hop_length: int = 256,
        win_length: int = 1024,
        n_mels: int = 100,
        f_min: float = 0.0,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        if win_length > n_fft:
            raise ValueError(f"win_length ({win_length}) must be at most n_fft ({n_fft})")
        if f_max is not None and f_max > sample_rate / 2:
            raise ValueError(
                f"f_max ({f_max} Hz) must be at most half the sample rate ({sample_rate} Hz)"
            )
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.n_mels = n_mels
        self.pad = (n_fft - hop_length) // 2
        filters = slaney_filters(sample_rate, n_fft, n_mels, f_min, f_max or sample_rate / 2)
        # Both follow from the arguments: a checkpoint need not hold them.
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def silence(self) -> float:
        """The value of every band in digital silence."""
        return math.log(LOG_FLOOR)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames waveforms of `lengths` samples have."""
        return lengths // self.hop_length

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log mel magnitudes of each waveform up to its length; silence beyond.

        Args:
            waveform: (B, T), nominally in [-1, 1].
            lengths: samples of each, (B,); all T where None.

        Returns:
            (B, n_mels, L) with L = T // hop_length.

        Raises:
            ValueError: if a waveform is too short to be reflected at its ends.
        """
        samples = waveform.shape[1]
        shortest = samples
        if lengths is None:
            lengths = torch.full((len(waveform),), samples, device=waveform.device)
        elif not torch.compiler.is_compiling():
            shortest = int(lengths.min())
        if shortest <= self.pad:
            raise ValueError(
                f"a mel spectrogram needs more than {self.pad} samples "
                f"({1000 * self.pad / self.sample_rate:.0f} ms), not {shortest}"
            )
        # Each waveform is reflected at its end, wherever the batch's padding begins.
        position = torch.arange(-self.pad, samples + self.pad, device=waveform.device).abs()
        last = (lengths - 1)[:, None]
        position = (last - (last - position).abs()).clamp(min=0)
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.stft(
                waveform.float().gather(1, position),
                self.n_fft,
                hop_length=self.hop_length,
                win_length=self.win_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            magnitude = torch.view_as_real(spectrum).square().sum(-1).add(POWER_FLOOR).sqrt()
            mel = (self.filters @ magnitude).clamp(min=LOG_FLOOR).log()
        mask = frame_mask(self.frames(lengths), mel.shape[2])
        return mel.masked_fill(~mask[:, None], self.silence)


class KaldiFbank(nn.Module):
    """Log mel filter-bank energies as Kaldi computes them by default, without dither.

    25 ms frames every 10 ms, only those that lie wholly inside the waveform; each has its mean
    removed, is pre-emphasised by 0.97 and weighed by Povey's window (Hann to the power 0.85). Mel
    filters are triangles in HTK's mel scale from 20 Hz up. What 3D-Speaker feeds to CAM++.

    Args:
        sample_rate: of the waveform, in Hz.
        n_mels: filters.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, *, sample_rate: int = 16000, n_mels: int = 80) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.hop_length = sample_rate // 100
        self.win_length = sample_rate * 25 // 1000
        self.n_fft = 1 << (self.win_length - 1).bit_length()
        # In float32 as torchaudio has it: rounding the window better moves quiet bands by 2e-3.
        window = torch.hann_window(self.win_length, periodic=False).pow(0.85)
        filters = kaldi_filters(sample_rate, self.n_fft, n_mels)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames waveforms of `lengths` samples have."""
        return ((lengths - self.win_length) // self.hop_length + 1).clamp(min=0)

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log energies; frames beyond a waveform's `frames(lengths)` are 0.

        Args:
            waveform: (B, T), nominally in [-1, 1].
            lengths: samples of each, (B,); all T where None.

        Returns:
            (B, L, n_mels).

        Raises:
            ValueError: if T is less than one frame.
        """
        if waveform.shape[1] < self.win_length:
            raise ValueError(
                f"a filter bank needs at least {self.win_length} samples (25 ms), "
                f"not {waveform.shape[1]}"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            frames = waveform.float().unfold(1, self.win_length, self.hop_length)
            frames = frames - frames.mean(-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
            frames = (frames - 0.97 * before) * self.window
            power = torch.fft.rfft(frames, self.n_fft).abs().square()
            energies = (power @ self.filters.T).clamp(min=KALDI_FLOOR).log()  # (B, L, n_mels)
        if lengths is None:
            return energies
        mask = frame_mask(self.frames(lengths), energies.shape[1])
        return energies.masked_fill(~mask[:, :, None], 0.0)


def slaney_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
) -> np.ndarray:
    """Triangular filters of area 1 Hz in Slaney's mel scale, (n_mels, n_fft // 2 + 1).

    Slaney's scale (Auditory Toolbox, 1998; librosa's default) is linear below 1 kHz, 200/3 Hz a
    mel, and logarithmic above, 27 mels for a factor of 6.4. Computed in float64: torchaudio's
    float32 filters differ by up to 0.2 % at their feet.
    """
    break_hz, hz_per_mel, log_step = 1000.0, 200.0 / 3, math.log(6.4) / 27
    break_mel = break_hz / hz_per_mel

    def mel_of(hz: float) -> float:
        return hz / hz_per_mel if hz < break_hz else break_mel + math.log(hz / break_hz) / log_step

    mels = np.linspace(mel_of(f_min), mel_of(f_max), n_mels + 2)
    corners = np.where(
        mels < break_mel, mels * hz_per_mel, break_hz * np.exp(log_step * (mels - break_mel))
    )
    triangles = _triangles(corners, np.linspace(0, sample_rate / 2, n_fft // 2 + 1))
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)


def kaldi_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 20.0) -> np.ndarray:
    """Triangular filters of height 1 in HTK's mel scale, (n_mels, n_fft // 2 + 1).

    The sides are straight over mels, not over Hz, and the bin at half the sample rate is left out,
    as in Kaldi's `mel-computations.cc`.
    """

    def mel_of(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    corners = np.linspace(mel_of(f_min), mel_of(sample_rate / 2), n_mels + 2)
    filters = _triangles(corners, mel_of(np.linspace(0, sample_rate / 2, n_fft // 2 + 1)))
    filters[:, -1] = 0
    return filters.astype(np.float32)


def _triangles(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Triangle k rises from corner k to 1 at corner k+1 and falls to k+2; read at `points`."""
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (points - left) / (centre - left), (right - points) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling))

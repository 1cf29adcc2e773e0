"""Vocos: mel spectrograms to waveforms by ConvNeXt blocks at the frame rate and an inverse Fourier
transform.

Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for
high-quality audio synthesis", ICLR 2024, arXiv 2306.00814, sec. 3: the frames are never raised to
the rate of the samples, so a vocoder of many parameters takes little time on a CPU. The Takin-VC
paper states BigVGAN; the checkpoint `mini` uses this one (docs/model/open-choices.md).

Differences from the paper's model: the frame rate may be raised by a whole number before the blocks
(`rate`), which shortens the frames of the inverse transform; the frames are weighed once by a Hann
window of four hops (`takin_vc.vocoder.OverlapAdd`), so no sum of squared windows divides them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.snake import zero_beyond
from takin_vc.vocoder import OverlapAdd, Vocoder

KERNEL = 7  # frames of every convolution


class ConvNeXtBlock(nn.Module):
    """A convolution of each channel, then two linear layers over the channels, added to the input.

    Liu et al. 2022, "A ConvNet for the 2020s", figure 4, in one dimension; as in Vocos.

    Args:
        dim: channels.
        hidden: channels between the linear layers.
        scale: of what is added, at the start; learned for each channel.
    """

    def __init__(self, dim: int, hidden: int, *, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, L, C), lengths (B,) in frames -> (B, L, C)."""
        y = self.depthwise(zero_beyond(x.transpose(1, 2), lengths)).transpose(1, 2)
        y = self.narrow(F.gelu(self.widen(self.norm(y))))
        return x + self.scale * y


class Vocos(Vocoder):
    """Log mel spectrograms to waveforms.

    Args:
        sample_rate: of the waveform, in Hz.
        n_mels: bands of the log mel (natural logarithm of the magnitude, `takin_vc.mel.LogMel`).
        hop_length: samples from one mel frame to the next.
        dim: channels of the blocks.
        hidden: channels inside each block.
        blocks: how many.
        rate: frames of the inverse transform for each mel frame.

    Raises:
        ValueError: if `rate` does not divide `hop_length`.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16000,
        n_mels: int = 80,
        hop_length: int = 160,
        dim: int = 512,
        hidden: int = 1536,
        blocks: int = 8,
        rate: int = 1,
    ) -> None:
        super().__init__()
        if hop_length % rate:
            raise ValueError(f"rate ({rate}) must divide hop_length ({hop_length})")
        self.sample_rate, self.n_mels, self.hop_length = sample_rate, n_mels, hop_length
        self.rate = rate
        self.embed = nn.Conv1d(n_mels, dim * rate, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(dim, hidden, scale=1 / blocks) for _ in range(blocks)
        )
        self.norm_post = nn.LayerNorm(dim, eps=1e-6)
        size = 4 * hop_length // rate
        self.head = nn.Linear(dim, size + 2)
        self.overlap_add = OverlapAdd(size)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The convolutions, and the two frames to either side that a sample's spectra come from.
        half = KERNEL // 2
        self.reach_frames = half + -(-(blocks * half + 2) // rate)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The waveform of each mel spectrogram.

        Args:
            mel: (B, n_mels, L).
            lengths: frames of each, (B,); all L where None. What lies beyond is never read.

        Returns:
            (B, T) in [-1, 1] with T = L * hop_length, zeros beyond `lengths`.
        """
        # As in `BigVGAN`: under autocast the first and the last layer stay as they are.
        with torch.autocast(mel.device.type, enabled=False):
            x = self.embed(zero_beyond(mel, lengths)).transpose(1, 2)
            x = self.norm(x.unflatten(2, (self.rate, -1)).flatten(1, 2))  # (B, L rate, C)
        if lengths is not None:
            lengths = lengths * self.rate
        for block in self.blocks:
            x = block(x, lengths)
        with torch.autocast(mel.device.type, enabled=False):
            spectrum = self.head(self.norm_post(x.to(self.head.weight.dtype)))
        wave = self.overlap_add(spectrum.transpose(1, 2), lengths).clamp(-1.0, 1.0)
        if lengths is not None:
            lengths = lengths * self.overlap_add.hop_length
        return zero_beyond(wave, lengths)[:, 0]

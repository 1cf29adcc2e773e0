"""Snake, BigVGAN's periodic activation, at twice the rate between two low-pass filters.

Ziyin et al. 2020, "Neural networks fail to learn periodic functions and how to fix it"; Lee et al.
2022, BigVGAN, arXiv 2206.04658, sec. 3: so the harmonics that it creates do not alias.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.mel import frame_mask

FILTER_TAPS = 12  # of the low-pass filters around an activation, at twice the rate
MAGNITUDE_FLOOR = 1e-9  # added to a Snake's magnitude before it divides, as NVIDIA's code does


def anti_aliased_snake(
    x: Tensor, alpha: Tensor, beta: Tensor, taps: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """Snake at twice the rate between two low-pass filters: one operation, so that it can be fused.

    `x + sin(alpha x)^2 / beta` of the doubled signal (Ziyin et al. 2020; BigVGAN sec. 3.1, with a
    separate magnitude). That signal is kept as two rows, its even and its odd samples, so that
    both filters are ordinary convolutions at the single rate and nothing is interleaved. What lies
    before the first and after the last sample repeats it, for each of the two filters.

    Args:
        x: (B, C, T).
        alpha: angular frequency of each channel, (C,).
        beta: inverse magnitude of each channel, (C,).
        taps: the low-pass filter at the doubled rate, (12,), of sum 1.
        lengths: samples of each signal, (B,); all T where None.

    Returns:
        (B, C, T), zeros beyond `lengths`.
    """
    batch, channels, samples = x.shape
    zero = taps.new_zeros(1)
    # Doubled sample 2m + p sees x at m - 3 + p ... m + 2 + p through every other tap; the factor 2
    # makes up for the zeros between the samples.
    up = 2 * torch.stack(
        [torch.cat([taps[1::2].flip(0), zero]), torch.cat([zero, taps[::2].flip(0)])]
    )
    # Sample m sees doubled samples 2m - 5 ... 2m + 6: evens m - 2 ... m + 3, odds m - 3 ... m + 2.
    down = torch.stack([torch.cat([zero, taps[1::2]]), torch.cat([taps[::2], zero])])
    mask = None
    if lengths is not None:
        mask = frame_mask(lengths, samples)[:, None]  # (B, 1, T)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(batch, channels, 1)
        x = torch.where(mask, x, x.gather(2, last))

    x = F.pad(x, (3, 3), mode="replicate")
    x = F.conv1d(x, up[:, None].repeat(channels, 1, 1), groups=channels)
    x = x.view(batch, channels, 2, samples)  # (B, C, even or odd, T)
    x = x + torch.sin(x * alpha[:, None, None]).square() / beta[:, None, None]
    if mask is not None:
        x = torch.where(mask[:, :, None], x, x[:, :, 1:].gather(3, last[..., None]))
    left, right = x[:, :, :1, :1], x[:, :, 1:, -1:]
    x = torch.cat([left.expand(-1, -1, 2, 3), x, right.expand(-1, -1, 2, 3)], dim=-1)
    x = x.view(batch, 2 * channels, samples + 6)
    x = F.conv1d(x, down[None].repeat(channels, 1, 1), groups=channels)
    return x if mask is None else x.masked_fill(~mask, 0.0)


def low_pass_taps() -> Tensor:
    """The windowed sinc with its cut-off at half the band, (12,), of sum 1.

    A Kaiser window for a transition band of 0.6 of the doubled rate's half (alias-free-torch, which
    follows StyleGAN3); Kaiser's formulas for attenuation and beta.
    """
    attenuation = 2.285 * (FILTER_TAPS // 2 - 1) * math.pi * 4 * 0.3 + 7.95  # dB; 51.0
    beta = 0.1102 * (attenuation - 8.7)
    window = torch.kaiser_window(FILTER_TAPS, periodic=False, beta=beta, dtype=torch.float64)
    times = torch.arange(FILTER_TAPS, dtype=torch.float64) - (FILTER_TAPS - 1) / 2
    taps = window * torch.sinc(times / 2)
    return (taps / taps.sum()).float()


class Snake(nn.Module):
    """`x + sin(alpha x)^2 / beta` with a learned alpha (and beta) for each channel.

    Args:
        channels: of x.
        own_magnitude: beta is learned too (BigVGAN's "snakebeta"); else beta is alpha ("snake").
        log_scale: the parameters are logarithms, so that alpha and beta stay positive.
        anti_aliased: at twice the rate between low-pass filters; else sample by sample.
    """

    taps: Tensor

    def __init__(
        self,
        channels: int,
        *,
        own_magnitude: bool = True,
        log_scale: bool = True,
        anti_aliased: bool = True,
    ) -> None:
        super().__init__()
        self.log_scale = log_scale
        self.anti_aliased = anti_aliased
        start = torch.zeros(channels) if log_scale else torch.ones(channels)
        self.alpha = nn.Parameter(start)
        self.beta = nn.Parameter(start.clone()) if own_magnitude else None
        self.register_buffer("taps", low_pass_taps(), persistent=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T), lengths (B,) in samples -> (B, C, T), zeros beyond `lengths`."""
        alpha: Tensor = self.alpha
        beta: Tensor = self.alpha if self.beta is None else self.beta
        if self.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        beta = beta + MAGNITUDE_FLOOR
        if self.anti_aliased:
            return anti_aliased_snake(x, alpha, beta, self.taps, lengths)
        return zero_beyond(x + torch.sin(x * alpha[:, None]).square() / beta[:, None], lengths)


def zero_beyond(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, C, T) with zeros beyond `lengths` (B,); as it is where None."""
    return x if lengths is None else x.masked_fill(~frame_mask(lengths, x.shape[2])[:, None], 0.0)

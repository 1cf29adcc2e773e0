"""The networks of DiffVC, for one utterance at a time.

Popov et al. 2022, "Diffusion-Based Voice Conversion with Fast Maximum Likelihood Sampling Scheme",
ICLR (arXiv 2109.13821): an encoder that turns a mel spectrogram into that of an average voice, and
the score of a diffusion from there to the target speaker's speech. Modules carry the published
tensors' names (huawei-noah/Speech-Backbones at commit 7782c7a, folder DiffVC).

Of the paper's three ways to show the reference to the decoder, this is the one that was published
("wodyn"): its speaker embedding, and its mel spectrogram as noisy as the diffusion's time.
"""

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_MELS = 80
DOWNSAMPLINGS = 2  # of the decoder: it takes multiples of 4 frames


class _ChannelNorm(nn.Module):
    """Normalises the channels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        return F.layer_norm(x.mT, self.gamma.shape, self.gamma, self.beta, eps=1e-4).mT


class _Prenet(nn.Module):
    """Three convolutions, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv1d(channels, channels, 5, padding=2) for _ in "123")
        self.norm_layers = nn.ModuleList(_ChannelNorm(channels) for _ in "123")
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        y = x
        for convolution, norm in zip(self.conv_layers, self.norm_layers, strict=True):
            y = norm(convolution(y)).relu()
        return x + self.proj(y)


class _RelativeAttention(nn.Module):
    """Self-attention with learnt keys and values of the distance to near frames.

    Shaw et al. 2018 (arXiv 1803.02155), equations 3 and 4, but frames further than `window` have
    none, in place of the furthest one's.

    Args:
        channels: of x.
        heads: of attention; they share the keys and values of distances.
        window: greatest distance that has a key and a value, in frames.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        size = channels // heads
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (
            nn.Conv1d(channels, channels, 1) for _ in "qkvo"
        )
        self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * window + 1, size) * size**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * window + 1, size) * size**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        q, k, v = (
            convolution(x).unflatten(1, (self.heads, -1)).mT  # (B, H, L, C / H)
            for convolution in (self.conv_q, self.conv_k, self.conv_v)
        )
        scores = q @ k.mT  # (B, H, L, L)
        near = q @ self.emb_rel_k[0].mT  # (B, H, L, 2 window + 1)
        L = x.shape[2]
        for n, offset in enumerate(range(-self.window, self.window + 1)):
            rows = slice(max(0, -offset), max(0, L - max(0, offset)))
            scores.diagonal(offset, 2, 3).add_(near[:, :, rows, n])
        weights = (scores / math.sqrt(q.shape[3])).softmax(dim=3)
        y = weights @ v
        for n, offset in enumerate(range(-self.window, self.window + 1)):
            rows = slice(max(0, -offset), max(0, L - max(0, offset)))
            y[:, :, rows] += weights.diagonal(offset, 2, 3)[..., None] * self.emb_rel_v[0, n]
        return self.conv_o(y.mT.flatten(1, 2))


class _FeedForward(nn.Module):
    def __init__(self, channels: int, filters: int, kernel: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv1d(channels, filters, kernel, padding=kernel // 2)
        self.conv_2 = nn.Conv1d(filters, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        return self.conv_2(self.conv_1(x).relu())


class _Transformer(nn.Module):
    def __init__(
        self, channels: int, filters: int, heads: int, layers: int, kernel: int, window: int
    ) -> None:
        super().__init__()
        self.attn_layers = nn.ModuleList(
            _RelativeAttention(channels, heads, window) for _ in range(layers)
        )
        self.norm_layers_1 = nn.ModuleList(_ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(
            _FeedForward(channels, filters, kernel) for _ in range(layers)
        )
        self.norm_layers_2 = nn.ModuleList(_ChannelNorm(channels) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        for attention, norm_1, feed_forward, norm_2 in zip(
            self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True
        ):
            x = norm_1(x + attention(x))
            x = norm_2(x + feed_forward(x))
        return x


class _MelEncoder(nn.Module):
    def __init__(
        self, channels: int, filters: int, heads: int, layers: int, kernel: int, window: int
    ) -> None:
        super().__init__()
        self.init_proj = nn.Conv1d(N_MELS, channels, 1)
        self.prenet = _Prenet(channels)
        self.encoder = _Transformer(channels, filters, heads, layers, kernel, window)
        self.term_proj = nn.Conv1d(channels, N_MELS, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, L) -> (B, 80, L)."""
        return self.term_proj(self.encoder(self.prenet(self.init_proj(mel))))


class _Block(nn.Module):
    """Convolution, group normalisation and Mish; input and output are 0 outside of the mask."""

    def __init__(self, channels: int, out: int, kernel: int = 3, groups: int = 8) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(groups, out), nn.Mish())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, F, L), mask (B, 1, 1, L) -> (B, out, F, L)."""
        return self.block(x * mask) * mask


class _PostnetBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = _Block(channels, channels, kernel=7)
        self.block2 = _Block(channels, channels, kernel=7)
        self.res = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, F, L) -> (B, C, F, L)."""
        every = x.new_ones(1)
        return self.res(x) + self.block2(self.block1(x, every), every)


class _Postnet(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.init_conv = nn.Conv2d(1, channels, 1)
        self.res_block = _PostnetBlock(channels)
        self.final_conv = nn.Conv2d(channels, 1, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, L) -> (B, 80, L)."""
        return self.final_conv(self.res_block(self.init_conv(mel[:, None])))[:, 0]


class AverageVoice(nn.Module):
    """A mel spectrogram to that of the same words in an average voice."""

    def __init__(
        self,
        channels: int,
        filters: int,
        heads: int,
        layers: int,
        kernel: int,
        window: int,
        postnet: int,
    ) -> None:
        super().__init__()
        self.encoder = _MelEncoder(channels, filters, heads, layers, kernel, window)
        self.postnet = _Postnet(postnet)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, 80, L) -> (B, 80, L)."""
        return self.postnet(self.encoder(mel))


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time, out))
        self.block1, self.block2 = _Block(channels, out), _Block(out, out)
        self.res_conv = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        """x (B, C, F, L), mask (B, 1, 1, L), time (B, time) -> (B, out, F, L)."""
        y = self.block1(x, mask) + self.mlp(time)[:, :, None, None]
        return self.block2(y, mask) + self.res_conv(x * mask)


class _LinearAttention(nn.Module):
    """Attention without a softmax of the queries (Shen et al. 2021, arXiv 1812.01243), 4 heads."""

    def __init__(self, channels: int, heads: int = 4, size: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * heads * size, 1, bias=False)
        self.to_out = nn.Conv2d(heads * size, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, F, L) -> (B, C, F, L)."""
        # (3, B, heads, size, F L)
        q, k, v = self.to_qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(0, 1)
        y = (k.softmax(dim=-1) @ v.mT).mT @ q
        return self.to_out(y.flatten(1, 2).unflatten(2, x.shape[2:]))


class _Scaled(nn.Module):
    """A module's output times a learnt number."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.g = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …) -> (B, …)."""
        return self.fn(x) * self.g


class _Added(nn.Module):
    """A module's output plus its input."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …) -> (B, …)."""
        return self.fn(x) + x


class _Resampling(nn.Module):
    """Halves or doubles frequencies and frames."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, F, L) -> (B, C, F', L')."""
        return self.conv(x)


class _ReferenceBlock(nn.Module):
    """The noisy mel spectrogram of the reference to one vector."""

    def __init__(self, out: int, time: int) -> None:
        super().__init__()
        base = out // 4
        self.mlp1 = nn.Sequential(nn.Mish(), nn.Linear(time, base))
        self.mlp2 = nn.Sequential(nn.Mish(), nn.Linear(time, 2 * base))

        def block(channels: int, halves: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, halves, 3, padding=1),
                nn.InstanceNorm2d(halves, affine=True),
                nn.GLU(dim=1),
            )

        self.block11, self.block12 = block(1, 2 * base), block(base, 2 * base)
        self.block21, self.block22 = block(base, 4 * base), block(2 * base, 4 * base)
        self.block31, self.block32 = block(2 * base, 8 * base), block(4 * base, 8 * base)
        self.final_conv = nn.Conv2d(4 * base, out, 1)

    def forward(self, mel: Tensor, time: Tensor) -> Tensor:
        """mel (B, 80, R), time (B, time) -> (B, out)."""
        y = self.block12(self.block11(mel[:, None])) + self.mlp1(time)[:, :, None, None]
        y = self.block22(self.block21(y)) + self.mlp2(time)[:, :, None, None]
        return self.final_conv(self.block32(self.block31(y))).mean(dim=(2, 3))


class Score(nn.Module):
    """The score of the diffusion: a U-Net over mel spectrograms.

    Args:
        channels: of the first level; the next ones have 2 and 4 times as many.
        condition: channels of the condition on speaker, reference and time.
        speaker: size of the speaker embedding.
    """

    def __init__(self, channels: int, condition: int, speaker: int) -> None:
        super().__init__()
        self.channels = channels
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.Mish(), nn.Linear(4 * channels, channels)
        )
        self.ref_block = _ReferenceBlock(condition, channels)
        self.cond_block = nn.Sequential(
            nn.Linear(channels + speaker + condition, 4 * condition),
            nn.Mish(),
            nn.Linear(4 * condition, condition),
        )
        levels = [2 + condition, channels, 2 * channels, 4 * channels]
        assert len(levels) - 2 == DOWNSAMPLINGS

        def level(inputs: int, out: int, last: nn.Module) -> nn.ModuleList:
            return nn.ModuleList(
                [
                    _ResidualBlock(inputs, out, channels),
                    _ResidualBlock(out, out, channels),
                    _Added(_Scaled(_LinearAttention(out))),
                    last,
                ]
            )

        self.downs = nn.ModuleList(
            level(inputs, out, _Resampling(nn.Conv2d(out, out, 3, stride=2, padding=1)))
            for inputs, out in pairwise(levels[:-1])
        )
        self.downs.append(level(levels[-2], levels[-1], nn.Identity()))
        self.mid_block1 = _ResidualBlock(levels[-1], levels[-1], channels)
        self.mid_attn = _Added(_Scaled(_LinearAttention(levels[-1])))
        self.mid_block2 = _ResidualBlock(levels[-1], levels[-1], channels)
        self.ups = nn.ModuleList(
            level(2 * inputs, out, _Resampling(nn.ConvTranspose2d(out, out, 4, 2, 1)))
            for inputs, out in zip(levels[:1:-1], levels[-2:0:-1], strict=True)
        )
        self.final_block = _Block(channels, channels)
        self.final_conv = nn.Conv2d(channels, 1, 1)

    def forward(
        self, xt: Tensor, mask: Tensor, mean: Tensor, reference: Tensor, speaker: Tensor, t: Tensor
    ) -> Tensor:
        """The gradient of the log density at `xt`.

        Args:
            xt: (B, 80, L); L is a multiple of 4.
            mask: (B, 1, L), 0 where `xt` is padding.
            mean: the average voice's mel spectrogram, (B, 80, L).
            reference: the reference's mel spectrogram at time `t`, (B, 80, R).
            speaker: embedding, (B, speaker).
            t: (B,), from 0 to 1.

        Returns:
            (B, 80, L).
        """
        position = _position(t, self.channels)
        time = self.mlp(position)
        seen = torch.cat([position, self.ref_block(reference, time), speaker], dim=1)
        condition = self.cond_block(seen)[:, :, None, None].expand(-1, -1, *xt.shape[1:])
        x = torch.cat([mean[:, None], xt[:, None], condition], dim=1)
        mask = mask[:, None]  # (B, 1, 1, L)
        masks, passed = [mask], []
        for level in self.downs:
            first, second, attention, down = cast(nn.ModuleList, level)
            x = attention(second(first(x, masks[-1], time), masks[-1], time))
            passed.append(x)
            x = down(x * masks[-1])
            masks.append(masks[-1][..., ::2])
        masks.pop()
        x = self.mid_attn(self.mid_block1(x, masks[-1], time))
        x = self.mid_block2(x, masks[-1], time)
        for level in self.ups:
            first, second, attention, up = cast(nn.ModuleList, level)
            here = masks.pop()
            x = torch.cat([x, passed.pop()], dim=1)
            x = up(attention(second(first(x, here, time), here, time)) * here)
        return (self.final_conv(self.final_block(x, mask) * mask) * mask)[:, 0]


def _position(t: Tensor, size: int) -> Tensor:
    """Sines and cosines of 1000 t at `size` / 2 frequencies: t (B,) -> (B, size)."""
    steps = torch.arange(size // 2, device=t.device).float()
    angles = 1000 * t[:, None] * (steps * -(math.log(10000) / (size // 2 - 1))).exp()
    return torch.cat([angles.sin(), angles.cos()], dim=1)

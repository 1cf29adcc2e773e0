"""The memory-augmented module: one vector from the reference, and how it enters the flow's network.

What the paper states and what was chosen:
    Memory. There is no bank of slots in either version: the module encodes the reference and takes
        its mean over time (ACL section 3.3.1; ICLR section 3.3.2). So does this one.
    Blocks. ACL section 3.3.1 has four self-attention blocks; section 4.4 of both has 6 layers.
        Four by default, as the section about the module states; a number in YAML.
    Inside a block. GroupNorm, multi-head attention and Conv1d, with a shortcut around all three
        (ACL). Kernel size (3) and groups (32) are not stated.
    End. ICLR puts a Conv1d and a LeakyReLU before the mean, ACL does not: `final_convolution`. Its
        slope is not stated: 0.2, as in ACL eq. 1.
    Place of the fusion. ACL section 3.3.1 ends the module with FiLM and does not say what that
        modulates; section 4.4 and ICLR figure 4 put a Memory Fusion Block into the U-Net. Here the
        vector modulates the U-Net's frames after each attention block, by `FiLM` (ACL) or by
        `GatedFusion` (ICLR: "a combination of the Gated Activation Layer and FiLM Layer").
    Gated activation. No formula: the tanh of one projection times the sigmoid of another, as in
        WaveNet (van den Oord et al. 2016, eq. 2); FiLM by the memory, then a shortcut.
    Input. The cross-attention's tokens, frames shuffled (ACL); the reference as it is (ICLR). The
        caller decides: this module takes what it is given.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.layers import FrameConv, MaskedGroupNorm, SelfAttention, masked

LEAKY_SLOPE = 0.2  # ACL eq. 1


class TimbreMemory(nn.Module):
    """Encodes a reference into one timbre vector (X_tcond in the paper).

    Args:
        timbre_dim: channels of a timbre token: mel bands and voiceprint.
        dim: channels inside and out.
        blocks: self-attention blocks.
        heads: attention heads; divides dim.
        kernel_size: of the convolutions, odd, in frames.
        groups: of the group norms; divides dim.
        final_convolution: whether a convolution and LeakyReLU come before the mean (ICLR).

    Raises:
        ValueError: if heads or groups do not divide dim.
    """

    def __init__(
        self,
        timbre_dim: int,
        *,
        dim: int = 1024,
        blocks: int = 4,
        heads: int = 8,
        kernel_size: int = 3,
        groups: int = 32,
        final_convolution: bool = False,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.input = FrameConv(timbre_dim, dim, kernel_size)
        self.blocks = nn.ModuleList(
            _MemoryBlock(dim, heads, kernel_size, groups) for _ in range(blocks)
        )
        self.output = FrameConv(dim, dim, kernel_size) if final_convolution else None

    def forward(self, timbre: Tensor, mask: Tensor | None = None) -> Tensor:
        """timbre (B, R, timbre_dim), mask (B, R) -> (B, dim)."""
        x = self.input(timbre, mask)
        for block in self.blocks:
            x = block(x, mask)
        if self.output is not None:
            x = F.leaky_relu(self.output(x, mask), LEAKY_SLOPE)
        if mask is None:
            return x.mean(1)
        return masked(x, mask).sum(1) / mask.sum(1, keepdim=True)


class _MemoryBlock(nn.Module):
    """GroupNorm, self-attention, convolution; a shortcut around them."""

    def __init__(self, dim: int, heads: int, kernel_size: int, groups: int) -> None:
        super().__init__()
        self.norm = MaskedGroupNorm(groups, dim)
        self.attention = SelfAttention(dim, heads)
        self.convolution = FrameConv(dim, dim, kernel_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x + self.convolution(self.attention(self.norm(x, mask), mask), mask)


class FiLM(nn.Module):
    """Feature-wise linear modulation: a vector gives each channel's scale and shift.

    x (1 + scale) + shift (Perez et al. 2018), the same on every frame. Scale and shift begin as 0:
    an untrained FiLM changes nothing.

    Args:
        condition_dim: channels of the vector.
        channels: of the frames.
    """

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition_dim, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def prepare(self, condition: Tensor) -> Tensor:
        """condition (B, condition_dim) -> (B, 2 channels), all that `fuse` needs of it."""
        return self.modulation(condition)

    def fuse(self, x: Tensor, prepared: Tensor) -> Tensor:
        """x (B, L, channels), prepared by `prepare` -> (B, L, channels)."""
        return modulate(x, prepared)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, L, channels), condition (B, condition_dim) -> (B, L, channels)."""
        return self.fuse(x, self.prepare(condition))


class GatedFusion(nn.Module):
    """ICLR's Memory Fusion Layer: a gated activation, then FiLM, added to what came in.

    Args:
        condition_dim: channels of the memory.
        channels: of the frames.
    """

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.gates = nn.Linear(channels, 2 * channels)
        self.film = FiLM(condition_dim, channels)

    def prepare(self, condition: Tensor) -> Tensor:
        """condition (B, condition_dim) -> (B, 2 channels), all that `fuse` needs of it."""
        return self.film.prepare(condition)

    def fuse(self, x: Tensor, prepared: Tensor) -> Tensor:
        """x (B, L, channels), prepared by `prepare` -> (B, L, channels)."""
        signal, gate = self.gates(x).chunk(2, dim=-1)
        return x + self.film.fuse(torch.tanh(signal) * torch.sigmoid(gate), prepared)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, L, channels), condition (B, condition_dim) -> (B, L, channels)."""
        return self.fuse(x, self.prepare(condition))


def modulate(x: Tensor, scale_and_shift: Tensor) -> Tensor:
    """x (B, L, C) times one plus scale, plus shift; both in scale_and_shift (B, 2 C)."""
    scale, shift = scale_and_shift[:, None].chunk(2, dim=-1)
    return x * (1 + scale) + shift

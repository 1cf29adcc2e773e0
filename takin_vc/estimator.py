"""The flow's network: a U-Net over mel frames that estimates the velocity.

What the paper states and what was chosen:
    Layout. "10-layer Unet plus 3 layers of resblock, with a hidden size of 1280", and a Memory
        Fusion Block in the U-Net (section 4.4 of both). ICLR figure 4: K x [ResBlock, AttnBlock,
        Memory Fusion], then D x ResBlock, read here as K = 10 and D = 3.
    U shape. Neither rates nor skips are stated. Channels stay at `hidden`; the middle blocks run at
        half the frame rate (6 of 10 by default), reached by one linear layer over each pair of
        frames and left by its mirror; block i < (blocks - 1) // 2 hands its output to block
        blocks - 1 - i, which joins it by one linear layer. Half of 93.75 frames a second is still
        about WavLM's 50. 0 is a constant rate.
    ResBlock. Not stated: norm, SiLU, convolution, norm, modulation by time, SiLU, convolution, and
        the shortcut; kernels of 3. The norm is per frame (LayerNorm), not GroupNorm: it needs no
        sums over time, which padding and the cutting of long sources into chunks would change,
        and it fuses with its neighbours.
    AttnBlock. Not stated: norm, self-attention over frames, shortcut; no feed-forward layer (the
        figure has none), no positions (the convolutions around it know the order). Heads are not
        stated for the U-Net: 10 of 128 channels, a width that attention kernels support.
    Time. Not stated: 1000 t in sines and cosines, two linear layers, and one more that gives every
        ResBlock its scale and shift.
    Condition. How X_ctt enters is not stated: joined to xt on the channels, through the first
        convolution. That convolution is linear, so that its part for the context is computed once
        per utterance.
    Null condition. What guidance drops is not stated: context and memory together, as in Seed-VC
        (which puts zeros there); each then becomes a learned vector, which begins as 0.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.layers import FrameConv, SelfAttention, masked
from takin_vc.memory import FiLM, GatedFusion, modulate

FUSIONS: dict[str, type[FiLM] | type[GatedFusion]] = {"film": FiLM, "gated": GatedFusion}


class Prepared(NamedTuple):
    """All that the network needs of its condition, the same at every time t.

    Attributes:
        context: the first convolution's part for the context, (B, L, hidden).
        memory: what each block's fusion needs of the memory, (B, ...) each; empty without memory.
        mask: (B, L), True on valid frames; None where all are.
        half_mask: likewise at half the frame rate, (B, ceil(L / 2)).
    """

    context: Tensor
    memory: tuple[Tensor, ...]
    mask: Tensor | None
    half_mask: Tensor | None


class UNetEstimator(nn.Module):
    """Estimates the flow's velocity from a noisy mel, the time, the context and the memory.

    `forward` does all of it. For many times with one condition: `prepare` once, `velocity` often.

    Args:
        n_mels: mel bands.
        context_dim: channels of the context, X_ctt.
        memory_dim: channels of the memory vector, X_tcond.
        hidden: channels of every block.
        blocks: ResBlock, AttnBlock, Memory Fusion; K in ICLR figure 4.
        resnet_blocks: ResBlocks after them; D in ICLR figure 4.
        half_rate_blocks: how many of the blocks, the middle ones, run at half the frame rate.
        heads: attention heads; divides hidden.
        kernel_size: of the convolutions, odd, in frames.
        memory_fusion: "film" (ACL), "gated" (ICLR) or None (the ablation without memory).

    Raises:
        ValueError: if the sizes do not fit together.
    """

    def __init__(
        self,
        *,
        n_mels: int,
        context_dim: int,
        memory_dim: int,
        hidden: int = 1280,
        blocks: int = 10,
        resnet_blocks: int = 3,
        half_rate_blocks: int = 6,
        heads: int = 10,
        kernel_size: int = 3,
        memory_fusion: str | None = "film",
    ) -> None:
        super().__init__()
        if not 0 <= half_rate_blocks <= blocks or (blocks - half_rate_blocks) % 2:
            raise ValueError(
                f"half_rate_blocks ({half_rate_blocks}) must be from 0 to blocks ({blocks}) and "
                "leave an even number, half of it on either side"
            )
        if memory_fusion is not None and memory_fusion not in FUSIONS:
            raise ValueError(
                f"unknown memory_fusion {memory_fusion!r}; there are {', '.join(FUSIONS)} and None"
            )
        if hidden % 2:
            raise ValueError(
                f"hidden ({hidden}) must be even: half sines, half cosines of the time"
            )
        self.hidden = hidden
        self.skips = (blocks - 1) // 2
        self.outer = (blocks - half_rate_blocks) // 2
        self.null_context = nn.Parameter(torch.zeros(context_dim))
        self.null_memory = nn.Parameter(torch.zeros(memory_dim)) if memory_fusion else None

        self.time = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.time_modulation = nn.Linear(hidden, (blocks + resnet_blocks) * 2 * hidden)
        nn.init.zeros_(self.time_modulation.weight)
        nn.init.zeros_(self.time_modulation.bias)

        self.mel_input = FrameConv(n_mels, hidden, kernel_size, bias=False)
        self.context_input = FrameConv(context_dim, hidden, kernel_size)
        self.blocks = nn.ModuleList(
            UNetBlock(hidden, memory_dim, heads, kernel_size, memory_fusion) for _ in range(blocks)
        )
        self.joins = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(self.skips))
        self.down = nn.Linear(2 * hidden, hidden) if half_rate_blocks else None
        self.up = nn.Linear(hidden, 2 * hidden) if half_rate_blocks else None
        self.resnet_blocks = nn.ModuleList(
            ResBlock(hidden, kernel_size) for _ in range(resnet_blocks)
        )
        self.norm = nn.LayerNorm(hidden)
        self.output = FrameConv(hidden, n_mels, kernel_size)

    def forward(
        self,
        xt: Tensor,
        t: Tensor,
        context: Tensor,
        memory: Tensor | None,
        mask: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """The velocity at xt and t.

        Args:
            xt: noisy mel, (B, n_mels, L).
            t: time in [0, 1], (B,).
            context: X_ctt, (B, L, context_dim).
            memory: X_tcond, (B, memory_dim); None without memory fusion.
            mask: (B, L), True on valid frames; None where all are.
            drop: (B,), True on the items whose condition becomes the null condition; None where
                none does.

        Returns:
            (B, n_mels, L), 0 on padded frames.
        """
        return self.velocity(xt, t, self.prepare(context, memory, mask, drop))

    def prepare(
        self,
        context: Tensor,
        memory: Tensor | None,
        mask: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Prepared:
        """Computes what depends on the condition alone; the arguments are `forward`'s.

        Raises:
            ValueError: if a memory is given to a network without fusion, or none to one with it.
        """
        if (memory is None) != (self.null_memory is None):
            given, fusion = ("no", "a") if memory is None else ("a", "no")
            raise ValueError(f"{given} memory was given to a network with {fusion} memory fusion")
        if drop is not None:
            context = torch.where(drop[:, None, None], self.null_context.to(context), context)
        projected = self.context_input(context, mask)
        fused: tuple[Tensor, ...] = ()
        if memory is not None and self.null_memory is not None:
            if drop is not None:
                memory = torch.where(drop[:, None], self.null_memory.to(memory), memory)
            blocks = cast("list[UNetBlock]", self.blocks)
            fused = tuple(block.fusion.prepare(memory) for block in blocks if block.fusion)
        half_mask = None if mask is None else _pairs(mask[:, :, None]).any(-1)
        return Prepared(projected, fused, mask, half_mask)

    def velocity(self, xt: Tensor, t: Tensor, prepared: Prepared) -> Tensor:
        """The velocity under a prepared condition: xt (B, n_mels, L), t (B,) -> (B, n_mels, L)."""
        context, memory, mask, half_mask = prepared
        times = self._time_modulation(t, context.dtype)
        frames = xt.shape[2]

        x = xt.transpose(1, 2).to(context.dtype)  # (B, C, L) -> (B, L, C)
        x = self.mel_input(x, mask) + context
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if self.down is not None and i == self.outer:
                x = self.down(_pairs(masked(x, mask)))
            if i >= len(self.blocks) - self.skips:
                x = self.joins[len(self.blocks) - 1 - i](torch.cat([x, skips.pop()], dim=-1))
            inner = self.down is not None and self.outer <= i < len(self.blocks) - self.outer
            x = block(x, times[i], memory[i] if memory else None, half_mask if inner else mask)
            if i < self.skips:
                skips.append(x)
            if self.up is not None and i == len(self.blocks) - self.outer - 1:
                x = self.up(x).unflatten(-1, (2, -1)).flatten(1, 2)[:, :frames]
        for i, resnet_block in enumerate(self.resnet_blocks, start=len(self.blocks)):
            x = resnet_block(x, times[i], mask)
        v = masked(self.output(F.silu(self.norm(x)), mask), mask)
        return v.transpose(1, 2).to(xt.dtype)  # (B, L, C) -> (B, C, L)

    def _time_modulation(self, t: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Each ResBlock's scale and shift at times t (B,): (B, 2 hidden) each, of `dtype`."""
        # Angles in float32 whatever the network's precision: bfloat16 would blur 1000 t.
        half = self.hidden // 2
        rates = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=t.device))
        angles = 1000 * t.float()[:, None] * rates
        x = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype))
        return self.time_modulation(F.silu(x)).split(2 * self.hidden, dim=-1)


class UNetBlock(nn.Module):
    """ResBlock, AttnBlock, Memory Fusion (ICLR figure 4)."""

    def __init__(
        self, hidden: int, memory_dim: int, heads: int, kernel_size: int, fusion: str | None
    ) -> None:
        super().__init__()
        self.resnet = ResBlock(hidden, kernel_size)
        self.norm = nn.LayerNorm(hidden)
        self.attention = SelfAttention(hidden, heads)
        self.fusion = None if fusion is None else FUSIONS[fusion](memory_dim, hidden)

    def forward(
        self, x: Tensor, time: Tensor, memory: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """x (B, L, hidden), time (B, 2 hidden), prepared memory, mask (B, L) -> (B, L, hidden)."""
        x = self.resnet(x, time, mask)
        x = x + self.attention(self.norm(x), mask)
        return x if self.fusion is None or memory is None else self.fusion.fuse(x, memory)


class ResBlock(nn.Module):
    """Two convolutions around a modulation by time, and a shortcut."""

    def __init__(self, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden)
        self.convolution1 = FrameConv(hidden, hidden, kernel_size)
        self.norm2 = nn.LayerNorm(hidden)
        self.convolution2 = FrameConv(hidden, hidden, kernel_size)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, hidden), time (B, 2 hidden), mask (B, L) -> (B, L, hidden)."""
        h = self.convolution1(F.silu(self.norm1(x)), mask)
        h = self.convolution2(F.silu(modulate(self.norm2(h), time)), mask)
        return x + h


def _pairs(x: Tensor) -> Tensor:
    """Two frames in one: (B, L, C) -> (B, ceil(L / 2), 2 C); an odd last one is joined to zeros."""
    x = F.pad(x, (0, 0, 0, x.shape[1] % 2))
    return x.unflatten(1, (-1, 2)).flatten(2)

"""The flow at speed: `FastEstimator` does what `UNetEstimator` does, `FastFlow` what its flow does.

Matrix products are PyTorch's; between two of them stands one kernel
(`takin_vc.fast.kernels.normalize`), which also lays neighbouring frames side by side, so that a
convolution is one product. All steps of the solver are one CUDA graph. What depends on the time
alone is computed once for good, what depends on the condition once a conversion.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.estimator import ResBlock, UNetBlock, UNetEstimator
from takin_vc.fast import kernels
from takin_vc.fast.graphs import FRAME_BUCKET, Outputs, Replayed, pad_to
from takin_vc.flow import ConditionalFlow
from takin_vc.layers import FrameConv
from takin_vc.mel import frame_mask
from takin_vc.memory import FiLM, GatedFusion


class FastPrepared(NamedTuple):
    """All that the flow's network needs of its condition.

    Attributes:
        context: the first convolution's part for the context, (B, L, hidden).
        fusion: what each block's fusion needs of the memory, (B, blocks, 2 hidden); (B, 0, 0)
            without memory.
        lengths: valid frames, (B,), int32.
    """

    context: Tensor
    fusion: Tensor
    lengths: Tensor


class FastEstimator(nn.Module):
    """`UNetEstimator` in matrix products and what stands between them.

    Args:
        estimator: stays as it is.
        dtype: of the products.
    """

    def __init__(self, estimator: UNetEstimator, dtype: torch.dtype) -> None:
        super().__init__()
        self.n_mels = len(estimator.output.linear.weight)
        net = copy.deepcopy(estimator).requires_grad_(False)
        self.dtype = dtype
        self.hidden, self.skips, self.outer = net.hidden, net.skips, net.outer
        self.null_context, self.null_memory = net.null_context, net.null_memory
        self.time, self.time_modulation = net.time, net.time_modulation
        self.fusions = nn.ModuleList(block.fusion for block in _blocks(net) if block.fusion)
        self.input_bands = -(-net.mel_input.linear.in_features // 3 // 8) * 8
        self.mel_input = _padded_conv(net.mel_input, self.input_bands).to(dtype)
        self.context_input = net.context_input.linear.to(dtype)
        self.blocks = nn.ModuleList(_FastBlock(block, dtype) for block in _blocks(net))
        self.resnet_blocks = nn.ModuleList(
            _FastResBlock(cast(ResBlock, block), dtype) for block in net.resnet_blocks
        )
        self.joins = nn.ModuleList(_halves(cast(nn.Linear, join)).to(dtype) for join in net.joins)
        self.down = None if net.down is None else net.down.to(dtype)
        self.up = None if net.up is None else net.up.to(dtype)
        self.norm = net.norm.float()
        self.output = _padded_outputs(net.output.linear, self.input_bands).to(dtype)

    def prepare(
        self,
        context: Tensor,
        memory: Tensor | None,
        mask: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> FastPrepared:
        """As `UNetEstimator.prepare`: context (B, L, C), memory (B, C'), mask (B, L), drop (B,)."""
        batch, frames = context.shape[:2]
        if drop is not None:
            context = torch.where(drop[:, None, None], self.null_context.to(context), context)
        if mask is None:
            lengths = torch.full((batch,), frames, dtype=torch.int32, device=context.device)
        else:
            lengths = mask.sum(1, dtype=torch.int32)
            context = context.masked_fill(~mask[:, :, None], 0.0)
        projected = self.context_input(_beside_neighbours(context.to(self.dtype)))
        fusion = projected.new_zeros(batch, 0, 0)
        if memory is not None:
            if drop is not None:
                assert self.null_memory is not None
                memory = torch.where(drop[:, None], self.null_memory.to(memory), memory)
            parts = cast("list[FiLM]", self.fusions)
            fusion = torch.stack([part.prepare(memory.float()) for part in parts], dim=1)
        return FastPrepared(projected, fusion, lengths)

    def modulations(self, t: Tensor) -> Tensor:
        """What each ResBlock's second norm multiplies and adds at times t (N,): (N, blocks, 2 C).

        The norm's own gain and shift, modulated by time, are one gain and one shift.
        """
        half = self.hidden // 2
        rates = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=t.device))
        angles = 1000 * t.float()[:, None] * rates
        x = self.time(torch.cat([angles.cos(), angles.sin()], dim=-1))
        scale, shift = self.time_modulation(F.silu(x)).unflatten(1, (-1, 2, self.hidden)).unbind(2)
        resnets = [block.resnet for block in self._blocks()] + self._resnet_blocks()
        gains = torch.stack([resnet.norm2.weight for resnet in resnets])  # (blocks, C)
        shifts = torch.stack([resnet.norm2.bias for resnet in resnets])
        return torch.cat([gains * (1 + scale), shifts * (1 + scale) + shift], dim=-1)

    def velocity(
        self, xt: Tensor, t: Tensor, prepared: FastPrepared, modulation: Tensor | None = None
    ) -> Tensor:
        """As `UNetEstimator.velocity`: xt (B, n_mels, L), t (B,) -> (B, n_mels, L).

        Args:
            xt: noisy mel.
            t: time; not looked at where `modulation` is given.
            prepared: of `prepare`.
            modulation: of `modulations`, for all items (blocks, 2 C).
        """
        context, fusion, lengths = prepared
        frames = xt.shape[2]
        if frames % 2:
            xt, context = F.pad(xt, (0, 1)), F.pad(context, (0, 0, 0, 1))
        if modulation is None:
            modulation = self.modulations(t)
        gains, shifts = modulation.chunk(2, dim=-1)  # ((B,) blocks, C) each
        mask = frame_mask(lengths, xt.shape[2])[:, None]
        half_lengths = (lengths + 1) // 2
        mel = xt.masked_fill(~mask, 0.0).transpose(1, 2)  # (B, C, L) -> (B, L, C)
        mel = F.pad(mel, (0, self.input_bands - mel.shape[2])).to(self.dtype)
        x: Tensor = context
        h: Tensor | None = self.mel_input(_beside_neighbours(mel))
        film: Tensor | None = None
        skips: list[Tensor] = []
        here = lengths

        def settled() -> Tensor:
            """x with what is still to join it, in the products' precision."""
            return kernels.normalize(x, None, None, here, added=h, film=film, dtype=self.dtype)[1]

        for i, block in enumerate(self._blocks()):
            if self.down is not None and i == self.outer:
                x, h, film = self.down(settled().unflatten(1, (-1, 2)).flatten(2)), None, None
                here = half_lengths
            join = len(self.blocks) - 1 - i
            if join < self.skips:
                first, second = cast(nn.ModuleList, self.joins[join])
                x, h, film = first(settled()), second(skips.pop()), None
            x, h = block(x, h, film, gains[..., i, :], shifts[..., i, :], here)
            film = fusion[:, i] if fusion.shape[1] else None
            if film is not None and block.gates is not None:  # ICLR: a gate around FiLM
                x, inner = kernels.normalize(x, None, None, here, added=h, dtype=self.dtype)
                signal, gate = block.gates(inner).float().chunk(2, dim=-1)
                scale, shift = film[:, None].chunk(2, dim=-1)
                h = torch.tanh(signal) * torch.sigmoid(gate) * (1 + scale) + shift
                film = None
            if i < self.skips:
                skips.append(settled())
            if self.up is not None and i == len(self.blocks) - self.outer - 1:
                x, h, film = self.up(settled()).unflatten(-1, (2, -1)).flatten(1, 2), None, None
                here = lengths
        for i, resnet in enumerate(self._resnet_blocks(), start=len(self.blocks)):
            x, h = resnet(x, h, film, gains[..., i, :], shifts[..., i, :], here)
            film = None
        _, y = kernels.normalize(
            x,
            self.norm.weight,
            self.norm.bias,
            here,
            added=h,
            film=film,
            silu=True,
            neighbours=True,
            dtype=self.dtype,
        )
        v = self.output(y)[..., : self.n_mels]
        v = v.transpose(1, 2).to(xt.dtype)  # (B, L, C) -> (B, C, L)
        return v.masked_fill(~mask, 0.0)[..., :frames]

    def _blocks(self) -> "list[_FastBlock]":
        return cast("list[_FastBlock]", list(self.blocks))

    def _resnet_blocks(self) -> "list[_FastResBlock]":
        return cast("list[_FastResBlock]", list(self.resnet_blocks))


class _FastResBlock(nn.Module):
    """`ResBlock`; what joins x is handed to whoever normalises next."""

    def __init__(self, block: ResBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.norm1, self.norm2 = block.norm1.float(), block.norm2.float()
        self.convolution1 = block.convolution1.linear.to(dtype)
        self.convolution2 = block.convolution2.linear.to(dtype)

    def forward(
        self,
        x: Tensor,
        h: Tensor | None,
        film: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        lengths: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """x (B, L, C), with h (B, L, C) and film (B, 2 C) to join it -> x, and the next h."""
        x, y = kernels.normalize(
            x,
            self.norm1.weight,
            self.norm1.bias,
            lengths,
            added=h,
            film=film,
            silu=True,
            neighbours=True,
            dtype=self.dtype,
        )
        _, y = kernels.normalize(
            self.convolution1(y),
            gain,
            shift,
            lengths,
            silu=True,
            neighbours=True,
            dtype=self.dtype,
        )
        return x, self.convolution2(y)


class _FastBlock(nn.Module):
    """`UNetBlock` up to its fusion, which is handed to whoever normalises next."""

    def __init__(self, block: UNetBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.resnet = _FastResBlock(block.resnet, dtype)
        self.norm = block.norm.float()
        self.heads = block.attention.heads
        self.query_key_value = block.attention.query_key_value.to(dtype)
        self.attention_output = block.attention.output.to(dtype)
        fusion = block.fusion
        self.gates = None
        if isinstance(fusion, GatedFusion):
            self.gates = copy.deepcopy(fusion.gates).to(dtype)

    def forward(
        self,
        x: Tensor,
        h: Tensor | None,
        film: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        lengths: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `_FastResBlock`."""
        x, h = self.resnet(x, h, film, gain, shift, lengths)
        x, y = kernels.normalize(
            x, self.norm.weight, self.norm.bias, lengths, added=h, dtype=self.dtype
        )
        y = kernels.attend(self.query_key_value(y), self.heads, lengths)
        return x, self.attention_output(y)


def _blocks(estimator: UNetEstimator) -> list[UNetBlock]:
    return cast("list[UNetBlock]", list(estimator.blocks))


def _beside_neighbours(x: Tensor) -> Tensor:
    """Each frame beside the one before and the one after it: (B, L, C) -> (B, L, 3 C)."""
    x = F.pad(x, (0, 0, 1, 1))
    return torch.cat([x[:, :-2], x[:, 1:-1], x[:, 2:]], dim=-1)


def _padded_conv(convolution: FrameConv, channels: int) -> nn.Linear:
    """The convolution over three frames as a linear layer of `channels` a frame, some of no effect:
    products want multiples of 8."""
    weight = convolution.linear.weight.unflatten(1, (3, -1))
    linear = nn.Linear(3 * channels, len(weight), bias=False)
    linear.weight = nn.Parameter(F.pad(weight, (0, channels - weight.shape[2])).flatten(1), False)
    return linear


def _padded_outputs(linear: nn.Linear, channels: int) -> nn.Linear:
    """The linear layer with outputs of no use, up to `channels`."""
    missing = channels - linear.out_features
    padded = nn.Linear(linear.in_features, channels)
    padded.weight = nn.Parameter(F.pad(linear.weight, (0, 0, 0, missing)), False)
    padded.bias = nn.Parameter(F.pad(linear.bias, (0, missing)), False)
    return padded


def _halves(linear: nn.Linear) -> nn.ModuleList:
    """A linear layer over two parts side by side as one for each, the bias with the first."""
    halves = []
    for i, weight in enumerate(linear.weight.chunk(2, dim=1)):
        half = nn.Linear(weight.shape[1], weight.shape[0], bias=i == 0)
        half.weight = nn.Parameter(weight.contiguous(), False)
        if i == 0:
            half.bias = linear.bias
        halves.append(half)
    return nn.ModuleList(halves)


class FastFlow(ConditionalFlow):
    """The flow, whose integration is one graph for sources that are not cut into chunks.

    Args:
        flow: whose path it is.
        estimator: the network of `velocity`.
    """

    def __init__(self, flow: ConditionalFlow, estimator: FastEstimator) -> None:
        super().__init__(sigma_min=flow.sigma_min)
        self.estimator = estimator
        self.replays: dict[tuple[int, str, float], Replayed] = {}

    def sample(
        self,
        velocity: Callable[..., Tensor],
        x0: Tensor,
        condition: Any,
        *,
        null: Any = None,
        steps: int = 10,
        solver: str = "euler",
        guidance: float = 0.7,
    ) -> Tensor:
        """As `ConditionalFlow.sample`; a condition of one part is that of whole sources."""
        if not (isinstance(condition, tuple) and len(condition) == 1):
            return super().sample(
                velocity,
                x0,
                condition,
                null=null,
                steps=steps,
                solver=solver,
                guidance=guidance,
            )
        key = (steps, solver, guidance)
        if key not in self.replays:
            self.replays[key] = Replayed(self._integration(x0.device, *key))
        inputs = [pad_to(x0, 2, FRAME_BUCKET)]
        for (prepared,) in (condition, null)[: 1 + (guidance > 0)]:
            context = pad_to(prepared.context, 1, FRAME_BUCKET)
            inputs += [context, prepared.fusion, prepared.lengths]
        return self.replays[key](*inputs)[0][..., : x0.shape[2]]

    def _integration(
        self, device: torch.device, steps: int, solver: str, guidance: float
    ) -> Callable[..., Outputs]:
        """The integration as a function of tensors alone."""
        times: list[float] = []

        def note(xt: Tensor, t: Tensor, _: Any) -> Tensor:
            times.append(float(t))
            return xt

        # At which times the solver asks, and in which order, does not depend on the velocity.
        plain = super().sample
        plain(note, torch.zeros(1, 1, 1), None, steps=steps, solver=solver, guidance=0.0)
        modulations = self.estimator.modulations(torch.tensor(times, device=device))

        def integrate(x0: Tensor, *conditions: Tensor) -> Outputs:
            order: Iterator[Tensor] = iter(modulations)

            def velocity(xt: Tensor, t: Tensor, prepared: FastPrepared) -> Tensor:
                return self.estimator.velocity(xt, t, prepared, next(order))

            condition = FastPrepared(*conditions[:3])
            null = FastPrepared(*conditions[3:]) if guidance > 0 else None
            return (
                plain(
                    velocity,
                    x0,
                    condition,
                    null=null,
                    steps=steps,
                    solver=solver,
                    guidance=guidance,
                ),
            )

        return integrate

"""The vocoder at speed: `FastBigVGAN` does what `BigVGAN` does.

Channels last; each Snake with its two filters is one kernel; convolutions are matrix products
without copies, add the residual as they write, and take several samples at a time where channels
are few, so that tiles are full (`takin_vc.fast.kernels`).
"""

from typing import cast

import torch
from torch import Tensor, nn

from takin_vc.fast import kernels
from takin_vc.fast.graphs import FRAME_BUCKET, Outputs, Replayed, pad_to
from takin_vc.mel import frame_mask
from takin_vc.snake import MAGNITUDE_FLOOR, Snake
from takin_vc.vocoder import BigVGAN, ResidualBlock, UpsamplingStage


class FastBigVGAN(nn.Module):
    """`BigVGAN`, channels last.

    Args:
        vocoder: stays as it is.
        dtype: of the products, and of what stands between them.
    """

    def __init__(self, vocoder: BigVGAN, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.sample_rate, self.n_mels = vocoder.sample_rate, vocoder.n_mels
        self.hop_length, self.reach_frames = vocoder.hop_length, vocoder.reach_frames
        self.final_tanh = vocoder.final_tanh
        self.overlap_add = vocoder.overlap_add
        # In 32 bits: log mels reach -11.5, where bfloat16 has steps of 1/16.
        self.conv_pre = folded(vocoder.conv_pre).float()
        self.ups = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.rates = []
        rate = 1
        for stage in cast("list[UpsamplingStage]", list(vocoder.stages)):
            self.ups.append(FastConvolution.transposed(stage.up, dtype))
            self.rates.append(rate)
            rate *= int(stage.up.stride[0])
            blocks = cast("list[ResidualBlock]", list(stage.blocks))
            self.stages.append(
                nn.ModuleList(_FastResidualBlock(block, rate, dtype) for block in blocks)
            )
        self.snake_post = _FastSnake(vocoder.snake_post, rate)
        self.conv_post = FastConvolution.of(vocoder.conv_post, dtype)
        self.samples_a_frame = rate * vocoder.conv_post.in_channels
        self.replay = Replayed(self._speak)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As `BigVGAN`: mel (B, n_mels, L), lengths (B,) in frames -> (B, T)."""
        batch, _, frames = mel.shape
        if lengths is None:
            lengths = torch.full((batch,), frames, device=mel.device)
        lengths = lengths.to(torch.int32)
        mel = pad_to(mel.float(), 2, FRAME_BUCKET)
        # The kernels count in 32 bits.
        most = max(1, (2**31 - 1) // (mel.shape[2] * self.samples_a_frame))
        pieces = [
            self.replay(*piece)[0]
            for piece in zip(mel.split(most), lengths.split(most), strict=True)
        ]
        return torch.cat(pieces)[:, : frames * self.hop_length]

    def _speak(self, mel: Tensor, lengths: Tensor) -> Outputs:
        valid = frame_mask(lengths, mel.shape[2])[:, None]
        x = self.conv_pre(mel.masked_fill(~valid, 0.0)).transpose(1, 2)  # (B, C, L) -> (B, L, C)
        x = x.contiguous().to(self.dtype)
        for up, stage, rate in zip(self.ups, self.stages, self.rates, strict=True):
            blocks = cast("list[_FastResidualBlock]", list(cast(nn.ModuleList, stage)))
            channels = blocks[0].channels
            x = up(x, lengths, rate).unflatten(2, (-1, channels)).flatten(1, 2)
            total: Tensor | None = None
            for i, block in enumerate(blocks):
                scale = 1 / len(blocks) if i == len(blocks) - 1 else 1.0
                total = block(x, lengths, total, scale)
            assert total is not None
            x = total
        rate = x.shape[1] // mel.shape[2]
        x = self.conv_post(self.snake_post(x, lengths), lengths, rate, dtype=torch.float32)
        if self.overlap_add is not None:
            x = self.overlap_add(x.transpose(1, 2), lengths * rate).transpose(1, 2)
            rate *= self.overlap_add.hop_length
        x = x.tanh() if self.final_tanh else x.clamp(-1.0, 1.0)
        x = x[:, :, 0]  # (B, T, 1) -> (B, T)
        return (x.masked_fill(~frame_mask(lengths * rate, x.shape[1]), 0.0),)


class _FastResidualBlock(nn.Module):
    """`ResidualBlock`; its result is added to that of the blocks beside it as it is written."""

    def __init__(self, block: ResidualBlock, rate: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.rate = rate
        self.convolutions_a_step = block.convolutions_a_step
        convolutions = cast("list[nn.Conv1d]", list(block.convolutions))
        self.channels = convolutions[0].in_channels
        self.snakes = nn.ModuleList(_FastSnake(cast(Snake, s), rate) for s in block.snakes)
        self.convolutions = nn.ModuleList(FastConvolution.of(c, dtype, rate) for c in convolutions)

    def forward(self, x: Tensor, lengths: Tensor, total: Tensor | None, scale: float) -> Tensor:
        """(block(x) + total) scale, of x (B, T, C) and total likewise, or None for nothing."""
        last = len(self.snakes) - 1
        for start in range(0, last + 1, self.convolutions_a_step):
            y = x
            end = start + self.convolutions_a_step - 1
            for i in range(start, end + 1):
                y = self.convolutions[i](
                    self.snakes[i](y, lengths),
                    lengths,
                    self.rate,
                    residual=x if i == end else None,
                    other=total if i == last else None,
                    scale=scale if i == last else 1.0,
                )
            x = y
        return x


class _FastSnake(nn.Module):
    """`Snake`, channels last, with its constants ready."""

    alpha: Tensor
    inverse_beta: Tensor

    def __init__(self, snake: Snake, rate: int) -> None:
        super().__init__()
        self.rate = rate
        self.anti_aliased = snake.anti_aliased
        alpha = snake.alpha.data.float()
        beta = alpha if snake.beta is None else snake.beta.data.float()
        if snake.log_scale:
            alpha, beta = alpha.exp(), beta.exp()
        self.register_buffer("alpha", alpha)
        self.register_buffer("inverse_beta", 1 / (beta + MAGNITUDE_FLOOR))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        if self.anti_aliased:
            return kernels.snake(x, self.alpha, self.inverse_beta, lengths, self.rate)
        y = x.float()
        return (y + torch.sin(y * self.alpha).square() * self.inverse_beta).to(x.dtype)


class FastConvolution(nn.Module):
    """A convolution over frames (B, T, C), perhaps over several neighbouring samples at a time.

    Args:
        weight: (out, taps, in), of groups of samples.
        bias: (out,) or None.
        dilation: in groups.
        group: samples that stand side by side in one row.
        dtype: of the products.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dilation: int, group: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.taps, self.dilation, self.group = weight.shape[1], dilation, group
        self.register_buffer("weight", weight.flatten(1).to(dtype).contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @classmethod
    def of(cls, convolution: nn.Conv1d, dtype: torch.dtype, rate: int = 1) -> "FastConvolution":
        """A convolution; narrow ones in groups where that takes no more taps.

        docs/model/inference-speed.md has the measurements.
        """
        weight, bias = convolution.weight.detach(), convolution.bias
        dilation = int(convolution.dilation[0])
        out, channels, taps = weight.shape
        group = {24: 4, 48: 2}.get(channels, 1) if out == channels else 1
        grouped = group_convolution(weight, dilation, group)
        if group == 1 or rate % group or grouped.shape[1] > taps:
            return cls(weight.transpose(1, 2), bias, dilation, 1, dtype)
        return cls(grouped, None if bias is None else bias.repeat(group), 1, group, dtype)

    @classmethod
    def transposed(cls, up: nn.ConvTranspose1d, dtype: torch.dtype) -> "FastConvolution":
        """A transposed convolution: each frame gives `rate` samples, side by side."""
        weight = group_transposed(up.weight.detach(), int(up.stride[0]), int(up.padding[0]))
        bias = None if up.bias is None else up.bias.repeat(int(up.stride[0]))
        return cls(weight, bias, 1, 1, dtype)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        rate: int,
        *,
        groups: int = 1,
        residual: Tensor | None = None,
        other: Tensor | None = None,
        scale: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """x (B, T, C) at `rate` samples a frame of `lengths` -> (B, T, out)."""

        def side_by_side(y: Tensor | None) -> Tensor | None:
            return (
                y if y is None or self.group == 1 else y.unflatten(1, (-1, self.group)).flatten(2)
            )

        rows = side_by_side(x)
        assert rows is not None
        y = kernels.convolve(
            rows,
            self.weight,
            self.bias,
            lengths,
            taps=self.taps,
            dilation=self.dilation,
            groups=groups,
            rate=rate // self.group,
            residual=side_by_side(residual),
            other=side_by_side(other),
            scale=scale,
            dtype=dtype,
        )
        return y if self.group == 1 else y.unflatten(2, (self.group, -1)).flatten(1, 2)


def group_convolution(weight: Tensor, dilation: int, group: int) -> Tensor:
    """A convolution over rows of `group` samples that does what one over samples does.

    Args:
        weight: (out, in, taps), an odd number of them.
        dilation: in samples.
        group: samples in a row.

    Returns:
        (group x out, row taps, group x in), without dilation; an odd number of row taps.
    """
    out, channels, taps = weight.shape
    reach = taps // 2 * dilation
    rows = -(-reach // group)  # to either side
    grouped = weight.new_zeros(group, out, 2 * rows + 1, group, channels)
    for at in range(group):
        for tap in range(taps):
            row, place = divmod(at + tap * dilation - reach, group)
            grouped[at, :, row + rows, place] = weight[:, :, tap]
    return grouped.reshape(group * out, 2 * rows + 1, group * channels)


def group_transposed(weight: Tensor, rate: int, padding: int) -> Tensor:
    """A convolution over frames whose outputs are the `rate` samples that each of them becomes.

    Args:
        weight: of an `nn.ConvTranspose1d`, (in, out, taps).
        rate: its stride.
        padding: its padding.

    Returns:
        (rate x out, frames, in), an odd number of frames.
    """
    channels, out, taps = weight.shape
    # Sample rate m + q hears frame m + d through tap q + padding - rate d.
    reach = max(-(-(taps - 1 - padding) // rate), (rate - 1 + padding) // rate)
    grouped = weight.new_zeros(rate, out, 2 * reach + 1, channels)
    for q in range(rate):
        for d in range(-reach, reach + 1):
            tap = q + padding - rate * d
            if 0 <= tap < taps:
                grouped[q, :, d + reach] = weight[:, :, tap].T
    return grouped.flatten(0, 1)


def folded(convolution: nn.Conv1d) -> nn.Conv1d:
    """A copy that holds its weight plainly, whatever parametrises it."""
    plain = nn.Conv1d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size[0],
        stride=convolution.stride[0],
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation[0],
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.weight = nn.Parameter(convolution.weight.detach().clone(), False)
    if convolution.bias is not None:
        plain.bias = nn.Parameter(convolution.bias.detach().clone(), False)
    return plain

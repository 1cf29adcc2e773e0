"""HiFi-GAN's generator, with published weights (Kong et al. 2020, arXiv 2010.05646, section 2).

Transposed convolutions raise the rate; after each of them residual blocks of several kernel sizes
run side by side, and their mean is the output. Only the larger blocks of the paper's V1 ("resblock"
1 in its configuration) are here: both vocoders in use have them. Weight normalisation is folded
into the weights when they are read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.weights.state import load_state, read_state

SLOPE = 0.1  # of every leaky ReLU but the last one, which has torch's 0.01
GAIN, DIRECTION = "weight_g", "weight_v"  # published names of a weight-normalised weight


class _ResidualBlock(nn.Module):
    """Dilated convolutions, each followed by a plain one, and added to their input."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Conv1d:
            padding = dilation * (kernel - 1) // 2
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T) -> (B, C, T)."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class HiFiGAN(nn.Module):
    """Features of frames to a waveform.

    Args:
        features: channels of the input.
        projected: channels to which a linear layer first brings them; None for no such layer.
        channels: after the first convolution; each upsampling halves them.
        rates: of the upsamplings; their product is the hop, in samples.
        kernels: of the upsamplings.
        block_kernels: of the residual blocks after each upsampling.
        dilations: of the convolutions of each block.
        condition: size of a vector that is added, projected, behind the first convolution; None
            for no such vector.
        last_bias: whether the last convolution has a bias.
    """

    def __init__(
        self,
        features: int = 80,
        projected: int | None = None,
        channels: int = 512,
        rates: Sequence[int] = (8, 8, 2, 2),
        kernels: Sequence[int] = (16, 16, 4, 4),
        block_kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[int] = (1, 3, 5),
        condition: int | None = None,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        self.blocks_a_stage = len(block_kernels)
        if projected is not None:
            self.lin_pre = nn.Linear(features, projected)
        self.conv_pre = nn.Conv1d(projected or features, channels, 7, padding=3)
        if condition is not None:
            self.cond = nn.Conv1d(condition, channels, 1)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(rates, kernels, strict=True):
            padding = (kernel - rate) // 2
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding))
            channels //= 2
            self.resblocks.extend(_ResidualBlock(channels, k, dilations) for k in block_kernels)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=last_bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, features, L), condition (B, condition) -> samples (B, L * hop), in [-1, 1]."""
        if hasattr(self, "lin_pre"):
            x = self.lin_pre(x.transpose(1, 2)).transpose(1, 2)
        x = self.conv_pre(x)
        if condition is not None:
            x = x + self.cond(condition[:, :, None])
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            first = stage * self.blocks_a_stage
            blocks = self.resblocks[first : first + self.blocks_a_stage]
            x = torch.stack([block(x) for block in blocks]).mean(0)
        return self.conv_post(F.leaky_relu(x)).tanh().squeeze(1)


def load_hifigan(path: str | Path, name: str, how: str, **sizes: Any) -> HiFiGAN:
    """The generator with the weights of a published file, on the CPU, ready to run.

    Args:
        path: in PyTorch's format, the tensors under "generator"; nothing in it is executed.
        name: the weights' name, for errors.
        how: how to get them, for errors.
        sizes: arguments of `HiFiGAN`.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    state = read_state(path, name, how).get("generator")
    if not isinstance(state, dict):
        raise UserError(f"{path} is not {name}: it has no state dict 'generator'; {how}")
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = HiFiGAN(**sizes)
    load_state(model, without_weight_norm(state), path, name, how)
    return model.requires_grad_(False).eval()


def without_weight_norm(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with each weight in place of its gain and direction (Salimans & Kingma 2016).

    w = g v / |v|, with one norm for each index of the first axis. A pair that does not fit
    together stays as it is, so that the check of names and shapes that follows reports it.
    """
    folded = dict(state)
    for key, gain in state.items():
        stem = key.removesuffix(GAIN)
        direction = state.get(stem + DIRECTION)
        if stem == key or not isinstance(gain, Tensor) or not isinstance(direction, Tensor):
            continue
        if gain.shape != (len(direction), *[1] * (direction.ndim - 1)):
            continue
        del folded[key], folded[stem + DIRECTION]
        norm = direction.flatten(1).norm(dim=1).view_as(gain)
        folded[f"{stem}weight"] = direction * (gain / norm)
    return folded

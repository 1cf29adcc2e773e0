"""BigVGAN: mel spectrograms to waveforms, versions 1 and 2, with NVIDIA's public weights.

Lee et al., "BigVGAN: A Universal Neural Vocoder with Large-Scale Training", arXiv 2206.04658: the
generator of HiFi-GAN with periodic activations (Snake), each taken at twice the rate between two
low-pass filters, so that the harmonics it makes do not alias (sec. 3). Takin-VC states "pre-trained
BigVGAN" and no more; the default here is `nvidia/bigvgan_v2_24khz_100band_256x`.

Checked against NVIDIA/BigVGAN at commit 7d2b454, the same random weights in both, for versions 1
and 2, "snake" and "snakebeta", blocks "1" and "2": largest absolute difference 1.5e-7 on waveforms
that reach 0.34; the names and shapes of all nine public configurations agree
(`tests/takin_vc/test_vocoder.py`, with `BIGVGAN_DIR`).

On a CPU, the last upsampling can be an inverse Fourier transform of short frames,
as in iSTFTNet (Kaneko et al. 2022, arXiv 2203.02395): `spectrum_size`. NVIDIA's models have none.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from takin_vc.snake import Snake, low_pass_taps, zero_beyond
from takin_vc.tensors import WeightsError, find_files, load_tensors, read_tensors, reading

MAX_LOG_MAGNITUDE = 5.0  # of a spectrum's bin: e^5 is far above full scale


class ResidualBlock(nn.Module):
    """Dilated convolutions, each after a Snake and each added to what came before it.

    Args:
        channels: of x.
        kernel_size: of every convolution; odd.
        dilations: of the convolutions, one residual step each.
        plain_after: a second Snake and undilated convolution in each step (BigVGAN's block "1").
        own_magnitude, log_scale, anti_aliased: see `Snake`.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int,
        dilations: Sequence[int],
        plain_after: bool,
        own_magnitude: bool,
        log_scale: bool,
        anti_aliased: bool,
    ) -> None:
        super().__init__()

        self.convolutions_a_step = 2 if plain_after else 1
        self.snakes = nn.ModuleList()
        self.convolutions = nn.ModuleList()
        for step in dilations:
            for dilation in (step, 1)[: self.convolutions_a_step]:
                padding = dilation * (kernel_size - 1) // 2
                self.snakes.append(
                    Snake(
                        channels,
                        own_magnitude=own_magnitude,
                        log_scale=log_scale,
                        anti_aliased=anti_aliased,
                    )
                )
                self.convolutions.append(
                    nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
                )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T), lengths (B,) in samples -> (B, C, T)."""
        for start in range(0, len(self.snakes), self.convolutions_a_step):
            y = x
            for i in range(start, start + self.convolutions_a_step):
                y = self.convolutions[i](self.snakes[i](y, lengths))
            x = x + y
        return x


class UpsamplingStage(nn.Module):
    """A transposed convolution, then the mean of residual blocks that run side by side.

    Args:
        up: raises the rate.
        blocks: each keeps the shape.
    """

    def __init__(self, up: nn.ConvTranspose1d, blocks: Sequence[ResidualBlock]) -> None:
        super().__init__()
        self.up = up
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, C, T), lengths (B,) in samples -> (B, C / 2, T * rate)."""
        x = self.up(zero_beyond(x, lengths))
        if lengths is not None:
            lengths = lengths * self.up.stride[0]
        first, *others = self.blocks
        total = first(x, lengths)
        for block in others:
            total = total + block(x, lengths)
        return total / len(self.blocks)


class OverlapAdd(nn.Module):
    """Spectra of short frames to a waveform: inverse Fourier transforms, windowed and added up.

    Frame k stands around sample (k + 1/2) hop; a Hann window of four hops, whose shifted copies add
    up to a constant. Always in float32.

    Args:
        size: samples of a frame, a multiple of 4; a quarter of it is the hop.

    Raises:
        ValueError: if it is not.
    """

    basis: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 4 or size % 4:
            raise ValueError(f"spectrum_size ({size}) must be a multiple of 4")
        self.hop_length = size // 4
        real = torch.fft.irfft(torch.eye(size // 2 + 1, dtype=torch.complex128), size)
        imaginary = torch.fft.irfft(1j * torch.eye(size // 2 + 1, dtype=torch.complex128), size)
        # Sampled between the points, so that the window is symmetric; its four shifts add up to 2.
        window = torch.sin(
            math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size
        ).square()
        basis = torch.cat([real, imaginary]) * window / 2
        self.register_buffer("basis", basis[:, None].float(), persistent=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log magnitudes and phases (B, size + 2, N), lengths (B,) in frames -> (B, 1, N hop)."""
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = x.float().chunk(2, dim=1)
            magnitude = log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp()
            spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
            frames = zero_beyond(spectrum, lengths).transpose(1, 2) @ self.basis[:, 0].float()
            quarters = frames.unflatten(2, (4, self.hop_length))  # (B, N, 4, hop)
            y = sum(F.pad(quarters[:, :, k], (0, 0, k, 3 - k)) for k in range(4))
            assert isinstance(y, Tensor)
            return y.flatten(1)[:, None, 3 * self.hop_length // 2 : -(3 * self.hop_length // 2)]


class Vocoder(nn.Module):
    """Log mel spectrograms (B, n_mels, L) and lengths (B,) to waveforms (B, T) in [-1, 1].

    Attributes:
        sample_rate: of the waveform, in Hz.
        n_mels: bands of the log mel.
        hop_length: samples a frame of the mel.
        reach_frames: how many frames before and after its frame a sample depends on.
    """

    sample_rate: int
    n_mels: int
    hop_length: int
    reach_frames: int

    def add_weight_norm(self) -> None:
        """Prepares the weights for training; here they stay as they are."""

    def remove_weight_norm(self) -> None:
        """Joins what `add_weight_norm` split."""


class BigVGAN(Vocoder):
    """Log mel spectrograms to waveforms.

    A convolution, then stages that raise the rate and halve the channels, then a last Snake and
    convolution. The weights are held plain; `add_weight_norm` splits them for training.

    Args:
        sample_rate: of the waveform, in Hz.
        n_mels: bands of the log mel (natural logarithm of the magnitude, `takin_vc.mel.LogMel`).
        initial_channels: after the first convolution; a multiple of 2 ** len(upsample_rates).
        upsample_rates: their product is the hop length in samples.
        upsample_kernel_sizes: one a rate, each larger than its rate by an even number.
        kernel_sizes: of the residual blocks that run side by side.
        dilations: of each of those blocks.
        plain_after: see `ResidualBlock`.
        own_magnitude, log_scale, anti_aliased: see `Snake`.
        final_tanh: bound the waveform by tanh (version 1); else clip it to [-1, 1] (version 2).
        final_bias: the last convolution has a bias (version 1).
        spectrum_size: the last convolution gives spectra of this many samples, and `OverlapAdd` the
            waveform from them: a last upsampling by a quarter of it. None: it gives samples.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 24000,
        n_mels: int = 100,
        initial_channels: int = 1536,
        upsample_rates: Sequence[int] = (4, 4, 2, 2, 2, 2),
        upsample_kernel_sizes: Sequence[int] = (8, 8, 4, 4, 4, 4),
        kernel_sizes: Sequence[int] = (3, 7, 11),
        dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        plain_after: bool = True,
        own_magnitude: bool = True,
        log_scale: bool = True,
        anti_aliased: bool = True,
        final_tanh: bool = False,
        final_bias: bool = False,
        spectrum_size: int | None = None,
    ) -> None:
        super().__init__()
        if initial_channels % 2 ** len(upsample_rates):
            raise ValueError(
                f"initial_channels ({initial_channels}) are halved by each of the "
                f"{len(upsample_rates)} upsamplings: they must be a multiple of "
                f"{2 ** len(upsample_rates)}"
            )
        if len(kernel_sizes) != len(dilations):
            raise ValueError(
                f"kernel_sizes ({len(kernel_sizes)}) and dilations ({len(dilations)}) "
                "must name the same blocks"
            )
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    f"an upsampling kernel ({kernel}) must be its rate ({rate}) plus an even number"
                )
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.upsample_rates = tuple(upsample_rates)
        self.overlap_add = None if spectrum_size is None else OverlapAdd(spectrum_size)
        last_rate = 1 if self.overlap_add is None else self.overlap_add.hop_length
        self.hop_length = math.prod(upsample_rates) * last_rate
        self.side_by_side = len(kernel_sizes)
        self.plain_after = plain_after
        self.final_tanh = final_tanh
        snake = {
            "own_magnitude": own_magnitude,
            "log_scale": log_scale,
            "anti_aliased": anti_aliased,
        }

        self.conv_pre = nn.Conv1d(n_mels, initial_channels, 7, padding=3)
        self.stages = nn.ModuleList()
        channels = initial_channels
        for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
            padding = (kernel - rate) // 2
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=padding)
            channels //= 2
            blocks = [
                ResidualBlock(
                    channels, kernel_size=size, dilations=steps, plain_after=plain_after, **snake
                )
                for size, steps in zip(kernel_sizes, dilations, strict=True)
            ]
            self.stages.append(UpsamplingStage(up, blocks))
        self.snake_post = Snake(channels, **snake)
        outputs = 1 if spectrum_size is None else spectrum_size + 2
        self.conv_post = nn.Conv1d(channels, outputs, 7, padding=3, bias=final_bias)

        # As HiFi-GAN: small convolutions, so that training starts near silence.
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module is not self.conv_pre:
                nn.init.normal_(module.weight, 0.0, 0.01)

        self.reach_frames = _reach_frames(
            upsample_rates,
            upsample_kernel_sizes,
            kernel_sizes,
            dilations,
            plain_after,
            anti_aliased,
            last_rate,
        )

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The waveform of each mel spectrogram.

        Args:
            mel: (B, n_mels, L).
            lengths: frames of each, (B,); all L where None. What lies beyond is never read.

        Returns:
            (B, T) in [-1, 1] with T = L * hop_length, zeros beyond `lengths`.
        """
        # Under autocast the first and last convolution stay as they are: bfloat16 has steps of 1/16
        # where log mels end, and of a tenth of a radian where phases do.
        with torch.autocast(mel.device.type, enabled=False):
            x = self.conv_pre(zero_beyond(mel, lengths))
        for stage, rate in zip(self.stages, self.upsample_rates, strict=True):
            x = stage(x, lengths)
            if lengths is not None:
                lengths = lengths * rate
        with torch.autocast(mel.device.type, enabled=False):
            x = self.snake_post(x.to(self.conv_post.weight.dtype), lengths)
            x = self.conv_post(x)
        if self.overlap_add is not None:
            x = self.overlap_add(x, lengths)
            if lengths is not None:
                lengths = lengths * self.overlap_add.hop_length
        x = x.tanh() if self.final_tanh else x.clamp(-1.0, 1.0)
        return zero_beyond(x, lengths)[:, 0]

    def add_weight_norm(self) -> None:
        """Trains direction and magnitude of every convolution apart, as BigVGAN is trained."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                parametrizations.weight_norm(module)

    def remove_weight_norm(self) -> None:
        """Joins what `add_weight_norm` split: the same function, faster, and as it is saved."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                parametrize.remove_parametrizations(module, "weight")

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """NVIDIA's generator, with its settings and weights.

        Args:
            source: a folder with `config.json` and `bigvgan_generator.pt` (or `.safetensors`), or
                "nvidia/bigvgan_v2_24khz_100band_256x" in the Hugging Face hub's cache.

        Raises:
            WeightsError: if a file is missing, or they do not fit each other.
        """
        config, weights = cls.find_weights(source)
        with reading(config, "no settings of a BigVGAN", "get it again"):
            model = cls(**settings_of_nvidia(json.loads(config.read_text(encoding="utf-8"))))
        load_tensors(model, model.from_nvidia_names(read_tensors(weights)), weights)
        return model

    @staticmethod
    def find_weights(source: str | Path) -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        names = ("bigvgan_generator.safetensors", "model.safetensors", "bigvgan_generator.pt")
        return find_files(source, what="BigVGAN", files=("config.json",), either=names)

    def from_nvidia_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in NVIDIA's code, under our names, with weight norm folded.

        `ups.I.0` is `stages.I.up`, `resblocks.N` is `stages.I.blocks.J`, the convolutions of its
        `convs1` and `convs2` alternate in `convolutions`, its `activations` are `snakes`. Tensors
        that already bear our names keep them. NVIDIA's files hold the constant filters too.

        Raises:
            WeightsError: if a low-pass filter is not the one that `anti_aliased_snake` applies.
        """
        renamed: dict[str, Tensor] = {}
        for name, tensor in fold_weight_norm(tensors).items():
            parts = name.removeprefix("generator.").split(".")
            match parts:
                case [*_, "filter"]:
                    if not torch.allclose(tensor.flatten().cpu(), low_pass_taps(), atol=1e-6):
                        raise WeightsError(f"{name!r} is not BigVGAN's 12-tap low-pass filter")
                    continue
                case ["ups", stage, "0", kind]:
                    parts = ["stages", stage, "up", kind]
                case ["activation_post", "act", kind]:
                    parts = ["snake_post", kind]
                case ["resblocks", number, which, index, *_, kind]:
                    stage, block = map(str, divmod(int(number), self.side_by_side))
                    parts = ["stages", stage, "blocks", block, "snakes", index, kind]
                    if which != "activations":
                        position = int(index) * (1 + self.plain_after) + (which == "convs2")
                        parts[4:6] = ["convolutions", str(position)]
            renamed[".".join(parts)] = tensor
        return renamed


def settings_of_nvidia(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `BigVGAN` that NVIDIA's `config.json` stands for.

    What that file leaves out has version 1's value: a tanh and a bias at the end.
    """
    return {
        "sample_rate": config["sampling_rate"],
        "n_mels": config["num_mels"],
        "initial_channels": config["upsample_initial_channel"],
        "upsample_rates": config["upsample_rates"],
        "upsample_kernel_sizes": config["upsample_kernel_sizes"],
        "kernel_sizes": config["resblock_kernel_sizes"],
        "dilations": config["resblock_dilation_sizes"],
        "plain_after": config["resblock"] == "1",
        "own_magnitude": config["activation"] == "snakebeta",
        "log_scale": config["snake_logscale"],
        "final_tanh": config.get("use_tanh_at_final", True),
        "final_bias": config.get("use_bias_at_final", True),
    }


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The plain weights `g v / |v|` of directions v and magnitudes g.

    Salimans and Kingma 2016, "Weight normalization", eq. 2; the norm is over all but the first
    axis. Both of PyTorch's namings are known: `weight_g`, `weight_v` and `original0`, `original1`
    of `parametrizations.weight`.
    """
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for magnitude, direction in (
            ("weight_g", "weight_v"),
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ):
            if name.endswith(magnitude):
                break
            if name.endswith(direction):
                stem = name.removesuffix(direction)
                norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))
                folded[f"{stem}weight"] = tensor * (tensors[stem + magnitude] / norm)
                break
        else:
            folded[name] = tensor
    return folded


def _reach_frames(
    upsample_rates: Sequence[int],
    upsample_kernel_sizes: Sequence[int],
    kernel_sizes: Sequence[int],
    dilations: Sequence[Sequence[int]],
    plain_after: bool,
    anti_aliased: bool,
    last_rate: int,
) -> int:
    """How many frames before and after its frame a sample depends on."""
    snake = 6 if anti_aliased else 0  # samples to either side: 3 by each filter
    block = max(
        sum(
            (dilation + plain_after) * (size - 1) // 2 + snake * (1 + plain_after)
            for dilation in dilated
        )
        for size, dilated in zip(kernel_sizes, dilations, strict=True)
    )
    reach, samples = 3.0, 1  # frames, and samples a frame at the present rate
    for rate, kernel in zip(upsample_rates, upsample_kernel_sizes, strict=True):
        reach += kernel / rate / samples
        samples *= rate
        reach += block / samples
    overlap = 0 if last_rate == 1 else 2  # frames of a spectrum that a sample is in, to either side
    return math.ceil(reach + (snake + 3 + overlap) / samples)

"""The three families of discriminators that HiFi-Codec trains its decoder against.

Multi-period and multi-scale from HiFi-GAN (Kong et al. 2020, §2.3), multi-scale STFT from EnCodec
(Défossez et al. 2022, §3.4), in the sizes of HiFi-Codec's public code (yangdongchao/AcademiCodec,
`academicodec/models/hificodec/models.py` and `models/encodec/msstftd.py`). Takin-VC states only
that its decoder "adopts the same structure and configuration as HiFi-codec" (ACL §4.4).

Checked against that code (commit b6ac134) with the same random weights: the period and scale
families are equal bit for bit, the STFT family within 4.6e-7.

Every family maps a waveform (B, T) to one `Verdict` per discriminator in it. They are trained on
segments cut from speech: no padding, no masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

SLOPE = 0.1  # of leaky ReLU in the period and scale discriminators


@dataclass(frozen=True, eq=False)
class Verdict:
    """The output of one discriminator for a waveform.

    Attributes:
        logits: (B, ...), near 1 for real speech and 0 for generated, one for each position it looks
            at.
        features: outputs of its layers, for feature matching.
    """

    logits: Tensor
    features: tuple[Tensor, ...]


class Discriminators(nn.Module):
    """Several families together.

    Args:
        families: modules that map (B, T) to a list of verdicts; HiFi-Codec's three where None.
    """

    def __init__(self, families: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        self.families = nn.ModuleList(
            families
            or [
                MultiPeriodDiscriminator(),
                MultiScaleDiscriminator(),
                MultiScaleSTFTDiscriminator(),
            ]
        )

    def forward(self, waveform: Tensor) -> list[Verdict]:
        """waveform (B, T) -> the verdicts of every discriminator of every family."""
        return [verdict for family in self.families for verdict in family(waveform)]


class MultiPeriodDiscriminator(nn.Module):
    """Looks at every p-th sample, for several prime periods p.

    Args:
        periods: in samples.
        channels: of the five convolutions.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        *,
        channels: Sequence[int] = (32, 128, 512, 1024, 1024),
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(p, channels) for p in periods)

    def forward(self, waveform: Tensor) -> list[Verdict]:
        """waveform (B, T) -> a verdict per period."""
        return [discriminator(waveform) for discriminator in self.discriminators]


class PeriodDiscriminator(nn.Module):
    """Folds a waveform into columns of one period and convolves along each row by itself."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        last = len(channels) - 1
        self.layers = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    widths[layer],
                    widths[layer + 1],
                    (5, 1),
                    stride=(1 if layer == last else 3, 1),
                    padding=(2, 0),
                )
            )
            for layer in range(len(channels))
        )
        self.out = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> Verdict:
        """waveform (B, T), T over the period -> its verdict."""
        missing = -waveform.shape[1] % self.period
        x = F.pad(waveform[:, None], (0, missing), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))  # (B, 1, T / p, p)
        return _judge(self.layers, self.out, x, SLOPE)


class MultiScaleDiscriminator(nn.Module):
    """Looks at the waveform, and at it averaged down by two and by four.

    Args:
        channels: of the first convolution, a multiple of 16; the others have 1, 2, 4, 8, 8 and 8
            times as many.
        scales: waveforms looked at.
    """

    def __init__(self, *, channels: int = 128, scales: int = 3) -> None:
        super().__init__()
        # HiFi-GAN: spectral norm at full rate, weight norm below.
        self.discriminators = nn.ModuleList(
            ScaleDiscriminator(channels, spectral=scale == 0) for scale in range(scales)
        )
        self.halve = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, waveform: Tensor) -> list[Verdict]:
        """waveform (B, T) -> a verdict per scale."""
        verdicts = []
        x = waveform[:, None]
        for scale, discriminator in enumerate(self.discriminators):
            if scale:
                x = self.halve(x)
            verdicts.append(discriminator(x))
        return verdicts


class ScaleDiscriminator(nn.Module):
    """Grouped convolutions with long kernels along a waveform."""

    def __init__(self, channels: int, *, spectral: bool) -> None:
        super().__init__()
        c = channels
        shapes = [  # in, out, kernel, stride, groups
            (1, c, 15, 1, 1),
            (c, c, 41, 2, 4),
            (c, 2 * c, 41, 2, 16),
            (2 * c, 4 * c, 41, 4, 16),
            (4 * c, 8 * c, 41, 4, 16),
            (8 * c, 8 * c, 41, 1, 16),
            (8 * c, 8 * c, 5, 1, 1),
        ]
        norm = spectral_norm if spectral else weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(i, o, kernel, stride=stride, groups=groups, padding=kernel // 2))
            for i, o, kernel, stride, groups in shapes
        )
        self.out = norm(nn.Conv1d(8 * c, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> Verdict:
        """waveform (B, 1, T) -> its verdict."""
        return _judge(self.layers, self.out, waveform, SLOPE)


class MultiScaleSTFTDiscriminator(nn.Module):
    """Looks at complex spectrograms of several resolutions, hop a quarter of the window.

    Args:
        n_ffts: samples of each spectrogram's window and transform.
        channels: of the convolutions.
        bands: see `STFTDiscriminator`.
    """

    def __init__(
        self,
        n_ffts: Sequence[int] = (1024, 2048, 512, 256, 128),
        *,
        channels: int = 32,
        bands: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(STFTDiscriminator(n, channels, bands) for n in n_ffts)

    def forward(self, waveform: Tensor) -> list[Verdict]:
        """waveform (B, T), T at least the longest window -> a verdict per resolution."""
        return [discriminator(waveform) for discriminator in self.discriminators]


class STFTDiscriminator(nn.Module):
    """Convolves over time and frequency, with dilations 1, 2 and 4 in time.

    Args:
        n_fft: samples of the window and the transform.
        channels: of the convolutions.
        bands: where the spectrum is cut, as rising shares of it between 0 and 1. Each band has
            convolutions of its own, as in the Descript codec (Kumar et al. 2023, arXiv 2306.06546,
            sec. 3.3); the last one joins them. Without cuts it is EnCodec's discriminator.
    """

    window: Tensor

    def __init__(self, n_fft: int, channels: int, bands: Sequence[float] = ()) -> None:
        super().__init__()
        self.n_fft = n_fft
        c = channels
        bins = n_fft // 2 + 1
        edges = [0, *(round(share * bins) for share in bands), bins]
        self.sizes = [high - low for low, high in pairwise(edges)]
        self.layers = nn.ModuleList([] if bands else _spectrum_layers(c))
        self.bands = nn.ModuleList(nn.ModuleList(_spectrum_layers(c)) for _ in edges[1:] if bands)
        self.out = weight_norm(nn.Conv2d(c, 1, 3, padding=1))
        # Unit energy, so that every resolution sees values of the same size.
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)

    def forward(self, waveform: Tensor) -> Verdict:
        """waveform (B, T) -> its verdict.

        Raises:
            ValueError: if T is under the window.
        """
        if waveform.shape[1] < self.n_fft:
            raise ValueError(
                f"the STFT discriminator's window ({self.n_fft} samples) is longer than the "
                f"segment ({waveform.shape[1]}); train on longer segments or give smaller n_ffts"
            )
        spectrum = torch.stft(
            waveform.float(),
            self.n_fft,
            self.n_fft // 4,
            window=self.window,
            center=False,
            return_complex=True,
        )
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, L, n_fft / 2 + 1)
        if not self.bands:
            return _judge(self.layers, self.out, x, 0.2)
        features: list[Tensor] = []
        ends: list[Tensor] = []
        for layers, band in zip(self.bands, x.split(self.sizes, dim=3), strict=True):
            features += _features(cast(nn.ModuleList, layers), band, 0.2)
            ends.append(features[-1])
        logits: Tensor = self.out(torch.cat(ends, dim=3))
        return Verdict(logits, (*features, logits))


def _spectrum_layers(channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]  # no norm: EnCodec
    for dilation in (1, 2, 4):
        conv = nn.Conv2d(
            channels,
            channels,
            (3, 9),
            stride=(1, 2),
            dilation=(dilation, 1),
            padding=(dilation, 4),
        )
        layers.append(weight_norm(conv))
    return [*layers, weight_norm(nn.Conv2d(channels, channels, 3, padding=1))]


def _features(layers: nn.ModuleList, x: Tensor, slope: float) -> list[Tensor]:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return features


def _judge(layers: nn.ModuleList, out: nn.Module, x: Tensor, slope: float) -> Verdict:
    features = _features(layers, x, slope)
    logits: Tensor = out(features[-1])
    return Verdict(logits, (*features, logits))

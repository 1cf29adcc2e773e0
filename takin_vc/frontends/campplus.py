"""CAM++: a densely connected, context-masked speaker embedding (Wang et al., Interspeech 2023).

Loads the public weights of `iic/speech_campplus_sv_zh_en_16k-common_advanced`, file
`campplus_cn_en_common.pt` (80 bands, 192 channels, 16 kHz), which ICLR footnote 2 names. Parameters
bear the names of that file, so that it needs no translation:

    head.conv1, bn1, layer1, layer2, conv2, bn2     2-D convolutions over (bands, frames)
    xvector.tdnn                                    to half the frame rate
    xvector.block{1,2,3}.tdnnd{1..}                 dense layers: nonlinear1, linear1, nonlinear2,
                                                    cam_layer
    xvector.transit{1,2,3}                          halves of the channels
    xvector.out_nonlinear, xvector.dense            around the pooling over time

Input as 3D-Speaker makes it: Kaldi filter banks less their mean over time.

Checked against modelscope/3D-Speaker at commit 09e7806 (`speakerlab/models/campplus/DTDNN.py`), the
same random weights and batch statistics in both, 3 s, embeddings up to 70: largest absolute
difference 3.0e-4 in float32 and 7.4e-12 in float64
(`THREE_D_SPEAKER_DIR=... pytest tests/takin_vc/frontends/test_campplus.py -s`).
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.tensors import find_files, load_tensors, read_tensors

FILE = "campplus_cn_en_common.pt"
SEGMENT = 100  # frames of a local context, at half the filter bank's rate: 2 s
DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of each
HEAD_CHANNELS = 32


class CAMPPlus(nn.Module):
    """Speaker embedding of filter banks. Meant for evaluation mode.

    Args:
        n_mels: filter-bank bands, a multiple of 8.
        embedding_dim: channels of the embedding.
        growth: channels that each dense layer adds.
        channels: after the first convolution over time.

    Raises:
        ValueError: if n_mels is not a multiple of 8.
    """

    def __init__(
        self,
        *,
        n_mels: int = 80,
        embedding_dim: int = 192,
        growth: int = 32,
        channels: int = 128,
    ) -> None:
        super().__init__()
        if n_mels % 8:
            raise ValueError(f"n_mels ({n_mels}) must be a multiple of 8: it is halved three times")
        self.n_mels = n_mels
        self.embedding_dim = embedding_dim
        self.head = _Head(HEAD_CHANNELS)
        self.xvector = nn.ModuleDict()
        self.xvector["tdnn"] = _Tdnn(HEAD_CHANNELS * n_mels // 8, channels)
        for i, (layers, dilation) in enumerate(DENSE_BLOCKS, start=1):
            self.xvector[f"block{i}"] = _DenseBlock(layers, channels, growth, dilation)
            channels += layers * growth
            self.xvector[f"transit{i}"] = _Transit(channels, channels // 2)
            channels //= 2
        self.xvector["out_nonlinear"] = _norm_relu(channels)
        self.xvector["dense"] = _Dense(2 * channels, embedding_dim)
        for module in self.modules():
            # Keeps the signal's scale through sixty layers: torch's default would lose it.
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "CAMPPlus":
        """The model with its public weights, in evaluation mode.

        Args:
            source: `campplus_cn_en_common.pt`, or a folder that holds it.

        Raises:
            WeightsError: if the file is missing or holds other tensors.
        """
        (path,) = cls.find_weights(source)
        model = cls()
        load_tensors(model, read_tensors(path), path)
        return model.eval()

    @staticmethod
    def find_weights(source: str | Path) -> list[Path]:
        """The file of `from_pretrained`, or its WeightsError."""
        what = f"CAM++ ({FILE} of iic/speech_campplus_sv_zh_en_16k-common_advanced on ModelScope)"
        return find_files(source, what=what, files=(FILE,))

    def forward(self, fbank: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings of filter banks less their mean.

        Args:
            fbank: (B, R, n_mels), at least 3 valid frames each.
            mask: (B, R), True on valid frames, which come first; None where all are.

        Returns:
            (B, embedding_dim).
        """
        if mask is None:
            mask = torch.ones(fbank.shape[:2], dtype=torch.bool, device=fbank.device)
        valid = mask[:, None].to(fbank.dtype)  # (B, 1, R)
        x = self.head(fbank.transpose(1, 2)[:, None], valid[:, None])  # (B, C, R)
        # A stride of 2 sees a frame if its centre is one: every second, from the first.
        x, valid = self.xvector["tdnn"](x, valid), valid[:, :, ::2]
        # All masks look at the same: the mean of all frames and the mean of one's segment.
        frames = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) * valid
        pool = segment_means(frames, valid) + (valid / valid.sum(-1, keepdim=True)).transpose(1, 2)
        for i in range(1, len(DENSE_BLOCKS) + 1):
            x = self.xvector[f"block{i}"](x, valid, pool)
            x = self.xvector[f"transit{i}"](x)
        x = self.xvector["out_nonlinear"](x)
        return self.xvector["dense"](_statistics(x, valid))


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU()))


def _statistics(x: Tensor, valid: Tensor) -> Tensor:
    """Mean and unbiased standard deviation over valid frames: (B, C, R), (B, 1, R) -> (B, 2 C)."""
    count = valid.sum(-1)
    mean = (x * valid).sum(-1) / count
    squares = ((x - mean[..., None]) * valid).square().sum(-1)
    return torch.cat([mean, (squares / (count - 1)).sqrt()], dim=-1)


class _Head(nn.Module):
    """2-D convolutions that shrink the bands to an eighth and keep the frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_Residual2d(channels, 2), _Residual2d(channels, 1))
        self.layer2 = nn.Sequential(_Residual2d(channels, 2), _Residual2d(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, 1, n_mels, R), valid (B, 1, 1, R) -> (B, channels x n_mels / 8, R)."""
        x = F.relu(self.bn1(self.conv1(x * valid))) * valid
        for block in [*self.layer1, *self.layer2]:
            x = block(x, valid)
        x = F.relu(self.bn2(self.conv2(x))) * valid
        return x.flatten(1, 2)


class _Residual2d(nn.Module):
    """Two 2-D convolutions with a shortcut; `stride` is over the bands."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, bands, R), 0 on padding -> (B, C, bands / stride, R), 0 on padding."""
        h = F.relu(self.bn1(self.conv1(x))) * valid
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x)) * valid


class _Tdnn(nn.Module):
    """The first convolution over time, with a stride of 2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, channels, 5, stride=2, padding=2, bias=False)
        self.nonlinear = _norm_relu(channels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x * valid))


class _DenseBlock(nn.ModuleDict):
    """Layers that each see all before them and add `growth` channels."""

    def __init__(self, layers: int, channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        for i in range(layers):
            self[f"tdnnd{i + 1}"] = _DenseLayer(channels + i * growth, growth, dilation)

    def forward(self, x: Tensor, valid: Tensor, pool: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x, valid, pool)], dim=1)
        return x


class _DenseLayer(nn.Module):
    """A bottleneck of 4 x growth channels, then a convolution under a context mask."""

    def __init__(self, channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        bottleneck = 4 * growth
        self.nonlinear1 = _norm_relu(channels)
        self.linear1 = nn.Conv1d(channels, bottleneck, 1, bias=False)
        self.nonlinear2 = _norm_relu(bottleneck)
        self.cam_layer = _ContextAwareMask(bottleneck, growth, dilation)

    def forward(self, x: Tensor, valid: Tensor, pool: Tensor) -> Tensor:
        x = self.nonlinear2(self.linear1(self.nonlinear1(x)))
        return self.cam_layer(x * valid, pool)


class _ContextAwareMask(nn.Module):
    """A convolution, each channel of it weighted by the whole utterance and by its 2 s segment."""

    def __init__(self, in_channels: int, channels: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(
            in_channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(in_channels, in_channels // 2, 1)
        self.linear2 = nn.Conv1d(in_channels // 2, channels, 1)

    def forward(self, x: Tensor, pool: Tensor) -> Tensor:
        """x (B, C, R), 0 on padding, pool (B, R, R): column r weighs what frame r looks at."""
        context = F.relu(self.linear1(x @ pool))
        return self.linear_local(x) * torch.sigmoid(self.linear2(context))


def segment_means(x: Tensor, valid: Tensor, segment: int = SEGMENT) -> Tensor:
    """Each frame's mean over the valid frames of its segment.

    Args:
        x: (B, C, R), 0 on padding.
        valid: (B, 1, R), 1 on valid frames and 0 on padding.
        segment: frames of one; the last may be shorter.

    Returns:
        (B, C, R), 0 in segments without valid frames.
    """
    frames = x.shape[-1]
    pad = (0, -frames % segment)
    sums = F.pad(x, pad).unflatten(-1, (-1, segment)).sum(-1)
    counts = F.pad(valid, pad).unflatten(-1, (-1, segment)).sum(-1)
    return (sums / counts.clamp(min=1)).repeat_interleave(segment, dim=-1)[..., :frames]


class _Transit(nn.Module):
    """Norm, ReLU and a change of the number of channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.nonlinear = _norm_relu(in_channels)
        self.linear = nn.Conv1d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.nonlinear(x))


class _Dense(nn.Module):
    """The embedding of the pooled statistics, normalised without weights."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, channels, 1, bias=False)
        norm = nn.BatchNorm1d(channels, affine=False)
        self.nonlinear = nn.Sequential(OrderedDict(batchnorm=norm))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels) -> (B, channels)."""
        return self.nonlinear(self.linear(x[..., None]).squeeze(-1))

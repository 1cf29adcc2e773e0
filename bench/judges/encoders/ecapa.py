"""speechbrain's ECAPA-TDNN speaker encoder, in batches in which padding changes nothing.

Desplanques et al. 2020, arXiv 2005.07143; the published weights are those of
`speechbrain/spkrec-ecapa-voxceleb`. speechbrain's own module reflects at the batch's end, padding
included, so that an embedding depends on its neighbours (speechbrain issues 1374 and 2986); here
each clip is reflected at its own end, and alone both give the same.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.files import fingerprint
from bench.judges import Weights, versions
from bench.judges.nn.batches import (
    full_precision,
    in_batches,
    mask,
    masked_mean,
    masked_variance,
    pad,
)
from bench.weights import find as weights
from bench.weights.find import HubFiles
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples: 10 ms
N_MELS = 80
# Frames that the widest convolution (dilation 4) reflects on each side, and one more.
SHORTEST = (4 + 1) * HOP_LENGTH  # samples

FILE = "embedding_model.ckpt"
HUB = HubFiles(
    "speechbrain/spkrec-ecapa-voxceleb",
    files=(FILE,),
    revision="0f99f2d0ebe89ac095bcc5903c4dd8f72b367286",
    size=83_316_686,
)
# As several public projects pin it for that revision.
SHA256 = {FILE: "0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2"}


class _Named(nn.Module):
    """A layer under one more name, as speechbrain's wrappers store it."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = getattr(self, self.name)(x)
        return y


class _Block(nn.Module):
    """Convolution, ReLU, batch normalisation; reflects each clip at its own end."""

    def __init__(self, channels: int, out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _Named("conv", nn.Conv1d(channels, out, kernel, dilation=dilation))
        self.norm = _Named("norm", nn.BatchNorm1d(out))
        self.reach = dilation * (kernel - 1) // 2

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, L), lengths (B,) -> (B, C', L)."""
        if self.reach:
            x = reflect(x, lengths, self.reach)
        y: Tensor = self.norm(F.relu(self.conv(x)))
        return y


class _Res2Net(nn.Module):
    """Parts of the channels one after another, each given what the one before made."""

    def __init__(self, channels: int, kernel: int, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(
            _Block(width, width, kernel, dilation) for _ in range(scale - 1)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, L), lengths (B,) -> (B, C, L)."""
        first, *parts = x.chunk(len(self.blocks) + 1, dim=1)
        made = [first]
        for number, (part, block) in enumerate(zip(parts, self.blocks, strict=True)):
            made.append(block(part + made[-1] if number else part, lengths))
        return torch.cat(made, dim=1)


class _SqueezeExcite(nn.Module):
    """Weighs each channel by what the clip's mean says."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.conv1 = _Named("conv", nn.Conv1d(channels, bottleneck, 1))
        self.conv2 = _Named("conv", nn.Conv1d(bottleneck, channels, 1))

    def forward(self, x: Tensor, own: Tensor) -> Tensor:
        """x (B, C, L), own (B, 1, L) -> (B, C, L)."""
        squeezed = F.relu(self.conv1(masked_mean(x, own)))
        return x * torch.sigmoid(self.conv2(squeezed))


class _SERes2Net(nn.Module):
    def __init__(self, channels: int, kernel: int, dilation: int, scale: int, bottleneck: int):
        super().__init__()
        self.tdnn1 = _Block(channels, channels)
        self.res2net_block = _Res2Net(channels, kernel, dilation, scale)
        self.tdnn2 = _Block(channels, channels)
        self.se_block = _SqueezeExcite(channels, bottleneck)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, L), lengths (B,) -> (B, C, L)."""
        y = self.res2net_block(self.tdnn1(x, lengths), lengths)
        own = mask(lengths, x.shape[2])[:, None]
        out: Tensor = self.se_block(self.tdnn2(y, lengths), own) + x
        return out


class _AttentivePooling(nn.Module):
    """Mean and standard deviation over time, weighed by attention that knows the whole clip's."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn = _Block(3 * channels, attention)
        self.conv = _Named("conv", nn.Conv1d(attention, channels, 1))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, L), lengths (B,) -> (B, 2 C, 1)."""
        own = mask(lengths, x.shape[2])[:, None]
        mean = masked_mean(x, own)
        deviation = masked_variance(x, own).clamp(min=1e-12).sqrt()
        context = torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)
        weight = self.conv(torch.tanh(self.tdnn(context, lengths)))
        weight = weight.masked_fill(~own, float("-inf")).softmax(dim=2)
        mean = (weight * x).sum(2, keepdim=True)
        variance = (weight * (x - mean).square()).sum(2, keepdim=True)
        return torch.cat([mean, variance.clamp(min=1e-12).sqrt()], dim=1)


class EcapaTDNN(nn.Module):
    """The network; its tensors have speechbrain's names.

    Args:
        channels: of its first blocks; the last has three times as many.
        dim: of the embedding.
        scale: parts of a Res2Net block.
        bottleneck: channels of its squeeze-and-excitation and of the pooling's attention.
    """

    def __init__(
        self, channels: int = 1024, dim: int = 192, scale: int = 8, bottleneck: int = 128
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                _Block(N_MELS, channels, kernel=5),
                *(_SERes2Net(channels, 3, n, scale, bottleneck) for n in (2, 3, 4)),
            ]
        )
        self.mfa = _Block(3 * channels, 3 * channels)
        self.asp = _AttentivePooling(3 * channels, bottleneck)
        self.asp_bn = _Named("norm", nn.BatchNorm1d(6 * channels))
        self.fc = _Named("conv", nn.Conv1d(6 * channels, dim, 1))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """features (B, L, 80), lengths (B,) in frames, at least 5 -> embeddings (B, dim)."""
        x = features.transpose(1, 2)  # (B, L, C) -> (B, C, L)
        made = []
        for block in self.blocks:
            x = block(x, lengths)
            made.append(x)
        x = self.mfa(torch.cat(made[1:], dim=1), lengths)
        pooled = self.asp_bn(self.asp(x, lengths))
        embedding: Tensor = self.fc(pooled)
        return embedding.squeeze(2)


def reflect(x: Tensor, lengths: Tensor, reach: int) -> Tensor:
    """x (B, C, L) with `reach` frames more on each side, mirrored at each clip's own end.

    What stands further behind a clip's end is of no use: nothing of the clip looks at it.
    """
    padded = F.pad(x, (reach, reach), mode="reflect")
    behind = lengths[:, None] + torch.arange(reach, device=x.device)  # (B, reach)
    mirrored = (2 * (lengths[:, None] - 1) - behind)[:, None].expand(-1, x.shape[1], -1)
    place = (behind + reach)[:, None].expand(-1, x.shape[1], -1)
    return padded.scatter(2, place, x.gather(2, mirrored))


class ECAPA:
    """Speaker embeddings (192,) by speechbrain's ECAPA-TDNN; cosines lie in [-1, 1].

    Args:
        weights: `embedding_model.ckpt` or a folder that holds it; None for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; moves memory and time, not embeddings.
    """

    VERSION = 1

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._weights = _find(weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        return fingerprint(["ecapa", self.VERSION, self._weights.sha256, *versions("speechbrain")])

    @cached_property
    def model(self) -> EcapaTDNN:
        """The network, loaded when first used."""
        return load(Path(self._weights.path)).to(self.device)

    @cached_property
    def _filterbank(self) -> nn.Module:
        # Its import switches TF32 on for the whole process unless told not to.
        os.environ.setdefault("SB_DISABLE_QUIRKS", "allow_tf32")
        # Here, because it takes seconds and no other judge needs it.
        from speechbrain.lobes.features import Fbank

        return Fbank(n_mels=N_MELS).to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 192), each row of unit length."""
        clips = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        return np.stack(in_batches(clips, self.batch_size, self._run))

    def _run(self, clips: Sequence[Tensor]) -> list[np.ndarray]:
        model, filterbank = self.model, self._filterbank
        with full_precision():
            longer = [F.pad(c, (0, max(0, SHORTEST - len(c)))) for c in clips]
            samples, lengths = pad(longer, self.device)
            features = filterbank(samples)  # (B, L, 80) in dB
            frames = lengths // HOP_LENGTH + 1  # the transform is centred and sees zeros outside
            own = mask(frames, features.shape[1])[:, None]
            features = features - masked_mean(features.transpose(1, 2), own).transpose(1, 2)
            embeddings = F.normalize(model(features, frames), dim=1)
        return list(embeddings.cpu().numpy())


def load(path: Path) -> EcapaTDNN:
    """The network with the weights of a file in speechbrain's format, ready to embed.

    Raises:
        UserError: if the file holds something else.
    """
    state = read_state(path, "ECAPA-TDNN", HUB.how)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = EcapaTDNN()
    load_state(model, state, path, "ECAPA-TDNN", HUB.how)
    return model.requires_grad_(False).eval()


def _find(given: str | None) -> Weights:
    name, licence = "ECAPA-TDNN spkrec-ecapa-voxceleb", "Apache-2.0"
    if given is not None and Path(given).expanduser().is_file():
        return weights.find(name, given=given, candidates=(), how=HUB, sha256=None, licence=licence)
    _, (found,) = weights.find_folder(name, HUB, given=given, licence=licence, sha256=SHA256)
    return found

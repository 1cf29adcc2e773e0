"""speechbrain's ECAPA-TDNN speaker encoder, in batches in which padding changes nothing.

Desplanques et al. 2020, arXiv 2005.07143; the published weights are those of
`speechbrain/spkrec-ecapa-voxceleb`. The network is speechbrain's. By itself it reflects at the end
of the batch, padding included, so that an embedding depends on the other clips (speechbrain issues
1374 and 2986); here each clip is reflected at its end. A clip alone has the same embedding in both.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.judges import identity
from bench.judges.nn.batches import (
    full_precision,
    in_batches,
    mask,
    masked_mean,
    pad,
)
from bench.weights import Weights
from bench.weights import find as weights
from bench.weights.find import HubFiles
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples: 10 ms
N_MELS = 80
CHANNELS = 1024  # of the published weights
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


class EcapaTDNN(nn.Module):
    """speechbrain's network, in padded batches.

    speechbrain masks its squeeze-and-excitation and its pooling by each clip's length, but its
    convolutions reflect at the end of the batch. Here they reflect at the end of each clip.

    Args:
        channels: of its first four blocks; the last has three times as many. 1024 in the published
            weights.
        activation: of its blocks, a class.
    """

    def __init__(
        self, channels: int = CHANNELS, activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        _before_speechbrain()
        # Here, not above: the import takes a second and no other judge needs it.
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
        from speechbrain.nnet.CNN import Conv1d

        self.network = ECAPA_TDNN(
            N_MELS,
            lin_neurons=192,
            activation=activation,
            channels=[channels] * 4 + [3 * channels],
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=128,
        )
        self._frames: Tensor | None = None
        for layer in self.network.modules():
            if isinstance(layer, Conv1d) and layer.kernel_size > 1:
                layer.padding = "valid"  # `_reflected` pads
                layer.register_forward_pre_hook(self._reflected)

    def forward(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """features (B, L, 80), frames (B,) valid of each, at least 5 -> embeddings (B, 192).

        All L frames are valid where `frames` is None.
        """
        self._frames = frames
        if frames is None:
            whole: Tensor = self.network(features)
            return whole.squeeze(1)
        # speechbrain takes shares of L, and counts a frame that begins before the share's end: half
        # a frame less is right whatever the rounding.
        shares = (frames - 0.5) / features.shape[1]
        embedding: Tensor = self.network(features, shares)
        return embedding.squeeze(1)

    def _reflected(self, layer: Any, arguments: tuple[Tensor]) -> tuple[Tensor]:
        """The input (B, C, L) of a convolution with each clip reflected at both of its ends."""
        reach = layer.dilation * (layer.kernel_size - 1) // 2
        if self._frames is None:
            return (F.pad(arguments[0], (reach, reach), mode="reflect"),)
        return (reflect(arguments[0], self._frames, reach),)


def reflect(x: Tensor, lengths: Tensor, reach: int) -> Tensor:
    """x (B, C, L) with `reach` frames more on each side, mirrored at the end of each clip.

    Frames further behind a clip's end hold nothing of use: no valid frame depends on them.
    """
    padded = F.pad(x, (reach, reach), mode="reflect")
    behind = lengths[:, None] + torch.arange(reach, device=x.device)  # (B, reach)
    mirrored = (2 * (lengths[:, None] - 1) - behind)[:, None].expand(-1, x.shape[1], -1)
    position = (behind + reach)[:, None].expand(-1, x.shape[1], -1)
    return padded.scatter(2, position, x.gather(2, mirrored))


class ECAPA:
    """Speaker embeddings (192,) by speechbrain's ECAPA-TDNN; cosines lie in [-1, 1].

    Args:
        weights: `embedding_model.ckpt` or a folder that holds it; None for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.
    """

    NAME = "ecapa"
    VERSION = 2

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._weights = self._find(weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def networks(self) -> tuple[str, ...]:
        return ("spkrec-ecapa-voxceleb",)

    @property
    def fingerprint(self) -> str:
        return identity(self.NAME, self.VERSION, self.weights, packages=["speechbrain"])

    @cached_property
    def model(self) -> EcapaTDNN:
        """The network, loaded when first used."""
        return self._load(Path(self._weights.path)).to(self.device)

    @cached_property
    def filterbank(self) -> nn.Module:
        """See `filterbank`."""
        return filterbank().to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 192), each row of unit length."""
        clips = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        return embed(self.model, self.filterbank, clips, self.batch_size, self.device)

    @staticmethod
    def _find(given: str | None) -> Weights:
        name, licence = "ECAPA-TDNN spkrec-ecapa-voxceleb", "Apache-2.0"
        if given is not None and Path(given).expanduser().is_file():
            return weights.find(
                name, given=given, candidates=(), how=HUB, sha256=None, licence=licence
            )
        _, (file,) = weights.find_folder(name, HUB, given=given, licence=licence, sha256=SHA256)
        return file

    @staticmethod
    def _load(path: Path) -> EcapaTDNN:
        return load(path)


def filterbank() -> nn.Module:
    """speechbrain's log-mel filterbank: samples (B, T) at 16 kHz -> (B, L, 80) in dB."""
    _before_speechbrain()
    from speechbrain.lobes.features import Fbank

    return Fbank(n_mels=N_MELS)


def log_mels(filterbank: nn.Module, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What the network gets: filter banks less each clip's mean over time.

    Args:
        filterbank: that of `filterbank`.
        samples: (B, T) at 16 kHz, zeros behind the shorter clips.
        lengths: (B,) in samples.

    Returns:
        Features (B, L, 80), and the valid frames of each clip (B,).
    """
    features = filterbank(samples)
    frames = lengths // HOP_LENGTH + 1  # the transform is centred and sees zeros outside
    valid = mask(frames, features.shape[1])[:, None]
    return features - masked_mean(features.transpose(1, 2), valid).transpose(1, 2), frames


def embed(
    model: EcapaTDNN,
    filterbank: nn.Module,
    clips: Sequence[Tensor],
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Embeddings (N, 192) of unit length of clips (T,) at 16 kHz, in batches that change nothing.

    Clips shorter than 50 ms are padded with zeros. The model is in evaluation mode, on `device`.
    """

    def run(batch: Sequence[Tensor]) -> list[np.ndarray]:
        with full_precision():
            longer = [F.pad(clip, (0, max(0, SHORTEST - len(clip)))) for clip in batch]
            embeddings = model(*log_mels(filterbank, *pad(longer, device)))
            return list(F.normalize(embeddings, dim=1).cpu().numpy())

    return np.stack(in_batches(clips, batch_size, run))


def load(
    path: Path, how: str = HUB.how, activation: Callable[[], nn.Module] = nn.ReLU
) -> EcapaTDNN:
    """The network with the weights of a file in speechbrain's format, ready to embed.

    Args:
        path: the file.
        how: how to get it, for the error.
        activation: see `EcapaTDNN`.

    Raises:
        UserError: if the file holds something else.
    """
    state = read_state(path, "ECAPA-TDNN", how)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = EcapaTDNN(activation=activation)
    load_state(model.network, state, path, "ECAPA-TDNN", how)
    return model.requires_grad_(False).eval()


def _before_speechbrain() -> None:
    """Its import switches TF32 on for the whole process unless this variable is set."""
    os.environ.setdefault("SB_DISABLE_QUIRKS", "allow_tf32")

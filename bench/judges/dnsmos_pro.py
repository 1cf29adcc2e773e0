"""DNSMOS Pro: predicted naturalness with its variance (Cumlin et al. 2024, Interspeech).

The small convolutional network of github.com/fcumlin/DNSMOSPro (MIT), with the weights that its
authors trained on BVCC, the ratings of the VoiceMOS Challenge 2022. They load as published.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.devices import torch_device
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.ladder import noise_ladder
from bench.judges.nn.batches import clips_of, full_precision, in_batches
from bench.trials import Utterance
from bench.weights import Weights
from bench.weights.find import WebFile, find
from bench.weights.state import load_state

SAMPLE_RATE = 16000  # Hz
LENGTH = 10 * SAMPLE_RATE  # samples: shorter clips are repeated, as in training
N_FFT, HOP = 320, 160  # samples
FLOOR = 1e-7  # of the magnitudes

COMMIT = "f9da568"
FILE = "dnsmos_pro_bvcc.pt"
URL = f"https://github.com/fcumlin/DNSMOSPro/raw/{COMMIT}/runs/BVCC/model_best.pt"
SHA256 = "dfadd819314a64cbf1e753f7a58b71d67739445fa48623013a5d8e452a4c7194"
SIZE = 342_174  # bytes

CLEAN_AT_LEAST, DROP_AT_LEAST = 1.8, 0.8  # BVCC has few recordings: LibriSpeech scores 2.3


class DNSMOSProNetwork(nn.Module):
    """Four convolutions of 3 x 3, the maximum over time and frequency, three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        channels = ((1, 32), (32, 32), (32, 64), (64, 64))
        self._encoder = nn.Module()
        self._encoder.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after))
            for before, after in channels
        )
        self._head = nn.Module()
        self._head.head = nn.ModuleList(
            nn.Sequential(nn.Linear(64, outputs)) for outputs in (64, 64, 2)
        )

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """samples (B, T) at 16 kHz -> mean opinion (B,), about 1 to 5, and its variance (B,)."""
        x = spectrogram(samples)[:, None]  # (B, 1, L, 161)
        for n, layer in enumerate(cast(nn.ModuleList, self._encoder.encoder)):
            x = layer(x).relu()
            if n == 1:
                x = F.max_pool2d(x, 3)
        y = x.amax(dim=(2, 3))  # (B, 64)
        for n, layer in enumerate(cast(nn.ModuleList, self._head.head)):
            y = layer(y.relu() if n else y)
        # It was trained on (MOS - 3) / 2.
        return 3 + 2 * y[:, 0], 4 * F.softplus(y[:, 1])


def spectrogram(samples: Tensor) -> Tensor:
    """samples (B, T) -> log10 magnitudes (B, L, 161)."""
    # In 64 bits, as in the authors' code: rounding near 0 moves the score by 4e-5.
    window = torch.hann_window(N_FFT, dtype=torch.float64, device=samples.device)
    spectrum = torch.stft(
        samples.double(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    return spectrum.abs().clamp(min=FLOOR).log10().transpose(1, 2).float()


class DNSMOSPro:
    """DNSMOS Pro: `dnsmos_pro`, a predicted opinion of about 1 to 5; column `variance`, its own
    estimate of the variance between listeners.

    A clip under 10 s is repeated until it fills them, as in its training. A longer one is scored
    in evenly spread windows of 10 s, whose means and variances are averaged.

    Args:
        weights: the published file; None for torch.hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: windows computed together; changes memory and time, not scores.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: if the file has another hash than the published one.
    """

    VERSION = 1
    networks = ("dnsmos-pro",)
    reads = frozenset({"converted"})
    metrics = ("dnsmos_pro",)
    needs_source_words = False

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 8
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        self.weights: tuple[Weights, ...] = (
            find(
                "DNSMOS Pro (BVCC)",
                given=weights,
                candidates=[path],
                how=WebFile(URL, path, SHA256, SIZE),
                sha256=SHA256,
                licence="MIT",
            ),
        )

    @property
    def fingerprint(self) -> str:
        return identity("dnsmos_pro", self.VERSION, self.weights)

    @cached_property
    def model(self) -> DNSMOSProNetwork:
        """The network, loaded when first used."""
        return load(self.weights[0].path).to(self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        clips = clips_of(items, SAMPLE_RATE)
        return [
            {"dnsmos_pro": min(max(mean, 1.0), 5.0), "variance": variance}
            for mean, variance in self.predict(clips)
        ]

    def predict(self, clips: Sequence[Tensor]) -> list[tuple[float, float]]:
        """Clips (T,) at 16 kHz → the mean opinion, not clipped, and its variance, of each."""
        parts = [(n, part) for n, clip in enumerate(clips) for part in windows(clip)]
        outputs = in_batches([part for _, part in parts], self.batch_size, self._predict)
        predictions = []
        for n in range(len(clips)):
            of_clip = [
                output for (clip, _), output in zip(parts, outputs, strict=True) if clip == n
            ]
            means, variances = zip(*of_clip, strict=True)
            predictions.append(
                (math.fsum(means) / len(of_clip), math.fsum(variances) / len(of_clip))
            )
        return predictions

    def _predict(self, batch: Sequence[Tensor]) -> list[tuple[float, float]]:
        model = self.model
        with full_precision():
            means, variances = model(torch.stack(list(batch)).to(self.device))
            return list(zip(means.tolist(), variances.tolist(), strict=True))

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """See `bench.judges.ladder.noise_ladder`."""
        return noise_ladder(
            lambda clips: [mean for mean, _ in self.predict([torch.from_numpy(c) for c in clips])],
            recordings,
            sample_rate=SAMPLE_RATE,
            at_least=CLEAN_AT_LEAST,
            drop=DROP_AT_LEAST,
        )


def windows(clip: Tensor) -> list[Tensor]:
    """A clip (T,) repeated to 10 s, or its evenly spread windows of 10 s."""
    if len(clip) <= LENGTH:
        return [clip.repeat(math.ceil(LENGTH / len(clip)))[:LENGTH]]
    over = len(clip) - LENGTH
    starts = np.linspace(0, over, math.ceil(over / LENGTH) + 1).astype(int)
    return [clip[start : start + LENGTH] for start in starts]


def load(path: str | Path) -> DNSMOSProNetwork:
    """The network with the weights of the published file, on the CPU, ready to predict.

    The file is a TorchScript archive: its hash is checked before (`DNSMOSPro`), and torch's
    TorchScript reader, which does not unpickle Python objects, takes the tensors out.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    state = torch.jit.load(str(path), map_location="cpu").state_dict()
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = DNSMOSProNetwork()
    load_state(model, state, path, "DNSMOS Pro", f"get it from {URL}")
    return model.requires_grad_(False).eval()

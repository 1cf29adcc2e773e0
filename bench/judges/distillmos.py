"""DistillMOS: predicted naturalness (Stahl and Gamper 2025, arXiv 2502.05356).

A small network, distilled from predictions that XLS-R makes of speech quality. The network here
loads the weights of the package distillmos 0.9.1 (MIT) as they are.
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
from bench.files import package_folder
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.ladder import noise_ladder
from bench.judges.nn.batches import clips_of, full_precision
from bench.trials import Utterance
from bench.weights import Weights, find
from bench.weights.find import WeightsMissing
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16000  # Hz
WINDOW = 122_880  # samples of input, 7.68 s; shorter clips are padded with zeros
LONGEST_HOP = SAMPLE_RATE  # samples from one window of a longer clip to the next, at most
N_FFT, HOP = 320, 160  # samples
CHANNELS = (64, 64, 128, 256, 256, 256)  # of the convolutions
BANDS = 4  # left of the 161 frequencies after the convolutions
FRAMES = 384  # left of a window after them: one every 20 ms
WIDTH, HEADS, LAYERS = 200, 8, 7  # of the transformer
COMPRESSION = 0.3  # exponent of the magnitudes

# Silence in a window is computed once (`_Convolutions.forward`). So many frames next to the speech,
# and at a window's end, depend on more than silence: one a layer, two for the window of the STFT.
MARGIN = 8

CLEAN_AT_LEAST, DROP_AT_LEAST = 3.5, 1.0  # of the noise ladder


class Network(nn.Module):
    """A complex spectrogram, convolutions, a transformer, attention pooling. Tensor names are the
    published ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Convolutions()
        self.transformer_pool_attn = _Pooled()

    def forward(self, windows: Tensor, lengths: Sequence[int]) -> Tensor:
        """windows (B, 122880) at 16 kHz -> predicted opinions (B,), in 1–5.

        Args:
            windows: each is divided by its peak.
            lengths: samples of each window that are not padding.
        """
        peaks = windows.abs().amax(dim=1, keepdim=True) + 1e-8
        spectra = spectrogram(windows / peaks)
        features = torch.stack(
            [self.cnn(spectrum, n) for spectrum, n in zip(spectra, lengths, strict=True)]
        )
        return cast(Tensor, 1 + 4 * self.transformer_pool_attn(features).sigmoid())


class _Convolutions(nn.Module):
    """Six convolutions of 3 x 3. All but the first halve the frequencies, the last the frames."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = (2, *CHANNELS[:-1])
        for n, (before, after) in enumerate(zip(inputs, CHANNELS, strict=True)):
            stride = (1 if n == 0 else 2, 2 if n == len(CHANNELS) - 1 else 1)
            layers += [nn.Conv2d(before, after, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
        self.cnn = nn.Sequential(*layers)
        self._silence: tuple[Tensor, Tensor] | None = None

    def forward(self, spectrum: Tensor, samples: int) -> Tensor:
        """spectrum (2, 161, 768) -> features (384, 1024).

        The convolutions do nine tenths of the work, and behind a short clip they would compute the
        same silence again and again. They see the speech and some frames more; what follows is the
        same for every clip.

        Args:
            spectrum: of a window.
            samples: so many at its beginning are speech; silence follows.
        """
        frames = -(-samples // HOP) + 3 * MARGIN
        frames += frames % 2
        if frames >= 2 * FRAMES - 2 * MARGIN:
            return self._features(spectrum)
        speech = self._features(spectrum[..., :frames])[:-MARGIN]
        column, end = self._silent(spectrum)
        silence = column.expand(FRAMES - len(speech) - len(end), -1)
        return torch.cat([speech, silence, end])

    def _silent(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The features (1, 1024) of silence, and those (8, 1024) at the end of a silent window."""
        if self._silence is None or self._silence[0].device != like.device:
            features = self._features(like.new_zeros(2, N_FFT // 2 + 1, 8 * MARGIN))
            self._silence = features[len(features) // 2][None], features[-MARGIN:]
        return self._silence

    def _features(self, spectrum: Tensor) -> Tensor:
        """spectrum (2, 161, T) -> features (T / 2, 1024)."""
        # One window at a time with the channels last: half the time of a batch on CPUs.
        x = spectrum[None].contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.cnn(x)[0].flatten(0, 1).T)


class _Pooled(nn.Module):
    """A transformer over the features of a window, and a weighted mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm1d(CHANNELS[-1] * BANDS)
        self.transformer = _Transformer()
        self.norm_trans = nn.BatchNorm1d(WIDTH)
        self.pool = _AttentionPooling()

    def forward(self, features: Tensor) -> Tensor:
        """features (B, 384, 1024) -> scores (B,)."""
        x = self.transformer(_over_time(self.norm_input, features))
        return cast(Tensor, self.pool(_over_time(self.norm_trans, x)))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(CHANNELS[-1] * BANDS)
        self.position_encoding = _Positions()
        self.linear_proj = nn.Linear(CHANNELS[-1] * BANDS, WIDTH)
        self.transformer_encoder = nn.Module()
        self.transformer_encoder.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
            for _ in range(LAYERS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 384, 1024) -> (B, 384, 200)."""
        x = self.linear_proj(_over_time(self.norm, x)) + self.position_encoding.pe
        for layer in cast(nn.ModuleList, self.transformer_encoder.layers):
            x = layer(x)
        return x


class _Positions(nn.Module):
    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, FRAMES, WIDTH))


class _AttentionPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.linear2 = nn.Linear(2 * WIDTH, 1)
        self.linear3 = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, 200) -> (B,)."""
        attention = self.linear2(self.linear1(x).relu()).softmax(dim=1)  # (B, L, 1)
        return cast(Tensor, self.linear3((attention * x).sum(dim=1))[:, 0])


def _over_time(norm: nn.Module, x: Tensor) -> Tensor:
    """x (B, L, C) normalised by a batch norm over C."""
    return cast(Tensor, norm(x.transpose(1, 2)).transpose(1, 2))


def spectrogram(windows: Tensor) -> Tensor:
    """Windows (B, T) -> complex spectra with compressed magnitudes (B, 2, 161, T / 160)."""
    sides = (N_FFT - HOP) // 2
    spectrum = torch.stft(
        F.pad(windows, (sides, sides), mode="reflect"),
        N_FFT,
        HOP,
        window=torch.hann_window(N_FFT, device=windows.device),
        center=False,
        return_complex=True,
    )
    magnitude = torch.view_as_real(spectrum).square().sum(dim=-1).sqrt().clamp(min=1e-12)
    compressed = magnitude.pow(COMPRESSION) / magnitude * spectrum
    return torch.stack([compressed.real, compressed.imag], dim=1)


class DistillMOS:
    """DistillMOS (`distillmos`), a predicted opinion in 1–5.

    A clip is scored in windows of 7.68 s, evenly spread, at most a second apart, and the scores
    are averaged. A shorter clip is padded with zeros, which lowers its score: embedded recordings
    of 3 to 4 s score 3.6, of 6 s or more 4.2. The scores are those of the package to 1e-5.

    Args:
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: windows computed together; changes memory and time, not scores.

    Raises:
        WeightsMissing: if the package is not installed.
    """

    VERSION = 1
    networks = ("distillmos",)
    reads = frozenset({"converted"})
    metrics = ("distillmos",)
    needs_source_words = False

    def __init__(self, device: str = "auto", batch_size: int = 8) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        folder = package_folder("distillmos")
        if folder is None:
            raise WeightsMissing("DistillMOS: distillmos is not installed; pip install distillmos")
        self.weights: tuple[Weights, ...] = (
            find.find(
                "DistillMOS",
                given=None,
                candidates=[folder / "weights" / "distill_mos_v7.pt"],
                how="install its version: pip install --force-reinstall distillmos==0.9.1",
                sha256="b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40",
                licence="MIT",
            ),
        )

    @property
    def fingerprint(self) -> str:
        return identity("distillmos", self.VERSION, self.weights)

    @cached_property
    def model(self) -> Network:
        """The network, loaded when first used."""
        return load(self.weights[0].path).to(self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        clips = clips_of(items, SAMPLE_RATE)
        return [{"distillmos": score} for score in self.predict(clips)]

    def predict(self, clips: Sequence[Tensor]) -> list[float]:
        """Clips (T,) at 16 kHz → a score of each, the mean over its windows."""
        parts = [(n, part) for n, clip in enumerate(clips) for part in windows(clip)]
        scores: list[list[float]] = [[] for _ in clips]
        model = self.model
        with full_precision():
            for start in range(0, len(parts), self.batch_size):
                batch = parts[start : start + self.batch_size]
                padded = [F.pad(part, (0, WINDOW - len(part))) for _, part in batch]
                lengths = [len(part) for _, part in batch]
                outputs = model(torch.stack(padded).to(self.device), lengths).tolist()
                for (n, _), score in zip(batch, outputs, strict=True):
                    scores[n].append(score)
        return [math.fsum(values) / len(values) for values in scores]

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """See `bench.judges.ladder.noise_ladder`."""
        return noise_ladder(
            lambda clips: self.predict([torch.from_numpy(c) for c in clips]),
            recordings,
            sample_rate=SAMPLE_RATE,
            at_least=CLEAN_AT_LEAST,
            drop=DROP_AT_LEAST,
        )


def windows(clip: Tensor) -> list[Tensor]:
    """The windows (≤ 122880,) of a clip (T,): evenly spread, the first and last at its ends."""
    over = len(clip) - WINDOW
    if over <= 0:
        return [clip]
    starts = np.linspace(0, 1, math.ceil(over / LONGEST_HOP) + 1)
    return [clip[int(start * over) : int(start * over) + WINDOW] for start in starts]


def load(path: str | Path) -> Network:
    """The network with the weights of the package's file, on the CPU, ready to predict.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    remedy = "install the package again: pip install --force-reinstall distillmos==0.9.1"
    state = read_state(path, "DistillMOS", remedy).get("model")
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = Network()
    load_state(model, state if isinstance(state, dict) else {}, path, "DistillMOS", remedy)
    for layer in model.cnn.cnn:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return model.requires_grad_(False).eval()

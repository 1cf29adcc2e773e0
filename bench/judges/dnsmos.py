"""Predicted quality by DNSMOS (Reddy et al. 2021 and 2022, arXiv 2010.15258 and 2110.01763)."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.devices import torch_device
from bench.files import package_folder
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.ladder import add_noise
from bench.judges.nn import onnx
from bench.judges.nn.batches import clips_of, full_precision
from bench.trials import Utterance
from bench.weights import Weights
from bench.weights import find as weights
from bench.weights.find import WeightsMissing

SAMPLE_RATE = 16000  # Hz
SELF_TEST_RECORDINGS = 6
WINDOW = 9.01  # seconds of input of both models; P.808's is a hop less
LONG = int(WINDOW * SAMPLE_RATE)  # samples
FRAMES, FRAME, HOP = 900, 320, 160  # of a window; samples
MELS = 120
STEP = SAMPLE_RATE // HOP  # frames from one window to the next, a second later
MOST_WINDOWS = 32  # computed together: 440 MB for the widest layer
# Layers of 3 x 3 before the first pooling: so many frames at a window's edge depend on the edge.
SHARED_LAYERS = 4
# A network's output → an opinion: polynomials, highest power first (microsoft/DNS-Challenge,
# dnsmos_local.py; the same in speechmos).
OPINIONS = {
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "p808": (1.0, 0.0),
}


class P835(nn.Module):
    """The P.835 network over windows that overlap; shared frames are computed once.

    A log-power spectrogram, seven convolutions, the maximum over time and frequency, three dense
    layers. Nine tenths of the work are the four convolutions before the first pooling, and windows
    of 9.01 s begin a second apart: those run once over all windows. Only the frames near a
    window's edges, where it is padded with zeros, are computed for each window.

    Args:
        arrays: the tensors of `sig_bak_ovr.onnx` by name.

    Raises:
        KeyError: if one is missing.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.real = _tensor(arrays["time2freq/stft-real/kernel:0"])
        self.imaginary = _tensor(arrays["time2freq/stft-imag/kernel:0"])
        self.power = float(arrays["mos_estimator_logpow/pow/y:0"])
        self.floor = float(arrays["mos_estimator_logpow/Maximum/x:0"])
        self.scale = float(arrays["mos_estimator_logpow/truediv/y:0"])
        names = ["conv2d", *(f"conv2d_{n}" for n in range(1, 7))]
        self.convolutions = _Convolutions(arrays, names)
        self.dense = _Dense(
            arrays, [f"mos_estimator_logpow/{name}" for name in ("dense", "dense_1", "dense_3")]
        )

    def forward(self, samples: Tensor, windows: int) -> Tensor:
        """samples (T,) that hold `windows` windows, a second apart -> raw scores (windows, 3)."""
        frames = samples.unfold(0, FRAME, HOP)[: FRAMES + (windows - 1) * STEP].T  # (320, L)
        real = F.conv1d(frames[None], self.real)
        imaginary = F.conv1d(frames[None], self.imaginary)
        magnitude = (real.square() + imaginary.square()).sqrt()
        log = magnitude.pow(self.power).clamp(min=self.floor).log() / self.scale
        x = log.transpose(1, 2)[:, None]  # (1, 1, L, 161)
        starts = [STEP * n for n in range(windows)]
        edge = 2 * SHARED_LAYERS  # frames; of these, the half next to the window's edge is right
        heads = self._pooled(torch.cat([x[:, :, s : s + edge] for s in starts]))
        tails = self._pooled(torch.cat([x[:, :, s + FRAMES - edge : s + FRAMES] for s in starts]))
        shared = self._pooled(x)
        half = SHARED_LAYERS // 2  # frames of that half, after the pooling
        parts = []
        for n, s in enumerate(starts):
            middle = shared[:, :, s // 2 + half : (s + FRAMES) // 2 - half]
            parts.append(
                torch.cat([heads[n : n + 1, :, :half], middle, tails[n : n + 1, :, -half:]], 2)
            )
        y = torch.cat(parts)  # (windows, 32, 450, 80)
        for n in range(SHARED_LAYERS, 7):
            y = self.convolutions(n, y if n == SHARED_LAYERS else F.max_pool2d(y, 2)).relu_()
        return cast(Tensor, self.dense(y.amax(dim=(2, 3))))

    def _pooled(self, x: Tensor) -> Tensor:
        """x (B, 1, L, 161) -> (B, 32, L // 2, 80): the layers up to the first pooling."""
        for n in range(SHARED_LAYERS):
            x = self.convolutions(n, x).relu_()
        return F.max_pool2d(x, 2)


class P808(nn.Module):
    """The P.808 network: a mel spectrogram in dB below its loudest point, five convolutions with
    pooling between them, the maximum over time and frequency, three dense layers.

    Args:
        arrays: the tensors of `model_v8.onnx` by name.

    Raises:
        KeyError: if one is missing.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        from librosa import filters

        super().__init__()
        mels = filters.mel(sr=SAMPLE_RATE, n_fft=FRAME + 1, n_mels=MELS)
        self.filters = _tensor(mels)  # (120, 161)
        self.window = nn.Parameter(torch.hann_window(FRAME + 1), requires_grad=False)
        self.convolutions = _Convolutions(arrays, [f"conv2d_{n}" for n in range(5, 10)])
        self.dense = _Dense(arrays, [f"mos_estimator_small_1/dense_{n}" for n in (3, 4, 5)])

    def forward(self, samples: Tensor) -> Tensor:
        """Windows (B, 144000) of 9 s -> scores (B,)."""
        spectrum = torch.stft(
            samples,
            n_fft=FRAME + 1,
            hop_length=HOP,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        power = torch.matmul(self.filters, spectrum.real.square() + spectrum.imag.square())
        decibels = 10 * power.clamp(min=1e-10).log10()  # (B, 120, 900)
        decibels = (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-80.0)
        x = ((decibels + 40) / 40).transpose(1, 2)[:, None]  # (B, 1, 900, 120)
        for n in range(5):
            x = self.convolutions(n, x)
            if n in (0, 1, 3):
                x = F.max_pool2d(x, 2)
            x = x.relu_()
        return cast(Tensor, self.dense(x.amax(dim=(2, 3))))[:, 0]


class _Convolutions(nn.Module):
    """Convolutions of 3 x 3 without their activations; the first has one input channel.

    Args:
        arrays: the tensors of an ONNX file by name.
        names: of the layers in it.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        super().__init__()
        self.kernels = nn.ParameterList(_tensor(arrays[f"{name}/kernel:0"]) for name in names)
        self.biases = nn.ParameterList(_tensor(arrays[f"{name}/bias:0"]) for name in names)

    def forward(self, n: int, x: Tensor) -> Tensor:
        """Layer n: x (B, C, H, W) -> (B, D, H, W)."""
        kernel, bias = self.kernels[n], self.biases[n]
        if n > 0 or x.is_cuda:
            return F.conv2d(x, kernel, bias, padding=1)
        # As a matrix product, whose result has the channels last: on CPUs the other layers take
        # a third of the time on that. On GPUs they take twice the time on it.
        patches = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)  # (B * H * W, 9)
        y = torch.addmm(bias, patches, kernel.flatten(1).T)
        return y.unflatten(0, (len(x), *x.shape[2:])).permute(0, 3, 1, 2)


class _Dense(nn.Module):
    """Three dense layers with ReLU between them; names as those of `_Convolutions`."""

    def __init__(self, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        super().__init__()
        read = "{}/{}/ReadVariableOp/resource:0"
        self.matrices = nn.ParameterList(_tensor(arrays[read.format(n, "MatMul")]) for n in names)
        self.biases = nn.ParameterList(_tensor(arrays[read.format(n, "BiasAdd")]) for n in names)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C) -> (B, D)."""
        for n, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = torch.addmm(bias, x.relu() if n else x, matrix)
        return x


def _tensor(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(array.copy()), requires_grad=False)


class DNSMOS:
    """DNSMOS P.835 (`ovrl`, `sig`, `bak`) and P.808 (`p808`), each a predicted opinion in 1–5.

    The models are those in speechmos. Each scores windows of 9.01 s, one a second, and the scores
    are averaged; shorter speech is repeated until it fills a window. The scores are those of
    speechmos to 1e-4.

    Args:
        device: where torch runs both; see `bench.devices.torch_device`.
    """

    VERSION = 3
    networks = ("dnsmos-p835", "dnsmos-p808")
    reads = frozenset({"converted"})
    metrics = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
    needs_source_words = False

    def __init__(self, device: str = "auto") -> None:
        self.device = torch_device(device)
        folder = package_folder("speechmos")
        if folder is None:
            raise WeightsMissing("DNSMOS: speechmos is not installed; pip install speechmos")
        models = folder / "dnsmos_models"
        self._weights = tuple(
            weights.find(
                name,
                given=None,
                candidates=[models / file],
                how="reinstall it: pip install --force-reinstall speechmos",
                sha256=None,
                licence="MIT",
            )
            for name, file in (
                ("DNSMOS P.835", "sig_bak_ovr.onnx"),
                ("DNSMOS P.808", "model_v8.onnx"),
            )
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self._weights

    @property
    def fingerprint(self) -> str:
        return identity("dnsmos", self.VERSION, self._weights, packages=["librosa"])

    @cached_property
    def _models(self) -> tuple[P835, P808]:
        p835, p808 = (onnx.read_arrays(Path(w.path).read_bytes()) for w in self._weights)
        return P835(p835).to(self.device), P808(p808).to(self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        return [self.predict(clip.numpy()) for clip in clips_of(items, SAMPLE_RATE)]

    def predict(self, clip: np.ndarray) -> dict[str, Value]:
        """`clip` (T,) at 16 kHz, in [-1, 1] → the four scores."""
        p835, p808 = self._models
        samples = fill(np.clip(clip, -1.0, 1.0)).astype(np.float32)
        starts = window_starts(len(samples))
        windows = starts[-1] + 1  # including those that are left out
        scores = []
        with full_precision():
            for first in range(0, windows, MOST_WINDOWS):
                count = min(MOST_WINDOWS, windows - first)
                group = samples[first * SAMPLE_RATE :][: (count - 1) * SAMPLE_RATE + LONG]
                part = torch.from_numpy(group).to(self.device)
                overall = p808(part.unfold(0, LONG, SAMPLE_RATE)[:, :-HOP])
                scores.append(torch.cat([p835(part, count), overall[:, None]], dim=1).cpu())
        raw = torch.cat(scores)[starts].numpy().astype(np.float64)
        outputs = dict(zip(("sig", "bak", "ovrl", "p808"), raw.T, strict=True))
        return {n: float(np.polyval(curve, outputs[n]).mean()) for n, curve in OPINIONS.items()}

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Adds more and more white noise to real recordings: the score must fall each time."""
        clips = [r.load().resample(SAMPLE_RATE).numpy() for r in recordings[:SELF_TEST_RECORDINGS]]
        means = {}
        for label, snr in (("clean", None), ("20 dB", 20.0), ("10 dB", 10.0), ("0 dB", 0.0)):
            noisy = [clip if snr is None else add_noise(clip, snr) for clip in clips]
            scores = [self.predict(clip) for clip in noisy]
            means[label] = float(np.mean([float(score["ovrl"] or 0) for score in scores]))
        falling = list(means.values())
        ladder = " > ".join(f"{value:.2f} ({label})" for label, value in means.items())
        return SelfTest(
            passed=all(a > b for a, b in pairwise(falling)),
            findings={"OVRL with noise": f"{ladder}, must fall"},
        )


def fill(samples: np.ndarray) -> np.ndarray:
    """`samples` (T,) at 16 kHz, doubled until they fill a window."""
    while len(samples) < LONG:
        samples = np.append(samples, samples)
    return samples


def window_starts(samples: int) -> list[int]:
    """The seconds at which speechmos' windows begin.

    Args:
        samples: the number of samples, at least a window.


    It leaves out windows that are a sample too short by its arithmetic; so does this.
    """
    windows = int(np.floor(samples / SAMPLE_RATE) - WINDOW) + 1
    ends = [int((start + WINDOW) * SAMPLE_RATE) for start in range(windows)]
    return [n for n, end in enumerate(ends) if min(end, samples) - n * SAMPLE_RATE >= LONG]

"""Predicted quality by DNSMOS (Reddy et al. 2021 and 2022, arXiv 2010.15258 and 2110.01763)."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import weights
from bench.files import fingerprint
from bench.judges import Converted, SelfTest, Value, Weights, onnx, versions
from bench.judges.batches import full_precision
from bench.trials import Utterance
from bench.weights import WeightsMissing

if TYPE_CHECKING:
    from speechmos.dnsmos import DNSMOS as Predictor

SAMPLE_RATE = 16000  # Hz
SELF_TEST_RECORDINGS = 6


WINDOW = 9.01  # seconds that both models hear
LONG = int(WINDOW * SAMPLE_RATE)  # samples
FRAMES, FRAME, HOP = 900, 320, 160  # of a window; samples
STEP = SAMPLE_RATE // HOP  # frames from one window to the next, a second later
MOST_WINDOWS = 32  # computed together: 330 MB for the widest layer
# Layers of 3 x 3 before the first pooling: so many frames at a window's edge depend on the edge.
SHARED_LAYERS = 4


class P835(nn.Module):
    """The P.835 network over windows that overlap, what they share computed once.

    A log-power spectrogram, seven convolutions, the maximum over time and frequency, three dense
    layers. Nine tenths of the work are the four convolutions before the first pooling, and windows
    of 9.01 s begin a second apart: those run once over all windows, and only the frames near a
    window's own edges, where it sees zeros instead of its neighbour, are computed for each window.

    Args:
        arrays: the tensors of `sig_bak_ovr.onnx` by name.

    Raises:
        KeyError: if one is missing.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__()

        def tensor(name: str) -> nn.Parameter:
            return nn.Parameter(torch.from_numpy(arrays[name].copy()), requires_grad=False)

        dense = "mos_estimator_logpow/{}/{}/ReadVariableOp/resource:0"
        self.real = tensor("time2freq/stft-real/kernel:0")
        self.imaginary = tensor("time2freq/stft-imag/kernel:0")
        self.power = float(arrays["mos_estimator_logpow/pow/y:0"])
        self.floor = float(arrays["mos_estimator_logpow/Maximum/x:0"])
        self.scale = float(arrays["mos_estimator_logpow/truediv/y:0"])
        self.kernels = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n in range(7):
            layer = "conv2d" if n == 0 else f"conv2d_{n}"
            self.kernels.append(tensor(f"{layer}/kernel:0"))
            self.biases.append(tensor(f"{layer}/bias:0"))
        self.matrices = nn.ParameterList()
        self.offsets = nn.ParameterList()
        for layer in ("dense", "dense_1", "dense_3"):
            self.matrices.append(tensor(dense.format(layer, "MatMul")))
            self.offsets.append(tensor(dense.format(layer, "BiasAdd")))

    def forward(self, samples: Tensor, windows: int) -> Tensor:
        """samples (T,) that hold `windows` windows, a second apart -> raw scores (windows, 3)."""
        frames = samples.unfold(0, FRAME, HOP)[: FRAMES + (windows - 1) * STEP].T  # (320, L)
        real = F.conv1d(frames[None], self.real)
        imaginary = F.conv1d(frames[None], self.imaginary)
        magnitude = (real.square() + imaginary.square()).sqrt()
        log = magnitude.pow(self.power).clamp(min=self.floor).log() / self.scale
        x = log.transpose(1, 2)[:, None]  # (1, 1, L, 161)
        shared = self._convolve(x)
        edges = 2 * SHARED_LAYERS
        starts = [STEP * n for n in range(windows)]
        heads = self._convolve(torch.cat([x[:, :, s : s + edges] for s in starts]))
        ends = [s + FRAMES for s in starts]
        tails = self._convolve(torch.cat([x[:, :, e - edges : e] for e in ends]))
        y = torch.stack([shared[0, :, s:e] for s, e in zip(starts, ends, strict=True)])
        y[:, :, :SHARED_LAYERS] = heads[:, :, :SHARED_LAYERS]
        y[:, :, -SHARED_LAYERS:] = tails[:, :, -SHARED_LAYERS:]
        for kernel, bias in zip(
            self.kernels[SHARED_LAYERS:], self.biases[SHARED_LAYERS:], strict=True
        ):
            y = F.conv2d(F.max_pool2d(y, 2), kernel, bias, padding=1).relu()
        y = y.amax(dim=(2, 3))
        for n, (matrix, offset) in enumerate(zip(self.matrices, self.offsets, strict=True)):
            y = y @ matrix + offset
            y = y.relu() if n < 2 else y
        return y

    def _convolve(self, x: Tensor) -> Tensor:
        """x (B, 1, L, 161) -> (B, 32, L, 161): the layers before the first pooling."""
        # The first layer as a matrix product, whose result has the channels last: on CPUs the
        # others take a third of the time on that.
        patches = F.unfold(x, 3, padding=1).transpose(1, 2)  # (B, L * 161, 9)
        first = torch.matmul(patches, self.kernels[0].flatten(1).T).add_(self.biases[0]).relu_()
        y = first.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)  # (B, 128, L, 161)
        for n in range(1, SHARED_LAYERS):
            y = F.conv2d(y, self.kernels[n], self.biases[n], padding=1).relu_()
        return y


class DNSMOS:
    """DNSMOS P.835 (`ovrl`, `sig`, `bak`) and P.808 (`p808`), each a predicted opinion in 1–5.

    The models inside speechmos. They hear windows of 9.01 s, one a second, and their scores are
    averaged; shorter speech is repeated until it fills one. The scores are speechmos' own to 1e-4;
    P.835 runs in torch, which leaves out what overlapping windows compute twice, P.808 beside it.

    Args:
        threads: CPU threads for P.808; None for one a core.
        device: where torch runs P.835.
    """

    VERSION = 2
    reads = frozenset({"converted"})
    metrics = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
    needs_source_words = False

    def __init__(self, threads: int | None = None, device: str = "cpu") -> None:
        self.threads = threads
        self.device = torch.device(device)
        folder = weights.package_folder("speechmos")
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
        code = versions("speechmos", "librosa")
        return fingerprint(["dnsmos", self.VERSION, *(w.sha256 for w in self._weights), *code])

    @cached_property
    def _p835(self) -> P835:
        return P835(onnx.read_arrays(Path(self._weights[0].path).read_bytes())).to(self.device)

    @cached_property
    def _predictor(self) -> "Predictor":
        """speechmos' own class: its features, its P.808 session on one thread, its scales."""
        import onnxruntime
        from speechmos.dnsmos import DNSMOS as Predictor

        predictor = Predictor(*(w.path for w in self._weights))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        predictor.p808_onnx_sess = onnxruntime.InferenceSession(
            Path(self._weights[1].path), options
        )
        predictor.audio_melspec(np.full(SAMPLE_RATE, 1e-3, dtype=np.float32))  # compiles, for 15 s
        return predictor

    def _predict(self, samples: np.ndarray) -> dict[str, Value]:
        """`samples` at 16 kHz, (T,) → the four scores."""
        return self._predict_all([samples])[0]

    def _predict_all(self, clips: Sequence[np.ndarray]) -> list[dict[str, Value]]:
        _ = self._predictor  # loaded once, before there are threads
        filled = [fill(np.clip(clip, -1.0, 1.0)) for clip in clips]
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as threads:
            p808 = [threads.submit(self._hear_p808, clip) for clip in filled]
            p835 = [self._hear_p835(clip) for clip in filled]
            return [
                {**scores, "p808": heard.result()} for scores, heard in zip(p835, p808, strict=True)
            ]

    def _hear_p835(self, samples: np.ndarray) -> dict[str, Value]:
        starts = window_starts(len(samples))
        kept = np.array(starts)
        raw = []
        with full_precision():
            for first in range(0, kept[-1] + 1, MOST_WINDOWS):
                count = min(MOST_WINDOWS, kept[-1] + 1 - first)
                part = samples[first * SAMPLE_RATE :][: (count - 1) * SAMPLE_RATE + LONG]
                on_device = torch.from_numpy(part.astype(np.float32)).to(self.device)
                raw.append(self._p835(on_device, count).cpu().numpy())
        scores = self._predictor.get_polyfit_val(*np.concatenate(raw)[kept].T, False)
        sig, bak, ovrl = (float(np.mean(score)) for score in scores)
        return {"ovrl": ovrl, "sig": sig, "bak": bak}

    def _hear_p808(self, samples: np.ndarray) -> float:
        mels = [
            self._predictor.audio_melspec(samples[s * SAMPLE_RATE :][: LONG - HOP])
            for s in window_starts(len(samples))
        ]
        inputs = {"input_1": np.stack(mels).astype(np.float32)}
        return float(np.mean(self._predictor.p808_onnx_sess.run(None, inputs)[0]))

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        clips = []
        for item in items:
            assert item.converted is not None
            clips.append(item.converted.resample(SAMPLE_RATE).numpy())
        return self._predict_all(clips)

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Adds more and more white noise to real recordings: the score must fall each time."""
        clips = [r.load().resample(SAMPLE_RATE).numpy() for r in recordings[:SELF_TEST_RECORDINGS]]
        means = {}
        for label, snr in (("clean", None), ("20 dB", 20.0), ("10 dB", 10.0), ("0 dB", 0.0)):
            noisy = [clip if snr is None else add_noise(clip, snr) for clip in clips]
            scores = self._predict_all(noisy)
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
    """The seconds at which speechmos' windows begin in so many samples, at least a window.

    It leaves out windows that its arithmetic makes a sample too short; so do we.
    """
    windows = int(np.floor(samples / SAMPLE_RATE) - WINDOW) + 1
    ends = [int((start + WINDOW) * SAMPLE_RATE) for start in range(windows)]
    return [n for n, end in enumerate(ends) if min(end, samples) - n * SAMPLE_RATE >= LONG]


def add_noise(samples: np.ndarray, snr: float) -> np.ndarray:
    """`samples` with white noise at a signal-to-noise ratio of `snr` dB; always the same noise."""
    noise = np.random.default_rng(0).standard_normal(len(samples))
    level = np.sqrt(np.mean(samples**2) / 10 ** (snr / 10))
    return (samples + level * noise).astype(np.float32)

"""Predicted quality by DNSMOS (Reddy et al. 2021 and 2022, arXiv 2010.15258 and 2110.01763)."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import weights
from bench.files import fingerprint
from bench.judges import Converted, SelfTest, Value, Weights, versions
from bench.trials import Utterance
from bench.weights import WeightsMissing

if TYPE_CHECKING:
    from speechmos.dnsmos import DNSMOS as Predictor

SAMPLE_RATE = 16000  # Hz
SELF_TEST_RECORDINGS = 6


class DNSMOS:
    """DNSMOS P.835 (`ovrl`, `sig`, `bak`) and P.808 (`p808`), each a predicted opinion in 1–5.

    The models inside speechmos. They hear windows of 9.01 s, one a second, and their scores are
    averaged; shorter speech is repeated until it fills one. Each clip runs by itself on one thread,
    as many at a time as there are threads.

    Args:
        threads: CPU threads; None for one a core.
    """

    VERSION = 2
    reads = frozenset({"converted"})
    metrics = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
    needs_source_words = False

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
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
    def _predictor(self) -> "Predictor":
        import onnxruntime
        from speechmos.dnsmos import DNSMOS as Predictor

        predictor = Predictor(*(w.path for w in self._weights))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        primary, p808 = (onnxruntime.InferenceSession(Path(w.path), options) for w in self._weights)
        predictor.onnx_sess, predictor.p808_onnx_sess = primary, p808
        predictor.audio_melspec(np.full(SAMPLE_RATE, 1e-3, dtype=np.float32))  # compiles, for 15 s
        return predictor

    def _predict(self, samples: np.ndarray) -> dict[str, Value]:
        """`samples` at 16 kHz, (T,) → the four scores."""
        scores = self._predictor(np.clip(samples, -1.0, 1.0), SAMPLE_RATE, False)
        return {name: float(scores[f"{name}_mos"]) for name in ("ovrl", "sig", "bak", "p808")}

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        clips = []
        for item in items:
            assert item.converted is not None
            clips.append(item.converted.resample(SAMPLE_RATE).numpy())
        return self._predict_all(clips)

    def _predict_all(self, clips: Sequence[np.ndarray]) -> list[dict[str, Value]]:
        _ = self._predictor  # loaded once, before there are threads
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as threads:
            return list(threads.map(self._predict, clips))

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


def add_noise(samples: np.ndarray, snr: float) -> np.ndarray:
    """`samples` with white noise at a signal-to-noise ratio of `snr` dB; always the same noise."""
    noise = np.random.default_rng(0).standard_normal(len(samples))
    level = np.sqrt(np.mean(samples**2) / 10 ** (snr / 10))
    return (samples + level * noise).astype(np.float32)

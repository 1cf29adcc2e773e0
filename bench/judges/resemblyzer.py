"""Resemblyzer: a GE2E speaker encoder (Wan et al. 2018, arXiv 1710.10467)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench import weights
from bench.audio import Waveform
from bench.devices import torch_device
from bench.files import fingerprint
from bench.judges import Weights, versions
from bench.judges.batches import full_precision

if TYPE_CHECKING:
    from resemblyzer import VoiceEncoder

# Hash of `pretrained.pt` inside Resemblyzer 0.1.4.
PRETRAINED_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"


class Resemblyzer:
    """Speaker embeddings (256,), non-negative: cosines lie in [0, 1].

    Long silences are left out. Sound in which the voice detector hears no voice is embedded whole,
    so that every waveform has an embedding and none drops out of a mean.

    Args:
        weights: a `pretrained.pt`; None for the one inside the package.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: windows of 1.6 s computed at once.
    """

    VERSION = 2

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 64
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._weights = _find(weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        code = versions("Resemblyzer", "webrtcvad-wheels", "librosa")
        return fingerprint(["resemblyzer", self.VERSION, self._weights.sha256, *code])

    @cached_property
    def _encoder(self) -> "VoiceEncoder":
        from resemblyzer import VoiceEncoder

        return VoiceEncoder(self.device, verbose=False, weights_fpath=self._weights.path)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 256), each row of unit length."""
        windows = [self._windows(waveform) for waveform in waveforms]
        stacked = torch.from_numpy(np.concatenate(windows))
        encoder = self._encoder
        with full_precision():
            embedded = [
                encoder(part.to(self.device)).cpu() for part in stacked.split(self.batch_size)
            ]
        parts = np.split(torch.cat(embedded).numpy(), np.cumsum([len(w) for w in windows])[:-1])
        means = np.stack([part.mean(axis=0) for part in parts])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def _windows(self, waveform: Waveform) -> np.ndarray:
        """What the encoder hears: mel spectrograms of windows of 1.6 s, (K, 160, 40)."""
        from resemblyzer import preprocess_wav
        from resemblyzer.audio import wav_to_mel_spectrogram

        samples = waveform.resample(16000).numpy().astype(np.float64)
        speech = preprocess_wav(np.clip(samples, -1, 32767 / 32768))
        speech = speech if len(speech) else samples
        # 1.3 windows a second, the last only where three quarters of it are filled: the package's
        # own choice.
        within, frames = self._encoder.compute_partial_slices(len(speech), 1.3, 0.75)
        missing = max(0, within[-1].stop - len(speech))
        mel = wav_to_mel_spectrogram(np.pad(speech, (0, missing)))
        return np.stack([mel[part] for part in frames])


def _find(given: str | None) -> Weights:
    package = weights.package_folder("resemblyzer")
    return weights.find(
        "Resemblyzer speaker encoder",
        given=given,
        candidates=[package / "pretrained.pt"] if package else [],
        how="install it: pip install Resemblyzer",
        sha256=None if given else PRETRAINED_SHA256,
        licence="Apache-2.0",
    )

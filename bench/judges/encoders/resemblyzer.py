"""Resemblyzer: a GE2E speaker encoder (Wan et al. 2018, arXiv 1710.10467).

Computes the same as the package Resemblyzer 0.1.4, with its weights and without that package: it
requires `webrtcvad`, which has no wheels.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.judges import identity
from bench.judges.nn.batches import full_precision
from bench.weights import Weights
from bench.weights import find as weights
from bench.weights.state import load_state, read_state

NAME = "Resemblyzer speaker encoder"
HOW = "install takin-vc-bench again"
PRETRAINED = Path(__file__).parents[1] / "data" / "resemblyzer" / "encoder.safetensors"
PRETRAINED_SHA256 = "d7c758d7cea0568ec1fced593a65869c16b7d22e4a202b48ab98f5d5dc371d8d"
# The package's file with the same weights.
PACKAGE_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"

SAMPLE_RATE = 16_000  # Hz
FFT, HOP, MELS = 400, 160, 40  # samples, samples, bands: 25 and 10 ms
WINDOW = 160  # frames that the encoder takes at once: 1.6 s
STEP = 77  # frames from one window to the next: 1.3 windows a second
LEAST_FILLED = 0.75  # of the last window; with less it is left out
LOUDNESS = 10 ** (-30 / 20)  # RMS to which quieter speech is raised: -30 dBFS
VOICE_FRAME = 480  # samples of one decision of the voice detector: 30 ms
VOICED = 5  # of 8 such frames around one make it voiced
KEPT = 7  # frames around a voiced one that are kept


class Encoder(nn.Module):
    """The network; its tensors have the package's names."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, T, 40) -> (B, 256), no value negative, each row of unit length."""
        _, (last, _) = self.lstm(mel)
        embedding = torch.relu(self.linear(last[-1]))
        return embedding / embedding.norm(dim=1, keepdim=True)


class Resemblyzer:
    """Speaker embeddings (256,), non-negative: cosines lie in [0, 1].

    Long silences are left out. Sound in which the voice detector detects no voice is embedded
    whole, so that every waveform has an embedding and counts in a mean.

    Args:
        weights: a `pretrained.pt` of the package; None for its published one.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: windows of 1.6 s computed at once.

    Raises:
        UserError: if `weights` does not exist, or, on first use, if it holds other tensors.
    """

    VERSION = 3

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 64
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._weights = _find(weights)
        self._published = self._weights.sha256 in (PRETRAINED_SHA256, PACKAGE_SHA256)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def networks(self) -> tuple[str, ...]:
        return ("ge2e-resemblyzer",) if self._published else ("ge2e",)

    @property
    def fingerprint(self) -> str:
        packages = ["webrtcvad-wheels", "librosa"]
        return identity("resemblyzer", self.VERSION, self.weights, packages=packages)

    @cached_property
    def _encoder(self) -> Encoder:
        return load(self._weights.path).to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 256), each row of unit length."""
        inputs = [windows(waveform) for waveform in waveforms]
        stacked = torch.from_numpy(np.concatenate(inputs))
        encoder = self._encoder
        with full_precision():
            embedded = [
                encoder(part.to(self.device)).cpu() for part in stacked.split(self.batch_size)
            ]
        parts = np.split(torch.cat(embedded).numpy(), np.cumsum([len(w) for w in inputs])[:-1])
        means = np.stack([part.mean(axis=0) for part in parts])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def load(path: str | Path) -> Encoder:
    """The network with the weights of a `.safetensors` or of a `pretrained.pt`.

    Raises:
        UserError: if the file holds other tensors.
    """
    state = read_state(path, NAME, HOW)
    state = state.get("model_state", state)
    with torch.device("meta"):
        encoder = Encoder()
    # The package also stores two scalars of the training loss.
    network = {name: value for name, value in state.items() if not name.startswith("similarity_")}
    load_state(encoder, network, path, NAME, HOW)
    return encoder.requires_grad_(False).eval()


def windows(waveform: Waveform, step: int = STEP) -> np.ndarray:
    """The input of the encoder from a waveform at any sample rate; its long silences are left out.

    Args and shape as in `windows_of`.
    """
    samples = waveform.resample(SAMPLE_RATE).numpy().astype(np.float64)
    speech = _without_silences(_raised(np.clip(samples, -1, 32767 / 32768)))
    return windows_of(speech if len(speech) else samples, step)


def windows_of(speech: np.ndarray, step: int = STEP) -> np.ndarray:
    """Mel spectrograms of windows of 1.6 s.

    Args:
        speech: (T,) at 16 kHz.
        step: from one window to the next, in frames of 10 ms.

    Returns:
        (K, 160, 40).
    """
    # Imported here, because it takes seconds.
    from librosa.feature import melspectrogram

    frames = -(-(len(speech) + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW + step + 1), step))
    if len(starts) > 1 and len(speech) - starts[-1] * HOP < LEAST_FILLED * WINDOW * HOP:
        starts.pop()
    missing = max(0, (starts[-1] + WINDOW) * HOP - len(speech))
    mel = melspectrogram(
        y=np.pad(speech, (0, missing)), sr=SAMPLE_RATE, n_fft=FFT, hop_length=HOP, n_mels=MELS
    ).T.astype(np.float32)
    return np.stack([mel[start : start + WINDOW] for start in starts])


def _raised(samples: np.ndarray) -> np.ndarray:
    """The samples, raised to `LOUDNESS` where they are quieter; digital silence as it is."""
    loudness = np.sqrt(np.mean(samples**2))
    return samples * (LOUDNESS / loudness) if 0 < loudness < LOUDNESS else samples


def _without_silences(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] without the stretches in which WebRTC's detector detects no voice.

    Pauses of up to 0.2 s between voiced stretches stay. Samples behind the last whole 30 ms go.
    """
    from scipy.ndimage import binary_dilation
    from webrtcvad import Vad

    frames = len(samples) // VOICE_FRAME
    samples = samples[: frames * VOICE_FRAME]
    if not frames:
        return samples
    steps = np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2")
    detector = Vad(3)  # the strictest
    voiced = [
        detector.is_speech(frame.tobytes(), SAMPLE_RATE)
        for frame in steps.reshape(frames, VOICE_FRAME)
    ]
    around = np.convolve(voiced, np.ones(8))[4 : 4 + frames]  # three before to four behind
    kept = binary_dilation(around >= VOICED, np.ones(KEPT))
    return samples[np.repeat(kept, VOICE_FRAME)]


def _find(given: str | None) -> Weights:
    return weights.find(
        NAME,
        given=given,
        candidates=[PRETRAINED],
        how=HOW,
        sha256=None if given else PRETRAINED_SHA256,
        licence="Apache-2.0",
    )

"""kNN-VC: each frame of the source becomes the mean of the nearest frames of the reference.

Baas, van Niekerk and Kamper 2023, "Voice Conversion With Just Nearest Neighbors", Interspeech
(arXiv 2305.18975). The features are those of WavLM-Large's sixth layer, at 16 kHz with a hop of
320 samples; a HiFi-GAN that the authors trained on such features makes the waveform. Written after
the paper and bshall/knn-vc at commit 848302a; docs/systems/knn_vc.md has the comparison.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from baselines.nets.hifigan import HiFiGAN, load_hifigan
from baselines.nets.wavlm import find_wavlm, load_wavlm, wavlm_features
from bench.audio import Waveform
from bench.devices import torch_device
from bench.stages.timing import stage
from bench.systems import CONDITIONED, CONTENT
from bench.weights import Weights
from bench.weights.find import WebFile, WeightsMissing, find, missing

SAMPLE_RATE = 16_000  # Hz
HOP = 320  # samples from one frame to the next
LAYER = 6  # of WavLM, the authors' choice
SHORTEST_LOUDNESS = 0.4  # s: the block over which ITU-R BS.1770-4 measures loudness

RELEASE = "https://github.com/bshall/knn-vc/releases/download/v0.1"
# The release states no hashes. The first is what two public projects obtained from this address; no
# project that was read states the second one.
SHA256 = {
    "prematch_g_02500000.pt": "f924c7632c6eaf99004386d62293e124419e33582573552a6ae976eb88ed2dd5",
    "g_02500000.pt": None,
}
VOCODER_SIZE = 66_000_000  # bytes, about
VOCODER_NAME = "the vocoder of kNN-VC"
# hifigan/config_v1_wavlm.json there.
VOCODER = {"features": 1024, "projected": 512, "rates": (10, 8, 2, 2), "kernels": (20, 16, 4, 4)}


class KNNVC:
    """Converts by nearest neighbours in WavLM's features; only its vocoder was trained.

    Deterministic. The output lasts as long as the source, rounded down to whole frames, at 16 kHz.

    Args:
        k: frames of the reference that are averaged for each frame of the source; all of them if
            the reference has fewer.
        prematched: take the vocoder that was trained on averages of nearest frames, the paper's
            best, in place of the one that was trained on the features themselves.
        loudness: of the output, in LUFS (ITU-R BS.1770-4); None leaves the vocoder's level. The
            authors' code sets -16 unless it is told otherwise, so this is the default here. Where
            a peak would exceed 1, the level is lower, since a file would clip it.
        trim: how strong a sound must be to count as the beginning or the end of the reference's
            speech (the trigger level of SoX's `vad`); what is outside is no neighbour. 0 keeps all.
        wavlm: the file of WavLM-Large; None for torch.hub's cache, where the authors' code puts it.
        vocoder: the file of the vocoder; None likewise.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        WeightsMissing: if a file is not on this machine.
        UserError: if a file is something else.
        ValueError: if `k` is below 1, or `trim` negative.
    """

    trained_on = frozenset({"LibriSpeech/train-clean-100"})
    networks: tuple[Mapping[str, str], ...] = (
        {"name": "wavlm-large", "use": CONTENT},
        {"name": "wavlm-large", "use": CONDITIONED},
    )

    def __init__(
        self,
        k: int = 4,
        prematched: bool = True,
        loudness: float | None = -16.0,
        trim: float = 7.0,
        wavlm: str | None = None,
        vocoder: str | None = None,
        device: str = "auto",
    ) -> None:
        if k < 1 or trim < 0:
            raise ValueError(f"k ({k}) must be at least 1 and trim ({trim}) not negative")
        self.k = k
        self.loudness = loudness
        self.trim = trim
        self.device = torch_device(device)
        encoder, generator = find_wavlm(wavlm), _find_vocoder(vocoder, prematched)
        self.weights = (encoder, generator)
        self.wavlm = load_wavlm(encoder.path, LAYER).to(self.device)
        self.vocoder = load_vocoder(generator.path).to(self.device)

    @staticmethod
    def missing_weights(
        prematched: bool = True,
        wavlm: str | None = None,
        vocoder: str | None = None,
        **_: Any,
    ) -> list[WeightsMissing]:
        """See `bench.systems.System`."""
        return missing(lambda: find_wavlm(wavlm), lambda: _find_vocoder(vocoder, prematched))

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        Args:
            source: at any sample rate.
            reference: at any sample rate. Quality rises with its length, up to about 5 minutes
                (the authors' README).
            seed: not used.

        Returns:
            About as many seconds as `source`, at 16 kHz: 320 samples for each frame of WavLM, of
            which it has one every 320 samples and none for the last 25 ms.

        Raises:
            ValueError: if source or reference is empty, silent, not finite or under 0.05 s.
        """
        for name, waveform in (("source", source), ("reference", reference)):
            if fault := waveform.fault():
                raise ValueError(f"the {name} is {fault}; give it speech")
        with torch.inference_mode():
            with stage("features"):
                query = self.features(source.resample(SAMPLE_RATE).samples)
                pool = self.features(trimmed(reference.resample(SAMPLE_RATE).samples, self.trim))
            with stage("matching"):
                matched = pool[nearest(query, pool, self.k)].mean(dim=1)
            with stage("vocoder"):
                samples = self.vocoder(matched.T[None])[0].float().cpu()
            return Waveform(_at_loudness(samples, self.loudness), SAMPLE_RATE)

    def features(self, samples: Tensor) -> Tensor:
        """samples (T,) at 16 kHz -> WavLM's features (L, 1024), on the system's device."""
        return wavlm_features(self.wavlm, samples.to(self.device))


def nearest(query: Tensor, pool: Tensor, k: int) -> Tensor:
    """The frames of `pool` at the smallest cosine distance from each frame of `query`.

    Args:
        query: (L, C).
        pool: (R, C).
        k: how many; at most R are returned.

    Returns:
        Indices into `pool` (L, min(k, R)), the nearest first.
    """
    similarity = F.normalize(query, dim=1) @ F.normalize(pool, dim=1).T
    return similarity.topk(min(k, len(pool)), dim=1).indices


def trimmed(samples: Tensor, trigger: float) -> Tensor:
    """samples (T,) at 16 kHz without what is before and after the speech, by SoX's detector.

    The whole, if `trigger` is 0 or the detector finds no speech: a quiet reference is better than
    none.
    """
    if trigger == 0:
        return samples
    speech = samples
    for _ in range(2):  # it trims the beginning only: once forward, once reversed
        speech = torchaudio.functional.vad(speech[None], SAMPLE_RATE, trigger_level=trigger)[0]
        if len(speech) < HOP:
            return samples
        speech = speech.flip(0)
    return speech


def _at_loudness(samples: Tensor, loudness: float | None) -> Tensor:
    """samples (T,) brought to `loudness` in LUFS, or lower, so that no peak exceeds 1.

    What is too short or too quiet to measure stays as it is.
    """
    if loudness is None or len(samples) < SHORTEST_LOUDNESS * SAMPLE_RATE:
        return samples
    measured = float(torchaudio.functional.loudness(samples[None], SAMPLE_RATE))
    if not math.isfinite(measured):
        return samples
    samples = samples * 10 ** ((loudness - measured) / 20)
    return samples / max(1.0, float(samples.abs().max()))


def load_vocoder(path: str | Path) -> HiFiGAN:
    """The vocoder from a file of the release; features (B, 1024, L) -> samples (B, 320 L).

    Raises:
        UserError: if the file holds something else.
    """
    return load_hifigan(path, VOCODER_NAME, f"get it from {RELEASE}", **VOCODER)


def _find_vocoder(given: str | None, prematched: bool) -> Weights:
    file = "prematch_g_02500000.pt" if prematched else "g_02500000.pt"
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    return find(
        VOCODER_NAME,
        given=given,
        candidates=[path],
        how=WebFile(f"{RELEASE}/{file}", path, SHA256[file], VOCODER_SIZE),
        sha256=None if given else SHA256[file],
        licence="MIT",
    )

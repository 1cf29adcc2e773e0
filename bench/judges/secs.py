"""Speaker similarity by Resemblyzer, a GE2E speaker encoder (Wan et al. 2018, arXiv 1710.10467)."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench import weights
from bench.audio import Waveform
from bench.files import fingerprint
from bench.judges import Converted, SelfTest, Value, Weights, versions
from bench.trials import Utterance

if TYPE_CHECKING:
    from resemblyzer import VoiceEncoder

# Hash of `pretrained.pt` inside Resemblyzer 0.1.4.
PRETRAINED_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"


class ResemblyzerSECS:
    """SECS, the cosine of speaker embeddings, against recordings that the system never heard.

    `secs` is the mean cosine between the converted speech and each enrolment utterance of the
    target speaker, `source_secs` the same for the source speaker. Embeddings are non-negative, so
    values lie in [0, 1]; other judges' SECS lie elsewhere: never compare the two.

    Args:
        weights: a `pretrained.pt`; None for the one inside the package.
        device: where torch runs it.
        max_eer: the self-test fails above this equal-error rate.
    """

    VERSION = 1
    reads = frozenset({"converted", "enrolment", "source_enrolment"})
    metrics = ("secs", "source_secs", "nearer_target")
    needs_source_words = False

    def __init__(
        self, weights: str | None = None, device: str = "cpu", max_eer: float = 0.08
    ) -> None:
        self.device = device
        self.max_eer = max_eer
        self._weights = _find(weights)
        self._embeddings: dict[str, np.ndarray] = {}

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

    def embed(self, waveform: Waveform) -> np.ndarray:
        """The speaker embedding (256,), of unit length; long silences are left out of it.

        Speech in which the voice detector hears no voice is embedded whole, so that every waveform
        has an embedding and none drops out of a mean.
        """
        known = self._embeddings.get(waveform.sha256)
        if known is not None:
            return known
        from resemblyzer import preprocess_wav

        samples = waveform.resample(16000).numpy().astype(np.float64)
        speech = preprocess_wav(np.clip(samples, -1, 32767 / 32768))
        embedding = self._encoder.embed_utterance(speech if len(speech) else samples)
        return self._embeddings.setdefault(waveform.sha256, embedding)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        assert item.converted is not None
        embedding = self.embed(item.converted)
        to_target = self._mean_cosine(embedding, item.enrolment or ())
        to_source = self._mean_cosine(embedding, item.source_enrolment or ())
        nearer = None if to_target is None or to_source is None else float(to_target > to_source)
        return {"secs": to_target, "source_secs": to_source, "nearer_target": nearer}

    def _mean_cosine(self, embedding: np.ndarray, others: Sequence[Waveform]) -> float | None:
        if not others:
            return None
        return float(np.mean([embedding @ self.embed(other) for other in others]))

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Tells speakers apart: mean cosines within and across them, and the equal-error rate."""
        embeddings = np.stack([self.embed(r.load()) for r in recordings])
        speakers = np.array([r.speaker for r in recordings])
        first, second = np.triu_indices(len(recordings), k=1)
        cosines = np.sum(embeddings[first] * embeddings[second], axis=1)
        same = speakers[first] == speakers[second]
        eer = equal_error_rate(cosines[same], cosines[~same])
        return SelfTest(
            passed=eer <= self.max_eer,
            findings={
                "same speaker": f"{cosines[same].mean():.3f} over {same.sum()} pairs",
                "different speakers": f"{cosines[~same].mean():.3f} over {(~same).sum()} pairs",
                "equal-error rate": f"{eer:.1%} (at most {self.max_eer:.0%})",
            },
        )


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """The error rate where a threshold errs as often on same- as on different-speaker pairs.

    Args:
        same: scores of same-speaker pairs, higher for more alike.
        different: scores of different-speaker pairs.

    Returns:
        A share in [0, 1]: 0 where a threshold separates them, 0.5 for a judge that cannot hear.
    """
    thresholds = np.sort(np.concatenate([same, different]))
    misses = np.searchsorted(np.sort(same), thresholds) / len(same)
    false_alarms = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    nearest = np.argmin(np.abs(misses - false_alarms))
    return float((misses[nearest] + false_alarms[nearest]) / 2)


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

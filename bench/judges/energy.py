"""Loudness contour kept from the source: for whispered or shouted speech, where F0 fails."""

from collections.abc import Sequence

import numpy as np

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.prosody import stretch
from bench.trials import Utterance
from bench.weights import Weights

FRAME_SECONDS = 0.01
MIN_FRAMES = 20  # 0.2 s: less has no contour
FLOOR_DB = 40.0  # below the contour's peak; what is softer is background and is set to this
SELF_TEST_RECORDINGS = 4


class Energy:
    """How far the converted speech keeps the source's loudness contour.

    `energy_correlation` is the Pearson correlation of the two contours of energy in dB over frames
    of 10 ms. A gain changes nothing; where the durations differ the converted contour is stretched
    evenly onto the source's. A contour without movement correlates with nothing: None.
    """

    VERSION = 1
    reads = frozenset({"converted", "source"})
    metrics = ("energy_correlation",)
    needs_source_words = True
    weights: tuple[Weights, ...] = ()
    networks: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        settings = {"frame": FRAME_SECONDS, "min_frames": MIN_FRAMES, "floor": FLOOR_DB}
        return identity("energy", self.VERSION, settings=settings)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        return [{"energy_correlation": self._score(item)} for item in items]

    def _score(self, item: Converted) -> float | None:
        assert item.converted is not None
        assert item.source is not None
        return correlation(contour(item.source), contour(item.converted))

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Compares recordings with themselves at half the volume, and played backwards."""
        same, backwards = [], []
        for recording in recordings[:SELF_TEST_RECORDINGS]:
            waveform = recording.load()
            softer = Waveform(waveform.samples * 0.5, waveform.sample_rate)
            turned = Waveform(waveform.samples.flip(0), waveform.sample_rate)
            same.append(correlation(contour(waveform), contour(softer)) or 0.0)
            backwards.append(correlation(contour(waveform), contour(turned)) or 0.0)
        lowest, mean = min(same), float(np.mean(backwards))
        return SelfTest(
            passed=lowest > 0.999 and mean < 0.5,
            findings={
                "correlation with itself at half the volume": f"{lowest:.3f} (above 0.999)",
                "with itself backwards": f"{mean:.3f} (below 0.5)",
            },
        )


def contour(waveform: Waveform) -> np.ndarray:
    """Energy in dB of each whole frame of 10 ms, at least `FLOOR_DB` below the loudest: (L,)."""
    hop = round(FRAME_SECONDS * waveform.sample_rate)
    samples = waveform.numpy().astype(np.float64)
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    decibels = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    return np.maximum(decibels, decibels.max(initial=-np.inf) - FLOOR_DB)


def correlation(source: np.ndarray, converted: np.ndarray) -> float | None:
    """Pearson correlation of two contours, (L,) each; the second is stretched onto the first."""
    if min(len(source), len(converted)) < MIN_FRAMES:
        return None
    converted = stretch(converted, len(source))
    if min(np.ptp(source), np.ptp(converted)) < 1e-6:
        return None
    return float(np.corrcoef(source, converted)[0, 1])

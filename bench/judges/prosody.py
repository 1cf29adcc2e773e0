"""Prosody kept from the source: F0 contours by WORLD (Morise et al. 2016), and timing."""

from collections.abc import Sequence

import numpy as np

from bench.audio import Waveform
from bench.files import fingerprint
from bench.judges import Converted, SelfTest, Value, Weights
from bench.trials import Utterance

SAMPLE_RATE = 16000  # Hz
FRAME_SECONDS = 0.01
SEMITONES_PER_OCTAVE = 12
MIN_RANGE_OCTAVES = 1e-6  # a contour with less movement is flat: it correlates with nothing
SELF_TEST_RECORDINGS = 6


class Prosody:
    """How far the converted speech keeps the source's intonation and timing.

    `f0_correlation` is the Pearson correlation of log F0, `f0_rmse` the root mean square difference
    in semitones of the two contours, each taken about its own mean, so that moving to the target's
    register costs nothing. Both run over frames voiced in both; where the durations differ the
    converted contour is stretched evenly onto the source's. `duration_ratio` is converted over
    source duration. With fewer than `min_voiced_frames` such frames the F0 columns are empty.

    Args:
        f0_floor: lowest F0 looked for, Hz.
        f0_ceil: highest F0 looked for, Hz.
        min_voiced_frames: of 10 ms.
    """

    VERSION = 1
    reads = frozenset({"converted", "source"})
    metrics = ("f0_correlation", "f0_rmse", "duration_ratio")
    needs_source_words = True
    weights: tuple[Weights, ...] = ()

    def __init__(
        self, f0_floor: float = 60.0, f0_ceil: float = 500.0, min_voiced_frames: int = 20
    ) -> None:
        self.f0_floor = f0_floor
        self.f0_ceil = f0_ceil
        self.min_voiced_frames = min_voiced_frames
        self._contours: dict[str, np.ndarray] = {}

    @property
    def fingerprint(self) -> str:
        settings = [self.f0_floor, self.f0_ceil, self.min_voiced_frames]
        return fingerprint(["prosody", self.VERSION, *settings])

    def contour(self, waveform: Waveform) -> np.ndarray:
        """F0 in Hz every 10 ms, 0 where unvoiced: (L,), by DIO refined by StoneMask."""
        known = self._contours.get(waveform.sha256)
        if known is not None:
            return known
        import pyworld

        samples = waveform.resample(SAMPLE_RATE).numpy().astype(np.float64)
        f0, times = pyworld.dio(
            samples,
            SAMPLE_RATE,
            f0_floor=self.f0_floor,
            f0_ceil=self.f0_ceil,
            frame_period=FRAME_SECONDS * 1000,
        )
        f0 = pyworld.stonemask(samples, f0, times, SAMPLE_RATE)
        return self._contours.setdefault(waveform.sha256, f0)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        assert item.converted is not None
        assert item.source is not None
        correlation, rmse = compare_contours(
            self.contour(item.source), self.contour(item.converted), self.min_voiced_frames
        )
        return {
            "f0_correlation": correlation,
            "f0_rmse": rmse,
            "duration_ratio": item.converted.seconds / item.source.seconds,
        }

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Plays recordings 2 semitones higher: the contour keeps its shape and moves by 2."""
        import pyworld

        moves, correlations = [], []
        for recording in recordings[:SELF_TEST_RECORDINGS]:
            waveform = recording.load().resample(SAMPLE_RATE)
            samples = waveform.numpy().astype(np.float64)
            f0, envelope, aperiodicity = pyworld.wav2world(samples, SAMPLE_RATE)
            higher = pyworld.synthesize(
                f0 * 2 ** (2 / SEMITONES_PER_OCTAVE), envelope, aperiodicity, SAMPLE_RATE
            )
            before = self.contour(waveform)
            after = self.contour(Waveform.from_numpy(higher, SAMPLE_RATE))[: len(before)]
            correlation, _ = compare_contours(before, after, self.min_voiced_frames)
            correlations.append(float("nan") if correlation is None else correlation)
            voiced = (before > 0) & (after > 0)
            moves.append(SEMITONES_PER_OCTAVE * np.log2(after[voiced] / before[voiced]).mean())
        move, correlation = float(np.mean(moves)), float(np.mean(correlations))
        return SelfTest(
            passed=abs(move - 2) < 0.2 and correlation > 0.9,
            findings={
                "F0 of speech raised by 2 st": f"{move:+.2f} st (2 ± 0.2)",
                "its correlation": f"{correlation:.3f} (above 0.9)",
            },
        )


def compare_contours(
    source: np.ndarray, converted: np.ndarray, min_voiced_frames: int
) -> tuple[float | None, float | None]:
    """Correlation of log F0, and RMSE in semitones about the means, over frames voiced in both.

    Args:
        source: F0 in Hz, (L,), 0 where unvoiced.
        converted: likewise; stretched evenly to L frames where it has another number.
        min_voiced_frames: with fewer in common, or no variation, the answer is None.
    """
    nearest = np.round(np.linspace(0, len(converted) - 1, len(source))).astype(int)
    converted = converted[nearest]
    voiced = (source > 0) & (converted > 0)
    if voiced.sum() < max(min_voiced_frames, 2):
        return None, None
    a, b = np.log2(source[voiced]), np.log2(converted[voiced])
    a, b = a - a.mean(), b - b.mean()
    rmse = float(SEMITONES_PER_OCTAVE * np.sqrt(np.mean((a - b) ** 2)))
    if min(np.ptp(a), np.ptp(b)) < MIN_RANGE_OCTAVES:
        return None, rmse
    return float(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))), rmse

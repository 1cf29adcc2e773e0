"""Prosody kept from the source: F0 contours by WORLD, and timing."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.checks import check_number
from bench.trials import Utterance
from bench.weights import Weights

# Hz. Harvest needs F0 and a harmonic or two: at this rate it takes two fifths of the time at 4 kHz.
# Measured on 16 of the embedded recordings, played 2 semitones higher: the contours correlate by
# 0.87-1.00 (at 4 kHz by 0.38-1.00), and with those at 4 kHz by 0.99-1.00. DIO takes a tenth of the
# time, but calls 2-9% of the frames of two noisy speakers voiced, Harvest 64-75%.
SAMPLE_RATE = 2000
F0_FLOOR, F0_CEIL = 60.0, 500.0  # Hz
FRAME_SECONDS = 0.01
MAX_LEAP = 1.0  # semitones from one frame to the next
SEMITONES_PER_OCTAVE = 12
MIN_RANGE_OCTAVES = 1e-6  # a contour with less movement is flat: it correlates with nothing
SELF_TEST_RECORDINGS = 4


class Prosody:
    """How well the converted speech keeps the source's intonation and timing.

    `f0_correlation` is the Pearson correlation of log F0, `f0_rmse` the root mean square difference
    in semitones of the two contours, each without its mean, so that moving to the target's
    register costs nothing. Both are taken over frames voiced in both. Where the durations differ
    the converted contour is stretched evenly onto the source's. `duration_ratio` is converted over
    source duration. With fewer than `min_voiced_frames` such frames the F0 columns are empty.

    Args:
        f0_floor: lowest F0, Hz.
        f0_ceil: highest F0, Hz.
        min_voiced_frames: of 10 ms.

    Raises:
        UserError: if the F0s are not in order, or one is over 1000 Hz.
    """

    VERSION = 3
    reads = frozenset({"converted", "source"})
    metrics = ("f0_correlation", "f0_rmse", "duration_ratio")
    needs_source_words = True
    weights: tuple[Weights, ...] = ()
    networks: tuple[str, ...] = ()

    def __init__(
        self, f0_floor: float = F0_FLOOR, f0_ceil: float = F0_CEIL, min_voiced_frames: int = 20
    ) -> None:
        self.check_settings(
            {"f0_floor": f0_floor, "f0_ceil": f0_ceil, "min_voiced_frames": min_voiced_frames}
        )
        self.f0_floor = f0_floor
        self.f0_ceil = f0_ceil
        self.min_voiced_frames = min_voiced_frames
        self._contours: dict[str, np.ndarray] = {}

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """See `bench.judges.checks.check_settings`."""
        check_number(settings, "f0_floor", 1, SAMPLE_RATE / 2)
        check_number(settings, "f0_ceil", 1, SAMPLE_RATE / 2)
        check_number(settings, "min_voiced_frames", 0)
        floor, ceil = settings.get("f0_floor", F0_FLOOR), settings.get("f0_ceil", F0_CEIL)
        if floor >= ceil:
            raise UserError(f"f0_floor={floor}: must be below f0_ceil, {ceil} Hz")

    @property
    def fingerprint(self) -> str:
        settings = {
            "f0_floor": self.f0_floor,
            "f0_ceil": self.f0_ceil,
            "min_voiced_frames": self.min_voiced_frames,
        }
        return identity("prosody", self.VERSION, settings=settings, packages=["pyworld-prebuilt"])

    def contour(self, waveform: Waveform) -> np.ndarray:
        """F0 in Hz every 10 ms, 0 where unvoiced or uncertain: (L,).

        By Harvest (Morise 2017, Interspeech), without the frames where it leaps.
        """
        known = self._contours.get(waveform.sha256)
        if known is not None:
            return known
        import pyworld

        f0, _ = pyworld.harvest(
            waveform.resample(SAMPLE_RATE).numpy().astype(np.float64),
            SAMPLE_RATE,
            f0_floor=self.f0_floor,
            f0_ceil=self.f0_ceil,
            frame_period=FRAME_SECONDS * 1000,
        )
        return self._contours.setdefault(waveform.sha256, steady(f0))

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        waveforms = {w.sha256: w for i in items for w in (i.source, i.converted) if w is not None}
        with ThreadPoolExecutor() as threads:  # Harvest runs outside of Python's lock
            list(threads.map(self.contour, waveforms.values()))
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
        """Plays recordings faster, which raises F0 by 2 semitones exactly and keeps its shape."""
        faster = 2 ** (2 / SEMITONES_PER_OCTAVE)
        moves, correlations = [], []
        for recording in recordings[:SELF_TEST_RECORDINGS]:
            waveform = recording.load()
            before = self.contour(waveform)
            raised = Waveform(waveform.samples, round(waveform.sample_rate * faster))
            after = stretch(self.contour(raised), len(before))
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


def steady(f0: np.ndarray) -> np.ndarray:
    """`f0` in Hz (L,) with 0 where it leaps, to or from a voiced frame, by over `MAX_LEAP`.

    A voice does not move so fast (Xu and Sun 2002, doi:10.1121/1.1445789, measured at most about 1
    semitone in 10 ms); a tracker that takes another octave does.
    """
    semitones = SEMITONES_PER_OCTAVE * np.log2(np.where(f0 > 0, f0, 1e-6))
    leaps = np.abs(np.diff(semitones)) > MAX_LEAP
    leaping = np.r_[leaps, False] | np.r_[False, leaps]
    return np.where(leaping, 0.0, f0)


def stretch(f0: np.ndarray, frames: int) -> np.ndarray:
    """`f0` (L,) sampled evenly at `frames` points, the nearest frame each."""
    return f0[np.round(np.linspace(0, len(f0) - 1, frames)).astype(int)]


def compare_contours(
    source: np.ndarray, converted: np.ndarray, min_voiced_frames: int
) -> tuple[float | None, float | None]:
    """Correlation of log F0, and RMSE in semitones about the means, over frames voiced in both.

    Args:
        source: F0 in Hz, (L,), 0 where unvoiced.
        converted: likewise; stretched evenly to L frames where it has another number.
        min_voiced_frames: with fewer in common, or no variation, the answer is None.
    """
    converted = stretch(converted, len(source))
    voiced = (source > 0) & (converted > 0)
    if voiced.sum() < max(min_voiced_frames, 2):
        return None, None
    a, b = np.log2(source[voiced]), np.log2(converted[voiced])
    a, b = a - a.mean(), b - b.mean()
    rmse = float(SEMITONES_PER_OCTAVE * np.sqrt(np.mean((a - b) ** 2)))
    if min(np.ptp(a), np.ptp(b)) < MIN_RANGE_OCTAVES:
        return None, rmse
    return float(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))), rmse

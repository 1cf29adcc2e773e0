"""Register and spread of the voice's pitch against the target speaker's: F0 by WORLD."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.nn.batches import Once
from bench.judges.prosody import (
    F0_CEIL,
    F0_FLOOR,
    FRAME_SECONDS,
    SEMITONES_PER_OCTAVE,
    Prosody,
)
from bench.trials import Utterance
from bench.weights import Weights

# Which frames count. Harvest calls frames of background noise voiced, and doubles or halves some
# F0s: a correlation loses little by that, a median moves. What these limits do to recordings of the
# embedded corpus that are played 4 semitones higher: `python -m benchmarks.programs.register`, and
# docs/methods/prosody.md.
SAMPLE_RATE = 4000  # Hz, of the two measures below
PERIODICITY = 0.6  # least correlation of 40 ms with those one period later
WINDOW = 160  # samples: 40 ms
LOUD_DB = 20.0  # at most so far below the 95th percentile of the frames' energy
LOUD_WINDOW = 120  # samples: 30 ms
WITHIN_MEDIAN = 10.0  # semitones: beyond them lie octave errors

# Self-test: semitones by which recordings are played higher.
RAISED = 4.0
WITHIN = 0.3
SELF_TEST_RECORDINGS = 4


class TargetProsody:
    """Whether the converted speech has the target speaker's register and liveliness of pitch.

    `f0_median_error` is the distance of its median log F0 from the enrolment's, in semitones. The
    enrolment's is that of all its recordings together. `f0_spread_error` is the distance of its
    standard deviation of log F0 from the mean one of single enrolment recordings (their frames
    together would spread further). The columns `f0_median_difference` and `f0_spread_difference`
    have the signs: positive is higher, or livelier, than the target.

    The contours are those of `bench.judges.prosody.Prosody`. Of their voiced frames those count
    that are periodic and loud, within 10 semitones of the median of these. A recording with fewer
    than `min_voiced_frames` of them does not count; with no other, or with too few in the converted
    speech, nothing is measured.

    Args:
        f0_floor: lowest F0, Hz.
        f0_ceil: highest F0, Hz.
        min_voiced_frames: of 10 ms.

    Raises:
        UserError: as `Prosody`.
    """

    VERSION = 1
    reads = frozenset({"converted", "enrolment"})
    metrics = ("f0_median_error", "f0_spread_error")
    needs_source_words = False
    weights: tuple[Weights, ...] = ()
    networks: tuple[str, ...] = ()

    def __init__(
        self, f0_floor: float = F0_FLOOR, f0_ceil: float = F0_CEIL, min_voiced_frames: int = 50
    ) -> None:
        self.prosody = Prosody(f0_floor, f0_ceil, min_voiced_frames)
        self._semitones = Once(self._all_semitones)

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """See `bench.judges.checks.check_settings`."""
        Prosody.check_settings(settings)

    @property
    def fingerprint(self) -> str:
        settings = {
            "contours": self.prosody.fingerprint,
            "frames": [SAMPLE_RATE, PERIODICITY, WINDOW, LOUD_DB, LOUD_WINDOW, WITHIN_MEDIAN],
        }
        return identity("target_prosody", self.VERSION, settings=settings)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        sounds = [w for item in items for w in (item.converted, *(item.enrolment or ()))]
        self._semitones([w for w in sounds if w is not None])
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        assert item.converted is not None
        assert item.enrolment is not None
        converted, *enrolment = self._semitones([item.converted, *item.enrolment])
        target = [s for s in enrolment if s is not None]
        if converted is None or not target:
            median = spread = None
        else:
            median = float(np.median(converted) - np.median(np.concatenate(target)))
            spread = float(np.std(converted) - np.mean([np.std(s) for s in target]))
        return {
            "f0_median_difference": median,
            "f0_median_error": None if median is None else abs(median),
            "f0_spread_difference": spread,
            "f0_spread_error": None if spread is None else abs(spread),
        }

    def _all_semitones(self, waveforms: Sequence[Waveform]) -> list[np.ndarray | None]:
        with ThreadPoolExecutor() as threads:  # Harvest runs outside of Python's lock
            return list(threads.map(self.semitones, waveforms))

    def semitones(self, waveform: Waveform) -> np.ndarray | None:
        """Log F0 of the frames that count, semitones above 1 Hz, (L,); None if they are too few."""
        f0 = self.prosody.contour(waveform)
        samples = waveform.resample(SAMPLE_RATE).numpy().astype(np.float64)
        clear = (f0 > 0) & loud(samples, len(f0)) & (periodicity(samples, f0) > PERIODICITY)
        semitones = SEMITONES_PER_OCTAVE * np.log2(f0[clear])
        if len(semitones):
            semitones = semitones[np.abs(semitones - np.median(semitones)) <= WITHIN_MEDIAN]
        return semitones if len(semitones) >= max(self.prosody.min_voiced_frames, 1) else None

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Plays recordings faster: F0 rises by 4 semitones, and its spread stays as it is."""
        faster = 2 ** (RAISED / SEMITONES_PER_OCTAVE)
        medians, spreads = [], []
        for recording in recordings[:SELF_TEST_RECORDINGS]:
            waveform = recording.load()
            raised = Waveform(waveform.samples, round(waveform.sample_rate * faster))
            [scores] = self.score(
                [Converted(recording.utterance_id, raised, enrolment=(waveform,))]
            )
            medians.append(scores["f0_median_difference"])
            spreads.append(scores["f0_spread_error"])
        median, spread = _mean(medians), _mean(spreads)
        return SelfTest(
            passed=abs(median - RAISED) <= WITHIN and spread <= WITHIN,
            findings={
                f"median F0 of speech raised by {RAISED:g} st": (
                    f"{median:+.2f} st ({RAISED:g} ± {WITHIN:g})"
                ),
                "change of its spread": f"{spread:.2f} st (at most {WITHIN:g})",
            },
        )


def loud(samples: np.ndarray, frames: int) -> np.ndarray:
    """samples (T,) at 4 kHz -> (frames,), True where a frame is not far softer than speech."""
    centres = _centres(frames)
    sums = np.cumsum(np.r_[0.0, samples**2])
    first = np.clip(centres - LOUD_WINDOW // 2, 0, len(samples))
    last = np.clip(centres + LOUD_WINDOW // 2, 0, len(samples))
    decibels = 10 * np.log10((sums[last] - sums[first]).clip(min=0) / LOUD_WINDOW + 1e-12)
    return decibels > np.percentile(decibels, 95) - LOUD_DB


def periodicity(samples: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """How well the sound repeats itself after a period: a correlation of two windows of 40 ms.

    Args:
        samples: (T,) at 4 kHz.
        f0: in Hz every 10 ms, 0 where unvoiced, (L,).

    Returns:
        (L,), in [-1, 1], 0 where unvoiced.
    """
    correlations = np.zeros(len(f0))
    longest = int(SAMPLE_RATE / f0[f0 > 0].min(initial=SAMPLE_RATE)) + 1
    margin = WINDOW + longest
    padded = np.pad(samples, margin)
    centres = _centres(len(f0)) + margin
    for n in np.flatnonzero(f0 > 0):
        period = int(SAMPLE_RATE / f0[n])
        # The period lies between two whole numbers of samples.
        correlations[n] = max(
            _correlation(padded, centres[n], period), _correlation(padded, centres[n], period + 1)
        )
    return correlations


def _correlation(samples: np.ndarray, centre: int, lag: int) -> float:
    first = centre - (WINDOW + lag) // 2
    a, b = samples[first : first + WINDOW], samples[first + lag : first + lag + WINDOW]
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-12))


def _centres(frames: int) -> np.ndarray:
    """The sample in the middle of each frame."""
    return np.round(np.arange(frames) * FRAME_SECONDS * SAMPLE_RATE).astype(int)


def _mean(values: Iterable[Value]) -> float:
    """The mean of numbers; NaN if one is missing."""
    return float(np.mean([v if isinstance(v, float) else float("nan") for v in values]))

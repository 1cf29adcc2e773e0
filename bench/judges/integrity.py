"""Signal measurements of a conversion: copies of its inputs, level, bandwidth, pitch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyworld

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.trials import Utterance
from bench.weights import Weights

SAMPLE_RATE = 16000  # Hz: of inputs and output where they are compared
WINDOW = 512  # samples: 32 ms
HOP_SECONDS = 0.02
BANDS = 40  # mel bands of a frame
STRETCH_SECONDS = 0.5  # of speech that must match to count as the same
ACTIVE_DB = 40  # frames more than this under the loudest are silence
FLOOR_DB = 60  # bands more than this under the frame's loudest count as equal
MATCH = 0.95  # mean correlation of spectra over a stretch that is the same speech
BANDWIDTH_DB = 70  # the band ends where the spectrum stays this far under its peak
MIN_VOICED_FRAMES = 10


class Integrity:
    """Signal measurements, used to flag fake conversions and to explain SECS.

    Columns:
        source_match: share of the active output that is the source, played at one delay, 0 to 1:
            stretches of half a second whose spectra correlate by `MATCH` frame by frame. It is 1
            for a copy, also one that is louder, noisier or passed through a vocoder; another voice
            has other spectra.
        reversed_match: the same with the source backwards.
        reference_match_seconds: seconds of the output that are the reference.
        duration_ratio: seconds of output per second of source.
        level_db: level of the active output, in dB of full scale (RMS).
        level_change_db: that minus the level of source or reference, whichever is nearer.
        flatness: of the output's spectrum, 0 (tones) to 1 (white noise); median of active frames.
        bandwidth_hz: upper end of the output's spectrum.
        source_bandwidth_hz, reference_bandwidth_hz: the same of its inputs.
        f0_gap: output's median F0 over the reference's, in semitones; None where too few frames
            are voiced.
    """

    VERSION = 1
    reads = frozenset({"converted", "source", "reference"})
    metrics: tuple[str, ...] = ()
    needs_source_words = False

    def __init__(self) -> None:
        self._known: dict[str, _Sound] = {}

    @property
    def weights(self) -> tuple[Weights, ...]:
        return ()

    @property
    def fingerprint(self) -> str:
        settings = {"match": MATCH}
        return identity("integrity", self.VERSION, settings=settings, packages=["pyworld-prebuilt"])

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        assert item.converted is not None
        assert item.source is not None
        assert item.reference is not None
        converted, source = _analyse(item.converted), self._input(item.source)
        reference = self._input(item.reference)
        levels = (source.level_db, reference.level_db)
        nearer = min(levels, key=lambda level: abs(converted.level_db - level))
        gap = None
        if converted.f0 is not None and reference.f0 is not None:
            gap = 12 * float(np.log2(converted.f0 / reference.f0))
        return {
            "source_match": matched(converted.frames, source.frames),
            "reversed_match": matched(converted.frames, source.frames[::-1]),
            "reference_match_seconds": (
                matched(converted.frames, reference.frames)
                * HOP_SECONDS
                * float(np.any(converted.frames != 0, axis=1).sum())
            ),
            "duration_ratio": item.converted.seconds / item.source.seconds,
            "level_db": converted.level_db,
            "level_change_db": converted.level_db - nearer,
            "flatness": converted.flatness,
            "bandwidth_hz": converted.bandwidth_hz,
            "source_bandwidth_hz": source.bandwidth_hz,
            "reference_bandwidth_hz": reference.bandwidth_hz,
            "f0_gap": gap,
        }

    def _input(self, waveform: Waveform) -> "_Sound":
        """An input's measurements. Every system has the same inputs: each is analysed once."""
        if waveform.sha256 not in self._known:
            self._known[waveform.sha256] = _analyse(waveform)
        return self._known[waveform.sha256]

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """A softer copy matches, another speaker does not, and 8 kHz is a bandwidth of 4 kHz."""
        pairs = [
            (a.load(), b.load())
            for a, b in zip(recordings[::8], recordings[4::8], strict=False)
            if a.speaker != b.speaker
        ][:8]
        louder = [Waveform(a.samples * 0.5, a.sample_rate) for a, _ in pairs]
        same = [
            matched(_analyse(a).frames, _analyse(b).frames)
            for (a, _), b in zip(pairs, louder, strict=True)
        ]
        other = [matched(_analyse(a).frames, _analyse(b).frames) for a, b in pairs]
        narrow = [_analyse(a.resample(8000)).bandwidth_hz for a, _ in pairs]
        return SelfTest(
            passed=min(same) > 0.95 and max(other) < 0.3 and max(narrow) <= 4000,
            findings={
                "a recording in a softer copy": f"{min(same):.2f} at least (above 0.95)",
                "a recording in another speaker's": f"{max(other):.2f} at most (below 0.3)",
                "bandwidth at 8 kHz": f"{max(narrow):.0f} Hz at most (4000)",
            },
        )


@dataclass(frozen=True)
class _Sound:
    """The measurements of one sound.

    Attributes:
        frames: (L, BANDS) shapes of the spectra, each of mean 0 and length 1; 0 where inactive.
        level_db, flatness, bandwidth_hz, f0: as in `Integrity`; f0 in Hz.
    """

    frames: np.ndarray
    level_db: float
    flatness: float
    bandwidth_hz: float
    f0: float | None


def matched(frames: np.ndarray, others: np.ndarray) -> float:
    """The share of the active `frames` (L, C) that are in `others` (R, C) too, in order.

    Both as `_Sound.frames`. A stretch of `STRETCH_SECONDS` matches where the mean correlation of
    its frames with a stretch of `others` is at least `MATCH`; frames silent in either are left out.
    """
    width = round(STRETCH_SECONDS / HOP_SECONDS)
    active = np.any(frames != 0, axis=1)
    if min(len(frames), len(others)) < width or not active.any():
        return 0.0
    likeness = frames @ others.T  # (L, R)
    both = active[:, None] & np.any(others != 0, axis=1)[None, :]
    matching = np.zeros(len(frames), bool)
    for lag in range(-(len(frames) - width), len(others) - width + 1):
        along, counted = np.diagonal(likeness, lag), np.diagonal(both, lag)
        sums = np.convolve(along, np.ones(width), "valid")
        counts = np.convolve(counted, np.ones(width), "valid")
        hits = np.flatnonzero((sums >= MATCH * counts) & (counts >= width / 2))
        if len(hits):
            marks = np.zeros(len(along) + 1)
            np.add.at(marks, hits, 1)
            np.add.at(marks, hits + width, -1)
            start = max(0, -lag)
            matching[start : start + len(along)] |= np.cumsum(marks)[:-1] > 0
    return float((matching & active).sum() / active.sum())


def _analyse(waveform: Waveform) -> _Sound:
    samples = waveform.resample(SAMPLE_RATE).numpy()
    power = _power(samples)
    energy = 10 * np.log10(power.sum(axis=1) + 1e-12)
    active = energy > energy.max() - ACTIVE_DB
    spectrum = power[active] + 1e-12
    flatness = np.exp(np.log(spectrum).mean(axis=1)) / spectrum.mean(axis=1)
    level = 10 * np.log10(np.mean(samples.astype(np.float64) ** 2) + 1e-12)
    frames = _shapes(power @ _mel())
    frames[~active] = 0
    return _Sound(
        frames,
        # of the active part alone: pauses would lower the level of the speech
        float(level - 10 * np.log10(active.mean())),
        float(np.median(flatness)),
        bandwidth(waveform),
        _f0(samples),
    )


def _power(samples: np.ndarray) -> np.ndarray:
    """Power spectra (L, WINDOW // 2 + 1), one every `HOP_SECONDS`."""
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    hop = round(HOP_SECONDS * SAMPLE_RATE)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2


def _mel() -> np.ndarray:
    """Triangles of `BANDS` mel bands from 80 Hz to 3.8 kHz: (WINDOW // 2 + 1, BANDS).

    Below 3.8 kHz, so that a copy at the telephone's sample rate is still a copy.
    """
    # 2595 log10(1 + f / 700): O'Shaughnessy 1987
    low, high = (2595 * np.log10(1 + f / 700) for f in (80, 3800))
    mel = np.linspace(low, high, BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def _shapes(bands: np.ndarray) -> np.ndarray:
    """Log spectra (L, BANDS), each of mean 0 and length 1: a frame's level has no influence."""
    level = 10 * np.log10(bands + 1e-12)
    level = np.maximum(level, level.max(axis=1, keepdims=True) - FLOOR_DB)
    level -= level.mean(axis=1, keepdims=True)
    return level / np.maximum(np.linalg.norm(level, axis=1, keepdims=True), 1e-6)


def bandwidth(waveform: Waveform) -> float:
    """Hz up to which the mean spectrum is within `BANDWIDTH_DB` of its peak, at the file's rate."""
    samples = waveform.numpy().astype(np.float64)
    window = 1024
    if len(samples) < window:
        return 0.0
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: window // 2]
    power = (np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2).mean(axis=0)
    above = np.flatnonzero(power >= power.max() * 10 ** (-BANDWIDTH_DB / 10))
    return float(above[-1] * waveform.sample_rate / window)


def _f0(samples: np.ndarray) -> float | None:
    """Median F0 in Hz, by DIO (Morise 2009); None where too little is voiced."""
    f0, _ = pyworld.dio(samples.astype(np.float64), SAMPLE_RATE, f0_floor=60.0, f0_ceil=500.0)
    voiced = f0[f0 > 0]
    return float(np.median(voiced)) if len(voiced) >= MIN_VOICED_FRAMES else None

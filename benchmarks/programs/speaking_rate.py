"""Whether peaks of the energy envelope count syllables: speech stretched by WORLD, and texts.

    python -m benchmarks.programs.speaking_rate [RECORDINGS]

Recordings of the embedded corpus are slowed to 0.8 of their rate and sped up to 1.25, and their
peaks per second of speech are compared with those at the rate that they had.
"""

import sys

import numpy as np
import pyworld
from scipy.signal import butter, find_peaks, sosfiltfilt

from bench.trials import Suite
from suites.build import MANIFESTS, MINI

RATE = 16_000  # Hz
FRAME = 160  # samples of the envelope
BAND = (300, 3300)  # Hz, where vowels are strong
FLOOR_DB = 25.0  # below the loud frames; what is softer is no speech
PLANTED = (0.8, 1.0, 1.25)


def main(count: int = 24) -> None:
    """Prints a row for each dip between peaks and each cut-off of the envelope."""
    recordings = list(
        Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI).utterances.values()
    )
    chosen = np.random.default_rng(0).permutation(len(recordings))[:count]
    sounds = [recordings[n].load().resample(RATE).numpy().astype(np.float64) for n in chosen]
    stretched = {rate: [at_rate(sound[: 8 * RATE], rate) for sound in sounds] for rate in PLANTED}
    for dip in (1.5, 2.0, 3.0, 4.0):
        for cut_off in (6, 8, 10):
            before = [syllable_rate(sound[: 8 * RATE], dip, cut_off) for sound in sounds]
            means = {
                rate: np.mean([syllable_rate(s, dip, cut_off) for s in at] / np.array(before))
                for rate, at in stretched.items()
            }
            shown = ", ".join(f"{mean:.2f} ({rate})" for rate, mean in means.items())
            print(f"peaks by {dip} dB, envelope below {cut_off} Hz: {shown}")


def at_rate(sound: np.ndarray, rate: float) -> np.ndarray:
    """sound (T,) at `rate` times its rate, T / rate samples, by repeating and leaving out frames of
    WORLD's analysis."""
    f0, times = pyworld.harvest(sound, RATE)
    envelope = pyworld.cheaptrick(sound, f0, times, RATE)
    aperiodicity = pyworld.d4c(sound, f0, times, RATE)
    frames = np.round(np.linspace(0, len(f0) - 1, round(len(f0) / rate))).astype(int)
    return pyworld.synthesize(f0[frames], envelope[frames], aperiodicity[frames], RATE)


def syllable_rate(sound: np.ndarray, dip: float, cut_off: float) -> float:
    """Peaks of the energy envelope per second of speech (after de Jong and Wempe 2009)."""
    vowels = sosfiltfilt(butter(2, BAND, "band", fs=RATE, output="sos"), sound)
    envelope = sosfiltfilt(butter(2, cut_off, fs=RATE, output="sos"), np.abs(vowels))[::FRAME]
    decibels = 20 * np.log10(np.maximum(envelope, 1e-9))
    floor = np.percentile(decibels, 95) - FLOOR_DB
    peaks, _ = find_peaks(decibels, height=floor, prominence=dip)
    return len(peaks) / (np.sum(decibels > floor) * FRAME / RATE)


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))

"""Looks for a signal that a system adds to all its outputs."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from itertools import combinations

import numpy as np

from baselines.contract.subject import FAIL, NOTE, PASS, QUIET, CheckResult, Subject
from bench.audio import Waveform
from bench.stages.execute import one_line

WINDOW = 512  # samples
EDGE_SECONDS = 0.2  # at both ends: fades and padding are alike in all outputs
LOWEST_HZ = 100.0
SHIFTS = 40  # misaligned comparisons that show what chance gives
SIGNIFICANT = 8.0  # standard deviations of chance
ADDED = 0.62  # relative spread of magnitudes below which a common signal is added, see docs
AGREEING = 0.9  # length of the mean of unit vectors
QUIET_SHARE = 0.3  # of the frames
SILENT = 1e-7  # magnitude of a bin, -140 dB of full scale


@dataclass(frozen=True)
class CommonSignal:
    """What unrelated outputs have in common at the same time.

    Attributes:
        surprise: of their phases' agreement, in standard deviations of misaligned outputs.
        level: of the common signal, in dB of full scale, measured where the outputs are quiet.
        spread: how much magnitudes differ between outputs where their phases agree, against
            everywhere: small for a signal that is added to the outputs, about 1 for a signal that
            they are made from, such as a vocoder's noise, which has another level in each.
    """

    surprise: float
    level: float
    spread: float


def watermark(subject: Subject) -> CheckResult:
    """Whether unrelated outputs share a signal, and what installed detectors say.

    Sources, references, words, speakers and seeds of the outputs differ. A mark that depends on the
    speech, or has another message each time, is not detected in this way.
    """
    outputs = [
        subject.speech(source, reference, seed=n)
        for n, (source, reference) in enumerate(subject.clips.pairs)
    ]
    marked, asked = detected(outputs)
    if marked:
        return CheckResult(FAIL, asked)
    if len({w.sample_rate for w in outputs}) > 1:
        return CheckResult(NOTE, f"not compared: the outputs have several rates; {asked}")
    common = common_signal([w.numpy() for w in outputs], outputs[0].sample_rate)
    count = len(outputs)
    if common.surprise < SIGNIFICANT:
        return CheckResult(PASS, f"{count} unrelated outputs share no signal; {asked}")
    text = (
        f"{count} unrelated outputs share a signal of about {common.level:.0f} dBFS "
        f"({common.surprise:.0f} standard deviations)"
    )
    if common.spread < ADDED:
        return CheckResult(FAIL, f"{text}, equally strong in each: it is added to them")
    return CheckResult(NOTE, f"{text}, not equally strong: rather what they are made from")


def common_signal(outputs: Sequence[np.ndarray], rate: int) -> CommonSignal:
    """Compares the phases of unrelated outputs at the same time and frequency.

    Independent signals have independent phases, so that the mean cosine of their differences is 0
    but for chance; a signal that all contain pulls it up wherever the rest is weak. Chance is
    measured by the same outputs, shifted against one another in time.

    Args:
        outputs: at least two, each (T,), T may differ.
        rate: of them all, in Hz.
    """
    spectra = _spectra(outputs, rate)  # (K, F, L)
    if spectra.shape[2] < 2 * SHIFTS // len(outputs):
        return CommonSignal(0.0, QUIET, 1.0)
    aligned = _agreement(spectra)
    frames = spectra.shape[2]
    shifts = np.linspace(2, frames // len(outputs) - 1, SHIFTS).astype(int)
    chance = [
        _agreement(np.stack([np.roll(s, k * shift, axis=1) for k, s in enumerate(spectra)]))
        for shift in np.unique(shifts)
    ]
    surprise = (aligned - float(np.mean(chance))) / max(float(np.std(chance)), 1e-9)
    spreads = np.log(np.maximum(np.abs(spectra), SILENT)).std(axis=0)  # (F, L)
    agreeing = np.abs(_phases(spectra).sum(axis=0)) > AGREEING * len(spectra)
    spread = np.median(spreads[agreeing]) / np.median(spreads) if agreeing.any() else 1.0
    return CommonSignal(float(surprise), _level(spectra), float(spread))


def _spectra(outputs: Sequence[np.ndarray], rate: int) -> np.ndarray:
    edge = round(EDGE_SECONDS * rate)
    shortest = min(map(len, outputs))
    window = np.hanning(WINDOW)
    lowest = int(np.ceil(LOWEST_HZ * WINDOW / rate))
    spectra = []
    for samples in outputs:
        inner = samples[edge : max(edge, shortest - edge)].astype(np.float64)
        inner = np.pad(inner, (0, max(0, WINDOW - len(inner))))
        frames = np.lib.stride_tricks.sliding_window_view(inner, WINDOW)[:: WINDOW // 2]
        # normalised so that the sum of |X|² over bins is the mean square of the frame
        scale = np.sqrt(2 / (WINDOW * (window**2).sum()))
        spectra.append(scale * np.fft.rfft(frames * window, axis=1).T[lowest:-1])
    return np.stack(spectra)


def _agreement(spectra: np.ndarray) -> float:
    """Mean cosine of the phase differences of all pairs, over all bins and frames."""
    count = len(spectra)
    # |sum|² of unit vectors is their number plus the cosines of all ordered pairs
    sums = np.abs(_phases(spectra).sum(axis=0)) ** 2
    return float((sums - count).mean() / (count * (count - 1)))


def _phases(spectra: np.ndarray) -> np.ndarray:
    """Unit vectors; 0 where there is digital silence, which has no phase."""
    magnitudes = np.abs(spectra)
    return np.where(magnitudes > SILENT, spectra / np.maximum(magnitudes, SILENT), 0)


def _level(spectra: np.ndarray) -> float:
    """Level of the common signal in dB: from frames in which both outputs of a pair are quiet."""
    energy = (np.abs(spectra) ** 2).sum(axis=1)  # (K, L)
    quiet = energy <= np.quantile(energy, QUIET_SHARE, axis=1, keepdims=True)
    powers = [
        (spectra[i][:, both] * np.conj(spectra[j][:, both])).real.sum(axis=0)
        for i, j in combinations(range(len(spectra)), 2)
        if (both := quiet[i] & quiet[j]).any()
    ]
    power = float(np.concatenate(powers).mean()) if powers else 0.0
    return 10 * float(np.log10(max(power, 1e-12)))


def detected(outputs: Sequence[Waveform]) -> tuple[int, str]:
    """What Perth's detector says, where it is installed: the marked outputs, and a sentence.

    Perth (package `resemble-perth`) is the watermark of Chatterbox; it has its weights inside.
    """
    if find_spec("perth") is None:
        return 0, "no detector of a known mark is installed"
    try:
        with redirect_stdout(StringIO()):  # it prints what it loads
            detector = import_module("perth").PerthImplicitWatermarker()
            marks = [
                float(np.mean(detector.get_watermark(w.numpy(), sample_rate=w.sample_rate)))
                for w in outputs
            ]
    except Exception as error:  # a third party's code, with parts that may be missing
        return 0, f"perth cannot be asked ({one_line(error)})"
    marked = sum(mark > 0.5 for mark in marks)
    if not marked:
        return 0, "perth detects none"
    return marked, f"perth detects its watermark in {marked} of {len(marks)} outputs"

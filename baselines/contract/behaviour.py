"""Checks of how outputs depend on seed, reference, odd inputs and earlier calls."""

from collections.abc import Callable, Mapping

import numpy as np

from baselines.contract.subject import (
    FAIL,
    NOTE,
    PASS,
    QUIET,
    SOURCE_SECONDS,
    CheckResult,
    Subject,
    difference,
)
from bench.audio import SILENCE_PEAK, Waveform, concatenate

NEARLY_EQUAL = -60.0  # dB: sums in another order differ less, another random number more
CLEARLY_MORE = 20.0  # dB above what a repetition of the same call differs by
CUTS = (2.0, 5.0, 10.0, 15.0, 25.0)  # seconds after which references differ
CUT_ACCURACY = 0.1  # seconds
DECLARED_WITHIN = 0.25  # seconds
TINY_SECONDS = 0.2
NOISE_RMS = 0.1
CUT_SOURCE = 0.8  # an output shorter than this share of the expected has lost words


def seed(subject: Subject) -> CheckResult:
    """Whether the same seed gives the same audio in two processes; what another seed changes."""
    source, reference = subject.clips.pairs[0]
    one = subject.speech(source, reference)
    gap = difference(one, _in_other_order(subject)[1])
    if gap > QUIET:  # by chance, or because another conversion came before
        gap = _floor(subject)
    if gap > NEARLY_EQUAL:
        return CheckResult(FAIL, f"the same seed gives other audio: {_gap(gap)}")
    same = "the same seed gives the same samples"
    if gap > QUIET:
        same = f"the same seed gives nearly the same audio: {_gap(gap)}"
    changed = difference(one, subject.speech(source, reference, seed=1))
    effect = "another seed gives the same" if changed == QUIET else f"another seed: {_gap(changed)}"
    text = f"{same}; {effect}"
    repeated = difference(one, subject.speech(source, reference, again=1))
    outer = difference(one, subject.speech(source, reference, global_seed=1))
    if repeated <= NEARLY_EQUAL and outer > max(NEARLY_EQUAL, repeated + CLEARLY_MORE):
        return CheckResult(
            NOTE, f"{text}; it draws from global generators, which its caller must seed"
        )
    return CheckResult(PASS if gap == QUIET else NOTE, text)


def state(subject: Subject) -> CheckResult:
    """Whether a conversion depends on those before it.

    One process converts a first pair alone, later a second pair, and the first again; another
    process converts the second pair alone, then the first.
    """
    a, b = subject.clips.pairs[:2]
    alone_a = subject.speech(*a)
    later_b = subject.speech(*b, what="a second pair")
    again_a = subject.speech(*a, again=1, what="a pair again")
    alone_b, later_a = _in_other_order(subject)
    gaps = (
        (difference(alone_a, later_a), "after another conversion"),
        (difference(alone_b, later_b), "after another conversion"),
        (difference(alone_a, again_a), "when it is repeated"),
    )
    if all(gap == QUIET for gap, _ in gaps):
        return CheckResult(PASS, "the same samples alone, after another conversion and again")
    floor = _floor(subject)
    if floor > NEARLY_EQUAL:
        return CheckResult(NOTE, "cannot be told: the same seed gives other audio (see seed)")
    most = QUIET if floor == QUIET else min(NEARLY_EQUAL, floor + CLEARLY_MORE)
    for gap, what in gaps:
        if gap > most:
            return CheckResult(FAIL, f"a conversion gives other audio {what}: {_gap(gap)}")
    return CheckResult(
        PASS, f"nearly the same audio alone, after another conversion and again ({_gap(floor)})"
    )


def _in_other_order(subject: Subject) -> tuple[Waveform, Waveform]:
    """The second pair converted first in a process of its own, and the first pair after it."""
    a, b = subject.clips.pairs[:2]
    alone = subject.speech(*b, process="other order", what="a second pair")
    return alone, subject.speech(*a, process="other order", what="a pair after another")


def _floor(subject: Subject) -> float:
    """How much the first conversion of one process differs from that of another, in dB."""
    pair = subject.clips.pairs[0]
    again = subject.speech(*pair, process="again", what="a pair in another process")
    return difference(subject.speech(*pair), again)


def reference(subject: Subject) -> CheckResult:
    """How much of a reference is used, by references that differ only after some time."""
    source, long, other = (
        subject.clips.pairs[0][0],
        subject.clips.long_reference,
        subject.clips.other_reference,
    )
    what = f"with a reference of {long.seconds:g} s"
    base = subject.speech(source, long, what=what)
    floor = difference(base, subject.speech(source, long, again=1, what=what))
    if floor > NEARLY_EQUAL:
        return CheckResult(NOTE, "cannot be told: a repeated call gives other audio (see seed)")
    least = QUIET if floor == QUIET else max(QUIET, floor + CLEARLY_MORE)

    def changes(seconds: float) -> bool:
        """Whether other speech after `seconds` changes the output."""
        kept = round(seconds * long.sample_rate)
        tail = Waveform(other.samples[kept:], other.sample_rate)
        variant = concatenate([long.first(seconds), tail]) if kept else other
        return difference(base, subject.speech(source, variant, what=what)) > least

    if not changes(0.0):
        return CheckResult(FAIL, "the reference changes nothing in the output")
    cut = _first_unchanged(changes)
    declared = subject.probe().reference_seconds
    if declared is None:
        setting = subject.settings.get("reference_seconds")
        declared = float(setting) if isinstance(setting, int | float) else None
    says = "" if declared is None else f", and declares {declared:g} s"
    if cut is None:
        text = f"uses a reference beyond {CUTS[-1]:g} s{says}"
        wrong = declared is not None and declared < CUTS[-1] - DECLARED_WITHIN
        return CheckResult(FAIL if wrong else PASS, text)
    if declared is not None and abs(declared - cut) <= DECLARED_WITHIN:
        return CheckResult(PASS, f"uses the first {cut:.1f} s of a reference, as it declares")
    return CheckResult(FAIL, f"uses only the first {cut:.1f} s of a reference{says}")


def _first_unchanged(changes: Callable[[float], bool]) -> float | None:
    """The seconds after which a reference is ignored, to `CUT_ACCURACY`; None if there are none."""
    used = 0.0
    for seconds in CUTS:
        if changes(seconds):
            used = seconds
            continue
        while seconds - used > CUT_ACCURACY:
            middle = (used + seconds) / 2
            used, seconds = (middle, seconds) if changes(middle) else (used, middle)
        return seconds
    return None


def inputs(subject: Subject) -> CheckResult:
    """Whether silence, noise, very short and very long inputs give speech or an error."""
    source, reference = subject.clips.pairs[0]
    usual = subject.speech(source, reference)
    refused, faults = [], []
    for name, odd in odd_inputs(subject).items():
        for role in ("source", "reference"):
            pair = (odd, reference) if role == "source" else (source, odd)
            call = subject.call(*pair, process="odd")
            what = f"{name} as {role}"
            if call.ended:
                faults.append(f"{what}: {call.ended}")
            elif call.exits:
                faults.append(f"{what}: raised {call.error}, which ends a program")
            elif call.error:
                refused.append(what)
            elif fault := _odd_fault(call.fault, call.converted, silent=odd.peak < SILENCE_PEAK):
                faults.append(f"{what}: {fault}")
            elif role == "source" and call.converted is not None:
                expected = odd.seconds * usual.seconds / source.seconds
                if odd.seconds > SOURCE_SECONDS and call.converted.seconds < CUT_SOURCE * expected:
                    faults.append(f"{what}: gave only {call.converted.seconds:.1f} s")
    if faults:
        return CheckResult(FAIL, "; ".join(faults))
    kinds = f"{', '.join(odd_inputs(subject))}, as source and as reference"
    if not refused:
        return CheckResult(PASS, f"a waveform for {kinds}")
    return CheckResult(PASS, f"of {kinds}: an error for {', '.join(refused)}, else a waveform")


def odd_inputs(subject: Subject) -> Mapping[str, Waveform]:
    """Inputs that are no ordinary speech, by what they are called in a verdict."""
    source, _ = subject.clips.pairs[0]
    rate, count = source.sample_rate, len(source.samples)
    noise = NOISE_RMS * np.random.default_rng(0).standard_normal(count)
    return {
        "silence": Waveform.from_numpy(np.zeros(count), rate),
        "noise": Waveform.from_numpy(np.clip(noise, -1, 1), rate),
        f"{TINY_SECONDS:g} s": source.first(TINY_SECONDS),
        f"{subject.long_seconds:g} s": subject.clips.speech(0, subject.long_seconds),
    }


def _odd_fault(fault: str, converted: Waveform | None, silent: bool) -> str:
    """What is wrong with a waveform made from an odd input; "" if nothing is.

    Args:
        fault: see `baselines.contract.process.Call.fault`.
        converted: the waveform, if there is one.
        silent: whether an input was silent; then the output may be.
    """
    if not fault or converted is None:
        return fault
    finite = bool(np.isfinite(converted.numpy()).all())
    is_silent = finite and len(converted.samples) > 0 and converted.peak < SILENCE_PEAK
    return "" if silent and is_silent else fault


def _gap(gap: float) -> str:
    return "equal" if gap == QUIET else f"it differs by {gap:.0f} dB of its power"

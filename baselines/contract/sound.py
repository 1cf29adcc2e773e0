"""Checks of the converted sound: waveform, rate, length, level, DC, bandwidth."""

from math import gcd

import numpy as np

from baselines.contract.subject import (
    FAIL,
    NOTE,
    PASS,
    CheckResult,
    Subject,
    decibels,
    louder,
)
from bench.audio import HIGHEST_RATE, LOWEST_RATE, Waveform
from bench.judges.integrity import bandwidth as bandwidth_of

USUAL_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
JUDGED_RATE = 16000  # Hz: what most judges listen at
RATE_TOLERANCE = 0.02  # of a ratio of rates
# Samples of the sources of `length`: primes, so that no block size divides them by chance.
LENGTHS = (24001, 28001, 31013, 35407, 39103, 42299, 45307)
SHORTEST_RATIO, LONGEST_RATIO = 0.5, 2.0  # output's duration over the source's
SOFTER = -20.0  # dB
FOLLOWS = 0.8  # share of a change of the source's level that the output must show
CLIPPED_RUN = 3  # samples in a row at the largest value
CLIPPED_SHARE = 5e-4  # of the samples; speech that is not clipped has its peak once
LOUD_PEAK = 0.5  # a plateau below is no clipping
MOST_OFFSET = 0.1  # DC over RMS
NOTED_OFFSET = 0.02
LEAST_OFFSET = 1e-3  # of full scale; less does not matter
WIDE = 0.8  # share of half the rate that speech should fill


def waveform(subject: Subject) -> CheckResult:
    """Whether it returns a `Waveform` of one channel with finite samples."""
    call = subject.first()
    if call.late:
        return CheckResult(NOTE, "not checked: its first conversion did not end (see time)")
    if call.fault:
        return CheckResult(FAIL, f"its first conversion {call.fault}")
    assert call.converted is not None
    if layout := _two_channels(call.converted):
        return CheckResult(FAIL, f"two channels {layout} in one: return one channel")
    samples = len(call.converted.samples)
    return CheckResult(PASS, f"one channel, {samples} finite samples of float32")


def rate(subject: Subject) -> CheckResult:
    """Whether the declared sample rate is usual, constant, and that of the samples."""
    source, reference = subject.clips.pairs[0]
    first = subject.speech(source, reference)
    declared = first.sample_rate
    if wrong := mistaken_rate(subject):
        return CheckResult(FAIL, wrong)
    rates = {source.sample_rate: declared}
    for other in (24000, 48000):
        what = f"a source at {other} Hz"
        rates[other] = subject.speech(source.resample(other), reference, what=what).sample_rate
    outputs = ", ".join(f"{out} Hz" for out in dict.fromkeys(rates.values()))
    sources = ", ".join(map(str, rates))
    if len(set(rates.values())) == 1:
        text = f"{declared} Hz, whatever the source's rate ({sources} Hz)"
    elif all(inside == out for inside, out in rates.items()):
        text = f"the source's rate ({sources} Hz)"
    else:
        return CheckResult(NOTE, f"changes with the source's: {outputs} for {sources} Hz")
    odd = [out for out in rates.values() if out not in USUAL_RATES]
    if odd:
        return CheckResult(NOTE, f"{odd[0]} Hz is no usual rate; {text}")
    if min(rates.values()) < JUDGED_RATE:
        return CheckResult(NOTE, f"{text}; judges listen at {JUDGED_RATE} Hz and score less lower")
    return CheckResult(PASS, text)


def length(subject: Subject) -> CheckResult:
    """How the output's length follows from the source's: ratio, and the size of blocks."""
    source, reference = subject.clips.pairs[0]
    ratios, gaps, counts = [], [], []
    for samples in LENGTHS:
        part = source.first(samples / source.sample_rate)
        output = subject.speech(part, reference, what=f"{part.seconds:.3f} s of speech")
        exact = len(part.samples) * output.sample_rate / part.sample_rate
        ratios.append(output.seconds / part.seconds)
        gaps.append(len(output.samples) - exact)
        counts.append(len(output.samples))
    ratio, spread = float(np.mean(ratios)), float(np.ptp(ratios))
    about = f"{ratio:.3f} times the source"
    if mistaken_rate(subject) or (subject.first().converted and _layout(subject)):
        return CheckResult(NOTE, f"{about}; another check says why")
    if not (min(ratios) >= SHORTEST_RATIO and max(ratios) <= LONGEST_RATIO):
        return CheckResult(
            FAIL, f"{min(ratios):.2f} to {max(ratios):.2f} times as long as the source"
        )
    if max(map(abs, gaps)) <= 1:
        return CheckResult(PASS, "as many samples as the source at the output's rate")
    block = gcd(*counts)
    rate = output.sample_rate
    if block > 1 and len(set(counts)) > 1:
        where = "cuts" if max(gaps) < 1 else "pads" if min(gaps) > -1 else "pads or cuts"
        text = f"{where} to blocks of {block} samples ({1000 * block / rate:.1f} ms)"
        return CheckResult(NOTE, f"{text}, by {min(gaps):+.0f} to {max(gaps):+.0f} samples")
    if len(set(counts)) == 1:
        return CheckResult(FAIL, f"{counts[0] / rate:.2f} s for every source of {_range(source)}")
    if spread > 0.1 or abs(ratio - 1) > 0.05:
        return CheckResult(NOTE, f"changes the duration: {about}, over a range of {spread:.3f}")
    return CheckResult(
        NOTE, f"{about}: {min(gaps):+.0f} to {max(gaps):+.0f} samples against the source"
    )


def level(subject: Subject) -> CheckResult:
    """Whether it clips, and whether the output's level follows the source's or the reference's."""
    source, reference = subject.clips.pairs[0]
    output = subject.speech(source, reference)
    if clipped := clipping(output):
        return CheckResult(FAIL, clipped)
    before = decibels(output)
    soft = subject.speech(louder(source, SOFTER), reference, what="a source 20 dB softer")
    voice = subject.speech(source, louder(reference, SOFTER), what="a reference 20 dB softer")
    by_source = (decibels(soft) - before) / SOFTER
    by_reference = (decibels(voice) - before) / SOFTER
    text = f"{before:.1f} dBFS, peak {output.peak:.3f}"
    changes = (
        f"source 20 dB softer: {SOFTER * by_source:+.1f} dB, "
        f"reference 20 dB softer: {SOFTER * by_reference:+.1f} dB"
    )
    if by_source >= FOLLOWS and abs(by_reference) < 1 - FOLLOWS:
        return CheckResult(PASS, f"follows the source's ({text})")
    if by_reference >= FOLLOWS:
        return CheckResult(NOTE, f"follows the reference's ({text}; {changes})")
    if abs(by_source) < 1 - FOLLOWS and abs(by_reference) < 1 - FOLLOWS:
        target = f"{before:.1f} dBFS"
        if abs(output.peak - soft.peak) < 0.005 and abs(decibels(soft) - before) > 0.2:
            target = f"a peak of {output.peak:.3f}"
        return CheckResult(NOTE, f"rewrites loudness to {target} ({changes})")
    return CheckResult(NOTE, f"follows neither input in full ({text}; {changes})")


def dc(subject: Subject) -> CheckResult:
    """Whether the output has a DC offset."""
    output = subject.speech(*subject.clips.pairs[0]).numpy().astype(np.float64)
    offset, rms = float(output.mean()), float(output.std())
    text = f"{offset:+.5f} of full scale, {100 * abs(offset) / rms:.1f} % of the RMS"
    if abs(offset) < LEAST_OFFSET or abs(offset) < NOTED_OFFSET * rms:
        return CheckResult(PASS, text)
    return CheckResult(FAIL if abs(offset) > MOST_OFFSET * rms else NOTE, text)


def bandwidth(subject: Subject) -> CheckResult:
    """How much of half the rate the output fills."""
    source, reference = subject.clips.pairs[0]
    output = subject.speech(source, reference)
    half, wide = output.sample_rate / 2, bandwidth_of(output)
    text = f"{wide / 1000:.1f} kHz of {half / 1000:.1f}"
    inputs = max(bandwidth_of(source), bandwidth_of(reference))
    if wide >= WIDE * half:
        return CheckResult(PASS, text)
    if wide >= WIDE * inputs:
        return CheckResult(NOTE, f"{text}: no more than its inputs have ({inputs / 1000:.1f} kHz)")
    return CheckResult(NOTE, f"{text}: less than its inputs have ({inputs / 1000:.1f} kHz)")


def mistaken_rate(subject: Subject) -> str:
    """Why the declared rate is not that of the samples; "" if nothing says so.

    The output's duration is then off by the ratio of two usual rates, for each of two sources.
    """
    ratios = []
    for source, reference in subject.clips.pairs[:2]:
        output = subject.speech(source, reference)
        ratios.append(output.seconds / source.seconds)
    declared = output.sample_rate
    if not LOWEST_RATE <= declared <= HIGHEST_RATE:
        return f"{declared} Hz is no rate of audio"
    if _layout(subject) or max(ratios) / min(ratios) > 1 + RATE_TOLERANCE:
        return ""
    for actual in USUAL_RATES:
        off = actual / declared
        if abs(off - 1) > 0.05 and all(abs(r / off - 1) < RATE_TOLERANCE for r in ratios):
            return (
                f"declares {declared} Hz, but its output lasts {ratios[0]:.3f} times the source, "
                f"as samples at {actual} Hz would"
            )
    return ""


def clipping(output: Waveform) -> str:
    """How the waveform is clipped; "" if it is not."""
    samples = np.abs(output.numpy())
    peak = float(samples.max())
    over = int((samples > 1).sum())
    if over > CLIPPED_SHARE * len(samples):
        return f"{over} of {len(samples)} samples beyond full scale (peak {peak:.2f}): files clip"
    at_peak = (samples >= peak * (1 - 1e-4)).astype(int)
    runs = np.diff(np.flatnonzero(np.diff(np.pad(at_peak, 1))))[::2]
    flat = int(runs[runs >= CLIPPED_RUN].sum())
    if peak >= LOUD_PEAK and flat > CLIPPED_SHARE * len(samples):
        return f"clipped: {flat} of {len(samples)} samples stay at the peak of {peak:.3f}"
    return ""


def _layout(subject: Subject) -> str:
    converted = subject.first().converted
    return _two_channels(converted) if converted is not None else ""


def _two_channels(output: Waveform) -> str:
    """How two channels lie in the samples; "" if there is one."""
    samples = output.numpy()[: len(output.samples) // 2 * 2]
    if not len(samples):
        return ""
    if np.array_equal(samples[::2], samples[1::2]):
        return "interleaved"
    first, second = np.split(samples, 2)
    return "one after another" if np.array_equal(first, second) else ""


def _range(source: Waveform) -> str:
    return f"{LENGTHS[0] / source.sample_rate:.1f} to {LENGTHS[-1] / source.sample_rate:.1f} s"

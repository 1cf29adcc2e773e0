"""Copies, level, bandwidth and pitch of known sounds."""

import numpy as np
import pytest

from baselines import degenerate
from baselines.world import World
from bench.audio import Waveform
from bench.judges import Converted
from bench.judges.integrity import Integrity, _analyse, matched

RATE = 16000


@pytest.fixture(scope="module")
def two(recordings):
    """Recordings of two speakers, neither very short."""
    speakers = {}
    for recording in recordings:
        waveform = recording.load()
        if waveform.seconds > 3:
            speakers.setdefault(recording.speaker, waveform)
    return list(speakers.values())[:2]


def measured(converted, source, reference):
    return Integrity().score([Converted("t", converted, source, reference)])[0]


def tone(hertz, seconds=1.0, level=0.1, rate=RATE):
    t = np.arange(int(seconds * rate)) / rate
    return Waveform.from_numpy(level * np.sqrt(2) * np.sin(2 * np.pi * hertz * t), rate)


def test_a_recording_is_itself_whatever_its_level_delay_and_rate(two):
    source, other = two
    softer = Waveform(source.samples * 0.1, RATE)
    late = Waveform.from_numpy(np.concatenate([np.zeros(3200), source.numpy()]), RATE)
    for copy in (source, softer, late, source.resample(24000), source.resample(8000)):
        assert measured(copy, source, other)["source_match"] > 0.9
    assert measured(other, source, other)["source_match"] == 0


def test_a_copy_in_noise_is_still_called_a_copy(two):
    source, other = two
    noise = np.random.default_rng(0).normal(size=len(source.samples))
    noise *= np.sqrt(np.mean(source.numpy() ** 2)) * 10 ** (-30 / 20)
    noisy = Waveform.from_numpy(source.numpy() + noise, RATE)
    assert measured(noisy, source, other)["source_match"] > 0.15


def test_a_conversion_matches_neither_of_its_inputs(two):
    source, reference = two
    values = measured(World().convert(source, reference, seed=0), source, reference)
    assert values["source_match"] < 0.15
    assert values["reversed_match"] < 0.15
    assert values["reference_match_seconds"] < 0.7


def test_as_many_seconds_of_the_reference_are_detected_as_were_put_in(two):
    source, reference = two
    piece = reference.samples[: 2 * RATE]
    spliced = Waveform.from_numpy(np.concatenate([piece.numpy(), source.numpy()]), RATE)
    active = 2 - 0.02 * sum(not frame.any() for frame in _analyse(Waveform(piece, RATE)).frames)
    values = measured(spliced, source, reference)["reference_match_seconds"]
    assert values == pytest.approx(active, abs=0.5)


def test_level_is_that_of_a_tone():
    values = measured(tone(440, level=0.1), tone(440, level=0.1), tone(440, level=0.01))
    assert values["level_db"] == pytest.approx(-20, abs=0.2)
    assert values["level_change_db"] == pytest.approx(0, abs=0.01)
    values = measured(tone(440, level=0.001), tone(440, level=0.1), tone(440, level=0.01))
    assert values["level_change_db"] == pytest.approx(-20, abs=0.1)  # from the nearer of the two


def test_pauses_do_not_lower_the_level():
    speech, pause = tone(440, 1.0), np.zeros(RATE)
    padded = Waveform.from_numpy(np.concatenate([pause, speech.numpy(), pause]), RATE)
    assert _analyse(padded).level_db == pytest.approx(_analyse(speech).level_db, abs=0.5)


def test_flatness_tells_noise_from_tones():
    noise = Waveform.from_numpy(0.1 * np.random.default_rng(0).normal(size=RATE), RATE)
    # The spectrum of white noise is exponential: exp(-Euler's constant) of its mean.
    assert _analyse(noise).flatness == pytest.approx(np.exp(-np.euler_gamma), abs=0.03)
    assert _analyse(tone(440)).flatness < 0.01


def test_bandwidth_ends_where_the_sound_ends(two):
    source, _ = two
    assert _analyse(source.resample(8000)).bandwidth_hz <= 4000
    up_again = source.resample(8000).resample(16000)
    assert 3500 < _analyse(up_again).bandwidth_hz < 4500
    assert _analyse(source).bandwidth_hz > 5500


def test_the_f0_gap_is_that_of_two_voices(two):
    source, reference = two
    faster = Waveform(reference.samples, round(RATE * 2 ** (3 / 12)))
    values = measured(faster, source, reference)
    assert values["f0_gap"] == pytest.approx(3, abs=0.3)


def test_what_is_shorter_than_a_stretch_matches_nothing():
    assert matched(np.ones((3, 40)), np.ones((50, 40))) == 0
    assert matched(np.zeros((50, 40)), np.ones((50, 40))) == 0


def test_the_batch_moves_nothing(two):
    source, reference = two
    items = [
        Converted("a", source, source, reference),
        Converted("b", reference, source, reference),
    ]
    together = Integrity().score(items)
    assert together == [Integrity().score([item])[0] for item in items]


def test_it_passes_its_self_test_on_real_recordings(recordings):
    test = Integrity().self_test(recordings)
    assert test.passed, test.findings


def test_degenerate_systems_are_what_they_say(two):
    source, reference = two
    assert degenerate.Silence().convert(source, reference, seed=0).fault() is None
    assert degenerate.Silence(-80).convert(source, reference, seed=0).fault().startswith("silent")
    noise = degenerate.Noise().convert(source, reference, seed=0)
    assert np.mean(noise.numpy() ** 2) == pytest.approx(np.mean(source.numpy() ** 2), rel=0.05)
    twice = degenerate.Reversed().convert(
        degenerate.Reversed().convert(source, reference, seed=0), reference, seed=0
    )
    assert twice.sha256 == source.sha256
    assert degenerate.CopyReference().convert(source, reference, seed=0) is reference
    spliced = degenerate.Splice().convert(source, reference, seed=0)
    assert spliced.seconds == pytest.approx(source.seconds + reference.seconds)
    assert degenerate.NarrowBand().convert(source, reference, seed=0).sample_rate == 8000
    again = degenerate.Resynthesis().convert(source, reference, seed=0)
    assert again.seconds == pytest.approx(source.seconds)
    assert again.sha256 != source.sha256

"""Register and spread of pitch against the target: voices with known F0, and raised speech."""

import numpy as np
import pytest

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.prosody import Prosody
from bench.judges.target_prosody import TargetProsody, loud, periodicity
from tests.bench.judges.test_prosody import glide


def score(converted, *enrolment):
    [scores] = TargetProsody().score([Converted("t", converted, enrolment=enrolment)])
    return scores


def test_an_even_glide_has_the_median_and_the_spread_of_its_middle():
    """A glide over an octave: half an octave up in the median, 12 / √12 semitones of deviation."""
    scores = score(glide(200, 400), glide(100, 200))
    assert scores["f0_median_difference"] == pytest.approx(12.0, abs=0.2)
    assert scores["f0_spread_difference"] == pytest.approx(0.0, abs=0.2)
    narrow = score(glide(100, 150), glide(100, 200))
    expected = 12 * (np.log2(1.5) - 1) / np.sqrt(12)
    assert narrow["f0_spread_difference"] == pytest.approx(expected, abs=0.2)
    assert narrow["f0_spread_error"] == -narrow["f0_spread_difference"]
    assert narrow["f0_median_error"] == pytest.approx(6 * (1 - np.log2(1.5)), abs=0.2)


def test_enrolment_gives_one_median_and_the_mean_of_its_spreads():
    """Recordings at 100 and at 200 Hz hardly move: their frames together span an octave."""
    low, high = glide(99, 101, seconds=2.0), glide(198, 202, seconds=1.0)
    scores = score(glide(99, 101), low, high)
    assert scores["f0_spread_difference"] == pytest.approx(0.0, abs=0.1)
    assert scores["f0_median_difference"] == pytest.approx(0.0, abs=0.3)  # most frames are low


@pytest.mark.parametrize("raised", [-2.0, 4.0])
def test_it_measures_speech_raised_by_four_semitones(recordings, raised):
    for recording in recordings[:3]:
        waveform = recording.load()
        rate = round(waveform.sample_rate * 2 ** (raised / 12))
        scores = score(Waveform(waveform.samples, rate), waveform)
        assert scores["f0_median_difference"] == pytest.approx(raised, abs=0.3)
        assert scores["f0_median_error"] == abs(scores["f0_median_difference"])


def test_a_speaker_is_nearer_to_their_other_recordings_than_to_another_gender(recordings):
    women = [r for r in recordings if r.gender == "F"]
    man = next(r for r in recordings if r.gender == "M").load()
    first = women[0].load()
    second = next(r for r in women[1:] if r.speaker == women[0].speaker).load()
    assert score(second, first)["f0_median_error"] < 2 < score(man, first)["f0_median_error"]


def test_periodicity_and_loudness_by_hand():
    seconds = np.arange(8000) / 4000
    tone = np.sin(2 * np.pi * 100 * seconds)  # 40 samples a period
    right, wrong = np.full(200, 100.0), np.full(200, 80.0)  # 50 samples: a quarter period more
    assert periodicity(tone, right)[10:-10].min() > 0.99
    assert np.abs(periodicity(tone, wrong)[10:-10]).max() < 0.1
    assert not periodicity(tone, np.zeros(200)).any()
    softer = np.r_[tone[:4000], 0.05 * tone[4000:]]  # by 26 dB
    audible = loud(softer, 200)
    assert audible[5:95].all()
    assert not audible[105:195].any()


def test_sounds_without_voice_are_not_measurable():
    noise = Waveform.from_numpy(np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    voice = glide(100, 150)
    silence = Waveform.from_numpy(np.zeros(16000), 16000)
    nothing = dict.fromkeys(score(voice, voice))
    assert score(silence, voice) == score(voice, silence) == nothing
    assert score(voice, glide(100, 150, seconds=0.3)) == nothing
    assert score(voice, voice, silence) == score(voice, voice)
    assert score(noise, voice) == nothing


def test_its_self_test_passes_on_speech_and_fails_with_a_wrong_scale(recordings):
    test = TargetProsody().self_test(recordings[:3])
    assert test.passed, test.findings

    class Wrong(Prosody):
        def contour(self, waveform):
            return super().contour(waveform) ** 1.2

    judge = TargetProsody()
    judge.prosody = Wrong()
    assert not judge.self_test(recordings[:2]).passed


def test_its_settings_are_those_of_prosody():
    with pytest.raises(UserError, match="f0_floor=600: must be below f0_ceil"):
        TargetProsody(f0_floor=600)
    assert TargetProsody(f0_ceil=400.0).fingerprint != TargetProsody().fingerprint

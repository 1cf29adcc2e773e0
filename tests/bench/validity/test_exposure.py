"""Training exposure of a speaker: seen, unseen or unknown."""

from pathlib import Path

import pytest

from bench.trials import Trial, Utterance
from bench.validity.exposure import columns, exposure, in_short, speaker_exposure


def by(speaker, corpus, utterance_id=None):
    name = utterance_id or f"{speaker}_1"
    return Utterance(name, speaker, "F", Path(f"{name}.wav"), "words", corpus=corpus)


@pytest.mark.parametrize(
    ("corpus", "trained_on", "expected"),
    [
        ("LibriSpeech/test-clean", set(), "unseen"),
        ("", set(), "unseen"),
        ("", {"VCTK"}, "unknown"),
        ("LibriSpeech/test-clean", {"unknown"}, "unknown"),
        ("LibriSpeech/test-clean", {"LibriSpeech/train-clean-100"}, "unseen"),
        ("LibriSpeech/test-clean", {"LibriSpeech/test-clean"}, "seen"),
        ("LibriSpeech/test-clean", {"LibriSpeech"}, "seen"),
        ("LibriSpeech", {"LibriSpeech/train-clean-100"}, "unknown"),
        # LibriTTS and LibriTTS-R are cut from LibriSpeech's recordings, with its splits.
        ("LibriSpeech/train-clean-100", {"LibriTTS/train-clean-100"}, "seen"),
        ("LibriTTS/test-clean", {"LibriTTS_R/train-clean-360"}, "unseen"),
        ("LibriTTS-R/dev-clean", {"librispeech"}, "seen"),
        # LibriVox readers of test-clean may have read for these too.
        ("LibriSpeech/test-clean", {"Libri-Light"}, "unknown"),
        ("LibriSpeech/test-clean", {"MLS"}, "unknown"),
        ("LibriSpeech/test-clean", {"VCTK"}, "unseen"),
        ("VCTK", {"LibriTTS"}, "unseen"),
        ("VCTK", {"500k hours of our own"}, "unknown"),
        ("VCTK", {"VCTK"}, "seen"),
        ("VCTK", {"VCTK:p225"}, "seen"),
        ("VCTK", {"VCTK:p226"}, "unseen"),
        ("VCTK", {"VCTK:p226", "VCTK:p225"}, "seen"),
        ("VCTK", {"VCTK#p225_1"}, "seen"),
        ("VCTK", {"VCTK#p225_7"}, "unknown"),
        ("VCTK", {"VCTK:p226#p226_7"}, "unseen"),
        ("VCTK", {"VCTK:p225#p225_7"}, "seen"),
        # Splits of these share speakers.
        ("AISHELL-3/test", {"AISHELL-3/train"}, "unknown"),
        ("ESD/test", {"ESD/train:p225"}, "seen"),
        # A corpus in no table is compared with itself only.
        ("Hospital/a", {"Hospital/a"}, "seen"),
        ("Hospital/a", {"Hospital"}, "seen"),
        ("Hospital/a", {"Clinic"}, "unknown"),
        # Worst of all that is declared.
        ("VCTK", {"LibriTTS", "unknown"}, "unknown"),
        ("VCTK", {"VCTK", "unknown"}, "seen"),
    ],
)
def test_a_speaker_is_seen_unseen_or_unknown(corpus, trained_on, expected):
    assert speaker_exposure(by("p225", corpus), frozenset(trained_on)) == expected


def trial(source, target):
    reference, enrolment = by(*target, "r"), by(*target, "e")
    return Trial("t", by(*source), (reference,), (enrolment,))


@pytest.mark.parametrize(
    ("source", "target", "state", "share"),
    [
        ("p225", "p226", "seen", 0.0),
        ("p225", "p300", "seen", 0.0),
        ("p300", "p226", "seen", 0.0),
        ("p300", "p301", "unseen", 1.0),
    ],
)
def test_a_trial_is_unseen_only_where_both_speakers_are(source, target, state, share):
    declared = frozenset({"VCTK:p225", "VCTK:p226"})
    of = trial((source, "VCTK"), (target, "VCTK"))
    of_trial = exposure(of, declared)
    assert of_trial.trial == state
    assert columns(of, declared)["unseen"] == share


def test_many_speakers_of_a_corpus_are_counted_in_a_table():
    speakers = [f"LibriSpeech:{i}" for i in range(12)]
    declared = {*speakers, "VCTK:p225", "VCTK:p226", "LibriTTS/train-clean-100", "unknown"}
    assert in_short(declared) == (
        "LibriSpeech (12 speakers), LibriTTS/train-clean-100, VCTK:p225, VCTK:p226, unknown"
    )
    assert in_short(()) == "nothing"


def test_unknown_exposure_has_no_number():
    row = columns(trial(("a", "VCTK"), ("b", "")), frozenset({"LibriTTS"}))
    assert row == {"source": "unseen", "target": "unknown", "unseen": None}


def test_an_enrolment_recording_of_a_seen_corpus_gives_the_speaker_away():
    reference, enrolment = by("b", ""), by("b", "VCTK", "b_2")
    of = Trial("t", by("a", "ESD"), (reference,), (enrolment,))
    assert exposure(of, frozenset({"VCTK"})).target == "seen"

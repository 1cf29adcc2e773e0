"""The floor and ceiling rows are real recordings, the right ones."""

from dataclasses import replace

from baselines.anchors import Source, Target
from bench.systems import Recording, System


def test_the_floor_is_the_source_itself(suite):
    for trial in suite.trials:
        assert Source().recording(trial) is trial.source


def test_the_ceiling_is_the_target_speaker_saying_something_that_no_one_else_uses(suite):
    for trial in suite.trials:
        recording = Target().recording(trial)
        assert recording is not None
        assert recording.speaker == trial.speaker != trial.source.speaker
        assert recording not in (trial.source, *trial.references, *trial.enrolment)


def test_a_trial_without_a_target_recording_has_no_ceiling(suite):
    assert Target().recording(replace(suite.trials[0], target=None)) is None


def test_word_errors_count_for_the_floor_and_not_for_the_ceiling():
    assert Source().says_source_words
    assert not Target().says_source_words


def test_anchors_are_recordings_and_not_systems():
    for anchor in (Source(), Target()):
        assert isinstance(anchor, Recording)
        assert not isinstance(anchor, System)

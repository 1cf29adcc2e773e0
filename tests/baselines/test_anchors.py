"""The floor and ceiling rows are real recordings, the right ones."""

from dataclasses import replace

from baselines.anchors import Source, Target
from bench.systems import CEILING, EXISTING, FLOOR, facts_of


def test_the_floor_is_the_source_itself(suite):
    for trial in suite.trials:
        assert Source().path("suite", trial) == trial.source.path


def test_the_ceiling_is_the_target_speaker_saying_something_that_no_one_else_uses(suite):
    for trial in suite.trials:
        path = Target().path("suite", trial)
        assert trial.target is not None
        assert path == trial.target.path
        assert trial.target.speaker == trial.speaker != trial.source.speaker
        assert trial.target not in (trial.source, *trial.references, *trial.enrolment)


def test_a_trial_without_a_target_recording_has_no_ceiling(suite):
    assert Target().path("suite", replace(suite.trials[0], target=None)) is None


def test_word_errors_count_for_the_floor_and_not_for_the_ceiling():
    assert facts_of(Source(), "source").has_source_words
    assert not facts_of(Target(), "target").has_source_words


def test_anchors_convert_nothing_and_were_trained_on_nothing():
    for anchor, role in ((Source(), FLOOR), (Target(), CEILING)):
        facts = facts_of(anchor, "anchor")
        assert (facts.kind, facts.role, facts.trained_on) == (EXISTING, role, frozenset())

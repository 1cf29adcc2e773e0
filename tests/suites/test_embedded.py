import itertools
from collections import Counter

import pytest

from bench.cli.settings import load
from bench.cli.verbs import suites_of
from bench.errors import UserError
from bench.files import sha256_of
from bench.manifest import trial_to_json
from suites import embedded
from suites.build import MANIFESTS
from suites.corpora.table import read_csv
from suites.embedded import MINI, embedded_suites


@pytest.fixture(scope="module")
def corpus():
    return read_csv(MINI / "utterances.csv")


@pytest.fixture(scope="module")
def suites():
    return {name.rpartition(".")[0]: trials for name, trials in embedded_suites().items()}


def test_the_builder_gives_the_frozen_manifests_byte_for_byte():
    for name, trials in embedded_suites().items():
        frozen = (MANIFESTS / f"{name}.jsonl").read_text(encoding="utf-8")
        assert "".join(trial_to_json(t, MINI) + "\n" for t in trials) == frozen


def test_the_settings_hold_the_manifests_hashes():
    settings = load(["limit=null"])
    for name, suite in ((s.name, s) for s in suites_of(settings)):
        assert settings.suite[name].sha256 == suite.sha256
        assert suite.sha256 == sha256_of(MANIFESTS / f"{name}.v2.jsonl")


def test_the_corpus_is_nine_women_and_nine_men(corpus):
    speakers = {r.speaker: r.utterance.gender for r in corpus}
    assert Counter(speakers.values()) == {"F": 9, "M": 9}
    assert len(corpus) == 136
    assert all(r.utterance.text for r in corpus)


def test_cross_gender_is_balanced_over_cells_and_speakers(suites):
    trials = suites["mini_cross_gender"]
    cells = Counter(t.factors["gender_pair"] for t in trials)
    assert cells == {"F2F": 18, "F2M": 18, "M2F": 18, "M2M": 18}
    for cell in cells:
        own = [t for t in trials if t.factors["gender_pair"] == cell]
        assert set(Counter(t.source.speaker for t in own).values()) == {2}
        assert set(Counter(t.speaker for t in own).values()) == {2}
    for trial in trials:
        assert trial.factors["gender_pair"] == (
            f"{trial.source.gender}2{trial.references[0].gender}"
        )


def test_any_prefix_of_cross_gender_is_balanced(suites):
    trials = suites["mini_cross_gender"]
    for n in (4, 24, 40):
        assert set(Counter(t.factors["gender_pair"] for t in trials[:n]).values()) == {n // 4}


@pytest.mark.parametrize("name", ["mini_cross_gender", "mini_unseen_speakers"])
def test_no_speaker_pair_comes_twice_and_nobody_meets_themselves(name, suites):
    pairs = [(t.source.speaker, t.speaker) for t in suites[name]]
    assert len(set(pairs)) == len(pairs)
    assert all(source != target for source, target in pairs)


def test_unseen_speakers_are_of_test_other_and_each_plays_both_parts(suites, corpus):
    split = {r.speaker: r.split for r in corpus}
    trials = suites["mini_unseen_speakers"]
    speakers = {s for s, where in split.items() if where == "test-other"}
    assert {t.source.speaker for t in trials} == {t.speaker for t in trials} == speakers
    assert set(Counter(t.source.speaker for t in trials).values()) == {3}
    assert set(Counter(t.speaker for t in trials).values()) == {3}


def test_only_the_length_varies_along_a_sweep(suites):
    by_pair = {}
    for trial in suites["mini_reference_length"]:
        by_pair.setdefault((trial.source.speaker, trial.speaker), []).append(trial)
    assert len(by_pair) == 8
    for trials in by_pair.values():
        assert [t.reference_seconds for t in trials] == [1.0, 2.0, 4.0, 8.0]
        assert len({(t.source, t.references, t.enrolment, t.target) for t in trials}) == 1
        audio = [t.reference().samples for t in trials]
        for shorter, longer in itertools.pairwise(audio):
            assert (longer[: len(shorter)] == shorter).all()
            assert len(longer) == 2 * len(shorter)


def test_no_recording_plays_two_parts_in_a_trial(suites):
    for trials in suites.values():
        for t in trials:
            parts = [t.source, *t.references, *t.enrolment, *t.source_enrolment, t.target]
            assert len({u.utterance_id for u in parts}) == len(parts) == 9
            assert {u.speaker for u in (*t.references, *t.enrolment, t.target)} == {t.speaker}
            assert {u.speaker for u in t.source_enrolment} == {t.source.speaker}


def test_a_speaker_has_the_same_enrolment_in_all_trials_of_a_suite(suites):
    for trials in suites.values():
        assert len({(t.speaker, t.enrolment) for t in trials}) == len({t.speaker for t in trials})


def test_another_seed_gives_other_trials_that_are_balanced_too(corpus, suites):
    other = embedded.cross_gender(corpus, seed=99, times=2, reference_seconds=5.0)
    assert [t.trial_id for t in other] != [t.trial_id for t in suites["mini_cross_gender"]]
    assert set(Counter(t.factors["gender_pair"] for t in other).values()) == {18}


def test_a_corpus_that_cannot_give_the_suite_says_why(corpus):
    with pytest.raises(UserError, match=r"lasts .* a reference of 30"):
        embedded.reference_length(corpus, seed=1, splits=frozenset({"test-other"}), lengths=(30.0,))
    of_one = [r for r in corpus if r.speaker == "533"]
    few = [r for r in corpus if r not in of_one[5:]]
    with pytest.raises(UserError, match="speaker 533 has 5 recordings"):
        embedded.unseen_speakers(
            few, seed=1, splits=frozenset({"test-other"}), times=1, reference_seconds=None
        )
    with pytest.raises(ValueError, match="8 speakers give 7 pairs each, not 8"):
        embedded.unseen_speakers(
            corpus, seed=1, splits=frozenset({"test-other"}), times=8, reference_seconds=None
        )


def test_a_corpus_table_with_a_missing_column_or_file_is_named(tmp_path):
    (tmp_path / "u.csv").write_text("utterance_id,speaker,gender,path,text,seconds,corpus\n")
    with pytest.raises(UserError, match="no column 'split'"):
        read_csv(tmp_path / "u.csv")
    (tmp_path / "u.csv").write_text(
        "utterance_id,speaker,gender,path,text,seconds,corpus,split\na,b,F,gone.wav,x,1,c,s\n"
    )
    with pytest.raises(UserError, match=r"u\.csv:2: a: no file at .*gone\.wav"):
        read_csv(tmp_path / "u.csv")

"""Who hears what: every listener group hears every system, no sentence twice, balanced orders."""

from collections import Counter

import numpy as np
import pytest

from bench.errors import UserError
from reports.listening.design import latin_square, sentence
from reports.listening.format import CONVERTED, GOLD, REPEAT, SOURCE, TRAINING, TRAP, TRIAL
from tests.reports.listening.conftest import SYSTEMS


def trials_of(test, group):
    return [s for s in (test.design.screens[n] for n in group) if s.role == TRIAL]


@pytest.mark.parametrize(("trials", "conditions", "squares"), [(12, 4, 1), (24, 6, 3), (14, 4, 2)])
def test_the_square_is_balanced(trials, conditions, squares):
    groups = latin_square(trials, conditions, squares * conditions, np.random.default_rng(1))
    for group in groups:
        assert sorted(t for t, _ in group) == list(range(trials))
        counts = Counter(c for _, c in group)
        assert len(counts) == conditions
        assert max(counts.values()) - min(counts.values()) <= 1
    assert set(Counter(pair for group in groups for pair in group).values()) == {squares}
    whole = trials - trials % conditions
    for position in range(whole):  # every condition is at every position equally often
        counts = Counter(group[position][1] for group in groups)
        assert set(counts.values()) == {squares}


@pytest.mark.parametrize("kind", ["nmos", "smos", "ab", "abx", "cmos"])
def test_each_group_hears_every_system_and_no_sentence_twice(make, run, kind):
    test = make(kind, trials=12, listeners=12)
    texts = {
        trial.trial_id: (sentence(trial.source.text), sentence(trial.target.text))
        for trial in run.suites["mini_cross_gender"].trials
    }
    for group in test.design.groups:
        screens = trials_of(test, group)
        heard = [s.sounds[0].trial_id for s in screens]
        assert len(heard) == len(set(heard)) == 12
        said = []
        for screen in screens:
            said.append(texts[screen.sounds[0].trial_id][screen.sounds[0].what == "target"])
        assert len(said) == len(set(said))
        systems = Counter(sound.system for s in screens for sound in s.sounds)
        assert set(SYSTEMS) <= set(systems)
        assert max(systems.values()) - min(systems.values()) <= 1


def test_ground_truth_is_added(make):
    assert make("nmos", trials=8).conditions == [*SYSTEMS, "source"]
    assert make("smos", trials=5).conditions == [*SYSTEMS, "source", "target"]
    assert make("nmos", trials=8, systems=("knn",)).conditions == ["knn", "source"]


def test_every_stimulus_is_rated_equally_often(make):
    test = make("nmos", trials=12, listeners=20)
    rated = Counter(n for g in test.design.groups for n in g)
    counts = {rated[n] for n, s in enumerate(test.design.screens) if s.role == TRIAL}
    assert counts == {5}  # 20 listeners rate each of 12 trials under one of 4 conditions


def test_trials_are_balanced_over_gender_pairs(make):
    test = make("nmos", trials=24)
    trials = {
        s.sounds[0].trial_id: s.sounds[0].gender_pair
        for s in test.design.screens
        if s.role == TRIAL
    }
    assert set(Counter(trials.values()).values()) == {6}
    for group in test.design.groups:  # and over gender pairs within each system
        pairs = Counter(
            (s.sounds[0].system, s.sounds[0].gender_pair) for s in trials_of(test, group)
        )
        assert max(pairs.values()) - min(pairs.values()) <= 1


def test_a_listener_can_hear_a_part_of_the_trials(make):
    test = make("nmos", trials=24, per_listener=8, listeners=10)
    assert len(test.design.groups) == 12  # three blocks times four conditions
    assert {len(trials_of(test, g)) for g in test.design.groups} == {8}
    rated = Counter(n for g in test.design.groups for n in g)
    assert {rated[n] for n, s in enumerate(test.design.screens) if s.role == TRIAL} == {1}


@pytest.mark.parametrize("kind", ["nmos", "smos", "ab", "abx", "cmos"])
def test_each_group_is_checked(make, kind):
    test = make(kind, trials=12, listeners=6, traps=1, gold=2, repeats=2)
    lowest, highest = {"nmos": (1, 5), "smos": (1, 5), "cmos": (-3, 3)}.get(kind, (-1, 1))
    for group in test.design.groups:
        screens = [test.design.screens[n] for n in group]
        roles = Counter(s.role for s in screens)
        assert roles == {TRIAL: 12, TRAP: 1, GOLD: 2, REPEAT: 2}
        assert [s.role for s in screens[:2]] == [TRIAL, TRIAL]
        assert sorted(s.expected for s in screens if s.role == GOLD) == [lowest, highest]
        assert all(lowest <= s.expected <= highest for s in screens if s.role == TRAP)
        for place, screen in enumerate(screens):
            if screen.role == REPEAT:
                assert group.index(screen.repeats) < place - 1
                assert test.design.screens[screen.repeats].sounds == screen.sounds


def test_gold_of_similarity_compares_a_voice_with_itself_and_with_another(make):
    test = make("smos", trials=10)
    same, other = [s for s in test.design.screens if s.role == GOLD]
    assert same.sounds[0].paths == same.reference.paths
    assert same.expected == 5
    assert other.sounds[0].source_speaker != other.reference.source_speaker
    assert other.expected == 1


def test_a_mushra_screen_has_all_systems_a_hidden_reference_and_two_anchors(make):
    test = make("mushra", trials=6, listeners=3)
    for screen in test.design.screens:
        whats = Counter(s.what for s in screen.sounds)
        assert whats == {CONVERTED: 3, SOURCE: 1, "anchor_low": 1, "anchor_high": 1}
        hidden = next(s for s in screen.sounds if s.what == SOURCE)
        assert hidden.paths == screen.reference.paths
        assert test.ids[hidden] != test.ids[screen.reference]
    places = [
        next(i for i, s in enumerate(screen.sounds) if s.what == SOURCE)
        for screen in make("mushra", trials=72).design.screens
    ]
    assert len(set(places)) == 6


def test_a_baseline_is_compared_with_each_other_system(make):
    test = make("cmos", trials=8, baseline="world")
    assert test.conditions == [
        "world / knn",
        "knn / world",
        "world / diffusion",
        "diffusion / world",
    ]


def test_the_seed_decides(make):
    def plan(seed):
        test = make("nmos", trials=12, seed=seed)
        return test.public(), sorted(test.ids.values())

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systems": ("wrld",)}, "did you mean 'world'"),
        ({"suites": ("mini",)}, "unknown suite 'mini'"),
        ({"trials": 100}, "72 usable trials of different sentences, trials=100 needs 100"),
        ({"systems": ("source",)}, "no converted speech to rate"),
        ({"baseline": "world"}, "nmos has no pairs"),
        ({"per_listener": 2}, "less than the 4 conditions"),
    ],
)
def test_a_wrong_option_is_named(make, options, message):
    with pytest.raises(UserError, match=message):
        make("nmos", **options)


def test_a_pair_needs_two_systems(make):
    with pytest.raises(UserError, match="ab compares two systems"):
        make("ab", systems=("knn",))
    with pytest.raises(UserError, match="unknown baseline 'x'"):
        make("ab", baseline="x")


@pytest.mark.parametrize("kind", ["nmos", "smos", "abx"])
def test_the_training_has_sentences_of_its_own_and_a_trap(make, run, kind):
    test = make(kind, trials=12, listeners=12)
    screens = [test.design.screens[n] for n in test.design.training]
    assert [s.role for s in screens] == [TRAINING] * 3
    assert not set(test.design.training) & {n for group in test.design.groups for n in group}
    trials = {t.trial_id: sentence(t.source.text) for s in run.suites.values() for t in s.trials}
    rated = {trials[s.sounds[0].trial_id] for s in test.design.screens if s.role == TRIAL}
    assert not {trials[s.sounds[0].trial_id] for s in screens[:2]} & rated
    assert screens[2].sounds[0].change == "tones_1"
    assert all(s.expected is None for s in screens)
    assert len({s.sounds for s in screens}) == 3


def test_the_training_is_seeded_and_can_be_turned_off(make):
    def training(**options):
        design = make("nmos", trials=12, listeners=12, **options).design
        return [design.screens[n] for n in design.training]

    assert training() == training()
    assert training() != training(seed=2)
    assert training(training=0) == []
    assert [s.sounds[0].change for s in training(training=2, traps=0)] == ["", ""]


def test_without_trials_left_the_training_has_recordings(make):
    test = make("nmos", trials=72, systems=("knn",), training=3)
    screens = [test.design.screens[n] for n in test.design.training]
    assert [s.sounds[0].what for s in screens] == ["anchor_high", "anchor_low", "trap"]
    checks = {s.sounds for s in test.design.screens if s.role == GOLD}
    assert not {s.sounds for s in screens} & checks
    mushra = make("mushra", trials=72, listeners=4)
    assert mushra.design.training == ()
    assert any("no training" in note for note in mushra.notes)
    assert len(make("mushra", trials=6, listeners=4).design.training) == 1

"""Trials are listed worst first, with the wrong words marked."""

import dataclasses

import pytest

from reports.html.cards import Word, align, listing
from reports.html.ranking import rankings
from tests.support.made_up import failing

SUITE = "mini_cross_gender"


@pytest.fixture(scope="module")
def world(results):
    scores = results.scores
    return scores[(scores["suite"] == SUITE) & (scores["system"] == "world")].set_index("trial_id")


def test_the_first_ranking_is_by_margin_the_second_by_wer(results, world):
    margin, wer = rankings(results, SUITE)
    margins = world["secs_resemblyzer.secs"] - world["secs_resemblyzer.source_secs"]
    rates = world["wer_whisper_base.word_errors"] / world["wer_whisper_base.words"]
    assert [margins[t] for t in margin.trial_ids] == sorted(margins)
    assert [rates[t] for t in wer.trial_ids] == sorted(rates, reverse=True)
    worst = margin.trial_ids[0]
    assert margin.reasons[worst] == (
        f"smallest margin by secs_resemblyzer: world, {margins[worst]:+.2f}"
    )


def test_measures_take_turns_and_no_trial_comes_twice(results):
    margin, wer = rankings(results, SUITE)
    cards = listing(results, SUITE, embed_trials=0, max_bytes=0).cards
    ids = [card.trial.trial_id for card in cards]
    assert ids[:2] == [margin.trial_ids[0], wer.trial_ids[0]]
    assert sorted(ids) == sorted(margin.trial_ids)


def test_cards_have_their_rank_in_every_order(results):
    listed = listing(results, SUITE, embed_trials=0, max_bytes=0)
    orders = [None, *(r.trial_ids for r in rankings(results, SUITE))]
    for index, card in enumerate(listed.cards):
        assert card.ranks[0] == index
        for order, rank in zip(orders[1:], card.ranks[1:-1], strict=True):
            assert order[rank] == card.trial.trial_id
    by_id = sorted(listed.cards, key=lambda card: card.ranks[-1])
    assert [c.trial.trial_id for c in by_id] == sorted(c.trial.trial_id for c in listed.cards)


def test_a_failed_conversion_is_the_worst_and_is_not_among_the_sounds(results):
    best = rankings(results, SUITE)[0].trial_ids[-1]
    failed = failing(results, "world", SUITE, best, "RuntimeError: no")
    listed = listing(failed, SUITE, embed_trials=1, max_bytes=1e9)
    first, second = listed.cards[:2]
    assert first.trial.trial_id == best
    assert first.reason.endswith("world, failed")
    assert [v.problem for v in first.sounds if v.name == "world"] == ["failed: RuntimeError: no"]
    assert first.size == 0
    assert second.size > 0
    assert listed.embedded == 1


def test_a_sound_that_would_pass_the_limit_is_not_embedded(results):
    one = listing(results, SUITE, embed_trials=1, max_bytes=1e9).cards[0].size
    assert listing(results, SUITE, embed_trials=3, max_bytes=one).embedded == 1
    assert listing(results, SUITE, embed_trials=3, max_bytes=one - 1).embedded == 0


def test_the_unconverted_source_is_not_played_twice(results):
    card = listing(results, SUITE, embed_trials=1, max_bytes=1e9).cards[0]
    assert [v.name for v in card.sounds] == ["source", "reference", "world", "target"]
    assert card.sounds[0].role.endswith("source (floor)")
    assert dict(card.sounds[0].measures)["WER"] == "0.0 %"
    assert card.sounds[1].clip.seconds == card.trial.reference().seconds


def test_a_missing_wav_is_named_and_the_rest_still_shown(results, tmp_path):
    moved = dataclasses.replace(results, folder=tmp_path)
    card = listing(moved, SUITE, embed_trials=1, max_bytes=1e9).cards[0]
    world = next(v for v in card.sounds if v.name == "world")
    assert world.problem == f"the sound is missing: wav/world/{SUITE}/{card.trial.trial_id}.wav"
    assert world.link == ""
    assert card.sounds[0].clip is not None


def test_without_judges_trials_keep_their_order(results):
    summary = results.summary.assign(n=0, value=float("nan"))
    listed = listing(dataclasses.replace(results, summary=summary), SUITE, 1, 1e9)
    assert [c.trial for c in listed.cards] == list(results.suites[SUITE].trials)
    assert listed.embedded == 1


def test_words_are_aligned_one_by_one():
    """One word replaced, one left out, one put in."""
    assert align("THE CAT SAT ON THE MAT", "A cat on the mat today.") == (
        Word("the", "a"),
        Word("cat", "cat"),
        Word("sat", ""),
        Word("on", "on"),
        Word("the", "the"),
        Word("mat", "mat"),
        Word("", "today"),
    )


def test_cards_show_systems_in_the_order_of_the_tables(results):
    shuffled = dataclasses.replace(results, scores=results.scores.iloc[::-1])
    card = listing(shuffled, SUITE, embed_trials=0, max_bytes=0).cards[0]
    assert [v.name for v in card.sounds] == ["source", "world", "target"]


def test_errors_in_the_alignment_are_the_judges_count():
    from bench.judges.wer import error_counts

    text, transcript = "HE SAID MISTER JONES ISN'T HERE TODAY", "he said mr jones is here to day"
    errors = sum(word.source != word.transcript for word in align(text, transcript))
    assert errors == error_counts(text, transcript)["word_errors"] > 0


def test_silence_has_an_empty_transcript():
    assert align("HELLO THERE", "") == (Word("hello", ""), Word("there", ""))

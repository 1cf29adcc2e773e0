"""The scoring stage: rows, caching, order, failures of judges, and the score table."""

import os
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from baselines.anchors import Target
from bench.audio import AudioError
from bench.errors import UserError
from bench.guard import ProcessState
from bench.judges import Converted, only
from bench.metrics import METRICS
from bench.run.folder import read_table, write_table
from bench.stages.cache import ScoreCache
from bench.stages.convert import Entry, convert_suite
from bench.stages.judging import JudgeError, checked
from bench.stages.score import rows_of, score_rows, score_table, wav_hashes
from tests.support.fakes import Faulty, Greedy, Length, Louder


@pytest.fixture
def cache(tmp_path):
    return ScoreCache(tmp_path / "scores.sqlite")


def converted_rows(suite, folder, system=None, name="louder"):
    entry = Entry(name, system or Louder())
    done = convert_suite(entry, suite, folder)
    return rows_of([entry], [suite], {(name, suite.name): done})


def test_scores_are_cached_by_content(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    first, second = Length(), Length()
    a = score_rows(rows, "length", first, tmp_path, cache)
    b = score_rows(rows, "length", second, tmp_path, cache)
    assert a == b
    assert a[0] == {"duration_ratio": pytest.approx(suite.trials[0].source.load().seconds)}
    assert len(first.items) == 4
    assert second.items == []


def test_one_overwritten_wav_is_judged_again_and_alone(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    score_rows(rows, "length", Length(), tmp_path, cache)
    time.sleep(0.01)
    soundfile.write(tmp_path / rows[2].conversion.wav, np.full(8000, 0.1), 16000)
    judge = Length()
    scores = score_rows(rows, "length", judge, tmp_path, cache)
    assert judge.items == [rows[2].trial.trial_id]
    assert scores[2] == {"duration_ratio": 0.5}


def test_a_new_date_is_not_a_new_sound(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    score_rows(rows, "length", Length(), tmp_path, cache)
    for row in rows:
        os.utime(tmp_path / row.conversion.wav, (1, 1))
    judge = Length()
    score_rows(rows, "length", judge, tmp_path, cache)
    assert judge.items == []


def test_a_changed_judge_scores_again(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    score_rows(rows, "length", Length(version=1), tmp_path, cache)
    judge = Length(version=2)
    score_rows(rows, "length", judge, tmp_path, cache)
    assert len(judge.items) == 4


def test_equal_audio_is_judged_once_whichever_row_it_stands_in(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path) + converted_rows(suite, tmp_path, name="twin")
    judge = Length()
    scores = score_rows(rows, "length", judge, tmp_path, cache)
    assert len(judge.items) == 4
    assert scores[:4] == scores[4:]


def test_a_judges_failure_stops_the_run_and_names_the_trial(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    victim = rows[2].trial.trial_id
    with pytest.raises(JudgeError, match=f"louder/small/{victim}: RuntimeError: the model is"):
        score_rows(rows, "length", Length(fails_on=victim), tmp_path, cache)


def test_a_failed_score_is_not_taken_as_done(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    with pytest.raises(JudgeError):
        score_rows(rows, "length", Length(fails_on=rows[2].trial.trial_id), tmp_path, cache)
    judge = Length()
    scores = score_rows(rows, "length", judge, tmp_path, cache)
    assert rows[2].trial.trial_id in judge.items
    assert all(s["duration_ratio"] > 0 for s in scores)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_judge_that_says_nan_is_stopped(value, suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    with pytest.raises(JudgeError, match=f"duration_ratio = {value}"):
        score_rows(rows, "length", Length(value=value), tmp_path, cache)


def test_a_judge_that_loses_an_item_is_stopped(suite, tmp_path, cache):
    class Forgetful(Length):
        def score(self, items):
            return super().score(items)[1:]

    rows = converted_rows(suite, tmp_path)
    with pytest.raises(JudgeError, match="3 scores for 4 items"):
        score_rows(rows, "length", Forgetful(), tmp_path, cache)


def test_a_missing_wav_is_an_error_not_a_smaller_n(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    (tmp_path / rows[1].conversion.wav).unlink()
    with pytest.raises(AudioError, match=rows[1].trial.trial_id):
        score_rows(rows, "length", Length(), tmp_path, cache)


def test_a_missing_record_is_an_error_not_a_smaller_n(suite, tmp_path):
    entry = Entry("louder", Louder())
    done = convert_suite(entry, suite, tmp_path)
    del done[suite.trials[3].trial_id]
    with pytest.raises(UserError, match=r"no conversion of .*\(3 of 4 are there\)"):
        rows_of([entry], [suite], {("louder", suite.name): done})


def test_a_failed_conversion_stays_in_the_table_with_empty_scores(suite, tmp_path, cache):
    victim = suite.trials[1].source.load().sha256
    rows = converted_rows(suite, tmp_path, Faulty("raises", {victim}))
    scores = {"length": score_rows(rows, "length", Length(), tmp_path, cache)}
    table = score_table(rows, tmp_path, wav_hashes(rows, tmp_path), scores)
    assert len(table) == 4
    assert table["status"].tolist() == ["ok", "failed", "ok", "ok"]
    assert table["error"][1] == "RuntimeError: out of memory"
    assert table["length.duration_ratio"].isna().tolist() == [False, True, False, False]


def test_rows_are_paired_by_trial_id_not_by_the_order_of_a_listing(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    turned = converted_rows(replace(suite, trials=suite.trials[::-1]), tmp_path)

    def by_trial(rows):
        scores = score_rows(rows, "length", Length(), tmp_path, cache)
        return {row.trial.trial_id: s for row, s in zip(rows, scores, strict=True)}

    assert by_trial(rows) == by_trial(turned)


def test_speech_with_other_words_is_not_compared_with_the_sources_text(suite, tmp_path, cache):
    class Words(Length):
        needs_source_words = True

    entry = Entry("target", Target())
    done = convert_suite(entry, suite, tmp_path)
    rows = rows_of([entry], [suite], {("target", suite.name): done})
    judge = Words()
    assert score_rows(rows, "words", judge, tmp_path, cache) == [{}] * 4
    assert judge.items == []


def test_a_judge_sees_only_what_it_declares():
    item = Converted("t", converted=None, text="words", source=object())
    shown = only(item, frozenset({"text"}))
    assert shown.text == "words"
    assert shown.source is None


def test_the_table_survives_its_csv(tmp_path):
    table = pd.DataFrame(
        {
            "system": ["007", "007"],
            "status": ["ok", "failed"],
            "error": ["", 'a, "quoted"\nreason, 10%\r20%'],
            "wer.hypothesis": ["NA", ""],
            "factor.reference_seconds": ["4", "8"],
            "secs.secs": [0.1 + 0.2, float("nan")],
        }
    )
    write_table(table, tmp_path / "t.csv")
    again = read_table(tmp_path / "t.csv")
    assert again["system"].tolist() == ["007", "007"]
    assert again["error"].tolist() == ["", 'a, "quoted"\nreason, 10% 20%']
    assert again["wer.hypothesis"].tolist() == ["NA", ""]
    assert again["factor.reference_seconds"].tolist() == ["4", "8"]
    assert again["secs.secs"][0] == 0.1 + 0.2
    assert np.isnan(again["secs.secs"][1])


def test_a_damaged_cache_is_named(tmp_path):
    (tmp_path / "scores.sqlite").write_text("not a database" * 100)
    with pytest.raises(UserError, match=r"scores\.sqlite: not a usable score cache"):
        ScoreCache(tmp_path / "scores.sqlite")


class Writes(Length):
    """Writes into every sound that it receives."""

    reads = frozenset({"converted", "source", "reference", "enrolment", "source_enrolment"})

    def score(self, items):
        scores = super().score(items)
        for item in items:
            for sound in (item.converted, item.source, item.reference, *item.enrolment):
                sound.samples.fill_(0.5)
        return scores


def test_a_judge_that_writes_into_its_sounds_changes_nothing_for_the_next(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)

    class Peak(Writes):
        def score(self, items):
            sounds = [(item.converted, item.source, *item.enrolment) for item in items]
            return [{"duration_ratio": sum(sound.peak for sound in s)} for s in sounds]

    clean = score_rows(rows, "peak", Peak(version="peak"), tmp_path, cache)
    score_rows(rows, "writes", Writes(version="writes"), tmp_path, cache)
    again = score_rows(rows, "peak", Peak(version="again"), tmp_path, cache)
    assert again == clean


def test_what_a_judge_changes_of_the_process_is_restored(suite, tmp_path, cache):
    class Careless(Length):
        def score(self, items):
            torch.set_default_dtype(torch.float64)
            np.seterr(all="raise")
            os.chdir("/")
            return super().score(items)

    before = ProcessState.now()
    score_rows(converted_rows(suite, tmp_path), "careless", Careless(), tmp_path, cache)
    assert before.changes() == ()


def test_a_judge_that_ends_the_process_is_stopped_and_named(suite, tmp_path, cache):
    class Exits(Length):
        def score(self, items):
            sys.exit(0)

    rows = converted_rows(suite, tmp_path)
    with pytest.raises(JudgeError, match=r"judge exits failed on louder/small/.*SystemExit: 0"):
        score_rows(rows, "exits", Exits(), tmp_path, cache)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(3.25),
        np.float64(3.25),
        torch.tensor(3.25),
        np.array([3.25]),
        torch.ones(1) * 3.25,
    ],
)
def test_scalars_of_numpy_and_torch_are_numbers(value, suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    scores = score_rows(rows, "length", Length(value=value), tmp_path, cache)
    assert scores == [{"duration_ratio": 3.25}] * 4
    assert {type(s["duration_ratio"]) for s in scores} == {float}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float32("nan"), "duration_ratio = nan"),
        (torch.tensor(float("inf")), "duration_ratio = inf"),
        ("3.0", "the text '3.0' for the number duration_ratio"),
        (np.zeros(3), "an array of shape"),
        ([1.0], "is a list"),
        (-0.5, "duration_ratio = -0.5, which lies between 0 and inf"),
    ],
)
def test_what_is_no_value_of_a_metric_is_refused(value, message, suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    with pytest.raises(JudgeError, match="judge length on louder/small/") as raised:
        score_rows(rows, "length", Length(value=value), tmp_path, cache)
    assert message in str(raised.value)


def test_every_metric_with_limits_refuses_what_lies_beyond(suite):
    for name, metric in METRICS.items():
        low, high = metric.limits
        under = {} if metric.denominator is None else {metric.denominator: 1}
        for value in (low - 1, high + 1):
            if np.isfinite(value):
                with pytest.raises(JudgeError, match="lies between"):
                    checked("x", [name], {metric.numerator: value / metric.scale, **under})


def test_two_classes_with_one_fingerprint_share_no_scores(suite, tmp_path, cache):
    class Other(Length):
        def score(self, items):
            return [{"duration_ratio": 9.0} for _ in items]

    rows = converted_rows(suite, tmp_path)
    first = score_rows(rows, "length", Length(), tmp_path, cache)
    assert score_rows(rows, "other", Other(), tmp_path, cache) == [{"duration_ratio": 9.0}] * 4
    assert score_rows(rows, "length", Length(), tmp_path, cache) == first


def test_a_sound_changed_by_hand_has_its_duration_and_no_time(suite, tmp_path):
    rows = converted_rows(suite, tmp_path)
    soundfile.write(tmp_path / rows[1].conversion.wav, np.full(4000, 0.25), 8000)
    table = score_table(rows, tmp_path, wav_hashes(rows, tmp_path), {})
    assert table["altered"].tolist() == [False, True, False, False]
    assert np.isnan(table["elapsed_seconds"][1])
    assert table.loc[1, ["audio_seconds", "sample_rate", "peak"]].tolist() == [0.5, 8000, 0.25]
    assert (table["elapsed_seconds"].drop(1) > 0).all()


@pytest.mark.parametrize("damage", [b"", b"RIFF", b"no sound at all", None])
def test_a_damaged_or_missing_conversion_says_the_way_out(damage, suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    path = tmp_path / rows[1].conversion.wav
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(AudioError, match="run `vcbench convert` again") as raised:
        score_table(rows, tmp_path, wav_hashes(rows, tmp_path), {})
    assert str(path) in str(raised.value)


def test_out_of_memory_halves_the_batch_and_moves_no_score(suite, tmp_path):
    rows = converted_rows(suite, tmp_path)
    expected = score_rows(rows, "length", Length(), tmp_path, ScoreCache(tmp_path / "plain.sqlite"))
    remarks = []
    with_items = (Greedy(1), ScoreCache(tmp_path / "a.sqlite"))
    assert score_rows(rows, "j", with_items[0], tmp_path, with_items[1], remark=remarks.append) == (
        expected
    )
    assert with_items[0].sizes == [4, 2, 1, 1, 2, 1, 1]
    assert remarks[0] == "j: out of memory; 4 items are scored in two parts"
    # A model with batches of its own: they are halved first, and stay so.
    remarks.clear()
    judge, cache = Greedy(2, batch_size=8), ScoreCache(tmp_path / "b.sqlite")
    assert score_rows(rows, "j", judge, tmp_path, cache, remark=remarks.append) == expected
    assert judge.sizes == [8, 4, 2]
    assert judge.model.batch_size == 2
    assert remarks == [
        "j: out of memory; its batch_size was halved from 8",
        "j: out of memory; its batch_size was halved from 4",
    ]
    with pytest.raises(JudgeError, match=r"judge j: out of memory on .* alone .*device=cpu"):
        score_rows(rows, "j", Greedy(0), tmp_path, ScoreCache(tmp_path / "c.sqlite"))

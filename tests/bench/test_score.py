import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from baselines.anchors import Target
from bench.audio import AudioError
from bench.cache import ScoreCache
from bench.convert import Entry, convert_suite
from bench.errors import UserError
from bench.folder import read_table, write_table
from bench.judges import Converted, only
from bench.score import JudgeError, rows_of, score_rows, score_table, wav_hashes
from tests.bench.fakes import Faulty, Length, Louder


@pytest.fixture
def cache(tmp_path):
    return ScoreCache(tmp_path / "scores.sqlite")


def converted_rows(suite, folder, system=None, name="louder"):
    entry = Entry(name, system or Louder())
    done = convert_suite(entry, suite, folder)
    return rows_of([entry], [suite], {(name, suite.name): done})


def test_scores_are_found_again_by_content(suite, tmp_path, cache):
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


def test_pairs_are_made_by_trial_id_not_by_the_order_of_a_listing(suite, tmp_path, cache):
    rows = converted_rows(suite, tmp_path)
    turned = converted_rows(replace(suite, trials=suite.trials[::-1]), tmp_path)

    def by_trial(rows):
        scores = score_rows(rows, "length", Length(), tmp_path, cache)
        return {row.trial.trial_id: s for row, s in zip(rows, scores, strict=True)}

    assert by_trial(rows) == by_trial(turned)


def test_speech_with_words_of_its_own_is_not_held_against_the_sources_text(suite, tmp_path, cache):
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

"""Pooled metrics and their intervals against closed forms."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.metrics import COUNT, METRICS, Metric
from bench.stats.pooling import Measured, interval, summarise

JUDGES = {"judge": Measured(("secs", "wer"), needs_source_words=True)}


def scores(**columns):
    n = len(next(iter(columns.values())))
    return pd.DataFrame(
        {
            "system": ["a"] * n,
            "suite": ["s"] * n,
            "trial_id": [f"t{i}" for i in range(n)],
            "status": ["ok"] * n,
            "source_speaker": [str(i % 5) for i in range(n)],
            "target_speaker": [str(i % 4) for i in range(n)],
            "elapsed_seconds": [0.5] * n,
            "audio_seconds": [2.0] * n,
            **dict(columns.items()),
        }
    )


def test_a_row_a_metric_with_its_judge_its_n_and_its_failures():
    table = scores(
        **{
            "judge.secs": [0.5, 0.7, None, 0.6],
            "judge.word_errors": [1, 1, None, 0],
            "judge.words": [10, 5, None, 5],
        }
    )
    table["status"] = ["ok", "ok", "failed", "ok"]
    summary = summarise(table, JUDGES, {}).set_index("metric")
    assert summary.loc["secs", "value"] == pytest.approx(0.6)
    assert summary.loc["wer", "value"] == pytest.approx(10.0)
    assert summary.loc["rtf", "value"] == pytest.approx(0.25)
    assert summary.loc["rtf", "judge"] == "timing"
    assert summary["n"].tolist() == [3, 3, 4]
    assert summary["trials"].tolist() == [4, 4, 4]
    assert summary["failed"].tolist() == [1, 1, 1]


def test_a_system_that_failed_everywhere_has_no_value_and_says_so():
    table = scores(**{"judge.secs": [None, None]})
    table["status"] = "failed"
    row = summarise(table, {"judge": Measured(("secs",))}, {}).iloc[0]
    assert np.isnan(row["value"])
    assert (row["n"], row["trials"], row["failed"]) == (0, 2, 2)
    assert row["note"] == "nothing could be measured"


def test_what_does_not_apply_to_a_recording_says_so():
    table = scores(**{"judge.secs": [0.5, 0.7]})
    summary = summarise(table, JUDGES, {"a": False}).set_index("metric")
    assert summary["note"].tolist() == ["not applicable"] * 3
    assert summary["value"].isna().all()


def test_an_unavailable_judge_keeps_its_row_and_its_reason():
    table = scores(**{"other.secs": [0.5, 0.7]})
    judges = {"utmos": Measured(("utmos",), unavailable="no weights: get them")}
    row = summarise(table, judges, {}).iloc[0]
    assert row["metric"] == "utmos"
    assert row["note"] == "no weights: get them"
    assert np.isnan(row["value"])


def test_slices_add_up_to_the_whole():
    table = scores(**{"judge.secs": [0.1, 0.2, 0.3, 0.6]})
    table["factor.gender_pair"] = ["F2M", "F2M", "M2F", "M2F"]
    judges = {"judge": Measured(("secs",))}
    by = summarise(table, judges, {}, by=["factor.gender_pair"])
    by = by[by["metric"] == "secs"].set_index("factor.gender_pair")
    assert by.loc["F2M", "value"] == pytest.approx(0.15)
    assert by.loc["M2F", "value"] == pytest.approx(0.45)


def test_the_interval_of_a_constant_is_the_constant():
    low, high = interval(METRICS["secs"], scores(secs=[0.7] * 12))
    assert low == pytest.approx(0.7)
    assert high == pytest.approx(0.7)


def test_few_speakers_on_a_side_give_no_interval_rather_than_a_narrow_one():
    table = scores(secs=list(np.linspace(0, 1, 12)))
    assert not np.isnan(interval(METRICS["secs"], table)).any()
    table["target_speaker"] = [str(i % 3) for i in range(12)]
    assert np.isnan(interval(METRICS["secs"], table)).all()


def test_the_interval_knows_that_trials_share_speakers():
    """Scores differ only by target speaker: 400 trials have the information of 10 targets."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=10)
    target = np.tile(np.arange(10), 40)
    table = scores(secs=effects[target])
    table["source_speaker"] = np.repeat(np.arange(20), 20).astype(str)
    table["target_speaker"] = target.astype(str)
    low, high = interval(METRICS["secs"], table)
    of_ten = 2 * stats.t.ppf(0.975, 9) * effects.std(ddof=1) / np.sqrt(10)  # Student's, of means
    of_trials = 2 * 1.96 * effects.std() / np.sqrt(400)
    assert high - low == pytest.approx(of_ten, rel=0.05)
    assert high - low > 4 * of_trials


def test_the_interval_is_the_same_every_time():
    table = scores(secs=list(np.linspace(0, 1, 12)))
    assert interval(METRICS["secs"], table) == interval(METRICS["secs"], table)


def test_a_share_that_all_agree_on_is_not_certain_for_that():
    """8 speakers on the rarer side: they would all have agreed 1 time of 20 at 0.05 ** (1 / 8)."""
    table = scores(nearer=[1.0] * 40)
    table = table.rename(columns={"nearer": "nearer_target"})
    table["source_speaker"] = [str(i % 8) for i in range(40)]
    table["target_speaker"] = [str(i % 9) for i in range(40)]
    low, high = interval(METRICS["nearer_target"], table)
    assert (low, high) == (pytest.approx(100 * 0.05 ** (1 / 8)), 100)
    low, high = interval(METRICS["nearer_target"], table.assign(nearer_target=0.0))
    assert (low, high) == (0, pytest.approx(100 - 100 * 0.05 ** (1 / 8)))


def test_no_error_anywhere_is_no_certainty_of_none():
    table = scores(word_errors=[0.0] * 40, words=[10.0] * 40)
    assert METRICS["wer"].pool(table) == 0
    assert np.isnan(interval(METRICS["wer"], table)).all()


def test_the_interval_of_a_rate_reaches_further_up_whatever_its_key_and_stays_above_zero():
    """The same numbers as a rate without an upper limit and as a mean of any sign."""
    rng = np.random.default_rng(1)
    table = scores(errors=rng.poisson(0.5, 40).astype(float), words=[10.0] * 40)
    rate = Metric("rate", False, "errors", "words", limits=COUNT)
    mean = Metric("mean", False, "errors", "words")
    low, high = interval(rate, table)
    low_of_mean, high_of_mean = interval(mean, table)
    assert 0 < low <= low_of_mean < rate.pool(table) < high_of_mean < high
    assert high - rate.pool(table) > rate.pool(table) - low
    few = table.assign(errors=[3.0] + [0.0] * 39)
    low, high = interval(rate, few)
    assert low == 0 < rate.pool(few) < high < np.inf

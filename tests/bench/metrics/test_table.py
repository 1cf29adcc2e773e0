"""The table of this project's metrics."""

import pandas as pd
import pytest

from bench.metrics import (
    FAMILIES,
    INTELLIGIBILITY,
    METRICS,
    NATURALNESS,
    PROSODY,
    SIMILARITY,
    error_rate,
    held_to,
    leading,
)


def test_corpus_wer_weighs_each_word_equally():
    table = pd.DataFrame({"word_errors": [0, 1], "words": [10, 1]})
    assert METRICS["wer"].pool(table) == pytest.approx(100 * 1 / 11)  # not the mean, 50


def test_rtf_is_a_ratio_of_sums():
    table = pd.DataFrame({"elapsed_seconds": [1.0, 1.0], "audio_seconds": [1.0, 9.0]})
    assert METRICS["rtf"].pool(table) == pytest.approx(0.2)  # not the mean, 0.556


def test_a_missing_score_is_left_out_and_never_a_zero():
    table = pd.DataFrame({"secs": [0.6, None, 0.8]})
    assert METRICS["secs"].pool(table) == pytest.approx(0.7)
    assert len(METRICS["secs"].terms(table)) == 2


def test_nothing_measured_is_nan():
    assert pd.isna(METRICS["secs"].pool(pd.DataFrame({"secs": [None, None]})))
    assert pd.isna(METRICS["wer"].pool(pd.DataFrame({"word_errors": [2], "words": [0]})))


def test_the_rate_of_each_trial():
    table = pd.DataFrame({"word_errors": [1, 0], "words": [4, 5]})
    assert METRICS["wer"].per_trial(table).tolist() == [25.0, 0.0]


def test_the_mean_of_utterances_weighs_each_utterance_equally():
    table = pd.DataFrame({"word_errors": [0, 1, 2], "words": [10, 1, 0]})
    assert METRICS["wer_mean"].pool(table) == pytest.approx(50)  # the third has no words to count
    assert len(METRICS["wer_mean"].terms(table)) == 2
    assert pd.isna(METRICS["wer_mean"].pool(table[2:]))


def test_every_error_rate_reads_its_counts():
    table = pd.DataFrame({"asr_raw_char_errors": [1, 1], "asr_raw_chars": [4, 2]})
    assert METRICS["cer_asr_raw"].pool(table) == pytest.approx(100 * 2 / 6)
    assert METRICS["cer_asr_raw_mean"].pool(table) == pytest.approx(100 * (1 / 4 + 1 / 2) / 2)
    assert METRICS[error_rate("wer", "text", "raw", "mean")].numerator == "raw_word_errors"


def test_directions():
    up = {name for name, m in METRICS.items() if m.arrow == "↑"}
    down = {name for name, m in METRICS.items() if m.arrow == "↓"}
    assert {"secs", "nearer_target", "utmos", "dnsmos_ovrl", "f0_correlation"} <= up
    rates = {name for name in METRICS if name.startswith(("wer", "cer"))}
    assert len(rates) == 22
    others = {"source_secs", "f0_rmse", "f0_median_error", "f0_spread_error"}
    assert down == others | {"rtf", "first_chunk", "stream_rtf", "failed"} | rates
    assert METRICS["duration_ratio"].arrow == ""


def test_every_metric_has_a_family():
    assert {metric.family for metric in METRICS.values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("measured", "family", "leads"),
    [
        (["sv_accept", "secs_calibrated", "secs_reference", "secs"], SIMILARITY, "secs"),
        (["sv_accept_reference", "secs_reference"], SIMILARITY, "secs_reference"),
        (["secs_calibrated"], SIMILARITY, "secs_calibrated"),
        (["cer_raw_mean", "wer_raw_mean"], INTELLIGIBILITY, "wer_raw_mean"),
        (["cer_asr"], INTELLIGIBILITY, "cer_asr"),
        (["dnsmos_p808", "dnsmos_ovrl"], NATURALNESS, "dnsmos_ovrl"),
    ],
)
def test_one_metric_of_a_family_leads_whatever_the_judge_measures(measured, family, leads):
    assert leading([("j", metric) for metric in measured], [family]) == [("j", leads)]


def test_each_judge_has_its_leading_metric_and_families_keep_their_order():
    measures = [("b", "cer"), ("b", "wer"), ("a", "secs_reference"), ("c", "secs"), ("c", "wer")]
    assert leading(measures, [SIMILARITY, INTELLIGIBILITY]) == [
        *[("c", "secs"), ("a", "secs_reference")],
        *[("b", "wer"), ("c", "wer")],
    ]
    assert leading(measures, [NATURALNESS]) == []
    assert leading([*measures, ("d", "no metric")], [INTELLIGIBILITY])[0] == ("b", "wer")


def test_variants_are_what_a_judge_measures_of_the_leading_rank():
    measures = [("j", m) for m in ("cer_raw", "wer_raw", "cer", "wer", "secs_reference", "secs")]
    chosen = leading(measures, [SIMILARITY, INTELLIGIBILITY], variants=True)
    assert [m for _, m in chosen] == ["secs", "secs_reference", "wer", "wer_raw"]


def test_a_margin_of_a_metric_goes_before_its_familys():
    measures = [("a", "secs"), ("a", "secs_reference"), ("b", "secs_reference"), ("j", "wer")]
    assert held_to(["similarity"], measures) == {
        ("a", "secs"): "similarity",
        ("b", "secs_reference"): "similarity",
    }
    assert held_to(["similarity", "secs_reference"], measures) == {
        ("a", "secs"): "similarity",
        ("a", "secs_reference"): "secs_reference",
        ("b", "secs_reference"): "secs_reference",
    }
    assert held_to(["secs"], measures) == {("a", "secs"): "secs"}


def test_a_metric_without_direction_never_has_a_familys_margin():
    assert held_to([PROSODY], [("p", "duration_ratio"), ("p", "f0_rmse")]) == {
        ("p", "f0_rmse"): PROSODY
    }

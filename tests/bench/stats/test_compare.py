"""Comparisons whose answer is known: by hand, from a closed form, or planted."""

import numpy as np
import pytest
from scipy import stats

from bench.errors import UserError
from bench.metrics import METRICS
from bench.run.folder import read_run
from bench.stats.compare import benjamini_hochberg, compare, detectable, margin_of
from bench.stats.crossed import Crossed
from bench.stats.sides import Side
from tests.support.made_up import WER, run, scores, side, write
from tests.support.simulation import WordErrors, ring

RNG = np.random.default_rng(0)
BASE = 0.6 + 0.05 * RNG.normal(size=72)
NOISE = 0.01 * RNG.normal(size=72)


def only(comparison, metric, slice_=""):
    table = comparison.table
    rows = table[(table["metric"] == metric) & (table["slice"] == slice_)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_planted_effect_is_detected_with_its_sign_and_size():
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + 0.03 + NOISE))
    row = only(compare([(a, b)]), "secs")
    assert row["effect"] == pytest.approx(0.03 + NOISE.mean())
    assert row["low"] < 0.03 < row["high"]
    assert row["verdict"] == "better"
    assert (row["baseline"], row["candidate"], row["n"]) == ("old", "new", 72)
    row = only(compare([(b, a)]), "secs")
    assert row["verdict"] == "worse"


def test_more_errors_are_worse():
    errors = np.random.default_rng(1).integers(0, 3, 72)
    a, b = side("old", scores("a", BASE, errors)), side("new", scores("a", BASE, errors + 1))
    row = only(compare([(a, b)]), "wer")
    assert row["effect"] == pytest.approx(10.0)  # one word of ten
    assert row["verdict"] == "worse"


def test_what_a_conversion_adds_is_not_tested_beside_wer():
    """Both systems convert the same sources: the differences are WER's, and so is the p."""
    rng = np.random.default_rng(1)
    of_source, errors = rng.integers(0, 3, 72), rng.integers(0, 3, 72)

    def system(name, errors):
        table = scores("a", BASE, errors)
        return side(name, table.assign(**{f"{WER}.added_word_errors": errors - of_source}))

    a, b = system("old", errors), system("new", errors + 1)
    table = compare([(a, b)]).table
    assert "wer" in set(table["metric"])
    assert "wer_added" not in set(table["metric"])
    without = side("old", scores("a", BASE, errors)), side("new", scores("a", BASE, errors + 1))
    plain = compare([without]).table
    assert table["q"].tolist() == pytest.approx(plain["q"].tolist(), nan_ok=True)
    # It is compared where it is asked for, or has a margin.
    asked = compare([(a, b)], ["wer", "wer_added"])
    assert only(asked, "wer_added")["effect"] == pytest.approx(10.0)
    assert set(asked.table["metric"]) == {"wer", "wer_added", "failed"}
    held = compare([(a, b)], margins={"wer_added": 2.0})
    assert only(held, "wer_added")["margin"] == 2.0
    assert METRICS["wer_added"].differs_as == "wer"
    assert METRICS["cer_chinese_added"].differs_as == "cer_chinese"


def test_pairing_sees_what_two_separate_intervals_do_not():
    """Both have the same trials: the difficulty of a trial cancels."""
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + 0.004 + 0.2 * NOISE))
    row = only(compare([(a, b)]), "secs")
    assert row["verdict"] == "better"
    alone = Crossed(*ring()).ratios(BASE[:, None], np.ones((72, 1)))[0]
    assert row["effect"] < alone.interval()[1] - alone.value


def test_a_system_that_fails_on_the_hard_half_looks_no_better_for_it():
    hard = np.argsort(BASE)[:36]
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE, failed=hard))
    alone = np.delete(BASE, hard).mean()
    assert alone > BASE.mean() + 0.03  # what a mean over what is left would have shown
    comparison = compare([(a, b)])
    row = only(comparison, "secs")
    assert row["effect"] == 0
    assert row["verdict"] == "the same in every trial"
    assert (row["n"], row["baseline_failed"], row["candidate_failed"]) == (36, 0, 36)
    assert only(comparison, "failed")["effect"] == pytest.approx(50.0)
    assert only(comparison, "failed")["verdict"] == "worse"


def test_better_on_the_easy_half_only_has_a_note():
    hard = np.argsort(BASE)[:30]
    a = side("old", scores("a", BASE))
    b = side("new", scores("a", BASE + 0.03 + NOISE, failed=hard))
    assert only(compare([(a, b)]), "secs")["verdict"] == "better where both converted"


def test_no_interval_of_a_difference_reaches_beyond_what_is_possible():
    """SECS lies between -1 and 1, so that its differences lie between -2 and 2."""
    six, wild = np.arange(6), np.where(np.arange(6) < 3, -1.0, 1.0)
    design = six, (six + 1) % 6
    a, b = (side(n, scores("a", x, design=design)) for n, x in (("old", wild), ("new", -wild)))
    row = only(compare([(a, b)], level=0.999), "secs")
    assert -2.0 <= row["low"] < 0 < row["high"] <= 2.0


def test_times_that_are_told_apart_have_a_note_on_the_machines_load():
    seconds = np.random.default_rng(2).uniform(0.9, 1.1, 72)
    tables = [scores("a", BASE).assign(elapsed_seconds=s) for s in (seconds, 0.8 * seconds)]
    slow, fast = (side(name, table) for name, table in zip("sf", tables, strict=True))
    faster = compare([(slow, fast)])
    assert only(faster, "rtf")["verdict"] == "better"
    assert [note for note in faster.notes if "load" in note]
    assert not compare([(slow, fast)], metrics=["secs"]).notes
    assert not compare([(slow, slow)]).notes


def test_no_difference_and_too_small_a_test_are_different_verdicts():
    margins = {"secs": 0.02}
    a = side("old", scores("a", BASE))
    small = 0.002 * np.random.default_rng(2).normal(size=72)
    row = only(compare([(a, side("new", scores("a", BASE + small)))], margins=margins), "secs")
    assert row["verdict"] == "no difference that matters"
    wild = 0.3 * np.random.default_rng(3).normal(size=72)
    row = only(compare([(a, side("new", scores("a", BASE + wild)))], margins=margins), "secs")
    assert row["verdict"] == "too small a test"
    assert row["detectable"] > 0.02


def test_the_detectable_effect_is_detected_four_times_of_five():
    rng = np.random.default_rng(4)
    source, target = ring()
    design = Crossed(source, target, 2000)
    noise = 0.1 * rng.normal(size=(72, 600)) + 0.03 * rng.normal(size=(18, 600))[source]
    estimates = design.ratios(noise, np.ones_like(noise))
    effect = np.mean([detectable(e) for e in estimates])
    shifted = design.ratios(noise + effect, np.ones_like(noise))
    assert np.mean([e.p_of_no_difference() < 0.05 for e in shifted]) == pytest.approx(0.8, abs=0.06)


def test_the_detectable_effect_knows_that_intervals_of_rates_are_wider():
    """Two systems that differ in single errors: the interval must exclude 0 for an effect."""
    source, target = ring()
    errors, words = WordErrors((0.1, 0.1), (0.04, 0.04)).drawn(
        source, target, 1, np.random.default_rng(6)
    )
    terms = np.hstack(list(errors)), np.hstack([words, words]), np.array([[-1.0, 1.0]])
    rate = Crossed(source, target).contrasts(*terms, [True, True])[0]
    mean = Crossed(source, target).contrasts(*terms)[0]
    wider = (np.diff(rate.interval()) - np.diff(mean.interval())) / 2
    assert wider > 0
    assert detectable(rate) - detectable(mean) == pytest.approx(wider[0])
    quantiles = stats.t.ppf([0.975, 0.8], mean.df).sum()
    assert detectable(mean) == pytest.approx(quantiles * mean.se, rel=0.05)


def test_slices_are_compared_in_addition_to_the_whole():
    source, _ = ring()
    effect = np.where(source % 2 == 0, 0.05, 0.0)  # on F2M alone
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + effect + 0.1 * NOISE))
    comparison = compare([(a, b)], metrics=["secs"], by=["gender_pair"])
    assert only(comparison, "secs")["effect"] == pytest.approx(0.025, abs=0.001)
    assert only(comparison, "secs", "gender_pair=F2M")["verdict"] == "better"
    assert only(comparison, "secs", "gender_pair=M2F")["effect"] == pytest.approx(0, abs=0.001)
    assert only(comparison, "secs", "gender_pair=M2F")["n"] == 36


def test_duration_is_a_slice_of_every_suite():
    table = scores("a", BASE)
    table["audio_seconds"] = np.repeat([3.9, 4.0, 8.0], 24)
    a, b = side("old", table), side("new", table.assign(audio_seconds=1.0))
    comparison = compare([(a, b)], metrics=["secs"], by=["duration"]).table.query(
        "metric == 'secs'"
    )
    sizes = comparison.set_index("slice")["n"].to_dict()
    assert sizes == {
        "": 72,
        "duration=under 4 s": 24,
        "duration=4 to 8 s": 24,
        "duration=8 s and more": 24,
    }
    with pytest.raises(UserError, match="no factor 'gender' to slice by"):
        compare([(a, b)], by=["gender"])


def test_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    # ranked: .005·4/1, .01·4/2, .03·4/3, .04·4/4
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, np.nan, 0.04, 0.02], nan_ok=True)


def test_benjamini_hochberg_agrees_with_scipy():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(5).random(200)
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))


def test_margins_are_numbers_or_shares():
    assert margin_of(0.5, 20.0, METRICS["wer"]) == 0.5
    assert margin_of("10%", 20.0, METRICS["wer"]) == pytest.approx(2.0)
    assert np.isnan(margin_of(None, 20.0, METRICS["wer"]))
    for wrong in (0, -1, "ten", True, "nan"):
        with pytest.raises(UserError, match="the margin of WER"):
            margin_of(wrong, 20.0, METRICS["wer"])


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    kept_run = run("one", scores("a", BASE), folder=tmp_path)
    read = read_run(write(kept_run))
    assert read.systems == ["a"]
    comparison = compare([(Side("x", kept_run, "a"), Side("y", read, "a"))])
    assert only(comparison, "secs")["effect"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match=r"holds no scored run \(run\.json is missing\)"):
        read_run(tmp_path / "nowhere")

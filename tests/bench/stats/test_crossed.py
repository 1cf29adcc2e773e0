"""Intervals and tests against known truths: closed forms, and 1000 simulations each."""

import numpy as np
import pytest
from scipy import stats

from bench.stats.crossed import Crossed, Estimate
from tests.support.simulation import (
    WordErrors,
    cluster_robust,
    contains,
    covered,
    drawn,
    grid,
    intervals,
    ring,
    scattered,
)

# Three standard errors of a share of 95% over 1000 simulations are 2 points: 93 to 97.
COVERS = pytest.approx(0.95, abs=0.02)


def ones(values):
    return np.ones_like(values)


@pytest.mark.parametrize("effects", [(1, 1, 1), (1, 0.2, 0.5), (0.3, 0.3, 1)])
@pytest.mark.parametrize("design", [ring(18, 4), grid(40, 12, 0.3)], ids=["18 ring", "40 x 12"])
def test_intervals_cover_the_truth_and_those_over_trials_do_not(design, effects):
    shares = covered(*design, drawn(*design, effects, 1000, np.random.default_rng(1)))
    assert shares["ours"] == COVERS
    assert shares["trials"] < 0.92


def test_intervals_of_a_ratio_cover_too():
    """Word errors that depend on both speakers, over words that depend on the source."""
    rng = np.random.default_rng(2)
    source, target = ring(18, 4)
    effect = np.exp(rng.normal(0, 0.4, (18, 1000)))[source]
    effect *= np.exp(rng.normal(0, 0.4, (18, 1000)))[target]
    words = rng.integers(5, 30, (len(source), 1000)).astype(float)
    errors = rng.poisson(0.1 * words * effect).astype(float)
    truth = 0.1 * np.exp(0.4**2)  # mean of the product of two log-normals
    bounds = np.array([e.interval() for e in Crossed(source, target, 2000).ratios(errors, words)])
    share = np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
    assert 0.92 <= share <= 0.97


@pytest.mark.parametrize(
    ("design", "population"),
    [
        (grid(5, 5), WordErrors()),
        (scattered(10, 10, 24), WordErrors()),
        (grid(6, 12), WordErrors()),
        (grid(5, 5), WordErrors((0.05, 0.1), (0.02, 0.04))),
        (scattered(10, 10, 24), WordErrors((0.1, 0.1), (0.0, 0.04))),
    ],
    ids=["5 x 5", "10 x 10", "6 x 12", "difference", "bursts of one"],
)
def test_intervals_of_heavy_tailed_rates_cover_where_those_of_means_do_not(design, population):
    """Three standard errors of a share of 94% over 1000 simulations are 2.3 points."""
    errors, words = population.drawn(*design, 1000, np.random.default_rng(11))
    bounds = intervals(*design, errors, words, unbounded=True)
    truth = population.truths[-1] - (population.truths[0] if len(errors) == 2 else 0)
    assert 0.92 <= contains(bounds["ours"], truth) <= 0.985
    assert contains(bounds["ours"], truth) > contains(bounds["mean's"], truth) + 0.02
    assert contains(bounds["mean's"], truth) < 0.93
    assert contains(bounds["two-way"], truth) < 0.93


def test_the_interval_of_a_rate_differs_from_a_means_by_the_fourth_root_above():
    errors, words = WordErrors().drawn(*grid(6, 12), 1, np.random.default_rng(12))
    crossed = Crossed(*grid(6, 12))
    estimate = crossed.ratios(errors[0], words, [True])[0]
    low, high = estimate.interval()
    low_of_mean, high_of_mean = crossed.ratios(errors[0], words)[0].interval()
    reach = high_of_mean / estimate.value - 1
    assert high == pytest.approx(estimate.value * (1 + reach / 4) ** 4, rel=1e-3)
    below, below_of_mean = estimate.value - low, estimate.value - low_of_mean
    assert below_of_mean < below < 1.5 * below_of_mean


def test_rates_beside_them_move_no_other_interval():
    rng = np.random.default_rng(13)
    source, target = ring(18, 4)
    errors, words = WordErrors().drawn(source, target, 1, rng)
    similarity = drawn(source, target, (1, 1, 1), 1, rng)
    numerators = np.hstack([similarity, errors[0]])
    denominators = np.hstack([ones(similarity), words])
    crossed = Crossed(source, target, 500)
    alone = crossed.ratios(similarity, ones(similarity))[0]
    beside, rate = crossed.ratios(numerators, denominators, [False, True])
    as_mean = crossed.ratios(numerators, denominators)[1]
    assert beside.draws.tolist() == alone.draws.tolist()
    assert rate.interval()[1] > as_mean.interval()[1]
    assert (rate.value, rate.se, rate.df) == (as_mean.value, as_mean.se, as_mean.df)


def test_intervals_of_rates_contain_the_rate_and_those_of_equal_systems_are_zero():
    rng = np.random.default_rng(14)
    for design in (grid(4, 4), ring(8, 2), scattered(10, 10, 24)):
        errors, words = WordErrors().drawn(*design, 200, rng)
        for estimate in Crossed(*design, 500).ratios(errors[0], words, [True]):
            low, high = estimate.interval()
            assert low <= estimate.value <= high < np.inf
        both = np.repeat(errors[0][:, :1], 2, axis=1), np.repeat(words[:, :1], 2, axis=1)
        same = Crossed(*design, 500).contrasts(*both, np.array([[-1.0, 1.0]]), [True, True])[0]
        assert (same.value, *same.interval()) == (0, 0, 0)


def test_one_error_is_not_beyond_doubt_more_than_none():
    """Of equal systems, one has none and the other has it every other time; no rate is below 0."""
    source, target = ring(18, 4)
    errors = np.zeros((72, 2))
    errors[5, 1] = 1
    pair = np.array([[-1.0, 1.0]])
    estimate = Crossed(source, target).contrasts(errors, 10 * ones(errors), pair, [True, True])[0]
    low, high = estimate.interval()
    assert low < 0 < estimate.value < high
    assert estimate.p_of_no_difference() > 0.1


def test_differences_of_rates_mirror_when_the_systems_change_places():
    source, target = ring(18, 4)
    population = WordErrors((0.05, 0.1), (0.02, 0.04))
    errors, words = population.drawn(source, target, 1, np.random.default_rng(15))
    numerators, denominators = np.hstack(list(errors)), np.hstack([words, words])
    pairs = np.array([[-1.0, 1.0], [1.0, -1.0]])
    one, other = Crossed(source, target).contrasts(numerators, denominators, pairs, [True, True])
    assert one.interval() == pytest.approx(tuple(-x for x in other.interval()[::-1]))
    assert one.p_of_no_difference() == other.p_of_no_difference()


def test_cluster_robust_errors_by_hand():
    """A 2 x 3 grid: by row, by column and by cell, each with its G / (G - 1)."""
    source, target = grid(2, 3)
    values = np.array([3.0, 1.0, 2.0, -1.0, -2.0, -3.0])[:, None]
    # rows sum to 6, -6; columns to 2, -1, -1; cells squared to 28
    variance = 72 * 2 - 28 * 6 / 5 + 6 * 3 / 2
    expected = stats.t.ppf(0.975, 1) * np.sqrt(variance)
    assert cluster_robust(source, target, values) == pytest.approx([expected])


def test_the_paired_test_detects_a_difference_of_equal_systems_in_one_of_twenty():
    """Each system has separate effects on each speaker: 1000 pairs with equal truth."""
    rng = np.random.default_rng(3)
    source, target = ring(18, 4)
    shared = drawn(source, target, (1, 1, 1), 1000, rng)
    separate = [drawn(source, target, (0.5, 0.5, 0.5), 1000, rng) for _ in range(2)]
    values = np.hstack([shared + separate[0], shared + separate[1]])
    pairs = np.hstack([-np.eye(1000), np.eye(1000)])
    estimates = Crossed(source, target, 2000).contrasts(values, ones(values), pairs)
    assert 0.03 <= np.mean([e.p_of_no_difference() < 0.05 for e in estimates]) <= 0.07


def test_planted_components_are_recovered_on_average():
    rng = np.random.default_rng(4)
    source, target = grid(30, 20, 0.5)
    values = drawn(source, target, (1.0, 0.5, 2.0), 200, rng)
    crossed = Crossed(source, target)
    estimates = [crossed.components(v) for v in values.T]
    assert np.mean([c.source for c in estimates]) == pytest.approx(1.0, rel=0.1)
    assert np.mean([c.target for c in estimates]) == pytest.approx(0.25, rel=0.2)
    assert np.mean([c.trial for c in estimates]) == pytest.approx(4.0, rel=0.05)


def test_a_balanced_design_gives_the_textbook_components():
    """Two-way analysis of variance without replication (Searle, Casella, McCulloch 1992, 4.2)."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(6, 5)) + 3 * rng.normal(size=(6, 1)) + 2 * rng.normal(size=(1, 5))
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    mean = table.mean()
    within = ((table - rows - columns + mean) ** 2).sum() / (5 * 4)
    of_rows = 5 * ((rows - mean) ** 2).sum() / 5
    of_columns = 6 * ((columns - mean) ** 2).sum() / 4
    estimated = Crossed(*grid(6, 5)).components(table.ravel())
    assert estimated.trial == pytest.approx(within)
    assert estimated.source == pytest.approx((of_rows - within) / 5)
    assert estimated.target == pytest.approx((of_columns - within) / 6)


def test_the_error_of_a_balanced_mean_is_that_of_its_components():
    rng = np.random.default_rng(6)
    values = (rng.normal(size=(8, 1)) + rng.normal(size=(1, 7)) + rng.normal(size=(8, 7))).ravel()
    crossed = Crossed(*grid(8, 7))
    parts = crossed.components(values)
    estimate = crossed.ratios(values[:, None], np.ones((56, 1)))[0]
    expected = parts.source / 8 + parts.target / 7 + parts.trial / 56
    assert estimate.se**2 == pytest.approx(expected)
    assert estimate.value == pytest.approx(values.mean())


def test_the_totals_of_every_resample_are_sums_of_whole_trials():
    """Each resample's total of ones is a sum of products of counts, and on average all trials."""
    source, target = grid(5, 6)
    totals = Crossed(source, target, resamples=4000).totals(np.ones((30, 1)))
    assert totals[:, 0] == pytest.approx(np.round(totals[:, 0]))
    assert totals.mean() == pytest.approx(30, rel=0.02)
    # A full grid is drawn as 5 sources times 6 targets, always.
    assert set(totals[:, 0]) == {30}


def test_the_order_of_trials_moves_nothing():
    rng = np.random.default_rng(7)
    source, target = ring(10, 3)
    values = rng.normal(size=(30, 2))
    order = rng.permutation(30)
    first = Crossed(source, target, 500).ratios(values, ones(values))
    again = Crossed(source[order], target[order], 500).ratios(values[order], ones(values))
    for a, b in zip(first, again, strict=True):
        assert a.interval() == pytest.approx(b.interval(), abs=1e-6)


def test_the_order_of_trials_moves_no_interval_of_a_rate():
    """Most resamples of few errors are equal, but for rounding."""
    rng = np.random.default_rng(16)
    source, target = ring(10, 3)
    errors = np.zeros((30, 2))
    errors[[3, 17], 0] = 1, 4
    errors[[3, 8, 17], 1] = 2, 1, 4
    words = rng.integers(5, 31, (30, 1)) * np.ones((1, 2))
    order = rng.permutation(30)
    weights = np.array([[1.0, 0.0], [-1.0, 1.0]])
    rates = [True, True]
    first = Crossed(source, target, 500).contrasts(errors, words, weights, rates)
    shuffled = Crossed(source[order], target[order], 500)
    again = shuffled.contrasts(errors[order], words[order], weights, rates)
    for a, b in zip(first, again, strict=True):
        assert a.interval() == pytest.approx(b.interval(), abs=1e-6)


def test_what_was_not_measured_counts_as_absent_not_as_zero():
    rng = np.random.default_rng(8)
    source, target = ring(10, 3)
    values = rng.normal(5, 1, (30, 1))
    values[:4] = np.nan
    estimate = Crossed(source, target, 500).ratios(values, ones(values))[0]
    assert estimate.n == 26
    assert estimate.value == pytest.approx(np.nanmean(values))
    assert estimate.interval()[0] > 4


def test_nothing_measured_and_too_few_speakers_give_nan_never_a_number():
    source, target = ring(3, 2)
    values = np.column_stack([np.arange(6.0), np.full(6, np.nan)])
    few, none = Crossed(source, target, 100).ratios(values, ones(values))
    assert few.value == 2.5
    assert np.isnan(none.value)
    for estimate in (few, none):
        assert np.isnan(estimate.interval()).all()
        assert np.isnan(estimate.p_of_no_difference())


def test_p_and_interval_agree():
    """p is below 5% exactly where the 95% interval leaves 0 out."""
    rng = np.random.default_rng(9)
    source, target = ring(18, 4)
    values = rng.normal(0.25, 1, (72, 300))
    for estimate in Crossed(source, target, 2001).ratios(values, ones(values)):
        low, high = estimate.interval()
        distance = min(abs(low), abs(high)) / (high - low)
        if distance > 0.002:  # closer than the grain of the resamples
            assert (estimate.p_of_no_difference() < 0.05) == (low > 0 or high < 0)


@pytest.mark.parametrize(("differing", "p"), [(1, 1.0), (2, 0.5), (5, 0.0625)])
@pytest.mark.parametrize("sign", [1, -1])
def test_few_trials_that_differ_are_no_evidence_whatever_the_resamples_say(differing, p, sign):
    """A share of 72 trials that one system has right in a few more: McNemar's exact test."""
    source, target = ring(18, 4)
    first = np.full(len(source), 100.0)
    first[-10:] = 0.0
    second = first.copy()
    second[-10 : -10 + differing] = 100.0
    values = np.stack([first, second], axis=1)
    weights = sign * np.array([[-1.0, 1.0]])
    (estimate,) = Crossed(source, target, 2000).contrasts(values, ones(values), weights)
    assert estimate.value == pytest.approx(sign * differing * 100 / len(source))
    assert estimate.p_of_no_difference() >= p
    low, high = estimate.interval()
    assert low <= 0 <= high
    assert low + high == pytest.approx(2 * estimate.value)  # as far to either side


@pytest.mark.parametrize(("trials", "p"), [(4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_few_trials_that_differ_by_one_amount_are_no_evidence_either(trials, p):
    """Two systems of which one is right in every trial and the other in none."""
    source = np.arange(trials)
    values = np.stack([np.zeros(trials), np.full(trials, 100.0)], axis=1)
    crossed = Crossed(source, (source + 1) % trials, 2000)
    (estimate,) = crossed.contrasts(values, ones(values), np.array([[-1.0, 1.0]]))
    assert estimate.value == 100.0
    assert estimate.p_of_no_difference() == pytest.approx(p)
    assert (estimate.interval()[0] <= 0) == (p > 0.05)


def test_many_trials_that_differ_and_single_shares_have_the_interval_of_their_draws():
    source, target = ring(18, 4)
    rng = np.random.default_rng(0)
    first = 100.0 * (rng.random(len(source)) < 0.5)
    second = np.where(rng.random(len(source)) < 0.4, 100.0, first)
    values = np.stack([first, second], axis=1)
    assert (first != second).sum() > 6
    both = Crossed(source, target, 2000).contrasts(
        values, ones(values), np.array([[-1, 1], [1, 0]])
    )
    for estimate in both:
        assert estimate.least_p < 0.05
        wanted = np.quantile(estimate.draws, [0.025, 0.975])
        assert estimate.interval() == pytest.approx(tuple(wanted))
    assert both[0].p_of_no_difference() < 0.05


def test_p_is_never_zero_and_that_of_a_constant_difference_is_the_least():
    far = Estimate(9.0, 1.0, 17.0, np.random.default_rng(0).normal(9, 1, 999), 72)
    assert far.p_of_no_difference() == pytest.approx(2 / 1000)
    constant = Estimate(0.1, 0.0, 17.0, np.full(999, 0.1), 72)
    assert constant.p_of_no_difference() == pytest.approx(1 / 1000)
    nothing = Estimate(0.0, 0.0, 17.0, np.full(999, 0.0), 72)
    assert nothing.p_of_no_difference() == 1


def test_draws_have_the_tails_of_students_distribution():
    """Few speakers: the interval is that of Student with their degrees of freedom, not normal."""
    rng = np.random.default_rng(10)
    source, target = grid(6, 40)
    values = rng.normal(size=6)[source][:, None] + 0.0
    estimate = Crossed(source, target).ratios(values, ones(values))[0]
    assert estimate.df == pytest.approx(5, rel=0.01)
    low, high = estimate.interval()
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 5) * estimate.se, rel=0.08)


def test_one_speaker_says_nothing_of_how_speakers_differ():
    estimated = Crossed(["a"] * 6, list("bcdefg"), 100).components(np.arange(6.0))
    assert np.isnan([estimated.source, estimated.target, estimated.trial]).all()

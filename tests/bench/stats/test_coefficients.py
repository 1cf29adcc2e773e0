"""Coefficients of agreement: against counts by hand, definitions and textbook intervals."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from bench.stats.coefficients import (
    bounds,
    changes,
    coefficients,
    influences,
    of_columns,
    percentiles,
)


def tied(n=60, seed=0):
    """A metric and mean ratings with ties in both."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.normal(size=n), 1)
    return x, np.round(0.6 * x + rng.normal(size=n), 1)


def test_pairwise_accuracy_by_hand():
    """Of 6 pairs one is tied in the ratings; of the other 5 one is wrong, one not ordered."""
    metric, ratings = np.array([1.0, 2.0, 2.0, 0.0]), np.array([3.0, 3.0, 4.0, 1.0])
    # 1-3, 1-4, 2-4 and 3-4 are right; 2-3 is tied in the metric: 4.5 of 5.
    assert coefficients(metric, ratings)[3] == pytest.approx(4.5 / 5)
    assert coefficients(-metric, ratings)[3] == pytest.approx(0.5 / 5)


def test_pairwise_accuracy_counts_pairs():
    x, y = tied()
    points = [
        0.5 if x[a] == x[b] else float((x[a] < x[b]) == (y[a] < y[b]))
        for a, b in combinations(range(len(x)), 2)
        if y[a] != y[b]
    ]
    assert coefficients(x, y)[3] == pytest.approx(np.mean(points))


def test_the_correlations_are_those_of_scipy_and_many_columns_give_the_same():
    x, y = tied()
    expected = [stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0]]
    assert coefficients(x, y)[:3] == pytest.approx(expected)
    few = [tied(6, seed) for seed in range(20)]
    columns = of_columns(*(np.stack(values, axis=1) for values in zip(*few, strict=True)))
    assert pytest.approx(np.stack([coefficients(*pair) for pair in few])) == columns.T


@pytest.mark.parametrize(
    ("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1, 2], [1, 2]), ([], [])]
)
def test_what_is_constant_or_too_short_has_no_coefficient(x, y):
    assert np.isnan(coefficients(np.array(x, float), np.array(y, float))).all()


def test_an_influence_is_what_one_more_copy_adds():
    """By definition: the derivative of the coefficient in the weight of one value."""
    x, y = tied(30)
    copies = 40
    often = np.tile(x, copies), np.tile(y, copies)
    level = coefficients(*often)
    for position, added in enumerate(influences(x, y).T):
        more = [np.append(v, w[position]) for v, w in zip(often, (x, y), strict=True)]
        expected = (coefficients(*more) - level) * (len(x) * copies + 1) / len(x)
        assert added == pytest.approx(expected, rel=0.05, abs=2e-4)


def test_the_standard_error_of_pearson_is_the_textbooks():
    """(1 - r²) / sqrt(n) for normal values (Fisher 1915)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=4000)
    y = 0.6 * x + 0.8 * rng.normal(size=4000)
    error = np.sqrt((influences(x, y)[0] ** 2).sum())
    assert error == pytest.approx((1 - 0.6**2) / np.sqrt(4000), rel=0.05)


def test_the_standard_error_of_tau_without_agreement_is_the_textbooks():
    """sqrt(2 (2n + 5) / (9 n (n - 1))) for independent values (Kendall 1938)."""
    rng = np.random.default_rng(2)
    n = 2000
    x, y = rng.normal(size=(2, n))
    error = np.sqrt((influences(x, y)[2] ** 2).sum())
    assert error == pytest.approx(np.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))), rel=0.05)


def test_changes_are_those_of_computing_again():
    """Exactly so for tau and pairs as long as no rating becomes tied; nearly so for the others."""
    x, y = tied(200)
    y = y + np.random.default_rng(3).normal(0, 1e-6, 200)
    position, instead = np.arange(0, 200, 7), y[::7] + 0.03
    expected = []
    for where, value in zip(position, instead, strict=True):
        changed = y.copy()
        changed[where] = value
        expected.append(coefficients(x, changed) - coefficients(x, y))
    found = changes(x, y, position, instead).T
    assert found[:, 2:] == pytest.approx(np.array(expected)[:, 2:], abs=1e-9)
    assert found[:, :2] == pytest.approx(np.array(expected)[:, :2], rel=0.1, abs=2e-5)


def test_intervals_are_fishers():
    """r = 0.5 over 103 normal values: tanh(atanh 0.5 ± 1.96 / 10) = [0.339, 0.632]."""
    values = np.array([0.5, 0.5, 0.5, 0.75])
    errors = np.array([0.075, 0.075, 0.075, 0.0375])
    low, high = bounds(values, errors, np.full(4, 1e9), 0.95)
    assert low == pytest.approx([0.339, 0.339, 0.339, (1 + 0.339) / 2], abs=1e-3)
    assert high == pytest.approx([0.632, 0.632, 0.632, (1 + 0.632) / 2], abs=1e-3)


def test_an_interval_at_the_limit_is_not_known():
    low, high = bounds(np.array([1.0, -1.0, 1.0, 1.0]), np.zeros(4), np.full(4, 9.0), 0.95)
    assert np.isnan([low, high]).all()


def test_means_without_noise_have_an_interval_of_one_value():
    x, y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    still = x[:, None] + np.zeros(50), y[:, None] + np.zeros(50)
    low, high = percentiles((x, y), still, 0.95)
    assert low == pytest.approx(coefficients(x, y))
    assert high == pytest.approx(coefficients(x, y))


def test_noise_in_the_means_pulls_draws_down_and_pearsons_interval_up_again():
    """True means on a line, observed with noise: the interval must reach up to nearly 1."""
    rng = np.random.default_rng(4)
    true = np.linspace(0, 1, 8)
    x, y = true, true + rng.normal(0, 0.2, 8)
    drawn = x[:, None] + np.zeros(4000), y[:, None] + rng.normal(0, 0.2, (8, 4000))
    _, high = percentiles((x, y), drawn, 0.95)
    assert high[0] > max(0.97, np.quantile(of_columns(*drawn)[0], 0.975))

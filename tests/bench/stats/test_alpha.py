"""Krippendorff's alpha against his published example and against the definition by pairs."""

from itertools import combinations

import numpy as np
import pytest

from bench.stats.alpha import INTERVAL, NOMINAL, ORDINAL, krippendorff_alpha

N = np.nan
# Krippendorff 2011, section C: four observers, twelve units, missing values.
EXAMPLE = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
)


def rows(table):
    rater, unit = np.nonzero(~np.isnan(table))
    return unit, table[rater, unit]


@pytest.mark.parametrize(
    ("scale", "printed"), [(NOMINAL, 0.743), (ORDINAL, 0.815), (INTERVAL, 0.849)]
)
def test_the_published_example(scale, printed):
    assert krippendorff_alpha(*rows(EXAMPLE), scale) == pytest.approx(printed, abs=5e-4)


def test_it_is_one_less_observed_over_expected_disagreement():
    """By its definition, pair by pair, over ratings with gaps."""
    rng = np.random.default_rng(0)
    table = rng.integers(1, 6, (7, 20)).astype(float)
    table[rng.random(table.shape) < 0.4] = np.nan
    unit, value = rows(table)
    several = np.bincount(unit)[unit] > 1
    unit, value = unit[several], value[several]
    observed = sum(
        (a - b) ** 2 / (len(of) - 1) for u in np.unique(unit)
        for of in [value[unit == u]] for a, b in combinations(of, 2)
    ) / len(value)  # fmt: skip
    pairs = list(combinations(value, 2))
    expected = np.mean([(a - b) ** 2 for a, b in pairs]) / 2
    assert krippendorff_alpha(unit, value) == pytest.approx(1 - observed / expected)


def test_bounds_and_undefined_cases():
    unit = np.repeat(np.arange(5), 2)
    assert krippendorff_alpha(unit, np.repeat([1, 2, 3, 4, 5], 2)) == 1
    assert krippendorff_alpha(unit, np.tile([1, 5], 5)) < 0
    assert np.isnan(krippendorff_alpha(np.arange(5), np.arange(5)))
    assert np.isnan(krippendorff_alpha(unit, np.full(10, 3.0)))
    with pytest.raises(ValueError, match="scale"):
        krippendorff_alpha(unit, unit, "ratio")

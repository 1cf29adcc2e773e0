"""Krippendorff's alpha: agreement of raters who each rate some of the units.

The package `krippendorff` computes the same number, but its licence is the GPL (version 3), which
this project cannot import. Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability",
and Content Analysis (2019), chapter 12.
"""

import numpy as np

NOMINAL, ORDINAL, INTERVAL = "nominal", "ordinal", "interval"
SCALES = (NOMINAL, ORDINAL, INTERVAL)


def krippendorff_alpha(unit: np.ndarray, value: np.ndarray, scale: str = INTERVAL) -> float:
    """1 is perfect agreement, 0 what chance would give, below 0 systematic disagreement.

    Args:
        unit: what each value is about, (R,). Units with one value are left out.
        value: numbers, (R,).
        scale: `NOMINAL` (values are equal or not), `ORDINAL` (their ranks count), `INTERVAL`.

    Returns:
        NaN if no unit has two values or all values are equal.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r}: must be one of {', '.join(SCALES)}")
    _, units = np.unique(unit, return_inverse=True)
    paired = np.bincount(units.ravel())[units.ravel()] > 1
    if not paired.any():
        return float("nan")
    values, code = np.unique(np.asarray(value, float)[paired], return_inverse=True)
    _, units = np.unique(units.ravel()[paired], return_inverse=True)
    counts = np.zeros((int(units.max()) + 1, len(values)))
    np.add.at(counts, (units.ravel(), code.ravel()), 1.0)
    raters = counts.sum(axis=1)
    # Coincidences: pairs of different raters of a unit, each unit weighted by its raters.
    weighted = counts / (raters - 1)[:, None]
    coincidence = counts.T @ weighted - np.diag(weighted.sum(axis=0))
    margin = coincidence.sum(axis=0)
    total = margin.sum()
    difference = _squared_differences(values, margin, scale)
    expected = float(margin @ difference @ margin) / (total - 1)
    if expected <= 0:
        return float("nan")
    return float(1 - (coincidence * difference).sum() / expected)


def _squared_differences(values: np.ndarray, margin: np.ndarray, scale: str) -> np.ndarray:
    if scale == NOMINAL:
        return 1.0 - np.eye(len(values))
    if scale == ORDINAL:
        values = np.cumsum(margin) - margin / 2
    return (values[:, None] - values[None, :]) ** 2

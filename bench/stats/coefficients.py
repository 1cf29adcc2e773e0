"""Coefficients of agreement between a metric and mean ratings, and what each value adds to them.

The coefficients are Pearson's r, Spearman's rho, Kendall's tau-b and pairwise accuracy. Their
standard errors are those of the infinitesimal jackknife (Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, chapter 6): the sum of squares of what each value adds. Sums over values
of one trial or one listener give the errors of clustered values.
"""

from collections.abc import Iterator

import numpy as np
from scipy import stats

COEFFICIENTS = ("pearson", "spearman", "kendall", "pairs")
CHUNK = 1 << 22  # pairs held at a time: 32 MB an array
LEAST_LEFT = 0.2  # of the variance between systems: less cannot be told from none
FEWEST = 3  # pairs of values that a coefficient needs


def coefficients(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The coefficients in the order of `COEFFICIENTS`: (4,); NaN where they are not defined.

    Args:
        x: the metric, (N,).
        y: the mean ratings, (N,).

    Returns:
        Pearson's r, Spearman's rho, Kendall's tau-b, each -1 to 1, and pairwise accuracy, 0 to 1:
        the share of pairs, of those with different ratings, that the metric orders as the ratings
        do. Pairs that the metric does not order count half.
    """
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.full(len(COEFFICIENTS), np.nan)
    return np.array(
        [
            stats.pearsonr(x, y).statistic,
            stats.spearmanr(x, y).statistic,
            stats.kendalltau(x, y).statistic,
            accuracy(x, y),
        ]
    )


def accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """Pairwise accuracy: see `coefficients`.

    tau-b is (C - D) / sqrt((pairs untied in x) (pairs untied in y)); the accuracy follows from
    C - D and the second count.
    """
    pairs = len(x) * (len(x) - 1) / 2
    untied_x, untied_y = (pairs - _tied(values) for values in (x, y))
    difference = stats.kendalltau(x, y).statistic * np.sqrt(untied_x * untied_y)
    return float((1 + difference / untied_y) / 2)


def of_columns(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`coefficients` of every column of x and y, both (N, R), for few rows: (4, R).

    As fast as `coefficients` for one pair of columns takes for a few; NaN where not defined.
    """

    def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))

    first, second = np.triu_indices(len(x), 1)
    of_x, of_y = np.sign(x[first] - x[second]), np.sign(y[first] - y[second])
    agreement = (of_x * of_y).sum(axis=0)
    untied_x, untied_y = np.abs(of_x).sum(axis=0), np.abs(of_y).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                correlation(x, y),
                correlation(stats.rankdata(x, axis=0), stats.rankdata(y, axis=0)),
                agreement / np.sqrt(untied_x * untied_y),
                (1 + agreement / untied_y) / 2,
            ]
        )


def influences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each pair of values adds to the coefficients: (4, N); each row sums to 0.

    The sum of squares of a row estimates the variance of its coefficient over independent values.
    For the rank coefficients these are the projections of their sums over pairs (Hoeffding 1948,
    doi:10.1214/aoms/1177730196, section 5; Spearman's with section 9b), ties included.

    Args:
        x: the metric, (N,), not constant.
        y: the mean ratings, (N,), not constant.
    """
    n = len(x)
    a, b = x - x.mean(), y - y.mean()
    r = _ratio(a * b, a**2, b**2)
    rank_x, rank_y = _centred_ranks(x), _centred_ranks(y)
    agree, untied_x, untied_y, of_x, of_y = (np.empty(n) for _ in range(5))
    for part in _parts(n, n):
        sign_x = np.sign(x[part, None] - x)
        sign_y = np.sign(y[part, None] - y)
        agree[part] = (sign_x * sign_y).mean(axis=1)
        untied_x[part], untied_y[part] = np.abs(sign_x).mean(axis=1), np.abs(sign_y).mean(axis=1)
        # Ranks of the others contain the sign of their difference from this value.
        of_x[part] = rank_x[part] * rank_y[part] - sign_x @ rank_y / n - sign_y @ rank_x / n
        of_y[part] = rank_y[part] ** 2 - 2 * (sign_y @ rank_y) / n
    square_x = np.empty(n)
    for part in _parts(n, n):
        square_x[part] = rank_x[part] ** 2 - 2 * (np.sign(x[part, None] - x) @ rank_x) / n
    rho = _ratio_influence(
        (float((rank_x * rank_y).mean()), of_x - of_x.mean()),
        (float((rank_x**2).mean()), square_x - square_x.mean()),
        (float((rank_y**2).mean()), of_y - of_y.mean()),
    )
    pairs = [(float(v.mean()), 2 * (v - v.mean())) for v in (agree, untied_x, untied_y)]
    tau = _ratio_influence(*pairs)
    (level, of_level), _, (below, of_below) = pairs
    share = (of_level / below - level * of_below / below**2) / 2
    return np.stack([r, rho, tau, share]) / n


def changes(x: np.ndarray, y: np.ndarray, position: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """How much the coefficients change if one rating is replaced: (4, R).

    Args:
        x: the metric, (N,), not constant.
        y: the mean ratings, (N,), not constant.
        position: which value of y is replaced, (R,).
        instead: what it is replaced by, (R,). The change is linear in small steps.
    """
    n = len(x)
    a, b = x - x.mean(), y - y.mean()
    spread_x, spread_y = np.sqrt(a @ a), np.sqrt(b @ b)
    slope = a / (spread_x * spread_y) - (a @ b) * b / (spread_x * spread_y**3)
    out = np.empty((len(COEFFICIENTS), len(position)))
    out[0] = slope[position] * (instead - y[position])
    rank_x, rank_y = _centred_ranks(x), _centred_ranks(y)
    agree, untied_x, untied_y = _pair_means(x, y)
    of_ranks, square_x, square_y = (
        float(v.mean()) for v in (rank_x * rank_y, rank_x**2, rank_y**2)
    )
    order = np.argsort(y, kind="stable")
    ordered = y[order]
    # How many values are lower, and how many are not higher: before and after the replacement.
    sides = [
        [np.searchsorted(ordered, value, side) for side in ("left", "right")]
        for value in (y[position], instead)
    ]

    def step(
        weights: np.ndarray, chosen: np.ndarray | slice = slice(None), row: np.ndarray | int = 0
    ) -> np.ndarray:
        """The change of the sums of weights (rows, N) of lower less those of higher values."""
        sums = np.pad(np.cumsum(weights[:, order], axis=1), ((0, 0), (1, 0)))
        before, after = (sums[row, low[chosen]] + sums[row, upto[chosen]] for low, upto in sides)
        return after - before

    # The value itself is lower or higher than its replacement, but is compared with nothing.
    moved = np.sign(instead - y[position])
    steps = step(np.ones((1, n))) - moved
    in_ranks = rank_x[position] * steps - (step(rank_x[None]) - moved * rank_x[position])
    in_square = rank_y[position] * steps - (step(rank_y[None]) - moved * rank_y[position])
    out[1] = _ratio_influence(
        (of_ranks, in_ranks / n**2), (square_x, np.zeros(1)), (square_y, 2 * in_square / n**2)
    )
    (low, upto), (lower, up_to) = sides
    in_untied = 2 * ((upto - low) - (up_to - lower) - np.abs(moved)) / n**2
    in_agree = np.empty(len(position))
    for part in _parts(n, n):
        mine = np.flatnonzero((position >= part.start) & (position < part.stop))
        if len(mine):
            in_agree[mine] = step(np.sign(x[part, None] - x), mine, position[mine] - part.start)
    in_agree *= 2 / n**2
    out[2] = _ratio_influence((agree, in_agree), (untied_x, np.zeros(1)), (untied_y, in_untied))
    out[3] = (in_agree / untied_y - agree * in_untied / untied_y**2) / 2
    return out


def bounds(
    values: np.ndarray, errors: np.ndarray, free: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of coefficients with these standard errors, by Fisher's transformation.

    Args:
        values: (4, …) in the order of `COEFFICIENTS`.
        errors: their standard errors.
        free: degrees of freedom of the errors.
        level: such as 0.95.

    Returns:
        The lower and upper bounds; NaN where the error is not known or the value is a limit.
    """
    scale = np.array([1.0, 1.0, 1.0, 2.0]).reshape(-1, *[1] * (values.ndim - 1))
    shift = np.array([0.0, 0.0, 0.0, 1.0]).reshape(scale.shape)
    correlation = scale * values - shift  # pairwise accuracy as a share of right less wrong pairs
    inside = np.abs(correlation) < 1
    correlation = np.where(inside, correlation, np.nan)
    reach = stats.t.ppf((1 + level) / 2, free) * scale * errors / (1 - correlation**2)
    centre = np.arctanh(correlation)
    return (np.tanh(centre - reach) + shift) / scale, (np.tanh(centre + reach) + shift) / scale


def percentiles(
    centre: tuple[np.ndarray, np.ndarray], drawn: tuple[np.ndarray, np.ndarray], level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the coefficients over systems from draws of the systems' means.

    Draws have the noise of the means twice, which makes agreement look weaker. For Pearson's r the
    interval therefore also covers the reversed percentiles (Davison and Hinkley 1997, section 5.2)
    about means whose spread is shrunk to what is left without noise: these correct for it. Rank
    coefficients of few systems jump: theirs are the percentiles, which cover more than `level`.

    Args:
        centre: the metric and the mean rating of each system, (S,) each.
        drawn: draws of both, (S, R) each.
        level: such as 0.95.
    """
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = np.nanquantile(of_columns(*drawn), ends, axis=1)
    value = coefficients(*centre)
    low, high = np.minimum(low, value), np.maximum(high, value)
    shrunk = [c[:, None] * _left(c, d) + d - c[:, None] for c, d in zip(centre, drawn, strict=True)]
    with np.errstate(divide="ignore"):
        first, last = np.quantile(np.arctanh(of_columns(*shrunk)[0]), ends)
        if np.isfinite(z := np.arctanh(value[0])):
            low[0], high[0] = (
                min(low[0], np.tanh(2 * z - last)),
                max(high[0], np.tanh(2 * z - first)),
            )
    return low, high


def _ratio(product: np.ndarray, square_x: np.ndarray, square_y: np.ndarray) -> np.ndarray:
    terms = [(float(v.mean()), v - v.mean()) for v in (product, square_x, square_y)]
    return _ratio_influence(*terms)


def _ratio_influence(
    top: tuple[float, np.ndarray], left: tuple[float, np.ndarray], right: tuple[float, np.ndarray]
) -> np.ndarray:
    """The change of top / sqrt(left right) for changes of its parts: each (value, changes)."""
    below = np.sqrt(left[0] * right[0])
    value = top[0] / below
    return top[1] / below - value / 2 * (left[1] / left[0] + right[1] / right[0])


def _pair_means(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Means over all ordered pairs: agreement of signs, whether x and whether y differ."""
    n = len(x)
    untied_x, untied_y = (1 - (n + 2 * _tied(v)) / n**2 for v in (x, y))
    agree = stats.kendalltau(x, y).statistic * np.sqrt(untied_x * untied_y)
    return float(agree), untied_x, untied_y


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """The share of lower less the share of higher values, of each."""
    return (2 * stats.rankdata(values) - len(values) - 1) / len(values)


def _tied(values: np.ndarray) -> float:
    """The number of unordered pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(float)
    return float((counts * (counts - 1) / 2).sum())


def _parts(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _left(values: np.ndarray, drawn: np.ndarray) -> float:
    """The share of the spread of values (S,) that is not noise, as a standard deviation."""
    noise = drawn - values[:, None]
    within = float((noise - noise.mean(axis=0)).var(axis=1).sum()) / (len(values) - 1)
    return float(np.sqrt(max(1 - within / values.var(ddof=1), LEAST_LEFT)))

"""Simulated listening tests whose agreement with a metric is known."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal

from bench.results import ScoredRun
from bench.stats.agreement import agreement
from bench.stats.coefficients import COEFFICIENTS, coefficients
from tests.support.made_up import run
from tests.support.simulation import drawn, grid, ring

JUDGE, METRIC = "utmos", "utmos"


@dataclass(frozen=True)
class Test:
    """A listening test over systems of known quality. Standard deviations are those of one effect.

    Attributes:
        design: numbers of the source and target speaker of every trial: see `ring`.
        quality: true mean rating of each system.
        measured: true mean of the metric of each system.
        effects: of the source speaker, the target speaker and the utterance, on quality and metric.
        correlation: of these effects on quality with those on the metric.
        listeners: how many.
        share: of the trials that a listener rates.
        bias: standard deviation of a listener's mean.
        taste: standard deviation of a listener's preference for a system.
        noise: standard deviation of one rating.
        whole: whether ratings are rounded to 1, 2, 3, 4, 5.
    """

    __test__ = False  # no test of pytest

    design: tuple[np.ndarray, np.ndarray]
    quality: tuple[float, ...] = (2.5, 2.9, 3.1, 3.5, 3.9, 4.0)
    measured: tuple[float, ...] = (2.9, 2.7, 3.2, 3.2, 3.7, 4.1)
    effects: tuple[float, float, float] = (0.2, 0.2, 0.5)
    correlation: float = 0.5
    listeners: int = 12
    share: float = 1.0
    bias: float = 0.4
    taste: float = 0.15
    noise: float = 0.8
    whole: bool = False

    def simulated(self, rng: np.random.Generator) -> tuple[ScoredRun, pd.DataFrame]:
        """A run and the ratings of its conversions."""
        source, target = self.design
        trials, systems = len(source), len(self.quality)
        one, other = (drawn(source, target, self.effects, systems, rng) for _ in range(2))
        quality = one + np.array(self.quality)
        rest = np.sqrt(1 - self.correlation**2)
        metric = self.correlation * one + rest * other + np.array(self.measured)
        tables = [
            pd.DataFrame(
                {
                    "system": f"s{k}",
                    "suite": "s",
                    "trial_id": [f"t{i:04d}" for i in range(trials)],
                    "status": "ok",
                    "error": "",
                    "source_speaker": [f"S{i}" for i in source],
                    "target_speaker": [f"T{i}" for i in target],
                    "elapsed_seconds": np.nan,
                    "audio_seconds": np.nan,
                    f"{JUDGE}.{METRIC}": metric[:, k],
                }
            )
            for k in range(systems)
        ]
        shape = (trials, systems, self.listeners)
        given = quality[:, :, None] + rng.normal(0, self.bias, self.listeners)
        given = given + rng.normal(0, self.taste, shape[1:]) + rng.normal(0, self.noise, shape)
        if self.whole:
            given = np.clip(np.round(given), 1, 5)
        asked = np.ones((trials, self.listeners), bool)
        if self.share < 1:  # every trial by as many listeners
            count = round(self.share * self.listeners)
            order = rng.permuted(np.tile(np.arange(self.listeners), (trials, 1)), axis=1)
            asked = order < count
        trial, system, listener = np.nonzero(np.broadcast_to(asked[:, None], shape))
        ratings = pd.DataFrame(
            {
                "system": np.array([f"s{k}" for k in range(systems)])[system],
                "trial_id": np.array([f"t{i:04d}" for i in range(trials)])[trial],
                "listener": np.array([f"l{k}" for k in range(self.listeners)])[listener],
                "rating": given[trial, system, listener],
            }
        )
        suites = {"s": {"sha256": "1" * 64, "trials": trials}}
        return run("simulated", *tables, suites=suites), ratings

    @property
    def raters(self) -> int:
        """How many listeners rate an utterance."""
        return round(self.share * self.listeners)

    def truth(self) -> dict[tuple[str, str], float]:
        """(level, coefficient) → its value over infinitely many trials, in closed form.

        Per utterance, with the mean of `raters` listeners; per system, with infinitely many.
        """
        if self.whole:
            raise ValueError("the ratings are rounded: there is no closed form")
        of_systems = _of_systems(np.array(self.measured), np.array(self.quality))
        truth = {("system", name): value for name, value in of_systems.items()}
        return truth | {("utterance", n): v for n, v in self._per_utterance().items()}

    def _per_utterance(self) -> dict[str, float]:
        systems = len(self.quality)
        of_metric = of_quality = float(np.square(self.effects).sum())
        shared = self.correlation * of_metric
        within = of_quality + self.noise**2 / self.raters
        if self.share < 1:  # every utterance has other listeners
            within += (self.bias**2 + self.taste**2) * (1 / self.raters - 1 / self.listeners)
        taste = self.taste**2 / self.listeners  # moves the mean of a whole system
        x, q = np.array(self.measured), np.array(self.quality)
        spread = [
            np.var(x),
            np.var(q) + taste * (1 - 1 / systems),
            np.mean(x * q) - x.mean() * q.mean(),
        ]
        pearson = (spread[2] + shared) / np.sqrt((spread[0] + of_metric) * (spread[1] + within))
        tau = np.mean(
            [
                _sign_product(
                    (x[a] - x[b], q[a] - q[b]),
                    (2 * of_metric, 2 * within + 2 * taste * (a != b), 2 * shared),
                )
                for a, b in product(range(systems), repeat=2)
            ]
        )
        rho = 3 * np.mean(
            [
                _sign_product(
                    (x[a] - x[b], q[a] - q[c]),
                    (2 * of_metric, 2 * within + 2 * taste * (a != c), shared),
                )
                for a, b, c in product(range(systems), repeat=3)
            ]
        )
        return {
            "pearson": float(pearson),
            "spearman": float(rho),
            "kendall": float(tau),
            "pairs": float((1 + tau) / 2),
        }


def _sign_product(mean: tuple[float, float], moments: tuple[float, float, float]) -> float:
    """The mean of the product of the signs of two normal variables.

    Args:
        mean: of both.
        moments: the variance of each, and their covariance.
    """
    first, second = (m / np.sqrt(v) for m, v in zip(mean, moments, strict=False))
    correlation = moments[2] / np.sqrt(moments[0] * moments[1])
    normal = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    positive, negative = normal.cdf([first, second]), normal.cdf([-first, -second])
    return float(2 * (positive + negative) - 1)


def _of_systems(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The coefficients by their definitions, pair by pair."""
    first, second = np.triu_indices(len(x), 1)
    signs = np.sign(x[first] - x[second]), np.sign(y[first] - y[second])
    different = signs[1] != 0
    agreement = float((signs[0] * signs[1]).sum())
    untied = [float(np.abs(s).sum()) for s in signs]
    ranks = (pd.Series(v).rank() for v in (x, y))
    return {
        "pearson": float(np.corrcoef(x, y)[0, 1]),
        "spearman": float(np.corrcoef(*ranks)[0, 1]),
        "kendall": agreement / np.sqrt(untied[0] * untied[1]),
        "pairs": float((1 + (signs[0] * signs[1])[different].mean()) / 2),
    }


TESTS = {
    "18 speakers, 72 trials, 12 listeners": Test(ring(18, 4)),
    "the same, ratings 1 to 5": Test(ring(18, 4), whole=True),
    "10 speakers, 20 trials, 20 listeners": Test(ring(10, 2), listeners=20),
    "6 x 6, full, 8 listeners": Test(grid(6, 6), listeners=8),
    "10 x 10, full, 30 listeners, each 20%": Test(grid(10, 10), listeners=30, share=0.2),
    "no agreement": Test(ring(18, 4), measured=(3.2, 3.9, 2.7, 3.7, 2.9, 3.3), correlation=0.0),
    "close systems, strong taste": Test(
        ring(18, 4),
        quality=(3.0, 3.05, 3.2, 3.3, 3.35, 3.6),
        measured=(3.1, 2.9, 3.2, 3.4, 3.5, 3.45),
        correlation=0.8,
        taste=0.4,
    ),
}


def sampled_truth(test: Test, trials: int = 2000, times: int = 40) -> dict[tuple[str, str], float]:
    """As `Test.truth`, from large samples: each speaker has one trial. For rounded ratings."""
    many = replace(test, design=(np.arange(trials), np.arange(trials)))
    rng = np.random.default_rng(2)
    rows, means = [], []
    for _ in range(times):
        results, ratings = many.simulated(rng)
        heard = ratings.groupby(["system", "trial_id"])["rating"].mean()
        metric = results.scores.set_index(["system", "trial_id"])[f"{JUDGE}.{METRIC}"]
        rows.append(coefficients(metric.reindex(heard.index).to_numpy(), heard.to_numpy()))
        means.append(heard.groupby("system").mean().to_numpy())
    of_systems = _of_systems(np.array(test.measured), np.mean(means, axis=0))
    utterances = dict(zip(COEFFICIENTS, np.mean(rows, axis=0), strict=True))
    return {("system", name): value for name, value in of_systems.items()} | {
        ("utterance", name): float(value) for name, value in utterances.items()
    }


def shares(test: Test, simulations: int, rng: np.random.Generator) -> pd.DataFrame:
    """How often the 95% intervals of simulated tests contain the truth.

    Returns:
        One row per level and coefficient: level, coefficient, truth, mean (of the estimates),
        covered (share), width (mean).
    """
    truth = sampled_truth(test) if test.whole else test.truth()
    tables = []
    for _ in range(simulations):
        found = agreement(*test.simulated(rng), splits=0).table
        tables.append(found[found["judge"] == JUDGE])
    table = pd.concat(tables)
    keys = zip(table["level"], table["coefficient"], strict=True)
    table["truth"] = [truth[key] for key in keys]
    # Coefficients over few systems are often equal to a bound, up to the last digits.
    inside = (table["low"] <= table["truth"] + 1e-9) & (table["truth"] <= table["high"] + 1e-9)
    table = table.assign(covered=inside, mean=table["value"], width=table["high"] - table["low"])
    columns = ["truth", "mean", "covered", "width"]
    return table.groupby(["level", "coefficient"], sort=False)[columns].mean().reset_index()

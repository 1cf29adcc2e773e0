"""Agreement of every metric of a run with listeners' ratings, and of listeners with one another.

Per utterance, a coefficient is over the outputs of all rated systems together; per system, over
the systems' means. The systems are taken as given: intervals are about other speakers, trials and
listeners, never about other systems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.metrics import METRICS, Measure
from bench.results import ScoredRun
from bench.stats.coefficients import (
    COEFFICIENTS,
    FEWEST,
    bounds,
    coefficients,
    influences,
    of_columns,
)
from bench.stats.crossed import LEVEL, MIN_SPEAKERS, Crossed, Estimate
from bench.stats.panel import SPLITS, Panel, ceiling
from bench.stats.pooling import judge_table, measures_in
from bench.stats.ratings import checked

LISTENERS = "listeners"  # stands for the judge in the rows of the human ceiling
UTTERANCE, SYSTEM = "utterance", "system"  # levels
# The rows of the human ceiling, by their key in the column `metric`.
CEILINGS = {
    "half": "half of the listeners against the other half",
    "panel": "all listeners against as many others (Spearman-Brown)",
    "one": "one listener against the others",
}
RESAMPLES = 200  # of speakers; only the standard errors are used
DRAWS = 4000  # of system means
FEW_SYSTEMS = 10  # with fewer, a note says how little a coefficient over systems means


@dataclass(frozen=True)
class Agreement:
    """The result.

    Attributes:
        table: one row per question × suite × level × judge × metric × coefficient with the columns
            question ("" if there is one), suite, level, judge (`LISTENERS` for the human ceiling),
            metric (a key of `METRICS` or of `CEILINGS`), coefficient (see
            `bench.stats.coefficients.COEFFICIENTS`), value, low, high (NaN where not known), n
            (utterances or systems). Values of metrics where lower is better are those of the
            negated metric: positive, and above 0.5 for pairs, always means agreement.
        counts: one row per question × suite × system: ratings, listeners, rated and unrated
            (converted utterances with and without a rating), without_sound (failed or absent).
        notes: what was left out, and what limits the numbers.
    """

    table: pd.DataFrame
    counts: pd.DataFrame
    notes: tuple[str, ...]


def agreement(
    run: ScoredRun,
    ratings: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    systems: Sequence[str] | None = None,
    level: float = LEVEL,
    seed: int = 0,
    source: str = "ratings",
    splits: int = SPLITS,
) -> Agreement:
    """Correlates every metric of a run with listeners' ratings.

    Args:
        run: the run that the rated conversions are of.
        ratings: columns system, trial_id, listener, rating; suite if the run has several; question
            or scale if several were asked (nmos, smos). Other columns are left out by a note.
        metrics: keys of METRICS; None for all that have a direction and were measured.
        systems: use ratings of these systems only; None for all that were rated.
        level: of the intervals.
        seed: of splits and draws.
        source: the file, for errors: "ratings.csv"; the index of `ratings` has the lines.
        splits: of the listeners into halves, for the human ceiling; 0 for no ceiling.

    Raises:
        UserError: names the row whose system, suite, trial or rating cannot be, or that is given
            twice; also if nothing is left to correlate.
    """
    table, notes = checked(run, ratings, source)
    if systems is not None:
        for name in systems:
            if name not in set(table["system"]):
                known = choose_one_of(name, table["system"].unique())
                raise UserError(f"systems={name}: {source} has no rating of it; {known}")
        others = [s for s in table["system"].unique() if s not in systems]
        if others:
            notes.append(f"Ratings left out, as asked: of {', '.join(others)}.")
        table = table[table["system"].isin(systems)]
    rows: list[dict[str, object]] = []
    counts: list[dict[str, object]] = []
    for (question, suite), of_suite in table.groupby(["question", "suite"], sort=False):
        one = _Rated(run, str(question), str(suite), of_suite, level, seed, splits)
        rows += one.rows(metrics)
        counts += one.counts()
        notes += one.notes
    if not any(row["judge"] != LISTENERS for row in rows):
        raise UserError(
            f"{run.folder} has no measured metric over the rated conversions"
            + (f" of those asked for: {', '.join(metrics)}" if metrics else "")
        )
    return Agreement(pd.DataFrame(rows), pd.DataFrame(counts), tuple(dict.fromkeys(notes)))


class _Rated:
    """The ratings of one question over one suite, with the scores of what was rated."""

    def __init__(
        self,
        run: ScoredRun,
        question: str,
        suite: str,
        ratings: pd.DataFrame,
        level: float,
        seed: int,
        splits: int,
    ) -> None:
        self.question, self.suite, self.level, self.seed = question, suite, level, seed
        self.splits = splits
        self.notes: list[str] = []
        self.ratings = ratings
        scores = run.scores[run.scores["suite"] == suite]
        of_systems = set(ratings["system"])
        self.systems = [s for s in scores["system"].unique() if s in of_systems]
        self.scores = scores[scores["system"].isin(self.systems)].set_index(["system", "trial_id"])
        pairs = pd.MultiIndex.from_frame(ratings[["system", "trial_id"]])
        self.rated = self.scores[self.scores.index.isin(pairs)]
        trials = self.rated.reset_index("system").groupby("trial_id", sort=False).first()
        # The order of trials and listeners in the files changes nothing.
        trials = trials.sort_index()
        self.crossed = Crossed(
            trials["source_speaker"], trials["target_speaker"], resamples=RESAMPLES, seed=seed
        )
        names = self.rated.index
        self.panel = Panel(
            pd.Index(self.systems).get_indexer(names.get_level_values("system")),
            trials.index.get_indexer(names.get_level_values("trial_id")),
            names.get_indexer(pairs),
            np.unique(ratings["listener"].to_numpy(str), return_inverse=True)[1].ravel(),
            ratings["rating"].to_numpy(float),
        )
        self.trials = len(trials)
        self.note()

    @property
    def where(self) -> str:
        """Question and suite, for notes."""
        return " · ".join(filter(None, (self.question, self.suite)))

    def note(self) -> None:
        """Notes what limits the numbers."""
        panel = self.panel
        if panel.listeners < MIN_SPEAKERS:
            self.notes.append(
                f"{self.where}: {panel.listeners} listeners; no interval and no ceiling with fewer "
                f"than {MIN_SPEAKERS}."
            )
        elif np.bincount(panel.utterance).max() < 2:
            self.notes.append(
                f"{self.where}: no utterance was rated by two listeners; no interval, since the "
                "listeners' part of the uncertainty cannot be known."
            )
        of_system = [set(panel.trial[panel.system == s]) for s in range(len(self.systems))]
        if any(trials != of_system[0] for trials in of_system):
            self.notes.append(
                f"{self.where}: the systems were rated over different trials; differences between "
                "trials are part of the coefficients per system."
            )
        if len(self.systems) < FEW_SYSTEMS:
            self.notes.append(
                f"{self.where}: {len(self.systems)} systems; intervals per system are about other "
                "trials and listeners and say nothing about other systems."
            )

    def counts(self) -> list[dict[str, object]]:
        """See `Agreement.counts`."""
        rows: list[dict[str, object]] = []
        for system in self.systems:
            given = self.ratings[self.ratings["system"] == system]
            status = self.scores.loc[system]["status"]
            rated = given["trial_id"].nunique()
            rows.append(
                {
                    "question": self.question,
                    "suite": self.suite,
                    "system": system,
                    "ratings": len(given),
                    "listeners": given["listener"].nunique(),
                    "rated": rated,
                    "unrated": int((status == "ok").sum()) - rated,
                    "without_sound": int((status != "ok").sum()),
                }
            )
        return rows

    def rows(self, metrics: Sequence[str] | None) -> list[dict[str, object]]:
        """See `Agreement.table`."""
        terms: dict[Measure, np.ndarray] = {}
        for judge, name in measures_in(self.rated.columns):
            if metrics is not None and name not in metrics:
                continue
            metric = METRICS[name]
            of_metric = metric.terms(judge_table(self.rated, judge)).reindex(self.rated.index)
            if of_metric.isna().all(axis=None):
                continue
            if metric.higher_is_better is None:
                self.notes.append(
                    f"{metric.label} ({judge}) has no direction: no value is better than another; "
                    "it is left out."
                )
                continue
            sign = 1.0 if metric.higher_is_better else -1.0
            terms[judge, name] = of_metric.to_numpy(float) * [sign, 1.0]
        rows: list[dict[str, object]] = []
        for where, of_level in (
            (UTTERANCE, self._per_utterance(terms)),
            (SYSTEM, self._per_system(terms)),
        ):
            for (judge, name), (n, value, low, high) in of_level.items():
                rows += self._rows(where, judge, name, n, value, low, high)
            top = ceiling(self.panel, where == SYSTEM, self.splits, self.seed)
            unknown = np.full(len(COEFFICIENTS), np.nan)
            for name in CEILINGS:
                rows += self._rows(
                    where, LISTENERS, name, top.n, getattr(top, name), unknown, unknown
                )
        return rows

    def _rows(
        self,
        where: str,
        judge: str,
        metric: str,
        n: int,
        value: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> list[dict[str, object]]:
        return [
            {
                "question": self.question,
                "suite": self.suite,
                "level": where,
                "judge": judge,
                "metric": metric,
                "coefficient": name,
                "value": float(value[k]),
                "low": float(low[k]),
                "high": float(high[k]),
                "n": n,
            }
            for k, name in enumerate(COEFFICIENTS)
        ]

    def _per_utterance(self, terms: Mapping[Measure, np.ndarray]) -> dict[Measure, "_Result"]:
        """Coefficients over utterances, with intervals by Fisher's transformation."""
        results: dict[Measure, _Result] = {}
        known: list[Measure] = []
        columns, between, free = [], [], []
        for measure, parts in terms.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                x = parts[:, 0] / parts[:, 1]
            present = np.isfinite(x)
            panel = self.panel.part(present)
            x, means = x[present], panel.means()
            value = coefficients(x, means) if len(x) else np.full(len(COEFFICIENTS), np.nan)
            unknown = np.full(len(COEFFICIENTS), np.nan)
            results[measure] = (len(x), value, unknown, unknown)
            if np.isnan(value).any():
                self._constant(measure, len(x), "utterances")
                continue
            if not self._enough(panel):
                continue
            added = influences(x, means)
            by_trial = np.stack([np.bincount(panel.trial, a, self.trials) for a in added], axis=1)
            without = np.bincount(panel.trial, minlength=self.trials) == 0
            by_trial *= (~without).sum()  # a mean over trials is what `Crossed` estimates
            columns.append(np.where(without[:, None], np.nan, by_trial))
            rows = [panel.influences(x, biased) for biased in (True, False)]
            between.append(
                np.array([panel.excess([a], [b])[0, 0] for a, b in zip(*rows, strict=True)])
            )
            free.append(panel.listeners - 1)
            known.append(measure)
        if known:
            numerators = np.hstack(columns)
            estimates = self.crossed.ratios(numerators, np.where(np.isnan(numerators), np.nan, 1.0))
            for k, measure in enumerate(known):
                of_metric = estimates[len(COEFFICIENTS) * k :][: len(COEFFICIENTS)]
                error, df = _combined(of_metric, between[k], free[k])
                n, value, *_ = results[measure]
                results[measure] = (n, value, *bounds(value, error, df, self.level))
        return results

    def _per_system(self, terms: Mapping[Measure, np.ndarray]) -> dict[Measure, "_Result"]:
        """Coefficients over the means of systems."""
        results: dict[Measure, _Result] = {}
        for measure, parts in terms.items():
            present = ~np.isnan(parts).any(axis=1) & (self._totals(parts) > 0)
            panel = self.panel.part(present)
            systems = np.unique(panel.system)
            x, means = self._means_of(panel, parts[present], systems)
            value = coefficients(x, means)
            unknown = np.full(len(COEFFICIENTS), np.nan)
            results[measure] = (len(x), value, unknown, unknown)
            if np.isnan(value).any():
                self._constant(measure, len(x), "systems")
            elif self._enough(panel):
                drawn = self._drawn(panel, parts[present], systems)
                if drawn is not None:
                    low, high = percentiles(value, of_columns(*drawn), self.level)
                    results[measure] = (len(x), value, low, high)
        return results

    def _totals(self, parts: np.ndarray) -> np.ndarray:
        """The sum of the denominators of each utterance's system."""
        sums = np.bincount(self.panel.system, np.nan_to_num(parts[:, 1]), len(self.systems))
        return sums[self.panel.system]

    @staticmethod
    def _means_of(
        panel: Panel, parts: np.ndarray, systems: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pooled metric, and the mean rating, of each of these systems."""
        top, below = (np.bincount(panel.system, column)[systems] for column in parts.T)
        return top / below, panel.system_means(panel.means(), systems)

    def _drawn(
        self, panel: Panel, parts: np.ndarray, systems: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Draws of the systems' metrics and mean ratings, each (S, DRAWS); None if not known."""
        count = len(systems)
        numerators, denominators = (np.full((self.trials, 2 * count), np.nan) for _ in range(2))
        means = panel.means()
        for k, system in enumerate(systems):
            of_system = panel.system == system
            trial = panel.trial[of_system]
            numerators[trial, k], denominators[trial, k] = parts[of_system].T
            numerators[trial, count + k], denominators[trial, count + k] = means[of_system], 1.0
        covariance, df = _covariance(self.crossed, numerators, denominators)
        if covariance is None:
            return None
        per_system = np.bincount(panel.system, minlength=len(self.systems))
        n = np.bincount(panel.utterance)[panel.utterance]
        share = np.where(n > 1, 1 / np.sqrt(np.maximum(n * (n - 1), 1)), 0.0)
        share /= per_system[panel.system[panel.utterance]]
        mask = panel.system[panel.utterance] == systems[:, None]
        rows = [mask * share * panel.deviations(biased) for biased in (True, False)]
        extra = panel.excess(*[list(row) for row in rows])
        rng = np.random.default_rng(self.seed)
        drawn = _normal(rng, covariance, df)
        drawn[count:] += _normal(rng, extra, panel.listeners - 1)
        x, y = self._means_of(panel, parts, systems)
        return x[:, None] + drawn[:count], y[:, None] + drawn[count:]

    def _enough(self, panel: Panel) -> bool:
        return panel.listeners >= MIN_SPEAKERS and bool(np.bincount(panel.utterance).max() > 1)

    def _constant(self, measure: Measure, n: int, noun: str) -> None:
        judge, name = measure
        why = f"fewer than {FEWEST} {noun}" if n < FEWEST else f"it is the same for all {noun}"
        self.notes.append(
            f"{self.where}: no coefficient of {METRICS[name].label} ({judge}) over {noun}: {why}."
        )


_Result = tuple[int, np.ndarray, np.ndarray, np.ndarray]  # n, value, low, high


def _combined(
    estimates: Sequence[Estimate], extra: np.ndarray, free: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors and degrees of freedom of trials and listeners together."""
    trials = np.array([e.se for e in estimates]) ** 2
    df = np.array([e.df for e in estimates])
    total = trials + extra
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(total), total**2 / (trials**2 / df + extra**2 / free)


def _covariance(
    crossed: Crossed, numerators: np.ndarray, denominators: np.ndarray
) -> tuple[np.ndarray | None, float]:
    """The covariance of pooled ratios over trials, and its degrees of freedom; None if not known.

    From the variances of the ratios and of their differences: those decide the order of systems.
    """
    count = numerators.shape[1]
    scale = np.nanstd(numerators / denominators, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    first, second = np.triu_indices(count, 1)
    weights = np.zeros((count + len(first), count))
    weights[:count] = np.eye(count)
    weights[np.arange(count, len(weights)), first] = 1
    weights[np.arange(count, len(weights)), second] = -1
    estimates = crossed.contrasts(numerators / scale, denominators, weights)
    variance = np.array([e.se for e in estimates]) ** 2
    if np.isnan(variance).any():
        return None, float("nan")
    single = variance[:count]
    covariance = np.diag(single)
    covariance[first, second] = (single[first] + single[second] - variance[count:]) / 2
    covariance[second, first] = covariance[first, second]
    return covariance * np.outer(scale, scale), float(np.median([e.df for e in estimates]))


def _normal(rng: np.random.Generator, covariance: np.ndarray, df: float) -> np.ndarray:
    """Draws of Student's distribution with this covariance of the normal part: (K, DRAWS)."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))
    drawn = root @ rng.normal(size=(len(covariance), DRAWS))
    return drawn * np.sqrt(df / rng.chisquare(df, DRAWS))


def percentiles(
    value: np.ndarray, drawn: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the coefficients from draws of them, (4, R)."""
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = np.nanquantile(drawn, ends, axis=1)
    return np.minimum(low, value), np.maximum(high, value)

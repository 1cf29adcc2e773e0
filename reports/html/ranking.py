"""Ranks the trials of a suite, worst first, by similarity and by intelligibility."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.metrics import INTELLIGIBILITY, LEAKAGE, METRICS, SIMILARITY, Measure, leading
from bench.results import ScoredRun
from bench.stats.pooling import judge_table, measures_of
from reports.tables import number, systems_of


@dataclass(frozen=True)
class Ranking:
    """The trials of a suite from worst to best by one measure of one system.

    Attributes:
        title: the measure and the system, in words.
        trial_ids: failed conversions first, then from worst to best, unmeasured ones last.
        reasons: trial id → the measurement, in words.
        failed: trials that the system failed on.
    """

    title: str
    trial_ids: tuple[str, ...]
    reasons: dict[str, str]
    failed: frozenset[str]


def rankings(results: ScoredRun, suite: str) -> list[Ranking]:
    """Two rankings for every system: by the change of the voice, and by wrong words.

    The first is by margin: similarity to the target less similarity to the source (without the
    latter if the source has no enrolment). The second is by the trial's error rate. Each uses the
    leading metric of the first judge that measures it. Recordings are ranked only if the run has no
    other systems. With several systems, rankings by the difference between systems come last.
    """
    systems = systems_of(results, suite)
    systems = [s for s in systems if s not in results.anchors] or systems
    scores = results.scores[results.scores["suite"] == suite]
    measures = measures_over(results, suite)
    directed = [m for m in measures if METRICS[m[1]].higher_is_better is not None]
    similarity = leading(directed, [SIMILARITY])[:1]
    intelligibility = leading(directed, [INTELLIGIBILITY])[:1]
    leakage = dict(leading(measures, [LEAKAGE]))
    ranked = []
    for system in systems:
        rows = scores[scores["system"] == system].set_index("trial_id")
        for judge, metric in similarity:
            margin = _margin(rows, judge, metric, leakage.get(judge))
            if margin is None:
                ranked.append(_worst(rows, system, judge, metric))
            else:
                title = f"smallest margin by {judge}: {system}"
                shown = margin.map(f"{{:+.{METRICS[metric].decimals}f}}".format)
                ranked.append(_ranking(title, rows, -margin, shown))
        for judge, metric in intelligibility:
            ranked.append(_worst(rows, system, judge, metric))
    if len(systems) > 1:
        rows = scores[scores["system"].isin(systems)]
        for judge, metric in (*similarity, *intelligibility):
            ranked.append(_most_changed(rows, metric, judge))
    return ranked


def in_turn(ranked: Sequence[Ranking]) -> list[tuple[str, Ranking | None]]:
    """Each ranking's worst trial, then each one's second worst …, without repeats.

    Returns:
        (trial id, the ranking that put it there).
    """
    order: dict[str, Ranking | None] = {}
    for trial_ids in zip(*(ranking.trial_ids for ranking in ranked), strict=True):
        for ranking, trial_id in zip(ranked, trial_ids, strict=True):
            order.setdefault(trial_id, ranking)
    return list(order.items())


def measures_over(results: ScoredRun, suite: str) -> list[Measure]:
    """The (judge, metric) pairs that have a value over the suite."""
    return measures_of(results.summary[results.summary["suite"] == suite])


def _margin(
    rows: pd.DataFrame, judge: str, similarity: str, leakage: str | None
) -> pd.Series | None:
    """Similarity to the target less similarity to the source; None if their scales differ."""
    if leakage is None:
        return None
    to_target, to_source = METRICS[similarity], METRICS[leakage]
    same_scale = (to_target.unit, to_target.limits) == (to_source.unit, to_source.limits)
    if not (to_target.higher_is_better and to_source.higher_is_better is False and same_scale):
        return None
    columns = judge_table(rows, judge)
    leaked = to_source.per_trial(columns)
    return None if leaked.isna().all() else to_target.per_trial(columns) - leaked


def _worst(rows: pd.DataFrame, system: str, judge: str, metric: str) -> Ranking:
    """The trials of a system from the worst value of the metric to the best."""
    m = METRICS[metric]
    values = m.per_trial(judge_table(rows, judge))
    decimals, sign = (0, "") if m.unit == "%" else (m.decimals, "+" if m.limits[0] < 0 else "")
    shown = values.map(lambda v: f"{v:{sign}.{decimals}f} {m.unit}".strip())
    title = f"{'lowest' if m.higher_is_better else 'highest'} {m.label} by {judge}: {system}"
    return _ranking(title, rows, -values if m.higher_is_better else values, shown)


def _most_changed(rows: pd.DataFrame, metric: str, judge: str) -> Ranking:
    """Trials by the distance between the highest and the lowest value of any two systems."""
    m = METRICS[metric]
    values = m.per_trial(judge_table(rows, judge))
    by_trial = values.groupby(rows["trial_id"], sort=False)
    spread = by_trial.max() - by_trial.min()
    first = rows.drop_duplicates("trial_id").set_index("trial_id")
    converted = first.assign(status="ok").loc[spread.index]
    shown = spread.map(lambda v: f"by {number(metric, v)} {m.unit}".strip())
    return _ranking(
        f"most different {m.label} by {judge} between systems", converted, spread, shown
    )


def _ranking(title: str, rows: pd.DataFrame, badness: pd.Series, shown: pd.Series) -> Ranking:
    failed = rows.index[rows["status"] == "failed"]
    measured = badness.drop(failed).dropna().sort_values(ascending=False, kind="stable").index
    others = rows.index.difference([*failed, *measured], sort=False)
    reasons = dict.fromkeys(failed, f"{title}, failed")
    reasons |= {t: f"{title}, {shown[t]}" for t in measured}
    return Ranking(title, (*failed, *measured, *others), reasons, frozenset(failed))

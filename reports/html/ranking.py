"""The trials of a suite from worst to best, by the leading metrics of similarity and of words."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.metrics import INTELLIGIBILITY, LEAKAGE, METRICS, SIMILARITY, Measure, leading
from bench.run.results import Results
from bench.stats.pooling import judge_table, measures_of
from reports.tables import number, systems_of


@dataclass(frozen=True)
class Ranking:
    """The trials of a suite from worst to best by one measure of one system.

    Attributes:
        title: what it ranks by.
        trial_ids: failed conversions first, then from worst to best, unmeasured ones last.
        reasons: trial id → what was measured, in words.
        failed: trials that the system failed on.
    """

    title: str
    trial_ids: tuple[str, ...]
    reasons: dict[str, str]
    failed: frozenset[str]


def rankings(results: Results, suite: str) -> list[Ranking]:
    """For every system: by how far the voice has moved, and by how many words are wrong.

    The first is the margin, similarity to the target less similarity to the source (the former
    alone where the source has no enrolment); the second is the trial's own error rate. Each is the
    leading metric by the first judge that measures it. Recordings are ranked only in a run of
    nothing else. Where there are several systems, the trials that they differ on most come last:
    what a change of system changed most.
    """
    systems = systems_of(results, suite)
    systems = [s for s in systems if s not in results.anchors] or systems
    scores = results.scores[results.scores["suite"] == suite]
    measures = measures_over(results, suite)
    directed = [m for m in measures if METRICS[m[1]].higher_is_better is not None]
    similarity = leading(directed, [SIMILARITY])[:1]
    intelligibility = leading(directed, [INTELLIGIBILITY])[:1]
    leakage = dict(leading(measures, [LEAKAGE]))
    found = []
    for system in systems:
        rows = scores[scores["system"] == system].set_index("trial_id")
        for judge, metric in similarity:
            margin = _margin(rows, judge, metric, leakage.get(judge))
            if margin is None:
                found.append(_worst(rows, system, judge, metric))
            else:
                title = f"smallest margin by {judge}: {system}"
                shown = margin.map(f"{{:+.{METRICS[metric].decimals}f}}".format)
                found.append(_ranking(title, rows, -margin, shown))
        for judge, metric in intelligibility:
            found.append(_worst(rows, system, judge, metric))
    if len(systems) > 1:
        rows = scores[scores["system"].isin(systems)]
        for judge, metric in (*similarity, *intelligibility):
            found.append(_most_changed(rows, metric, judge))
    return found


def in_turn(found: Sequence[Ranking]) -> list[tuple[str, Ranking | None]]:
    """Each ranking's worst trial, then each one's second worst …, without repeats.

    Returns:
        (trial id, the ranking that put it there).
    """
    order: dict[str, Ranking | None] = {}
    for trial_ids in zip(*(ranking.trial_ids for ranking in found), strict=True):
        for ranking, trial_id in zip(found, trial_ids, strict=True):
            order.setdefault(trial_id, ranking)
    return list(order.items())


def measures_over(results: Results, suite: str) -> list[Measure]:
    """What was measured over the suite."""
    return measures_of(results.summary[results.summary["suite"] == suite])


def _margin(
    rows: pd.DataFrame, judge: str, similarity: str, leakage: str | None
) -> pd.Series | None:
    """Similarity to the target less similarity to the source, where both are on one scale."""
    if leakage is None:
        return None
    to_target, to_source = METRICS[similarity], METRICS[leakage]
    same_scale = (to_target.unit, to_target.limits) == (to_source.unit, to_source.limits)
    if not (to_target.higher_is_better and to_source.higher_is_better is False and same_scale):
        return None
    columns = judge_table(rows, judge)
    left = to_source.per_trial(columns)
    return None if left.isna().all() else to_target.per_trial(columns) - left


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
    own = first.assign(status="ok").loc[spread.index]
    shown = spread.map(lambda v: f"by {number(metric, v)} {m.unit}".strip())
    return _ranking(f"most different {m.label} by {judge} between systems", own, spread, shown)


def _ranking(title: str, own: pd.DataFrame, badness: pd.Series, shown: pd.Series) -> Ranking:
    failed = own.index[own["status"] == "failed"]
    measured = badness.drop(failed).dropna().sort_values(ascending=False, kind="stable").index
    others = own.index.difference([*failed, *measured], sort=False)
    reasons = dict.fromkeys(failed, f"{title}, failed")
    reasons |= {t: f"{title}, {shown[t]}" for t in measured}
    return Ranking(title, (*failed, *measured, *others), reasons, frozenset(failed))

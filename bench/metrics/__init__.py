"""What is measured. Every metric is a ratio of two sums over trials: rates are not averaged.

A corpus word error rate is errors over words, a real-time factor computing seconds over speech
seconds, a mean similarity a sum over a count; `METRICS` states it for each metric. The one
exception are the rates named `…_mean`, since some papers average them.

Reports, flags, confounds, history and the gate choose metrics by their `family` and judge, never by
key: `leading` is the one rule for which metric of a family stands for it. A metric that is added to
`table.py` or by a judge (`register`) is shown, ranked, drawn and gated like the others of its
family.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bench.errors import UserError, shown
from bench.metrics.metric import (
    COSINE,
    COUNT,
    EXPOSURE,
    FAILURES,
    FAMILIES,
    INTELLIGIBILITY,
    LEAKAGE,
    NATURALNESS,
    OPINION,
    PROSODY,
    SHARE,
    SIMILARITY,
    SPEED,
    Measure,
    Metric,
    check_definition,
)
from bench.metrics.table import BUILT_IN, ERROR_RATES, error_rate, kinds_of

__all__ = [
    "BUILT_IN",
    "COSINE",
    "COUNT",
    "ERROR_RATES",
    "EXPOSURE",
    "FAILURES",
    "FAMILIES",
    "INTELLIGIBILITY",
    "LEAKAGE",
    "METRICS",
    "NATURALNESS",
    "OPINION",
    "PROSODY",
    "SHARE",
    "SIMILARITY",
    "SPEED",
    "Measure",
    "Metric",
    "definitions",
    "error_rate",
    "held_to",
    "kinds_of",
    "leading",
    "register",
    "registry_restored",
    "restore",
]

# All metrics that this process knows: the built-in ones in the order of their table, then those
# that judges and run folders brought, by name.
METRICS: dict[str, Metric] = dict(BUILT_IN)


def register(name: str, metric: Metric, by: str) -> None:
    """Adds a metric to `METRICS`; one that is known with an equal definition changes nothing.

    Args:
        name: its key.
        metric: its definition.
        by: who defines it, for the error: "judge mos".

    Raises:
        UserError: if the definition has a fault, or another metric has this name.
    """
    check_definition(name, metric, by)
    known = METRICS.get(name)
    if known is None:
        _add(name, metric)
    elif known != metric:
        _refuse(name, metric.to_json(), known.to_json(), by, "give it another name")


def definitions(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What a run folder stores of its metrics, so that `restore` can read it anywhere.

    Args:
        names: keys of `METRICS`.

    Returns:
        Key → `Metric.to_json`.
    """
    return {name: METRICS[name].to_json() for name in dict.fromkeys(names)}


def restore(stored: object, where: str) -> None:
    """Adds the metrics of a run folder to `METRICS`, all or none of them.

    A metric that is known keeps the known definition: a newer version of this project or of the
    judge may have another label or rank for it. The values must be computed alike.

    Args:
        stored: what `definitions` returned, parsed from a file that may come from anyone.
        where: the file, for the error.

    Raises:
        UserError: if a definition has a fault, or computes other values than the known metric of
            that name: two such runs cannot be read by one process.
    """
    if not isinstance(stored, Mapping):
        raise UserError(f"{where}: the metrics are {shown(stored)}, not a mapping of definitions")
    metrics = {name: Metric.from_json(name, value, where) for name, value in stored.items()}
    for name, metric in metrics.items():
        known = METRICS.get(name)
        if known is not None and known.computation != metric.computation:
            remedy = "such values cannot be compared; score that run again with the judge as it is"
            _refuse(name, metric.computation, known.computation, where, remedy)
    for name, metric in metrics.items():
        if name not in METRICS:
            _add(name, metric)


@contextmanager
def registry_restored() -> Iterator[None]:
    """Restores `METRICS` at the end of the block: for tests, and to read runs that conflict."""
    before = dict(METRICS)
    try:
        yield
    finally:
        METRICS.clear()
        METRICS.update(before)


def _add(name: str, metric: Metric) -> None:
    """Adds a metric, so that the order of `METRICS` does not depend on what came first."""
    METRICS[name] = metric
    for added in sorted(METRICS.keys() - BUILT_IN.keys()):
        METRICS[added] = METRICS.pop(added)


def _refuse(
    name: str, given: Mapping[str, Any], known: Mapping[str, Any], by: str, remedy: str
) -> None:
    field = next(field for field in given if given[field] != known[field])
    raise UserError(
        f"{by} defines the metric {name!r} with {field} = {shown(given[field])}, but it is known "
        f"with {field} = {shown(known[field])}; {remedy}"
    )


def leading(
    measures: Iterable[Measure], families: Sequence[str], variants: bool = False
) -> list[Measure]:
    """The leading metric of each family by each judge: the metric that stands for the family.

    Of the metrics of a family that a judge measures, the one of the lowest rank leads; among those
    of one rank, the first in `METRICS`.

    Args:
        measures: what was measured; metrics that are not in `METRICS` are left out.
        families: which families.
        variants: all metrics of the leading one's rank, not only the leading one.

    Returns:
        By family in the order of `families`, then by rank, by position in `METRICS`, by the order
        in which the judges were given.
    """
    positions = {name: position for position, name in enumerate(METRICS)}
    given = [pair for pair in dict.fromkeys(measures) if pair[1] in positions]
    chosen: list[Measure] = []
    for family in families:
        of_family = sorted(
            (pair for pair in given if METRICS[pair[1]].family == family),
            key=lambda pair: (METRICS[pair[1]].rank, positions[pair[1]]),
        )
        first: dict[str, str] = {}
        for judge, metric in of_family:
            first.setdefault(judge, metric)
        chosen += [
            (judge, metric)
            for judge, metric in of_family
            if metric == first[judge]
            or (variants and METRICS[metric].rank == METRICS[first[judge]].rank)
        ]
    return chosen


def held_to(margins: Container[str], measures: Iterable[Measure]) -> dict[Measure, str]:
    """Which margin holds for which measure.

    Args:
        margins: keys of `METRICS` and families. A key holds for that metric by every judge. A
            family holds for its leading metric by each judge (see `leading`; metrics of no
            direction never lead here), unless that metric has a margin by its key.
        measures: what was measured.

    Returns:
        Measure → the key or family that its margin goes by; measures without a margin are left out.
    """
    given = [pair for pair in dict.fromkeys(measures) if pair[1] in METRICS]
    directed = [pair for pair in given if METRICS[pair[1]].higher_is_better is not None]
    families = [f for f in dict.fromkeys(METRICS[m].family for _, m in directed) if f in margins]
    by_family = {pair: METRICS[pair[1]].family for pair in leading(directed, families)}
    return by_family | {pair: pair[1] for pair in given if pair[1] in margins}

"""`Metric`: a ratio of two sums over trials. Its checks, and its form in JSON."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of, shown

SHARE = (0.0, 100.0)
COUNT = (0.0, math.inf)
OPINION = (1.0, 5.0)
COSINE = (-1.0, 1.0)

# What a metric can be a measure of.
SIMILARITY = "similarity"
LEAKAGE = "leakage"
INTELLIGIBILITY = "intelligibility"
NATURALNESS = "naturalness"
PROSODY = "prosody"
EXPOSURE = "exposure"
SPEED = "speed"
FAILURES = "failures"
FAMILIES = {
    SIMILARITY: "how similar the voice is to the target's",
    LEAKAGE: "how much of the source's voice is left",
    INTELLIGIBILITY: "how much of what the source says can be understood",
    NATURALNESS: "how natural it is predicted to sound",
    PROSODY: "how much of the source's intonation, loudness, timing and emotion is kept; how near "
    "pitch and accent are to the target's",
    EXPOSURE: "whether the system was trained on the speakers",
    SPEED: "how long computing takes",
    FAILURES: "how often there is no result",
}

# A metric by a judge: (judge, metric).
Measure = tuple[str, str]

# Keys of metrics and names of columns: they are parts of file names and of table headers.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
LARGEST = 1e9  # of the numbers in a definition


@dataclass(frozen=True)
class Metric:
    """One column of a results table.

    Attributes:
        label: its name in a report.
        higher_is_better: the direction; None where neither is (a duration ratio's best is 1).
        numerator: the judge's column that is summed.
        denominator: the judge's column that divides it; None for the number of trials (a mean).
        unit: "" or what follows the number, such as "%".
        scale: factor from the ratio to `unit`.
        decimals: digits after the point in a report.
        about: one sentence for the report's legend.
        limits: no value can lie outside; an interval does not either.
        mean: whether it is the mean of each trial's ratio, not the ratio of the sums. A trial whose
            denominator is 0 then counts nowhere.
        family: what it measures, a key of `FAMILIES`; "" for a metric that only the full tables
            show.
        rank: its order in its family: if a judge measures several, the lowest rank leads (see
            `leading`). Metrics of one rank by one judge are variants of one measure, such as
            another reference, normalisation or pooling.
        differs_as: key of a metric whose differences between systems are the same as this one's,
            such as WER for the errors that a conversion adds to those in its source; "" for none.
            Systems are then compared by that one alone: the same test would count twice.
        shortest: seconds; the metric is not comparable between clips above and under them, and
            reports say how many are under; None where length does not matter.
        near: a system that is less than this worse than a true recording, in the metric's unit, is
            called as good as that recording; None if it makes no such claim.
    """

    label: str
    higher_is_better: bool | None
    numerator: str
    denominator: str | None = None
    unit: str = ""
    scale: float = 1.0
    decimals: int = 2
    about: str = ""
    limits: tuple[float, float] = (-math.inf, math.inf)
    mean: bool = False
    family: str = ""
    rank: int = 0
    near: float | None = None
    shortest: float | None = None
    differs_as: str = ""

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is, nothing where neither."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def unbounded(self) -> bool:
        """Whether it is a rate or amount that cannot be negative and has no upper limit.

        Its intervals reach further up than down: see `bench.stats.crossed`.
        """
        return self.limits == COUNT

    @property
    def pooling(self) -> str:
        """How trials become one number, for the record: two runs must agree on it."""
        return f"{self.scale:g} × Σ {self.numerator} / Σ {self.denominator or '1'}"

    @property
    def computation(self) -> Mapping[str, Any]:
        """What decides a value and how it is read; the other fields only decide how it is shown."""
        names = ("numerator", "denominator", "scale", "mean", "unit", "higher_is_better")
        return {name: getattr(self, name) for name in names}

    def terms(self, table: pd.DataFrame) -> pd.DataFrame:
        """Columns `numerator` and `denominator` of the trials that have both."""
        ones = pd.Series(1.0, index=table.index)
        if self.mean:
            rates = self.per_trial(table).replace([np.inf, -np.inf], np.nan)
            return pd.DataFrame({"numerator": rates, "denominator": ones}).dropna()
        terms = pd.DataFrame(
            {
                "numerator": table[self.numerator].astype(float) * self.scale,
                "denominator": ones if self.denominator is None else table[self.denominator],
            }
        )
        return terms.dropna()

    def clip(self, interval: tuple[float, float]) -> tuple[float, float]:
        """The interval (low, high) cut to `limits`; NaN stays."""
        low, high = np.clip(interval, *self.limits)
        return float(low), float(high)

    def clip_difference(self, interval: tuple[float, float]) -> tuple[float, float]:
        """The interval of a difference of two values cut to what `limits` allow; NaN stays."""
        width = self.limits[1] - self.limits[0]
        low, high = np.clip(interval, -width, width)
        return float(low), float(high)

    def per_trial(self, table: pd.DataFrame) -> pd.Series:
        """The metric of each single trial (NaN where it was not measured)."""
        if self.denominator is None:
            return table[self.numerator].astype(float) * self.scale
        return table[self.numerator].astype(float) * self.scale / table[self.denominator]

    def pool(self, table: pd.DataFrame) -> float:
        """The metric over all trials of `table` that have it; NaN, never 0, where none has."""
        terms = self.terms(table)
        total = float(terms["denominator"].sum())
        return float(terms["numerator"].sum()) / total if total > 0 else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON holds them; a limit that is infinite is null."""
        limits = [None if math.isinf(limit) else limit for limit in self.limits]
        return {**asdict(self), "limits": limits}

    @classmethod
    def from_json(cls, name: str, value: object, where: str) -> "Metric":
        """The metric that `to_json` wrote.

        Args:
            name: its key.
            value: parsed JSON, which may come from anyone.
            where: the file, for the error.

        Raises:
            UserError: names the field that is missing, unknown or has a value that it cannot have.
        """
        prefix = f"{where}: metric {shown(name)}"
        if not isinstance(value, dict):
            raise UserError(f"{prefix} is {shown(value)}, not a mapping of its fields")
        known = {f.name: f.default is MISSING for f in fields(cls)}
        for field in value:
            if field not in known:
                raise UserError(
                    f"{prefix} has an unknown field {shown(field)}; {choose_one_of(field, known)}"
                )
        for field, required in known.items():
            if required and field not in value:
                raise UserError(f"{prefix} has no field {field!r}")
        arguments = dict(value)
        if "limits" in arguments:
            arguments["limits"] = _limits(arguments["limits"])
        metric = cls(**arguments)
        check_definition(name, metric, where)
        return metric


def check_definition(name: object, metric: object, where: str) -> None:
    """Checks that reports can show a metric and that JSON can hold its definition.

    Args:
        name: its key in `METRICS`.
        metric: a `Metric`, whose fields may be of any type.
        where: the judge or the file that defines it, for the error.

    Raises:
        UserError: names the field, its value and what it must be.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"{where}: metric {shown(name)}: a metric's name has letters, digits and _ only, "
            "begins with a letter, and has 64 of them at most"
        )
    if name in FAMILIES:
        raise UserError(f"{where}: metric {name!r}: a family is called so; choose another name")
    if not isinstance(metric, Metric):
        raise UserError(f"{where}: metric {name!r} is {shown(metric)}, not a bench.Metric")
    for field, (holds, needed) in CHECKS.items():
        value = getattr(metric, field)
        if not holds(value):
            raise UserError(f"{where}: metric {name!r}: {field} = {shown(value)}: must be {needed}")
    if metric.family not in ("", *FAMILIES):
        known = choose_one_of(metric.family, FAMILIES)
        raise UserError(f"{where}: metric {name!r}: no family {metric.family!r}; {known}")


def _limits(value: object) -> object:
    """Limits from JSON as `Metric` has them, unchanged where they are none."""
    if not isinstance(value, list) or len(value) != 2:
        return value
    return tuple(
        unlimited if limit is None else limit
        for limit, unlimited in zip(value, (-math.inf, math.inf), strict=True)
    )


def _text(longest: int, shortest: int = 0) -> tuple[Callable[[Any], bool], str]:
    def holds(value: Any) -> bool:
        return isinstance(value, str) and shortest <= len(value) <= longest and value.isprintable()

    return holds, f"text on one line, {shortest} to {longest} characters"


def _whole(most: int) -> tuple[Callable[[Any], bool], str]:
    return lambda value: type(value) is int and 0 <= value <= most, f"a whole number, 0 to {most}"


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


def _column(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _interval(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and (value[0] == -math.inf or _number(value[0]))
        and (value[1] == math.inf or _number(value[1]))
        and value[0] < value[1]
    )


COLUMN = "the name of a column: letters, digits and _, beginning with a letter"
# Field of `Metric` → whether a value of it holds, and what it must be.
CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "label": _text(40, shortest=1),
    "higher_is_better": (
        lambda value: value is None or type(value) is bool,
        "true, false or null",
    ),
    "numerator": (_column, COLUMN),
    "denominator": (lambda value: value is None or _column(value), f"{COLUMN}, or null"),
    "unit": _text(12),
    "scale": (lambda value: _number(value) and value > 0, f"a number above 0, {LARGEST:g} at most"),
    "decimals": _whole(9),
    "about": _text(300),
    "limits": (_interval, f"two numbers up to ±{LARGEST:g}, or none, the lower one first"),
    "differs_as": (
        lambda value: value == "" or (isinstance(value, str) and NAME.fullmatch(value) is not None),
        "the name of a metric, or empty",
    ),
    "mean": (lambda value: type(value) is bool, "true or false"),
    "family": _text(40),
    "rank": _whole(99),
    "near": (
        lambda value: value is None or (_number(value) and value >= 0),
        "a number of at least 0, or null",
    ),
    "shortest": (
        lambda value: value is None or (_number(value) and value > 0),
        "a number of seconds above 0, or null",
    ),
}

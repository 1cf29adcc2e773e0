"""One call of a judge: what it gets is copied, what it gives is checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.guard import guarded
from bench.judges import Converted, Judge, Value
from bench.metrics import METRICS
from bench.stages.cache import Columns
from bench.stages.execute import one_line

ROUNDING = 1e-4  # that a value may lie beyond its metric's limits


class JudgeError(UserError):
    """A judge that failed: a bug or a broken installation, never a low score."""


def judged(
    name: str, judge: Judge, items: Sequence[Converted], labels: Sequence[str]
) -> list[Columns]:
    """The judge's columns, checked and as plain numbers and texts: one dict an item.

    The judge gets copies of the sounds, and what it changes of the process is restored.
    """
    try:
        with guarded():
            columns = judge.score([_copy(item) for item in items])
    except UserError as error:  # its message says what is wrong; no trial is
        raise JudgeError(f"judge {name}: {error}") from error
    except (Exception, SystemExit) as error:
        label = _culprit(judge, items, labels)
        raise JudgeError(
            f"judge {name} failed on {label}: {one_line(error)}; "
            "scores so far are kept, run `vcbench doctor`"
        ) from error
    if not isinstance(columns, Sequence) or len(columns) != len(items):
        given = len(columns) if isinstance(columns, Sequence) else type(columns).__name__
        raise JudgeError(f"judge {name} gave {given} scores for {len(items)} items")
    return [
        checked(f"judge {name} on {label}", judge.metrics, values)
        for label, values in zip(labels, columns, strict=True)
    ]


def _copy(item: Converted) -> Converted:
    """The item with sounds of its own: a judge that writes into them changes nothing else."""

    def copied(value: Any) -> Any:
        if isinstance(value, Waveform):
            return value.copy()
        return tuple(w.copy() for w in value) if isinstance(value, tuple) else value

    return replace(item, **{f.name: copied(getattr(item, f.name)) for f in fields(item)})


def checked(what: str, metrics: Sequence[str], values: object) -> Columns:
    """The columns of one item as JSON holds them.

    Raises:
        JudgeError: if a value is neither number, text nor None, is not finite, is a text where a
            metric needs a number, or gives a metric a value outside of its limits.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise JudgeError(f"{what} gave {type(values).__name__}, not a dict of columns")
    columns = {column: _plain(f"{what}: {column}", value) for column, value in values.items()}
    for name in metrics:
        metric = METRICS[name]
        numbers = []
        for column in (metric.numerator, metric.denominator):
            value = None if column is None else columns.get(column)
            if isinstance(value, str):
                raise JudgeError(f"{what} gave the text {value[:40]!r} for the number {column}")
            numbers.append(value)
        over, under = numbers
        if over is None or (metric.denominator is not None and not under):
            continue
        value = float(over) * metric.scale / float(under or 1)
        low, high = metric.limits
        if not low - ROUNDING <= value <= high + ROUNDING:
            raise JudgeError(
                f"{what} gave {name} = {value:g}, which lies between {low:g} and {high:g}; "
                "the judge is broken or its columns are mixed up"
            )
    return columns


def _plain(what: str, value: object) -> Value:
    """A number or text as JSON has it; scalars of numpy and torch become Python's."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        if value.size != 1 if not isinstance(value, torch.Tensor) else value.numel() != 1:
            raise JudgeError(f"{what} is an array of shape {tuple(value.shape)}, not a number")
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise JudgeError(f"{what} = {value}; a judge that cannot measure says None")
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    raise JudgeError(f"{what} is a {type(value).__name__}; it must be a number, a text or None")


def _culprit(judge: Judge, items: Sequence[Converted], labels: Sequence[str]) -> str:
    """The item that the judge fails on by itself; the whole batch where there is none."""
    for item, label in zip(items, labels, strict=True):
        try:
            with guarded():
                judge.score([_copy(item)])
        except (Exception, SystemExit):
            return label
    return f"the batch {', '.join(labels)}"

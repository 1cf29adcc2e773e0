"""Calls a judge: copies what it receives and checks what it returns."""

import math
from collections.abc import Callable, Mapping, Sequence
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

ROUNDING = 1e-4  # how far a value may lie outside its metric's limits


class JudgeError(UserError):
    """A judge that failed: a bug or a broken installation, never a low score."""


def judged(
    name: str,
    judge: Judge,
    items: Sequence[Converted],
    labels: Sequence[str],
    remark: Callable[[str], None] = lambda _: None,
) -> list[Columns]:
    """The judge's columns, checked and as plain numbers and texts: one dict per item.

    The judge receives copies of the sounds, and the process state is restored afterwards. If it
    runs out of a GPU's memory, it scores with smaller batches: first the `batch_size` of the judge
    or of its parts is halved and stays so, then the items are halved. Scores do not depend on it.

    Args:
        name: the judge's name, for errors.
        judge: the judge.
        items: what it scores.
        labels: a label per item, for errors.
        remark: receives a sentence where a batch was halved.

    Raises:
        JudgeError: if the judge fails, or returns something else than one valid dict per item.
    """
    try:
        with guarded():
            columns = judge.score([_copy(item) for item in items])
    except torch.OutOfMemoryError as error:
        columns = _in_smaller_batches(name, judge, items, labels, remark, error)
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


def _in_smaller_batches(
    name: str,
    judge: Judge,
    items: Sequence[Converted],
    labels: Sequence[str],
    remark: Callable[[str], None],
    error: torch.OutOfMemoryError,
) -> list[Columns]:
    """The columns of items that were too many at once for the memory of the GPU.

    Raises:
        JudgeError: if one item alone is too many.
    """
    error.__traceback__ = None  # its frames hold tensors
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    parts = [
        p for p in (judge, *getattr(judge, "__dict__", {}).values()) if type(_batch_size(p)) is int
    ]
    if (largest := max(map(_batch_size, parts), default=1)) > 1:
        for part in parts:
            part.batch_size = max(1, _batch_size(part) // 2)
        remark(f"{name}: out of memory; its batch_size was halved from {largest}")
        return judged(name, judge, items, labels, remark)
    half = len(items) // 2
    if half == 0:
        raise JudgeError(
            f"judge {name}: out of memory on {labels[0]} alone ({one_line(error)}); free memory, "
            "give it a larger share of a GPU, or judge.NAME.device=cpu"
        ) from error
    remark(f"{name}: out of memory; {len(items)} items are scored in two parts")
    return [
        columns
        for part in (slice(half), slice(half, None))
        for columns in judged(name, judge, items[part], labels[part], remark)
    ]


def _batch_size(part: Any) -> Any:
    return getattr(part, "batch_size", None)


def _copy(item: Converted) -> Converted:
    """The item with copied sounds, so that a judge that writes into them changes nothing else."""

    def copied(value: Any) -> Any:
        if isinstance(value, Waveform):
            return value.copy()
        return tuple(w.copy() for w in value) if isinstance(value, tuple) else value

    return replace(item, **{f.name: copied(getattr(item, f.name)) for f in fields(item)})


def checked(what: str, metrics: Sequence[str], values: object) -> Columns:
    """The columns of one item, as plain Python values that JSON can store.

    Args:
        what: the judge and the item, for errors.
        metrics: keys of the judge's metrics.
        values: the dict that the judge returned.

    Raises:
        JudgeError: if a value is neither number, text nor None, is not finite, is a text where a
            metric needs a number, or gives a metric a value outside of its limits.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise JudgeError(f"{what} gave {type(values).__name__}, not a dict of columns")
    columns = {
        column: value
        if value is None or type(value) is int or (type(value) is float and math.isfinite(value))
        else _plain(f"{what}: {column}", value)
        for column, value in values.items()
    }
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
    """The value as a plain number, text or None; scalars of numpy and torch are converted."""
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
    """The label of the first item that the judge fails on alone; if there is none, the batch."""
    for item, label in zip(items, labels, strict=True):
        try:
            with guarded():
                judge.score([_copy(item)])
        except (Exception, SystemExit):
            return label
    return f"the batch {', '.join(labels)}"

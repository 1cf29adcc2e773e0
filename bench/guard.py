"""Guards the state that all code of a process shares: a system or a judge may change it."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Item:
    """One part of the process state.

    Attributes:
        name: how a remark calls it; "" where a change is restored without a remark.
        get: reads it.
        set: writes it back.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # somebody deleted it
        return ""


def _set_device(device: torch.device) -> None:
    # Set to "cpu", torch would keep a mode that slows every call; None is how a process begins.
    torch.set_default_device(None if device == torch.device("cpu") else device)


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _backend(backend: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: getattr(backend, name), lambda value: setattr(backend, name, value)


def precision_parts() -> tuple[Any, ...]:
    """What has a `fp32_precision`; the wider ones first, since they set the narrower ones."""
    all_of: Any = torch.backends
    cudnn, mkldnn = all_of.cudnn, all_of.mkldnn
    on_gpu = (all_of.cuda.matmul, cudnn.conv, cudnn.rnn)
    return (all_of, cudnn, mkldnn, *on_gpu, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)


def _precisions() -> tuple[str, ...]:
    return tuple(part.fp32_precision for part in precision_parts())


def _set_precisions(values: tuple[str, ...]) -> None:
    for part, value in zip(precision_parts(), values, strict=True):
        part.fp32_precision = value


def _matmul_precision() -> str | None:
    """torch's older way to say it; None where it refuses, since the newer one was used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(value: str | None) -> None:
    if value is not None:
        torch.set_float32_matmul_precision(value)


ITEMS = (
    Item("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Item("torch's default device", torch.get_default_device, _set_device),
    Item("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Item("torch's grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled),
    Item(
        "torch's deterministic mode",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    Item("torch's matmul precision", _matmul_precision, _set_matmul_precision),
    Item("torch's float32 precision", _precisions, _set_precisions),
    Item("cudnn.benchmark", *_backend(torch.backends.cudnn, "benchmark")),
    Item("cudnn.deterministic", *_backend(torch.backends.cudnn, "deterministic")),
    Item("the working directory", _directory, os.chdir),
    Item("the environment", lambda: dict(os.environ), _set_environment),
    Item("numpy's error handling", np.geterr, lambda value: np.seterr(**value)),
    Item("", random.getstate, random.setstate),
    Item("", lambda: np.random.get_state(legacy=False), np.random.set_state),
    Item("", torch.get_rng_state, torch.set_rng_state),
)
SHORT = 40  # characters of a value in a remark


@dataclass(frozen=True)
class ProcessState:
    """The state of this process at one moment: one value for each of `ITEMS`."""

    values: tuple[Any, ...]

    @classmethod
    def now(cls) -> "ProcessState":
        return cls(tuple(item.get() for item in ITEMS))

    def restore(self) -> None:
        """Makes the process as it was; what did not change is not touched."""
        for item, value in zip(ITEMS, self.values, strict=True):
            if not _equal(item.get(), value):
                item.set(value)

    def changes(self) -> tuple[str, ...]:
        """What is different by now, such as "set torch's default dtype to torch.bfloat16"."""
        remarks = []
        for item, before in zip(ITEMS, self.values, strict=True):
            after = item.get() if item.name else before
            if not _equal(after, before):
                remarks.append(f"set {item.name}{_to(before, after)}")
        return tuple(remarks)


@contextmanager
def guarded() -> Iterator[list[str]]:
    """Restores the process state at the end of the block, however it ends.

    Yields:
        A list that then holds the changes which were undone (see `ProcessState.changes`).
    """
    before = ProcessState.now()
    remarks: list[str] = []
    try:
        yield remarks
    finally:
        remarks += before.changes()
        before.restore()


def _to(before: Any, after: Any) -> str:
    """What a value was changed to, where that is short."""
    if isinstance(before, dict):
        names = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
        text = ", ".join(names)
        return f" ({text if len(text) <= SHORT else f'{len(names)} parts'})"
    text = str(after)
    return f" to {text}" if len(text) <= SHORT else ""


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)

"""Measures computing time: synchronised with the GPU, split into stages that the system names.

A system names its stages with `with stage("vocoder"): …`; outside of a timed conversion that has no
effect and no cost.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


def now() -> float:
    """Seconds on a monotonic clock, after all work queued on the GPU is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Adds the seconds that the block takes to the stage `name` of the running conversion."""
    stages = _stages.get()
    if stages is None:
        yield
        return
    start = now()
    try:
        yield
    finally:
        stages[name] = stages.get(name, 0.0) + now() - start


def record_stage(name: str, seconds: float) -> None:
    """Adds seconds that another process measured to a stage of the running conversion."""
    stages = _stages.get()
    if stages is not None:
        stages[name] = stages.get(name, 0.0) + seconds


@contextmanager
def recording_stages() -> Iterator[dict[str, float]]:
    """Collects the seconds of every `stage` inside the block."""
    stages: dict[str, float] = {}
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)

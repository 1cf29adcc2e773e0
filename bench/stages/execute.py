"""One conversion: calls a system, times it, and checks what it returns."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.audio import Waveform
from bench.guard import ProcessState
from bench.provenance import origin
from bench.stages.timing import now, recording_stages

LONGEST_ERROR = 2000  # characters of an error that are kept


@dataclass(frozen=True)
class Outcome:
    """What one call of a system gave.

    Attributes:
        converted: the converted speech; None where the call failed.
        error: why it failed, in one line; "" where it did not.
        elapsed_seconds: of `convert`; None where it did not return.
        stages: seconds by stage, where the system names its stages.
        origin: code and machine that converted (`bench.provenance.origin`), with the number of
            threads that the system left.
        remarks: what the system changed of its process (`bench.guard.ProcessState.changes`).
        process_ended: whether the call ended the system's own process.
    """

    converted: Waveform | None = None
    error: str = ""
    elapsed_seconds: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""
    remarks: tuple[str, ...] = ()
    process_ended: bool = False


def call(
    system: Any, source: Waveform, reference: Waveform, seed: int, before: ProcessState
) -> Outcome:
    """Converts once. Whatever the system raises is an outcome, all but the user's Ctrl-C.

    Every global source of randomness is seeded first. The process state stays as the system left
    it; `bench.guard.guarded` restores it.

    Args:
        system: a `bench.systems.System`.
        source: gives the words.
        reference: gives the voice.
        seed: of this conversion.
        before: the process state that remarks refer to.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    elapsed: float | None = None
    stages: dict[str, float] = {}
    try:
        with recording_stages() as stages, torch.no_grad():
            start = now()
            result = system.convert(source, reference, seed=seed)
            elapsed = now() - start
        converted, error = _checked(result), ""
    except (Exception, SystemExit, GeneratorExit) as failure:
        converted, error = None, one_line(failure)
    return Outcome(converted, error, elapsed, dict(stages), origin(), before.changes())


def _checked(result: Any) -> Waveform:
    """The result as a plain `Waveform`; raises what is wrong with it."""
    if not isinstance(result, Waveform):
        raise TypeError(f"convert returned {type(result).__name__}, not a Waveform")
    # A subclass may do anything: from here on there are only samples and a rate.
    plain = Waveform(result.samples.detach().clone(), result.sample_rate)
    if fault := plain.fault():
        raise ValueError(f"converted speech is {fault}")
    return plain


def one_line(error: BaseException) -> str:
    """The error as one line that any file can hold."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    reason = " ".join(f"{type(error).__name__}: {text}".split())
    if len(reason) > LONGEST_ERROR:
        reason = f"{reason[:LONGEST_ERROR]} … ({len(reason)} characters)"
    return reason.encode("utf-8", "replace").decode()

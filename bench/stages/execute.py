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

LONGEST_ERROR = 2000  # characters; longer errors are cut


@dataclass(frozen=True)
class Outcome:
    """The result of one call of a system.

    Attributes:
        converted: the converted speech; None if the call failed.
        error: why it failed, in one line; "" if it succeeded.
        elapsed_seconds: of `convert`; None if it did not return.
        stages: seconds by stage, if the system names its stages.
        origin: code and machine that converted (`bench.provenance.origin`), with the number of
            threads that the system left.
        remarks: what the system changed in its process (`bench.guard.ProcessState.changes`).
        process_ended: whether the call ended the isolated system's process.
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
    """Converts once. Every error of the system becomes an outcome; only Ctrl-C is raised.

    Every global source of randomness is seeded first. The process state stays as the system left
    it; `bench.guard.guarded` restores it.

    Args:
        system: a `bench.systems.System`.
        source: gives the words.
        reference: gives the voice.
        seed: of this conversion.
        before: the process state that remarks compare with.
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
    """The result as a plain `Waveform`.

    Raises:
        TypeError: if it is not a Waveform.
        ValueError: if it cannot be judged (see `Waveform.fault`).
    """
    if not isinstance(result, Waveform):
        raise TypeError(f"convert returned {type(result).__name__}, not a Waveform")
    # A subclass may override any method: keep only the samples and the rate.
    plain = Waveform(result.samples.detach().clone(), result.sample_rate)
    if fault := plain.fault():
        raise ValueError(f"converted speech is {fault}")
    return plain


def one_line(error: BaseException) -> str:
    """The error's type and message on one line of valid UTF-8, cut after `LONGEST_ERROR`."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    reason = " ".join(f"{type(error).__name__}: {text}".split())
    if len(reason) > LONGEST_ERROR:
        reason = f"{reason[:LONGEST_ERROR]} … ({len(reason)} characters)"
    return reason.encode("utf-8", "replace").decode()

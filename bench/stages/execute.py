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
class Streamed:
    """The times of one streamed conversion, synchronised with the GPU.

    Attributes:
        first_chunk_seconds: from the call to the first chunk that has samples.
        stream_seconds: from the call to the last chunk.
        streamed_seconds: duration of the speech in all chunks.
    """

    first_chunk_seconds: float
    stream_seconds: float
    streamed_seconds: float


@dataclass(frozen=True)
class Outcome:
    """The result of one call of a system.

    Attributes:
        converted: the converted speech; None if the call failed.
        error: why it failed, in one line; "" if it succeeded.
        elapsed_seconds: of `convert`; None if it did not return.
        stages: seconds by stage, if the system names its stages.
        streamed: times of `stream`; None if the system has none, or it failed.
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
    streamed: Streamed | None = None


def call(
    system: Any, source: Waveform, reference: Waveform, seed: int, before: ProcessState
) -> Outcome:
    """Converts once. Every error of the system becomes an outcome; only Ctrl-C is raised.

    A system that has `stream` also streams the conversion once: that is timed, not judged. An
    error there is a remark.

    Every global source of randomness is seeded first. The process state stays as the system left
    it; `bench.guard.guarded` restores it.

    Args:
        system: a `bench.systems.System`.
        source: gives the words.
        reference: gives the voice.
        seed: of this conversion.
        before: the process state that remarks compare with.
    """
    seed_all(seed)
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
    remarks = before.changes()
    made_by = origin(str(getattr(system, "versions", "")))
    streamed = None
    if converted is not None and callable(getattr(system, "stream", None)):
        try:
            streamed = _stream(system, source, reference, seed)
        except (Exception, SystemExit, GeneratorExit) as failure:
            remarks = (*remarks, f"failed to stream: {one_line(failure)}")
    return Outcome(converted, error, elapsed, dict(stages), made_by, remarks, streamed=streamed)


def _stream(system: Any, source: Waveform, reference: Waveform, seed: int) -> Streamed:
    """Streams one conversion and times its chunks; the sound is not kept.

    Raises:
        TypeError: if a chunk is not a Waveform.
        ValueError: if no chunk has samples, or two have different sample rates.
        Exception: any error of the system.
    """
    seed_all(seed)
    rates, samples, first = set(), 0, None
    with torch.no_grad():
        start = now()
        for chunk in system.stream(source, reference, seed=seed):
            if not isinstance(chunk, Waveform):
                raise TypeError(f"stream yielded {type(chunk).__name__}, not a Waveform")
            if len(chunk.samples) and first is None:
                first = now() - start
            rates.add(chunk.sample_rate)
            samples += len(chunk.samples)
        elapsed = now() - start
    if first is None:
        raise ValueError("stream yielded no samples")
    if len(rates) > 1:
        raise ValueError(f"stream yielded several sample rates: {sorted(rates)} Hz")
    return Streamed(first, elapsed, samples / rates.pop())


def seed_all(seed: int) -> None:
    """Seeds every global source of randomness."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


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

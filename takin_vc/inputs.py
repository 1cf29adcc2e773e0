"""The inputs of the model: speech, the checks that it must pass, and padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import soxr
import torch
from torch import Tensor, nn

SILENCE_PEAK = 10 ** (-70 / 20)  # -70 dBFS: 10 steps of 16-bit audio
SHORTEST_SOURCE = 0.1  # seconds: one frame of the slowest front end
SHORTEST_REFERENCE = 0.25  # seconds: what a voiceprint needs, 23 of its frames


class InputError(ValueError):
    """Speech that cannot be converted; the message names the fault."""


class Audio(Protocol):
    """Mono speech with its sample rate: `Speech`, or anything with these two."""

    @property
    def samples(self) -> Tensor:
        """(T,), float, nominally in [-1, 1], on the CPU."""
        ...

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        ...


class Speech(NamedTuple):
    """Mono speech.

    Attributes:
        samples: (T,), float32, in [-1, 1], on the CPU.
        sample_rate: in Hz.
    """

    samples: Tensor
    sample_rate: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Sources and references in the form that the model takes, padded at their ends.

    Attributes:
        source: (B, T) at 16 kHz.
        source_lengths: in samples, (B,).
        reference: (B, T') at 16 kHz.
        reference_lengths: in samples, (B,).
        reference_mel: log mel, (B, n_mels, R).
        reference_mel_lengths: in frames, (B,).
        mel_lengths: frames of the sources' mel, (B,). These and the references' may stay on the CPU
            where none is padded.
        mel: the sources' log mel, (B, n_mels, L), to train on; None in conversion.
    """

    source: Tensor
    source_lengths: Tensor
    reference: Tensor
    reference_lengths: Tensor
    reference_mel: Tensor
    reference_mel_lengths: Tensor
    mel_lengths: Tensor
    mel: Tensor | None = None


def check_speech(speech: Audio, what: str, shortest: float) -> None:
    """Raises an InputError where `speech` cannot be used as `what`."""
    samples, sample_rate = speech.samples, speech.sample_rate
    if samples.ndim != 1:
        raise InputError(f"the {what} has shape {tuple(samples.shape)}; it must be mono, (T,)")
    if sample_rate <= 0:
        raise InputError(f"the {what} has a sample rate of {sample_rate} Hz; it must be positive")
    if len(samples) == 0:
        raise InputError(f"the {what} is empty: it has no samples")
    if not bool(torch.isfinite(samples).all()):
        raise InputError(f"the {what} is not finite: it has NaN or infinite samples")
    seconds = len(samples) / sample_rate
    if seconds < shortest:
        raise InputError(
            f"the {what} is too short: {seconds:.3f} s ({len(samples)} samples at {sample_rate} "
            f"Hz); it must be at least {shortest} s"
        )
    if float(samples.abs().max()) < SILENCE_PEAK:
        raise InputError(f"the {what} is silent: its peak is under -70 dBFS")


def resample(samples: Tensor, old: int, new: int) -> Tensor:
    """samples (T,) at `old` Hz, float32 at `new` Hz."""
    samples = samples.detach().cpu().float()
    if old == new:
        return samples
    return torch.from_numpy(np.ascontiguousarray(soxr.resample(samples.numpy(), old, new)))


def pad_rows(rows: Sequence[Tensor]) -> Tensor:
    """Rows (T, ...) of different T as one (B, T, ...), zeros at the ends."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

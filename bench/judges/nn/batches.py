"""Batches that move no number: sorted by length, padded, and every padded frame masked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bench.audio import Waveform
from bench.guard import precision_parts

T = TypeVar("T")
PRECISION = "highest"  # of float32 on GPUs; benchmarks try "high", TF32


class Once(Generic[T]):
    """What a model says of sounds, worked out once a sound, however often it is asked for.

    Sounds are told apart by their content (`Waveform.sha256`).

    Args:
        answer: the model: sounds → as many answers, in order.
    """

    def __init__(self, answer: Callable[[Sequence[Waveform]], Sequence[T]]) -> None:
        self._answer = answer
        self._known: dict[str, T] = {}

    def __call__(self, waveforms: Sequence[Waveform]) -> list[T]:
        """One answer a waveform, in order; those that are new go to the model together."""
        new = {w.sha256: w for w in waveforms if w.sha256 not in self._known}
        if new:
            answers = self._answer(list(new.values()))
            self._known.update(zip(new, answers, strict=True))
        return [self._known[w.sha256] for w in waveforms]


def in_batches(
    clips: Sequence[Tensor],
    batch_size: int,
    run: Callable[[Sequence[Tensor]], Sequence[T]],
    shortest: float = 0.75,
) -> list[T]:
    """`run` over `clips` (T,), at most `batch_size` at a time, clips of like length together.

    Args:
        clips: of any lengths.
        batch_size: at least 1.
        run: a batch of clips → as many results.
        shortest: of a batch, as a share of its longest: the rest of it is padding, which costs as
            much as sound.

    Returns:
        The results in the order of `clips`.

    Raises:
        ValueError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size ({batch_size}) must be at least 1")
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]), reverse=True)
    results: dict[int, T] = {}
    while order:
        least = shortest * len(clips[order[0]])
        batch = [i for i in order[:batch_size] if len(clips[i]) >= least]
        order = order[len(batch) :]
        results.update(zip(batch, run([clips[i] for i in batch]), strict=True))
    return [results[i] for i in range(len(clips))]


def pad(clips: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Clips (T,) → samples (B, T) with zeros behind the shorter ones, and their lengths (B,)."""
    lengths = torch.tensor([len(clip) for clip in clips], device=device)
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True).to(device), lengths


def mask(lengths: Tensor, frames: int) -> Tensor:
    """lengths (B,) → (B, frames), True on each clip's own frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def masked_mean(x: Tensor, own: Tensor) -> Tensor:
    """x (B, C, L), own (B, 1, L) True on valid frames -> mean over valid frames (B, C, 1)."""
    return (x * own).sum(2, keepdim=True) / own.sum(2, keepdim=True)


def masked_variance(x: Tensor, own: Tensor, unbiased: bool = False) -> Tensor:
    """x (B, C, L), own (B, 1, L) -> variance over valid frames (B, C, 1).

    Unbiased divides by the number of frames less one.
    """
    squares = ((x - masked_mean(x, own)).square() * own).sum(2, keepdim=True)
    return squares / (own.sum(2, keepdim=True) - int(unbiased))


@contextmanager
def full_precision() -> Iterator[None]:
    """Keeps torch from rounding to TF32 or 16 bits, by which scores would depend on the batch size,
    the device and whatever a system has left switched on; restores every setting at the end.

    Load models before, not inside: importing a library can change these settings (speechbrain's
    does), and the first batch would run with them.
    """
    precision: Any = "ieee" if PRECISION == "highest" else "tf32"
    flags = {"enabled": True, "benchmark": False, "deterministic": False}
    wanted = [(part, "fp32_precision", precision) for part in precision_parts()]
    wanted += [(torch.backends.cudnn, name, value) for name, value in flags.items()]
    before = [(part, name, getattr(part, name)) for part, name, _ in wanted]
    older = _older_settings()
    torch.set_float32_matmul_precision(PRECISION)
    torch.backends.cudnn.allow_tf32 = PRECISION != "highest"
    _set(wanted)
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.inference_mode(),
        ):
            yield
    finally:
        for restore, value in older:
            restore(value)
        _set(before)  # what the older settings have moved as well


def _older_settings() -> list[tuple[Callable[[Any], None], Any]]:
    """torch's older ways to say the same, as they are; without those that it refuses to tell since
    somebody has used the newer ones."""
    cudnn = torch.backends.cudnn
    ways: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (lambda: cudnn.allow_tf32, lambda value: setattr(cudnn, "allow_tf32", value)),
    ]
    known = []
    for read, restore in ways:
        with suppress(RuntimeError):
            known.append((restore, read()))
    return known


def _set(settings: Sequence[tuple[Any, str, Any]]) -> None:
    for part, name, value in settings:
        setattr(part, name, value)

"""Batches whose results do not depend on the batch: sorted by length, padded, and masked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from bench.audio import Waveform
from bench.guard import precision_parts
from bench.judges import Converted

T = TypeVar("T")
PRECISION = "highest"  # of float32 on GPUs; benchmarks try "high", TF32


class Once(Generic[T]):
    """Caches a model's output per waveform, keyed by content hash (`Waveform.sha256`).

    Args:
        model: waveforms → as many outputs, in order.
    """

    def __init__(self, model: Callable[[Sequence[Waveform]], Sequence[T]]) -> None:
        self._model = model
        self._outputs: dict[str, T] = {}

    def __call__(self, waveforms: Sequence[Waveform]) -> list[T]:
        """One output a waveform, in order. The model receives the new waveforms in one call."""
        new = {w.sha256: w for w in waveforms if w.sha256 not in self._outputs}
        if new:
            outputs = self._model(list(new.values()))
            self._outputs.update(zip(new, outputs, strict=True))
        return [self._outputs[w.sha256] for w in waveforms]


def in_batches(
    clips: Sequence[Tensor],
    batch_size: int,
    run: Callable[[Sequence[Tensor]], Sequence[T]],
    shortest: float = 0.75,
) -> list[T]:
    """`run` over `clips` (T,), at most `batch_size` at a time, clips of similar length together.

    Args:
        clips: of any lengths.
        batch_size: at least 1.
        run: a batch of clips → as many results.
        shortest: the shortest clip of a batch, as a share of its longest: the rest is padding,
            which costs as much time as sound.

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


def clips_of(items: Sequence[Converted], sample_rate: int) -> list[Tensor]:
    """The converted speech of each item as (T,) at `sample_rate` (Hz)."""
    clips = []
    for item in items:
        assert item.converted is not None
        clips.append(item.converted.resample(sample_rate).samples)
    return clips


def pad(clips: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Clips (T,) → samples (B, T) with zeros behind the shorter ones, and their lengths (B,)."""
    lengths = torch.tensor([len(clip) for clip in clips], device=device)
    return torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True).to(device), lengths


def mask(lengths: Tensor, frames: int) -> Tensor:
    """lengths (B,) → (B, frames), True on each clip's valid frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """x (B, C, L), valid (B, 1, L) True on valid frames -> mean over valid frames (B, C, 1)."""
    return (x * valid).sum(2, keepdim=True) / valid.sum(2, keepdim=True)


def masked_variance(x: Tensor, valid: Tensor, unbiased: bool = False) -> Tensor:
    """x (B, C, L), valid (B, 1, L) -> variance over valid frames (B, C, 1).

    Unbiased divides by the number of frames less one.
    """
    squares = ((x - masked_mean(x, valid)).square() * valid).sum(2, keepdim=True)
    return squares / (valid.sum(2, keepdim=True) - int(unbiased))


@contextmanager
def full_precision() -> Iterator[None]:
    """Keeps torch from rounding to TF32 or 16 bits; restores every setting at the end.

    With such rounding, scores would depend on the batch size, on the device and on settings that a
    system left behind. Load models before, not inside: importing a library can change the settings
    (importing speechbrain does), and the first batch would be computed with them.
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
        _set(before)  # the older settings changed these too


def _older_settings() -> list[tuple[Callable[[Any], None], Any]]:
    """torch's older settings of the same, as functions that restore them, with their values.

    torch refuses to read some of them once the newer settings were used: those are left out.
    """
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

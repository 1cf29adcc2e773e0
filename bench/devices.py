"""Turns the setting `device` into a torch device of this machine."""

import sys
from typing import TYPE_CHECKING

from bench.errors import UserError, choose_one_of

if TYPE_CHECKING:
    import torch

CONTEXT_GIB = 0.6  # of a process on a GPU, outside of torch's allocator: CUDA's context, libraries
KNOWN = ("auto", "cpu", "cuda")


def check_device(name: str) -> None:
    """Raises UserError unless the setting names a device of this machine.

    torch is not imported for "auto" and "cpu".
    """
    if name not in ("auto", "cpu"):
        torch_device(name)


def torch_device(name: "str | torch.device") -> "torch.device":
    """The device that a setting names.

    Args:
        name: "cpu", "cuda", "cuda:1", or "auto": the first GPU if there is one, else the CPU.

    Raises:
        UserError: if it names something else, or a GPU that this machine lacks.
    """
    import torch  # takes seconds

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in KNOWN:
        known = choose_one_of(str(name), KNOWN)
        raise UserError(f"device={name}: no such device; {known} (cuda:1: the second GPU)")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device={name}: torch finds {count or 'no'} GPU{'s' * (count != 1)} on this "
                "machine; device=auto takes the first GPU where there is one, else the CPU"
            )
    return device


def gpu_memory() -> tuple[float, float]:
    """GiB of the GPU that this process has needed at most, and of the GPU; zeros without one.

    The need is what torch's allocator has reserved, and `CONTEXT_GIB`.
    """
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return 0.0, 0.0
    reserved = torch.cuda.max_memory_reserved() / 2**30
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
    return (reserved + CONTEXT_GIB if reserved else 0.0), total

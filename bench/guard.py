"""Records and restores the state of a process, and of a model that is in training."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import UserError


@dataclass(frozen=True)
class Item:
    """One part of the process state.

    Attributes:
        name: its name in a remark; "" if a change is restored without a remark.
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
    # With "cpu", torch would keep a mode that slows every call; a new process has None.
    torch.set_default_device(None if device == torch.device("cpu") else device)


# Libraries set these when they are imported; no conversion depends on the folder of their cache.
CACHES = frozenset({"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"})


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in CACHES}


def _set_environment(variables: dict[str, str]) -> None:
    for name in _environment():
        del os.environ[name]
    os.environ.update(variables)


def _backend(backend: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: getattr(backend, name), lambda value: setattr(backend, name, value)


def precision_parts() -> tuple[Any, ...]:
    """All parts of torch with a `fp32_precision`; general parts first, as they set special ones."""
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
    """The older setting of precision; None if torch refuses because the newer one was used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(value: str | None) -> None:
    if value is not None:
        torch.set_float32_matmul_precision(value)


def _gpu_generators() -> Tensor:
    """The states of the GPUs' random generators, one row each; empty if no GPU is in use."""
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.stack(states) if states else torch.empty(0)


def _set_gpu_generators(states: Tensor) -> None:
    for device, state in enumerate(states):
        torch.cuda.set_rng_state(state, device)


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
    Item("the environment", _environment, _set_environment),
    Item("numpy's error handling", np.geterr, lambda value: np.seterr(**value)),
    Item("", random.getstate, random.setstate),
    Item("", lambda: np.random.get_state(legacy=False), np.random.set_state),
    Item("", torch.get_rng_state, torch.set_rng_state),
    Item("", _gpu_generators, _set_gpu_generators),
)
SHORT = 40  # characters of a value in a remark


@dataclass(frozen=True)
class ProcessState:
    """The state of this process at one moment: one value for each of `ITEMS`."""

    values: tuple[Any, ...]

    @classmethod
    def now(cls) -> "ProcessState":
        """The current state of this process."""
        return cls(tuple(item.get() for item in ITEMS))

    def restore(self) -> None:
        """Restores the process to this state; unchanged items are not set."""
        for item, value in zip(ITEMS, self.values, strict=True):
            if not _equal(item.get(), value):
                item.set(value)

    def changes(self) -> tuple[str, ...]:
        """What has changed since, such as "set torch's default dtype to torch.bfloat16"."""
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
        A list that contains the undone changes after the block (see `ProcessState.changes`).
    """
    before = ProcessState.now()
    remarks: list[str] = []
    try:
        yield remarks
    finally:
        remarks += before.changes()
        before.restore()


class ModulesChanged(UserError):
    """Weights of a model were changed by what should only have used them."""


@contextmanager
def modules_guarded(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Sets modules to evaluation mode, and restores their training state however the block ends.

    Restored are the mode of every submodule and the device, `requires_grad` and `grad` of every
    parameter. Values of weights are not copied, but their changes are detected: parameters, and
    buffers that a checkpoint stores.

    Raises:
        ModulesChanged: names the first tensor that changed.
    """
    parts = [part for module in modules for part in module.modules()]
    modes = {part: part.training for part in parts}
    tensors = [(part, {**part._parameters}, {**part._buffers}) for part in parts]
    parameters = {p: (p.device, p.requires_grad, p.grad) for m in modules for p in m.parameters()}
    stored = [(name, tensor) for module in modules for name, tensor in _stored(module)]
    before = [_content(tensor) for _, tensor in stored]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train(modes[module])  # a module may do more than set the mode
        for part, of_part, buffers in tensors:
            part.training = modes[part]
            part._parameters.update(of_part)
            part._buffers.update(buffers)  # moving a module replaces them
        for parameter, (device, requires_grad, grad) in parameters.items():
            for tensor in (parameter, grad):  # moving a parameter moves its gradient
                if tensor is not None and tensor.device != device:
                    tensor.data = tensor.data.to(device)
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        for (name, tensor), content in zip(stored, before, strict=True):
            if _content(tensor) != content:
                raise ModulesChanged(
                    f"the system changed {name} of the model in training; it must not train, "
                    "convert the dtype of or write into the model: give it a copy"
                )


def _stored(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and persistent buffers of a module with their names."""
    for prefix, part in module.named_modules():
        for name, tensor in (part._parameters | part._buffers).items():
            if tensor is None or tensor.is_meta or nn.parameter.is_lazy(tensor):
                continue
            if name not in part._non_persistent_buffers_set:
                yield f"{type(module).__name__} {prefix}{'.' * bool(prefix)}{name}", tensor


def _content(tensor: Tensor) -> tuple[torch.dtype, int]:
    """The dtype and the sum of the bits of a tensor: exact, whatever the order of summation."""
    flat = tensor.detach().reshape(-1)
    flat = torch.view_as_real(flat) if flat.is_complex() else flat
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    return tensor.dtype, int(flat.contiguous().view(integer).sum(dtype=torch.int64))


def _to(before: Any, after: Any) -> str:
    """The new value as the end of a remark, or "" if it is long."""
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

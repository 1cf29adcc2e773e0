"""Reads files of named tensors without executing anything in them, and loads them into models."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError


def read_state(path: str | Path, name: str, how: str) -> dict[str, Any]:
    """The content of a file of weights (.safetensors or PyTorch's format); no code in it runs.

    Args:
        path: the file.
        name: the model that it should contain, for the error.
        how: how to get it, for the error.

    Returns:
        Name → tensor; files in PyTorch's format may have other plain values too.

    Raises:
        UserError: if it cannot be read as named tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # files of other formats raise many kinds of errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not {name}: it cannot be read as tensors ({reason}); {how}"
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{path} is not {name}: it holds a {type(state).__name__}, no state dict; {how}"
        )
    return state


def load_state(
    model: nn.Module,
    state: Mapping[str, Any],
    path: str | Path,
    name: str,
    how: str,
    published: Callable[[str], str] = str,
) -> None:
    """Gives `model` exactly the tensors of `state`: none missing, none left over.

    Args:
        model: may be on the meta device; its parameters become the tensors themselves.
        state: published name → tensor.
        path: the file that they come from, for the error.
        name: the model that it should contain, for the error.
        how: how to get it, for the error.
        published: the model's name of a tensor → the published name.

    Raises:
        UserError: naming the first tensor that differs.
    """
    wanted = model.state_dict()
    names = {published(key): key for key in wanted}
    for published_name, key in names.items():
        expected = _describe(wanted[key])
        actual = _describe(state[published_name]) if published_name in state else "missing"
        if actual != expected:
            raise UserError(
                f"{path} is not {name}: {published_name} is {actual}, not {expected}; {how}"
            )
    for key in state:
        if key not in names:
            raise UserError(f"{path} is not {name}: it has a tensor {key!r} too many; {how}")
    model.load_state_dict({names[key]: value for key, value in state.items()}, assign=True)


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"

"""State dicts are read without running code, and fit a model exactly or are refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bench.errors import UserError
from bench.weights.state import load_state, read_state


def test_every_tensor_must_be_there_and_no_other(tmp_path) -> None:
    state = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}

    def load(state: dict[str, torch.Tensor]) -> nn.Linear:
        with torch.device("meta"):
            model = nn.Linear(3, 2)
        load_state(model, state, "w.pt", "a line", "get it")
        return model

    assert torch.equal(load(state).weight, state["weight"])
    with pytest.raises(
        UserError, match=r"w\.pt is not a line: bias is missing, not float32 \(2,\)"
    ):
        load({"weight": state["weight"]})
    with pytest.raises(
        UserError, match=r"weight is float32 \(2, 4\), not float32 \(2, 3\); get it"
    ):
        load(state | {"weight": torch.ones(2, 4)})
    with pytest.raises(UserError, match="it has a tensor 'more' too many"):
        load(state | {"more": torch.ones(1)})
    save_file(state, tmp_path / "w.safetensors")
    read = read_state(tmp_path / "w.safetensors", "a line", "get it")
    assert torch.equal(read["weight"], state["weight"])


def test_a_pickle_that_would_run_something_is_not_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("it ran",)

    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="it cannot be read as tensors"):
        read_state(tmp_path / "evil.pt", "a line", "get it")

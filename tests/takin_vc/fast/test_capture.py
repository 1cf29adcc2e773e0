"""A CUDA graph can record the parts: they neither read the device nor copy from the CPU.

Without a GPU: fake tensors have a device and a shape, but no values.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from takin_vc.fast import kernels
from takin_vc.fast.model import FastContent
from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.timbre import CAMPPlusVoiceprint
from tests.support.tiny_models import new as tiny

READS = ("_local_scalar_dense", "nonzero", "unique", "masked_select")

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


class Faults(TorchDispatchMode):
    """Collects the operations that a CUDA graph cannot record."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = str(function)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        devices = {x.device.type for x in tensors}
        mixed = devices == {"cpu", "cuda"} and not self._is_a_number(name, args, tensors)
        if mixed or any(read in name for read in READS):
            self.names.append(name)
        return result

    @staticmethod
    def _is_a_number(name: str, args: Any, tensors: list[Tensor]) -> bool:
        """Whether the tensors on the CPU are numbers, which kernels take as arguments.

        A number put where a mask is True is one (PyTorch fills); put at indices it is copied.
        """
        if "copy" in name or any(x.ndim for x in tensors if x.device.type == "cpu"):
            return False
        return "index_put" not in name or [x.dtype for x in args[1]] == [torch.bool]


MODE = FakeTensorMode(allow_non_fake_inputs=True)


def on_fake_gpu(module: nn.Module) -> nn.Module:
    """The same module with fake weights, in place."""
    for part in module.modules():
        for group in (part._parameters, part._buffers):
            for name, tensor in group.items():
                if tensor is not None:
                    with MODE:
                        weight = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    if isinstance(tensor, nn.Parameter):
                        weight = nn.Parameter(weight, requires_grad=False)
                    group[name] = weight
    return module


def faults(function: Any, *shapes: tuple[tuple[int, ...], torch.dtype]) -> list[str]:
    with MODE, torch.no_grad():
        inputs = [torch.empty(shape, dtype=dtype, device="cuda") for shape, dtype in shapes]
        with Faults() as collected:
            function(*inputs)
    return collected.names


@pytest.fixture(autouse=True)
def capturing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(kernels, "_runs_triton", lambda _: False)


WAVEFORM = (((2, 16000), torch.float32), ((2,), torch.int64))


def test_content():
    part: Any = on_fake_gpu(FastContent(tiny().content)).part

    def encode(waveform: Tensor, lengths: Tensor) -> None:
        part.forward_features(*part.ssl(waveform, lengths), *part.ppg(waveform, lengths))

    assert faults(encode, *WAVEFORM) == []


def test_plain_wavlm():
    assert faults(on_fake_gpu(tiny().content.ssl), *WAVEFORM) == []


def test_what_a_graph_cannot_record_is_detected():
    def copy_a_number(x: Tensor) -> None:
        x[torch.zeros(1, dtype=torch.int64, device=x.device)] = 1

    def copy_a_tensor(x: Tensor) -> None:
        x + torch.ones(3).to(x.device)

    def fill_where_true(x: Tensor) -> None:
        x[x > 0] = 1

    given = ((3,), torch.float32)
    assert faults(copy_a_number, given) == ["aten.index_put_.default"]
    assert faults(copy_a_tensor, given) == ["aten._to_copy.default"]
    assert faults(fill_where_true, given) == []


@pytest.mark.parametrize("kind", ["cam++", "mel"])
def test_voiceprint(kind):
    if kind == "cam++":
        part = CAMPPlusVoiceprint(CAMPPlus(growth=4, channels=16).eval())
    else:
        part = tiny().voiceprint
    assert faults(on_fake_gpu(part), *WAVEFORM) == []


def test_timbre_and_memory():
    plain = tiny()
    low = torch.bfloat16
    tokens = ((1, 96, plain.mel.n_mels + plain.voiceprint.dim), low), ((1, 96), torch.bool)
    content = ((1, 50, plain.content.dim), low), ((1, 50), torch.bool)
    timbre, memory = (on_fake_gpu(copy.deepcopy(m).to(low)) for m in (plain.timbre, plain.memory))
    assert faults(timbre, *content, *tokens) == []
    assert faults(memory, *tokens) == []


def test_snake_copies_its_filter_once(monkeypatch):
    monkeypatch.setattr(kernels, "_TAPS_OF_DEVICE", {})

    def snake(x: Tensor, alpha: Tensor, lengths: Tensor) -> None:
        kernels.snake(x, alpha, alpha, lengths, 1)

    given = ((1, 20, 4), torch.float32), ((4,), torch.float32), ((1,), torch.int32)
    assert faults(snake, *given) == ["aten._to_copy.default"]
    assert faults(snake, *given) == []

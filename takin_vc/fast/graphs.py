"""CUDA graphs: a function of tensors that is launched whole, without Python in between."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FRAME_BUCKET = 96  # mel frames: 1.02 s at 93.75 a second
GRAPHS = 32  # that a function keeps; the least recently used goes first

Outputs = tuple[Tensor, ...]


class Replayed:
    """A function of tensors that runs as one CUDA graph for each set of their shapes.

    The function must not wait for the device and must not keep what it computes. On the CPU it is
    called as it is.

    Args:
        function: of tensors, to a tuple of tensors.
        alone: the graphs' memory is theirs alone, so that they may run beside others.
    """

    def __init__(self, function: Callable[..., Outputs], *, alone: bool = False) -> None:
        self.function = function
        self.pools: list[_Pool] = [] if alone else SHARED_POOL
        self.captured: OrderedDict[Any, tuple[torch.cuda.CUDAGraph, Outputs, Outputs]]
        self.captured = OrderedDict()

    def __call__(self, *inputs: Tensor) -> Outputs:
        if not inputs[0].is_cuda:
            return self.function(*inputs)
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self.captured:
            self.captured[key] = self._capture(inputs)
            if len(self.captured) > GRAPHS:
                self.captured.popitem(last=False)
        self.captured.move_to_end(key)
        graph, held, outputs = self.captured[key]
        for mine, given in zip(held, inputs, strict=True):
            mine.copy_(given)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    def _capture(self, inputs: Outputs) -> tuple[torch.cuda.CUDAGraph, Outputs, Outputs]:
        held = tuple(x.clone(memory_format=torch.contiguous_format) for x in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles kernels, and sets libraries up
            for _ in range(2):
                self.function(*held)
        torch.cuda.current_stream().wait_stream(stream)
        if not self.pools:
            self.pools.append(_Pool())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pools[0].handle):
            outputs = self.function(*held)
        return graph, held, outputs


class _Pool:
    """Memory of graphs, which outlives them: a graph that is never replayed holds it."""

    def __init__(self) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.holder = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.holder, pool=self.handle):
            self.held = torch.zeros(1, device="cuda")


# Made with the first graph. Graphs may share their memory: they run one after another, and what
# they give is copied.
SHARED_POOL: list[_Pool] = []


def pad_to(x: Tensor, axis: int, bucket: int) -> Tensor:
    """x with zeros at the end of `axis`, up to a multiple of `bucket`."""
    missing = -x.shape[axis] % bucket
    if not missing:
        return x
    return F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, missing])

"""Training steps as CUDA graphs.

A step of training launches thousands of small kernels. A slow CPU takes longer to launch them than
a fast GPU to run them; a captured graph is launched at once. `takin_vc.fast.graphs` does the same
for inference, where nothing is updated in place.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Learn = Callable[[dict[str, Tensor], str | None], dict[str, Tensor]]


class CapturedSteps:
    """A function of a batch that runs as one CUDA graph for each phase and shape of batch.

    The first three steps of each phase and shape run eagerly, so that libraries choose their
    kernels and optimisers create their state. Steps of the phase None are never captured.

    Args:
        learn: (batch, phase) -> scalars. It must not wait for the device, except in phase None.
    """

    EAGER_STEPS = 3

    def __init__(self, learn: Learn) -> None:
        self.learn = learn
        self.eager_steps: dict[Any, int] = {}
        self.graphs: dict[
            Any, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], dict[str, Tensor]]
        ] = {}
        self.pool: Any = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()

    def __call__(self, batch: dict[str, Tensor], phase: str | None) -> dict[str, Tensor]:
        """Scalars on the device; the next replay overwrites them."""
        key = (phase, *(tuple(tensor.shape) for tensor in batch.values()))
        if key in self.graphs:
            graph, inputs, outputs = self.graphs[key]
            for name, tensor in batch.items():
                inputs[name].copy_(tensor)
            graph.replay()
            return outputs
        self.eager_steps[key] = self.eager_steps.get(key, 0) + 1
        if phase is None or self.eager_steps[key] <= self.EAGER_STEPS:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                outputs = self.learn(batch, phase)
            torch.cuda.current_stream().wait_stream(self.stream)
            return outputs
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            outputs = self.learn(inputs, phase)
        self.graphs[key] = graph, inputs, outputs
        graph.replay()
        return outputs

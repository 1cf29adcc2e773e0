"""Matrix products of float32 by oneDNN, which PyTorch leaves to MKL.

On AMD's processors MKL does not use AVX-512: there oneDNN takes a half to a third of the time. The
results differ by rounding. `python -m benchmarks.programs.onednn` measures both.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

FEWEST_ROWS = 32  # of fewer, the weights are read once in either case: little is gained
Model = TypeVar("Model", bound=nn.Module)


def by_onednn(model: Model) -> Model:
    """The model; its `nn.Linear` layers on the CPU are replaced, in place, by `OneDNNLinear`.

    For inference: no gradients pass through them. A model elsewhere, or a PyTorch without oneDNN,
    stays as it is.
    """
    if _operator() is None:
        return model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and child.weight.device.type == "cpu":
                setattr(module, name, OneDNNLinear.in_place_of(child))
    return model


class OneDNNLinear(nn.Linear):
    """`nn.Linear` for inference, by oneDNN where that is faster."""

    @classmethod
    def in_place_of(cls, linear: nn.Linear) -> "OneDNNLinear":
        """The same layer with the same parameters."""
        layer = cls(linear.in_features, linear.out_features, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in_features) -> (…, out_features)."""
        rows = x.numel() // self.in_features
        if (
            rows < FEWEST_ROWS
            or torch.is_grad_enabled()
            or not x.dtype == self.weight.dtype == torch.float32
            or x.device.type != "cpu"
        ):
            return super().forward(x)
        product: Tensor = _operator()(x, self.weight, self.bias, "none", [], "")
        return product


def _operator() -> Any:
    """PyTorch's operator; None where it is missing (it is no part of its public interface)."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)

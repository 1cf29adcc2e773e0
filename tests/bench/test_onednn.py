"""Linear layers by oneDNN: the same layers up to rounding."""

import pytest
import torch
from torch import nn

from bench.onednn import FEWEST_ROWS, OneDNNLinear, by_onednn


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 16, bias=False)).eval()


@pytest.mark.parametrize("rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 300])
def test_a_network_gives_the_same_up_to_rounding(rows):
    x = torch.randn(2, rows, 24)
    with torch.inference_mode():
        expected = network()(x)
        torch.testing.assert_close(by_onednn(network())(x), expected, rtol=1e-5, atol=1e-5)


def test_layers_are_replaced_and_keep_their_names_and_parameters():
    before = network()
    weights = before.state_dict()
    after = by_onednn(before)
    assert isinstance(after[0], OneDNNLinear)
    assert after[0].weight is before[0].weight
    assert list(after.state_dict()) == list(weights)


def test_other_precisions_devices_and_gradients_take_the_usual_way():
    layer = by_onednn(network())[0]
    x = torch.randn(64, 24, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    with torch.inference_mode():
        assert layer.double()(x.double()).dtype == torch.float64
        assert layer.to("meta")(x.to("meta")).shape == (64, 40)

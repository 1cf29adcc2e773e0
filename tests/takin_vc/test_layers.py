"""Building blocks against torch's; padding affects none of them."""

import pytest
import torch
from torch import nn

from takin_vc.layers import FrameConv, MaskedGroupNorm, SelfAttention, masked

MASK = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 9, 8)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 4), (5, 2)])
def test_frame_convolution_equals_conv1d(kernel_size, dilation, x):
    reference = nn.Conv1d(8, 6, kernel_size, dilation=dilation, padding="same")
    convolution = FrameConv(8, 6, kernel_size, dilation=dilation)
    with torch.no_grad():
        convolution.linear.weight.copy_(reference.weight.transpose(1, 2).flatten(1))
        convolution.linear.bias.copy_(reference.bias)
    expected = reference(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(convolution(x), expected)


def test_an_even_kernel_is_named():
    with pytest.raises(ValueError, match=r"kernel_size \(4\) must be odd"):
        FrameConv(8, 6, 4)


def test_group_norm_equals_torchs_without_padding(x):
    reference = nn.GroupNorm(4, 8)
    norm = MaskedGroupNorm(4, 8)
    with torch.no_grad():
        norm.weight.copy_(reference.weight.normal_())
        norm.bias.copy_(reference.bias.normal_())
    expected = reference(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x, torch.ones(2, 9, dtype=torch.bool)), expected)


def test_groups_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"groups \(3\) must divide channels \(8\)"):
        MaskedGroupNorm(3, 8)


def test_self_attention_equals_torchs_multi_head_attention(x):
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    attention = SelfAttention(8, 2)
    with torch.no_grad():
        attention.query_key_value.weight.copy_(reference.in_proj_weight)
        attention.query_key_value.bias.copy_(reference.in_proj_bias.normal_())
        attention.output.weight.copy_(reference.out_proj.weight)
        attention.output.bias.copy_(reference.out_proj.bias)
    torch.testing.assert_close(attention(x), reference(x, x, x)[0])
    torch.testing.assert_close(
        masked(attention(x, MASK), MASK), masked(reference(x, x, x, ~MASK)[0], MASK)
    )


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"heads \(3\) must divide dim \(8\)"):
        SelfAttention(8, 3)


@pytest.mark.parametrize(
    "layer", [FrameConv(8, 8, 5, dilation=2), MaskedGroupNorm(2, 8), SelfAttention(8, 2)]
)
def test_what_stands_in_the_padding_changes_no_valid_frame(layer, x):
    alone = layer(x[1:, :4])
    noisy = x.masked_fill(~MASK[:, :, None], 1e4)
    torch.testing.assert_close(layer(noisy, MASK)[1:, :4], alone, atol=1e-5, rtol=1e-5)

"""Building blocks over frames (B, L, C) that padding never reaches: convolution, attention, norm.

Channels are last throughout, so that every layer is one matrix product over B x L rows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, L, C) with 0 on padded frames; mask (B, L), True on valid ones, None where all are."""
    return x if mask is None else x.masked_fill(~mask[:, :, None], 0.0)


class FrameConv(nn.Module):
    """A convolution over frames as one matrix product: each frame joined to its neighbours.

    The same arithmetic as `nn.Conv1d` with zeros around the sequence; `weight` (out, kernel_size x
    in) holds the channels of the earliest frame first. Of an `nn.Conv1d` it is
    `weight.transpose(1, 2).flatten(1)`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: frames that one output sees, odd.
        dilation: distance in frames between them.
        bias: whether a constant is added.

    Raises:
        ValueError: if kernel_size is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size ({kernel_size}) must be odd to keep the number of frames"
            )
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.linear = nn.Linear(kernel_size * in_channels, out_channels, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, in_channels), mask (B, L) -> (B, L, out_channels); padding counts as zeros."""
        x = masked(x, mask)
        frames = x.shape[1]
        reach = self.kernel_size // 2 * self.dilation
        x = F.pad(x, (0, 0, reach, reach))
        shifts = range(0, 2 * reach + 1, self.dilation)
        return self.linear(torch.cat([x[:, s : s + frames] for s in shifts], dim=-1))


class MaskedGroupNorm(nn.Module):
    """Group normalisation whose mean and variance leave padded frames out.

    Over each item's valid frames and each group's channels; of an unpadded batch the same as
    `nn.GroupNorm` with its channels in the middle.

    Args:
        groups: parts of the channels that are normalised together.
        channels: of the input; groups divides them.

    Raises:
        ValueError: if groups does not divide channels.
    """

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        if channels % groups != 0:
            raise ValueError(f"groups ({groups}) must divide channels ({channels})")
        self.groups = groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, C), mask (B, L) -> (B, L, C); padded frames come back as the bias."""
        # Sums in float32 whatever the input's precision: they run over thousands of values.
        grouped = x.float().unflatten(-1, (self.groups, -1))  # (B, L, groups, C / groups)
        if mask is None:
            valid = torch.ones_like(grouped[:, :, :1, :1])
        else:
            valid = mask[:, :, None, None].to(grouped)
        count = valid.sum(1, keepdim=True) * grouped.shape[-1]
        mean = (grouped * valid).sum((1, 3), keepdim=True) / count
        centred = (grouped - mean) * valid
        variance = centred.square().sum((1, 3), keepdim=True) / count
        normal = (centred * torch.rsqrt(variance + self.eps)).flatten(2)
        return (normal * self.weight + self.bias).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        query: (B, H, L, D).
        key: (B, H, R, D).
        value: (B, H, R, D).
        mask: (B, R), True on the keys that count; None where all do, which lets faster kernels run.

    Returns:
        (B, L, H x D).
    """
    where = None if mask is None else mask[:, None, None, :]
    x = F.scaled_dot_product_attention(query, key, value, attn_mask=where)
    return x.transpose(1, 2).flatten(2)  # (B, H, L, D) -> (B, L, H x D)


class SelfAttention(nn.Module):
    """Multi-head attention of frames to one another, without positions.

    Args:
        dim: channels.
        heads: divides dim.

    Raises:
        ValueError: if heads does not divide dim.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, C), mask (B, L) -> (B, L, C); padded frames are not looked at."""
        qkv = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, L, D)
        return self.output(attend(query, key, value, mask))


def check_heads(dim: int, heads: int) -> None:
    """Raises ValueError unless `heads` divides `dim`."""
    if dim % heads != 0:
        raise ValueError(f"heads ({heads}) must divide dim ({dim})")

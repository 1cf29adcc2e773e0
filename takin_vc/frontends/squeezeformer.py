"""The blocks of HybridFormer: SqueezeFormer's, with linear attention and re-parameterised
convolutions.

SqueezeFormer: Kim et al. 2022, arXiv 2206.00888; the sections named below are that paper's.
HybridFormer's changes, and what was chosen where the papers are silent:
`takin_vc.frontends.hybridformer`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.layers import attend, masked
from takin_vc.mel import frame_mask

SUBSAMPLING = 4  # filter-bank frames to one encoder frame
SHORTEST = 7  # filter-bank frames that the subsampling's two convolutions need for one frame


class Subsampling(nn.Module):
    """Four filter-bank frames to one, by two convolutions of stride 2, the second
    depthwise-separable.

    SqueezeFormer §3.2.3. Without padding, so that each frame sees only frames that exist.
    """

    def __init__(self, n_mels: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, dim, 3, stride=2)
        self.depthwise = nn.Conv2d(dim, dim, 3, stride=2, groups=dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)
        bands = ((n_mels - 1) // 2 - 1) // 2
        self.out = nn.Linear(dim * bands, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, fbank: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """fbank (B, F, n_mels), mask (B, F) -> (B, L, dim), (B, L)."""
        x = F.relu(self.conv(fbank[:, None]))  # (B, C, F/2, n_mels/2)
        x = F.relu(self.pointwise(self.depthwise(x)))  # (B, C, L, n_mels/4)
        x = self.out(x.transpose(1, 2).flatten(2))  # (B, L, C)
        lengths = subsampled_frames(mask.sum(1))
        return self.norm(self.dropout(x)), frame_mask(lengths, x.shape[1])


class TimeReduction(nn.Module):
    """Two frames to one, by a depthwise convolution of stride 2 and a pointwise one (SqueezeFormer
    §3.1.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 5, stride=2, padding=2, groups=dim)
        self.pointwise = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, L, C), mask (B, L) -> (B, ceil(L / 2), C), mask."""
        x = masked(x, mask).transpose(1, 2)  # (B, L, C) -> (B, C, L)
        x = self.pointwise(self.depthwise(x)).transpose(1, 2)
        return x, mask[:, ::2]


class Block(nn.Module):
    """SqueezeFormer's block: attention, feed-forward, convolution, feed-forward.

    Each module takes its input through a learned gain and shift per channel, is added to it, and
    normalised after (§3.2.2).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        linear: bool,
        feed_forward: int,
        kernel_size: int,
        branch_kernels: Sequence[int],
        dropout: float,
        fused: bool,
    ) -> None:
        super().__init__()
        self.scale = nn.ModuleList(Scale(dim) for _ in range(4))
        self.norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(4))
        self.attention = Attention(dim, heads, linear=linear)
        self.feed_forward1 = FeedForward(dim, feed_forward * dim, dropout)
        self.convolution = Convolution(dim, kernel_size, branch_kernels, fused=fused)
        self.feed_forward2 = FeedForward(dim, feed_forward * dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, C), mask (B, L) -> (B, L, C)."""
        x = self.norm[0](x + self.dropout(self.attention(self.scale[0](x), mask)))
        x = self.norm[1](x + self.dropout(self.feed_forward1(self.scale[1](x))))
        x = self.norm[2](x + self.dropout(self.convolution(self.scale[2](x), mask)))
        x = self.norm[3](x + self.dropout(self.feed_forward2(self.scale[3](x))))
        return x


class Scale(nn.Module):
    """A learned gain and shift per channel, instead of a layer norm before a module."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.shift = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.shift


class FeedForward(nn.Sequential):
    """Two linear layers with Swish between."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )


class Attention(nn.Module):
    """Self-attention with rotary positions, by softmax or linear in the number of frames."""

    def __init__(self, dim: int, heads: int, *, linear: bool) -> None:
        super().__init__()
        self.heads = heads
        self.linear = linear
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, C), mask (B, L) -> (B, L, C)."""
        # (B, L, 3C) -> 3 of (B, heads, L, C / heads)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.linear:
            y = linear_attention(q, k, v, mask).transpose(1, 2).flatten(2)
        else:
            y = attend(rotate(q), rotate(k), v, mask)
        out: Tensor = self.out(y)
        return out


class Convolution(nn.Module):
    """Pointwise to twice the channels, depthwise over time, pointwise back, with Swish between.

    SqueezeFormer §3.2.1 has Swish where Conformer has a gated linear unit.
    """

    def __init__(
        self, dim: int, kernel_size: int, branch_kernels: Sequence[int], *, fused: bool
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * dim)
        self.depthwise = RepConv1d(2 * dim, kernel_size, branch_kernels, fused=fused)
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, C), mask (B, L) -> (B, L, C)."""
        x = masked(F.silu(self.expand(x)), mask)
        x = self.depthwise(x.transpose(1, 2), mask).transpose(1, 2)  # (B, C, L) inside
        x = self.project(F.silu(x))
        return x


class RepConv1d(nn.Module):
    """A depthwise convolution that trains as several, each with its batch norm, and runs as one.

    Structural re-parameterisation (RepVGG, Ding et al. 2021) along time. Batch norms see valid
    frames only. Fused, a small HybridFormer's output moves by 7.2e-7.

    Args:
        channels: in and out.
        kernel_size: of the main branch; odd.
        branch_kernels: of the others; odd and smaller.
        fused: build the single convolution.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        branch_kernels: Sequence[int] = (),
        *,
        fused: bool = False,
    ) -> None:
        super().__init__()
        for kernel in branch_kernels:
            if kernel >= kernel_size:
                raise ValueError(
                    f"branch kernel ({kernel}) must be under kernel_size ({kernel_size})"
                )
        for kernel in (kernel_size, *branch_kernels):
            if kernel % 2 == 0:
                raise ValueError(f"kernel sizes must be odd to keep time in place, not {kernel}")
        self.channels = channels
        self.kernel_size = kernel_size
        self.branches = nn.ModuleList()
        self.fused: nn.Conv1d | None = None
        if fused:
            self.fused = depthwise(channels, kernel_size, bias=True)
        else:
            self.branches.extend(Branch(channels, k) for k in (kernel_size, *branch_kernels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, L), 0 on padding; mask (B, L) -> (B, C, L)."""
        if self.fused is not None:
            y: Tensor = self.fused(x)
            return y
        return torch.stack([branch(x, mask) for branch in self.branches]).sum(0)

    @torch.no_grad()
    def fuse(self) -> None:
        """Adds the branches up into one convolution, in float64; does nothing the second time."""
        if self.fused is not None:
            return
        weight: Tensor | int = 0
        bias: Tensor | int = 0
        for branch in self.branches:
            assert isinstance(branch, Branch)
            kernel, constant = branch.fused()
            around = (self.kernel_size - kernel.shape[-1]) // 2
            weight = weight + F.pad(kernel, (around, around))
            bias = bias + constant
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        fused = depthwise(self.channels, self.kernel_size, bias=True).to(weight.device)
        fused.load_state_dict({"weight": weight, "bias": bias})
        self.fused = fused
        self.branches = nn.ModuleList()


class Branch(nn.Module):
    """A depthwise convolution and its batch norm, which sees valid frames only."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = depthwise(channels, kernel_size, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, L), 0 on padding; mask (B, L) -> (B, C, L)."""
        y: Tensor = self.conv(x)
        if not self.training:
            normal: Tensor = self.norm(y)
            return normal
        y = y.transpose(1, 2)  # (B, C, L) -> (B, L, C)
        valid = self.norm(y[mask])  # (valid frames, C)
        y = torch.zeros_like(y).masked_scatter(mask[..., None], valid.to(y.dtype))
        return y.transpose(1, 2)

    def fused(self) -> tuple[Tensor, Tensor]:
        """Kernel (C, 1, kernel_size) and bias (C,) of a convolution that does the same; float64."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        gain = self.norm.weight.double() / (variance.double() + self.norm.eps).sqrt()
        bias = self.norm.bias.double() - mean.double() * gain
        return self.conv.weight.double() * gain[:, None, None], bias


def depthwise(channels: int, kernel_size: int, *, bias: bool) -> nn.Conv1d:
    """A convolution of each channel by itself that keeps the number of frames."""
    return nn.Conv1d(
        channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias
    )


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): x (..., L, D), D even, turned by an angle that grows with
    time.

    The product of a turned query and a turned key depends on how far apart they are, not on where.
    """
    length, dim = x.shape[-2:]
    half = torch.arange(0, dim, 2, device=x.device, dtype=torch.float32)
    speed = 10000.0 ** (-half / dim)
    angle = (
        torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * speed
    )  # (L, D / 2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention whose cost grows with L, not its square: q, k, v (B, H, L, D), mask (B, L) -> (B,
    H, L, D).

    y_i = sum_j <R_i f(q_i), R_j f(k_j)> v_j / sum_j <f(q_i), f(k_j)> over valid j, with f = elu +
    1 and R the rotation by position (RoFormer, Su et al. 2021, equation 19). Sums are in float32.
    """
    with torch.autocast(q.device.type, enabled=False):
        valid = mask[:, None, :, None]
        fq = F.elu(q.float()) + 1
        fk = (F.elu(k.float()) + 1) * valid
        memory = rotate(fk).transpose(-1, -2) @ (v.float() * valid)  # (B, H, D, D)
        weight = fq @ fk.sum(-2)[..., None]  # (B, H, L, 1), positive
        y = rotate(fq) @ memory / weight
    return y.to(v.dtype)


def subsampled_frames(lengths: Tensor) -> Tensor:
    """Frames that `Subsampling` makes of `lengths` filter-bank frames, (B,) -> (B,)."""
    return _after_valid_convolution(_after_valid_convolution(lengths))


def _after_valid_convolution(lengths: Tensor) -> Tensor:
    """Frames left by a convolution of kernel 3 and stride 2 without padding."""
    return ((lengths - 3) // 2 + 1).clamp(min=0)

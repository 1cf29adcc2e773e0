"""HybridFormer: the speech recogniser whose encoder gives the phonetic posteriorgram (PPG).

Yang, Pan et al. 2023, "HybridFormer: improving SqueezeFormer with hybrid attention and NSR
mechanism" (arXiv 2303.08636): SqueezeFormer (Kim et al. 2022, arXiv 2206.00888) with linear
attention in some layers and softmax attention in the others (LASA), and depthwise convolutions
that train as several branches and run as one (NSR). Takin-VC uses "the 12-layer HybridFormer-base"
(both papers, §4.4), whose weights, width, frame rate and vocabulary are not public. Its authors'
repository (yygle/HybridFormer, commit 6a5735f) holds the branches, rotary positions and the search,
no encoder; that and the paper's abstract are all that was read. What is chosen, and why:

- Width 512, 8 heads, feed-forward 2048, kernel 31, 80 filter banks, halved in time before the sixth
  layer and restored before the last: WeNet's larger 12-layer SqueezeFormer recipe (the authors'
  code is written for WeNet), and 512 channels are what HiFi-Codec's decoder takes.
- Which layers attend linearly: those at 40 ms a frame (1-5 and 12), where sequences are longest;
  those at 80 ms attend by softmax.
- Linear attention: elu + 1 (Katharopoulos et al. 2020) with rotary positions in the numerator only
  (RoFormer, Su et al. 2021, equation 19). Softmax attention turns queries and keys by the same.
- The search for branches (NAS) is left out: the branches are an argument. All have stride 1 and odd
  kernels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.layers import attend, check_heads, masked
from takin_vc.mel import frame_mask
from takin_vc.tensors import WeightsError, load_tensors, read_tensors, reading, write_tensors

FBANK_FRAME_RATE = 100.0  # Hz: filter banks come every 10 ms
SUBSAMPLING = 4  # filter-bank frames to one encoder frame
SHORTEST = 7  # filter-bank frames that the subsampling's two convolutions need for one frame


class HybridFormer(nn.Module):
    """Filter banks to one vector every 40 ms.

    Args:
        n_mels: filter banks.
        dim: channels; `heads` divides it into even widths.
        layers: blocks.
        heads: attention heads.
        reduce_at: block (from 0) before which time is halved to 80 ms a frame; None never halves.
        recover_at: block before which it is restored; after `reduce_at`.
        linear_layers: blocks that attend linearly; those at 40 ms a frame where None.
        feed_forward: width of the feed-forward modules, as a multiple of `dim`.
        kernel_size: of the depthwise convolutions.
        branch_kernels: of the branches beside each of them, smaller and odd.
        dropout: in training.
        vocabulary: outputs of the CTC head, blank first; None for none.
        fused: build the form that `fuse` gives, to load fused weights.

    Raises:
        ValueError: if the sizes do not fit each other.
    """

    fbank_mean: Tensor
    fbank_std: Tensor

    def __init__(
        self,
        *,
        n_mels: int = 80,
        dim: int = 512,
        layers: int = 12,
        heads: int = 8,
        reduce_at: int | None = 5,
        recover_at: int = 11,
        linear_layers: Sequence[int] | None = None,
        feed_forward: int = 4,
        kernel_size: int = 31,
        branch_kernels: Sequence[int] = (3, 5, 7),
        dropout: float = 0.1,
        vocabulary: int | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        if (dim // heads) % 2:
            raise ValueError(
                f"heads ({heads}) must divide dim ({dim}) into even widths, which rotary positions "
                "turn in pairs"
            )
        if n_mels < SHORTEST:
            raise ValueError(f"n_mels ({n_mels}) must be at least {SHORTEST}")
        if reduce_at is not None and not 0 <= reduce_at < recover_at < layers:
            raise ValueError(
                f"blocks must be in order: 0 <= reduce_at ({reduce_at}) < recover_at "
                f"({recover_at}) < layers ({layers}); reduce_at=None keeps time as it is"
            )
        if linear_layers is None:
            slow = range(0) if reduce_at is None else range(reduce_at, recover_at)
            linear_layers = [layer for layer in range(layers) if layer not in slow]
        self.config: dict[str, Any] = {
            "n_mels": n_mels,
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "reduce_at": reduce_at,
            "recover_at": recover_at,
            "linear_layers": list(linear_layers),
            "feed_forward": feed_forward,
            "kernel_size": kernel_size,
            "branch_kernels": list(branch_kernels),
            "dropout": dropout,
            "vocabulary": vocabulary,
            "fused": fused,
        }
        self.dim = dim
        self.vocabulary = vocabulary
        self.reduce_at = reduce_at
        self.recover_at = recover_at
        # Mean and deviation of each filter bank over the training set, set by whoever trains.
        self.register_buffer("fbank_mean", torch.zeros(n_mels))
        self.register_buffer("fbank_std", torch.ones(n_mels))
        self.subsample = Subsampling(n_mels, dim, dropout)
        self.reduce = None if reduce_at is None else TimeReduction(dim)
        self.recover = None if reduce_at is None else nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                linear=layer in linear_layers,
                feed_forward=feed_forward,
                kernel_size=kernel_size,
                branch_kernels=branch_kernels,
                dropout=dropout,
                fused=fused,
            )
            for layer in range(layers)
        )
        self.ctc = None if vocabulary is None else nn.Linear(dim, vocabulary)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return FBANK_FRAME_RATE / SUBSAMPLING

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames come of `lengths` filter-bank frames."""
        return _after_valid_convolution(_after_valid_convolution(lengths))

    def forward(self, fbank: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """fbank (B, F, n_mels), mask (B, F) -> features (B, L, dim), mask (B, L); 0 on padding.

        Raises:
            ValueError: if there are fewer than 7 filter-bank frames.
        """
        if fbank.shape[1] < SHORTEST:
            raise ValueError(
                f"HybridFormer needs at least {SHORTEST} filter-bank frames (85 ms of speech), "
                f"not {fbank.shape[1]}"
            )
        # In float32: bfloat16 has steps of 1/16 among filter banks' values.
        x = (fbank.float() - self.fbank_mean.float()) / self.fbank_std.float()
        x, mask = self.subsample(x.to(self.subsample.conv.weight.dtype), mask)
        before: tuple[Tensor, Tensor] | None = None
        for layer, block in enumerate(self.blocks):
            if self.reduce is not None and layer == self.reduce_at:
                before = x, mask
                x, mask = self.reduce(x, mask)
            if self.recover is not None and before is not None and layer == self.recover_at:
                skip, mask = before
                x = x.repeat_interleave(2, dim=1)[:, : skip.shape[1]]
                x = skip + self.recover(x)
            x = block(x, mask)
        return masked(x, mask), mask

    def logits(self, features: Tensor) -> Tensor:
        """CTC logits (B, L, vocabulary) of features (B, L, dim), blank first.

        Raises:
            ValueError: if there is no CTC head.
        """
        if self.ctc is None:
            raise ValueError("this HybridFormer has no CTC head; build it with vocabulary=...")
        logits: Tensor = self.ctc(features)
        return logits

    def fuse(self) -> "HybridFormer":
        """Turns each convolution's branches and batch norms into one convolution, in place.

        For inference: the same function in evaluation mode, and no longer trainable as before.
        """
        for module in self.modules():
            if isinstance(module, RepConv1d):
                module.fuse()
        self.config["fused"] = True
        return self.eval()

    def save(self, folder: Path) -> None:
        """Writes `config.yaml` (the constructor's arguments) and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        write_tensors(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "HybridFormer":
        """What `save` wrote, in evaluation mode.

        Raises:
            WeightsError: if a file is missing or does not fit.
        """
        config, weights = cls.find(folder)
        with reading(config, "no settings of a HybridFormer", "train it again"):
            model = cls(**yaml.safe_load(config.read_text(encoding="utf-8")))
        load_tensors(model, read_tensors(weights), weights)
        return model.eval()

    @staticmethod
    def find(folder: Path) -> list[Path]:
        """The two files that `save` wrote, or the WeightsError of `load`."""
        paths = [folder / "config.yaml", folder / "model.safetensors"]
        for path in paths:
            if not path.is_file():
                raise WeightsError(
                    f"{path}: no such file. The paper's HybridFormer (500,000 hours) is not "
                    "public: train one, or take a public recogniser for the PPG "
                    "(WhisperEncoderFeatures, HuBERTPosteriors)"
                )
        return paths


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
        lengths = _after_valid_convolution(_after_valid_convolution(mask.sum(1)))
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
    """A learned gain and shift per channel, in place of a layer norm before a module."""

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


def _after_valid_convolution(lengths: Tensor) -> Tensor:
    """Frames left by a convolution of kernel 3 and stride 2 without padding."""
    return ((lengths - 3) // 2 + 1).clamp(min=0)

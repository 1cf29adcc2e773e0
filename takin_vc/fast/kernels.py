"""Triton kernels for inference: what PyTorch would do in several passes over memory, in one.

All work on frames (B, L, C), channels last, so that convolutions are matrix products without any
copying, and all know how many frames of each item are valid: padding costs time and changes
nothing, so that one CUDA graph serves every length in a bucket.

    snake       anti-aliased Snake of BigVGAN: filter, activation, filter in registers
    convolve    convolution; adds the bias and the residuals as it writes
    normalize   residual, FiLM, layer norm, gain and shift, SiLU, neighbours for a convolution
    attend      self-attention from packed queries, keys and values

On the CPU, or without Triton, each is the plain PyTorch that it must agree with.
"""
# mypy: allow-untyped-defs
# What a kernel takes are addresses and numbers of Triton's, which Python has no types for.

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from takin_vc.mel import frame_mask
from takin_vc.snake import anti_aliased_snake, low_pass_taps

try:
    import triton
    import triton.language as tl
except ImportError:  # PyTorch for the CPU comes without
    triton = None

INTERPRETED = bool(triton and triton.knobs.runtime.interpret)  # TRITON_INTERPRET=1: on the CPU
SNAKE_CHUNK = 16  # samples that one thread walks along; 6 more warm its filters up


def snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """`takin_vc.snake.anti_aliased_snake`, channels last.

    Args:
        x: (B, T, C).
        alpha: angular frequency of each channel, (C,), float32.
        inverse_beta: magnitude of each channel, (C,), float32.
        lengths: of each item, (B,), int32.
        rate: how many samples of x one of `lengths` stands for.

    Returns:
        (B, T, C), zeros beyond `lengths`.
    """
    batch, samples, channels = x.shape
    if not _runs_triton(x):
        y = anti_aliased_snake(
            x.transpose(1, 2).float(), alpha, 1 / inverse_beta, _taps(x.device), lengths * rate
        )
        return y.transpose(1, 2).to(x.dtype)
    out = torch.empty_like(x)
    chunks = triton.cdiv(samples, SNAKE_CHUNK)
    group = math.gcd(channels, 8)
    rows = 256 // group
    _snake_kernel[(triton.cdiv(batch * chunks * channels // group, rows),)](
        x,
        out,
        alpha,
        inverse_beta,
        lengths,
        batch,
        chunks,
        samples,
        rate,
        channels // group,
        *(2 * TAPS[i] for i in range(6)),
        CHUNK=SNAKE_CHUNK,
        ROWS=rows,
        GROUP=group,
        FAST=not INTERPRETED,
        num_warps=4,
    )
    return out


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    lengths: Tensor,
    *,
    taps: int = 1,
    dilation: int = 1,
    groups: int = 1,
    rate: int = 1,
    residual: Tensor | None = None,
    other: Tensor | None = None,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A convolution over frames, with zeros around each item's valid frames.

    `(convolution + bias + residual + other) * scale`.

    Args:
        x: (B, L, C).
        weight: (out, taps x C / groups), the channels of the earliest frame first, as `FrameConv`
            has it.
        bias: (out,).
        lengths: of each item, (B,), int32.
        taps: frames that one output sees; of an even number, half come before its own.
        dilation: distance in frames between them.
        groups: parts of the channels that do not see each other.
        rate: how many frames of x one of `lengths` stands for.
        residual: (B, L, out).
        other: likewise.
        scale: factor.
        dtype: of the result; x's where None. Products of 32-bit numbers are near 32-bit ones.

    Returns:
        (B, L, out). Frames beyond `lengths` hold nothing of use.
    """
    batch, frames, channels = x.shape
    out_channels = len(weight)
    dtype = dtype or x.dtype
    if not _runs_triton(x):
        y = x.masked_fill(~frame_mask(lengths * rate, frames)[:, :, None], 0.0)
        kernel = weight.view(out_channels, taps, -1).transpose(1, 2).to(x.dtype)
        reach = taps // 2 * dilation
        y = F.conv1d(y.transpose(1, 2), kernel, padding=reach, dilation=dilation, groups=groups)
        y = y[..., :frames].transpose(1, 2)
        y = y.float() if bias is None else y.float() + bias
        for addend in (residual, other):
            y = y if addend is None else y + addend
        y = y * scale
        return y.to(dtype)
    out = torch.empty(batch, frames, out_channels, device=x.device, dtype=dtype)
    rows = batch * frames
    width = channels // groups
    flat = width % 32 != 0
    block_m, block_n, block_k, warps, stages = _conv_blocks(
        out_channels, width, flat, groups, x.dtype
    )
    if groups > 1 and (out_channels // groups) % block_n:
        raise ValueError(
            f"out / groups ({out_channels} / {groups}) must be a multiple of the tile ({block_n})"
        )
    grid = (triton.cdiv(rows, block_m) * triton.cdiv(out_channels, block_n),)
    _conv_kernel[grid](
        x,
        weight,
        bias,
        residual,
        other,
        out,
        lengths,
        rows,
        frames,
        rate,
        taps,
        dilation,
        scale,
        CHANNELS=channels,
        C=width,
        OUT=out_channels,
        FLAT=flat,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=warps,
        num_stages=stages,
    )
    return out


def normalize(
    x: Tensor,
    gain: Tensor | None,
    shift: Tensor | None,
    lengths: Tensor,
    *,
    added: Tensor | None = None,
    film: Tensor | None = None,
    silu: bool = False,
    neighbours: bool = False,
    dtype: torch.dtype,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """What stands between two matrix products: a residual joins, and its layer norm goes on.

        x = (x + added) * (1 + film[0]) + film[1]
        y = SiLU(layer_norm(x) * gain + shift)

    Args:
        x: (B, L, C).
        gain: (C,) or of each item (B, C), float32; None where no norm follows, and then y is x.
        shift: likewise.
        lengths: of each item, (B,), int32.
        added: (B, L, C).
        film: scale and shift of each item's channels, (B, 2 C), float32.
        silu: whether SiLU follows.
        neighbours: give each frame of y beside the one before and the one after it, (B, L, 3 C), as
            a convolution over three frames takes it.
        dtype: of y, and of x where it is new.
        eps: added to the variance.

    Returns:
        x, new where anything joined it, and y; zeros beyond `lengths`.
    """
    batch, frames, channels = x.shape
    changes = added is not None or film is not None
    if not _runs_triton(x):
        mask = frame_mask(lengths, frames)[:, :, None]
        if changes:
            x = x.float() if added is None else x.float() + added
            if film is not None:
                scale, offset = film[:, None].chunk(2, dim=-1)
                x = x * (1 + scale) + offset
            x = x.masked_fill(~mask, 0.0).to(dtype)
        y = x.float()
        if gain is not None and shift is not None:
            y = F.layer_norm(y, (channels,), eps=eps)
            y = y * (gain if gain.ndim == 1 else gain[:, None])
            y = y + (shift if shift.ndim == 1 else shift[:, None])
        y = (F.silu(y) if silu else y).masked_fill(~mask, 0.0).to(dtype)
        if neighbours:
            padded = F.pad(y, (0, 0, 1, 1))
            y = torch.cat([padded[:, :-2], y, padded[:, 2:]], dim=-1)
        return x, y
    copies = 3 if neighbours else 1
    y = torch.empty(batch, frames, copies * channels, device=x.device, dtype=dtype)
    new_x = torch.empty_like(x, dtype=dtype) if changes else None
    _norm_kernel[(batch * frames,)](
        x,
        added,
        film,
        gain,
        shift,
        new_x,
        y,
        lengths,
        frames,
        0 if gain is None or gain.ndim == 1 else gain.stride(0),
        0 if shift is None or shift.ndim == 1 else shift.stride(0),
        0 if film is None else film.stride(0),
        eps,
        C=channels,
        BLOCK=triton.next_power_of_2(channels),
        SILU=silu,
        NEIGHBOURS=neighbours,
        num_warps=2 if channels <= 2048 else 4,
    )
    return x if new_x is None else new_x, y


def attend(qkv: Tensor, heads: int, lengths: Tensor) -> Tensor:
    """Self-attention of each item's valid frames to one another.

    Args:
        qkv: queries, keys and values, each of all heads, (B, L, 3 H D).
        heads: H.
        lengths: of each item, (B,), int32.

    Returns:
        (B, L, H D). Frames beyond `lengths` hold nothing of use.
    """
    batch, frames, packed = qkv.shape
    width = packed // (3 * heads)
    if not _runs_triton(qkv) or width not in (16, 32, 64, 128):
        query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        mask = frame_mask(lengths, frames)[:, None, None]
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return y.transpose(1, 2).flatten(2)
    out = torch.empty(batch, frames, heads * width, device=qkv.device, dtype=qkv.dtype)
    block_m = 64
    _attention_kernel[(triton.cdiv(frames, block_m), batch * heads)](
        qkv,
        out,
        lengths,
        frames,
        1.4426950408889634 / width**0.5,  # exp(x) = 2 ** (x log2(e))
        HEADS=heads,
        D=width,
        BLOCK_M=block_m,
        BLOCK_N=64,
        num_warps=4,
        num_stages=3,
    )
    return out


TAPS = tuple(low_pass_taps().tolist())
_TAPS_OF_DEVICE: dict[torch.device, Tensor] = {}


def _taps(device: torch.device) -> Tensor:
    """The low-pass filter on a device; it is copied there once, as no CUDA graph can."""
    if device not in _TAPS_OF_DEVICE:
        _TAPS_OF_DEVICE[device] = low_pass_taps().to(device)
    return _TAPS_OF_DEVICE[device]


def _runs_triton(x: Tensor) -> bool:
    return triton is not None and (x.is_cuda or INTERPRETED)


def _conv_blocks(
    out: int, channels: int, flat: bool, groups: int, dtype: torch.dtype
) -> tuple[int, int, int, int, int]:
    """Tile of rows, outputs and inputs, warps and pipeline stages: the fastest of those measured
    on an H100 for BigVGAN's shapes in 16 bits (docs/model/inference-speed.md). In 32 bits the
    largest would not fit its 227 KB of shared memory."""
    thin = flat or channels % 64 != 0
    if groups > 1:  # WavLM's positions: 16 groups of 64
        return 64, min(64, triton.next_power_of_2(out // groups)), 32, 4, 4
    if out > 512 or 128 < out <= 256:
        return 128, 256, 32 if thin or dtype == torch.float32 else 64, 8, 3
    if out > 64:
        return (128, 128, 32, 4, 4) if thin else (128, 128, 64, 8, 3)
    return 256, max(16, triton.next_power_of_2(out)), 32, 8, 4


def _jit(*unspecialized: str) -> Any:
    """triton.jit, with arguments whose values are not worth a kernel of their own."""
    return lambda f: f if triton is None else triton.jit(f, do_not_specialize=unspecialized)


@_jit("items", "chunks", "samples", "rate", "groups")
def _snake_kernel(
    x_ptr,
    out_ptr,
    alpha_ptr,
    inverse_beta_ptr,
    lengths_ptr,
    items,
    chunks,
    samples,
    rate,
    groups,
    t0,
    t1,
    t2,
    t3,
    t4,
    t5,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    FAST: tl.constexpr,
):
    # One lane walks one channel along CHUNK samples, and keeps in registers what its filters see:
    # of x the 7 samples around n, of the doubled signal (evens e, odds o) the last 6 pairs. Lanes
    # are in rows of GROUP neighbouring channels, which are read together.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    C = groups * GROUP
    channel = row % groups * GROUP + tl.arange(0, GROUP)[None, :]
    chunk = row // groups
    item = chunk // chunks
    inside = item < items
    start = (chunk % chunks) * CHUNK
    alpha = tl.load(alpha_ptr + channel)
    inverse_beta = tl.load(inverse_beta_ptr + channel)
    length = tl.minimum(tl.load(lengths_ptr + item, mask=inside, other=1) * rate, samples)
    base = item * samples * C + channel
    end = tl.maximum(length - 1, 0)

    x0 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 6, 0), end) * C), inside, 0.0)
    x1 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 5, 0), end) * C), inside, 0.0)
    x2 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 4, 0), end) * C), inside, 0.0)
    x3 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 3, 0), end) * C), inside, 0.0)
    x4 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 2, 0), end) * C), inside, 0.0)
    x5 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(start - 1, 0), end) * C), inside, 0.0)
    x0, x1, x2 = x0.to(tl.float32), x1.to(tl.float32), x2.to(tl.float32)
    x3, x4, x5 = x3.to(tl.float32), x4.to(tl.float32), x5.to(tl.float32)
    zero = tl.zeros([ROWS, GROUP], tl.float32)
    e1, e2, e3, e4, e5 = zero, zero, zero, zero, zero
    o1, o2, o3, o4, o5, o6 = zero, zero, zero, zero, zero, zero
    last = zero
    for u in tl.static_range(CHUNK + 6):
        n = start - 3 + u
        x6 = tl.load(x_ptr + (base + tl.minimum(tl.maximum(n + 3, 0), end) * C), inside, 0.0)
        x6 = x6.to(tl.float32)
        e = t0 * x0 + t2 * x1 + t4 * x2 + t5 * x3 + t3 * x4 + t1 * x5
        o = t1 * x1 + t3 * x2 + t5 * x3 + t4 * x4 + t2 * x5 + t0 * x6
        e_sin = _sine(e * alpha, FAST)
        o_sin = _sine(o * alpha, FAST)
        e += e_sin * e_sin * inverse_beta
        o += o_sin * o_sin * inverse_beta
        # Beyond the last sample its odd one repeats, before the first its even one.
        last = tl.where(n == end, o, last)
        e = tl.where(n > end, last, e)
        o = tl.where(n > end, last, o)
        if u == 3:
            first = n == 0
            e1, e2, e3 = tl.where(first, e, e1), tl.where(first, e, e2), tl.where(first, e, e3)
            o1, o2, o3 = tl.where(first, e, o1), tl.where(first, e, o2), tl.where(first, e, o3)
        if u >= 6:
            m = n - 3
            y = t1 * e5 + t3 * e4 + t5 * e3 + t4 * e2 + t2 * e1 + t0 * e
            y += t0 * o6 + t2 * o5 + t4 * o4 + t5 * o3 + t3 * o2 + t1 * o1
            y = tl.where(m < length, 0.5 * y, 0.0)  # the taps are twice the filter's
            tl.store(out_ptr + (base + m * C), y, inside & (m < samples))
        x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, x6
        e5, e4, e3, e2, e1 = e4, e3, e2, e1, e
        o6, o5, o4, o3, o2, o1 = o5, o4, o3, o2, o1, o


@_jit()
def _sine(x, FAST: tl.constexpr):
    if FAST:
        # The hardware's sine: within 5e-7 near 0, and 1e-5 at some hundreds.
        return tl.inline_asm_elementwise(
            "sin.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.sin(x)


@_jit("rows", "frames", "rate", "taps", "dilation")
def _conv_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    residual_ptr,
    other_ptr,
    out_ptr,
    lengths_ptr,
    rows,
    frames,
    rate,
    taps,
    dilation,
    scale,
    CHANNELS: tl.constexpr,
    C: tl.constexpr,
    OUT: tl.constexpr,
    FLAT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Neighbouring programs share rows of x.
    tiles_n: tl.constexpr = (OUT + BLOCK_N - 1) // BLOCK_N
    row = tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    item = row // frames
    t = row % frames
    length = tl.load(lengths_ptr + item, mask=row < rows, other=0) * rate
    length = tl.minimum(length, frames)
    reach = taps // 2 * dilation
    width = taps * C
    weight = weight_ptr + n[None, :] * width + k[:, None]
    known = (n < OUT)[None, :]
    # All outputs of a tile are of one group.
    x_ptr += tl.program_id(0) % tiles_n * BLOCK_N // (OUT // (CHANNELS // C)) * C
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if FLAT:  # several taps in one tile of inputs
        for i in range((width + BLOCK_K - 1) // BLOCK_K):
            at_k = i * BLOCK_K + k
            shift = at_k // C * dilation - reach
            at = t[:, None] + shift[None, :]
            valid = (at >= 0) & (at < length[:, None]) & (at_k < width)[None, :]
            place = (row[:, None] + shift[None, :]) * CHANNELS + (at_k % C)[None, :]
            a = tl.load(x_ptr + place, mask=valid, other=0.0)
            b = tl.load(weight, mask=known & (at_k < width)[:, None], other=0.0)
            total = tl.dot(a, b, total, input_precision="tf32x3")
            weight += BLOCK_K
    else:
        STEPS: tl.constexpr = C // BLOCK_K
        for i in range(taps * STEPS):
            shift = i // STEPS * dilation - reach
            valid = (t + shift >= 0) & (t + shift < length)
            place = (row + shift)[:, None] * CHANNELS + (i % STEPS * BLOCK_K + k)[None, :]
            a = tl.load(x_ptr + place, mask=valid[:, None], other=0.0)
            b = tl.load(weight, mask=known, other=0.0)
            total = tl.dot(a, b, total, input_precision="tf32x3")
            weight += BLOCK_K
    if bias_ptr is not None:
        total += tl.load(bias_ptr + n, mask=n < OUT, other=0.0)[None, :]
    place = row[:, None] * OUT + n[None, :]
    valid = (row < rows)[:, None] & known
    if residual_ptr is not None:
        total += tl.load(residual_ptr + place, mask=valid, other=0.0)
    if other_ptr is not None:
        total += tl.load(other_ptr + place, mask=valid, other=0.0)
    total *= scale
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=valid)


@_jit("frames")
def _norm_kernel(
    x_ptr,
    added_ptr,
    film_ptr,
    gain_ptr,
    shift_ptr,
    new_x_ptr,
    y_ptr,
    lengths_ptr,
    frames,
    gain_stride,
    shift_stride,
    film_stride,
    eps,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    SILU: tl.constexpr,
    NEIGHBOURS: tl.constexpr,
):
    row = tl.program_id(0)
    item = row // frames
    t = row % frames
    valid = t < tl.load(lengths_ptr + item)
    channel = tl.arange(0, BLOCK)
    inside = channel < C
    x = tl.load(x_ptr + row * C + channel, mask=inside, other=0.0).to(tl.float32)
    if added_ptr is not None:
        x += tl.load(added_ptr + row * C + channel, mask=inside, other=0.0).to(tl.float32)
    if film_ptr is not None:
        film = film_ptr + item * film_stride + channel
        x = x * (1 + tl.load(film, mask=inside, other=0.0))
        x += tl.load(film + C, mask=inside, other=0.0)
    if new_x_ptr is not None:
        x = tl.where(valid, x, 0.0)
        tl.store(new_x_ptr + row * C + channel, x.to(new_x_ptr.dtype.element_ty), mask=inside)
    y = x
    if gain_ptr is not None:
        mean = tl.sum(x, 0) / C
        centred = tl.where(inside, x - mean, 0.0)
        y = centred * tl.rsqrt(tl.sum(centred * centred, 0) / C + eps)
        y = y * tl.load(gain_ptr + item * gain_stride + channel, mask=inside, other=0.0)
        y += tl.load(shift_ptr + item * shift_stride + channel, mask=inside, other=0.0)
    if SILU:
        y = y * tl.sigmoid(y)
    y = tl.where(valid, y, 0.0).to(y_ptr.dtype.element_ty)
    if NEIGHBOURS:
        out = y_ptr + row * (3 * C) + channel
        tl.store(out + C, y, mask=inside)
        zero = tl.zeros_like(y)
        if t + 1 < frames:
            tl.store(out + 3 * C, y, mask=inside)  # before the next frame
        else:
            tl.store(out + 2 * C, zero, mask=inside)
        if t > 0:
            tl.store(out - C, y, mask=inside)  # after the last frame
        else:
            tl.store(out, zero, mask=inside)
    else:
        tl.store(y_ptr + row * C + channel, y, mask=inside)


@_jit("frames")
def _attention_kernel(
    qkv_ptr,
    out_ptr,
    lengths_ptr,
    frames,
    factor,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # Dao 2023, "FlashAttention-2", algorithm 1: the softmax is rescaled as keys go by.
    item = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    length = tl.minimum(tl.load(lengths_ptr + item), frames)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, D)
    STRIDE: tl.constexpr = 3 * HEADS * D
    base = qkv_ptr + item * frames * STRIDE + head * D
    query = tl.load(base + m[:, None] * STRIDE + d[None, :], mask=(m < frames)[:, None], other=0.0)
    keys = base + HEADS * D + d[:, None] + n[None, :] * STRIDE
    values = base + 2 * HEADS * D + n[:, None] * STRIDE + d[None, :]
    largest = tl.full([BLOCK_M], -float("inf"), tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    total = tl.zeros([BLOCK_M, D], tl.float32)
    for start in range(0, length, BLOCK_N):
        valid = start + n < length
        key = tl.load(keys + start * STRIDE, mask=valid[None, :], other=0.0)
        score = tl.dot(query, key) * factor
        score = tl.where(valid[None, :], score, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(score, 1))
        share = tl.exp2(score - new_largest[:, None])
        fade = tl.exp2(largest - new_largest)
        value = tl.load(values + start * STRIDE, mask=valid[:, None], other=0.0)
        weight = weight * fade + tl.sum(share, 1)
        total = tl.dot(share.to(value.dtype), value, total * fade[:, None])
        largest = new_largest
    total = total / weight[:, None]
    place = (item * frames + m)[:, None] * (HEADS * D) + head * D + d[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=(m < frames)[:, None])

"""Each kernel equals the plain PyTorch code next to it.

On a GPU, or on the CPU in Triton's interpreter: `TRITON_INTERPRET=1 pytest
tests/takin_vc/fast/test_kernels.py`.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from takin_vc.fast import kernels
from takin_vc.mel import frame_mask

needs_triton = pytest.mark.skipif(
    not (torch.cuda.is_available() or kernels.INTERPRETED),
    reason="needs a GPU, or TRITON_INTERPRET=1",
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.bfloat16, torch.float16] if torch.cuda.is_available() else [torch.float32]
if kernels.INTERPRETED:
    # The interpreter of Triton 3.6 makes an int of an array of one number, which NumPy 2.5 refuses.
    from triton.runtime import interpreter

    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_tensor_and_index

ROUNDING = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 1e-5}


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def lengths_of(*lengths: int) -> Tensor:
    return torch.tensor(lengths, dtype=torch.int32)


def assert_same(run, *tensors, dtype, valid=None, **settings) -> None:
    """Checks that Triton's result is PyTorch's on the CPU in 32 bits, by the relative norm."""

    def moved(value, device, to=None):
        if not isinstance(value, Tensor):
            return value
        return value.to(device, to) if to and value.is_floating_point() else value.to(device)

    results = run(
        *(moved(t, DEVICE) for t in tensors),
        **{name: moved(value, DEVICE) for name, value in settings.items()},
    )
    triton, kernels.triton = kernels.triton, None
    try:
        expected = run(
            *(moved(t, "cpu", torch.float32) for t in tensors),
            **{name: moved(value, "cpu", torch.float32) for name, value in settings.items()},
        )
    finally:
        kernels.triton = triton
    if isinstance(results, Tensor):
        results, expected = (results,), (expected,)
    for actual, wanted in zip(results, expected, strict=True):
        actual, wanted = actual.cpu().float(), wanted.float()
        if valid is not None:
            actual, wanted = actual[valid], wanted[valid]
        assert bool(torch.isfinite(actual).all())
        assert float((actual - wanted).norm() / wanted.norm()) < ROUNDING[dtype]


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("channels", "rate", "lengths"), [(24, 2, (50, 9)), (96, 1, (100, 99)), (5, 4, (1, 25))]
)
def test_snake(dtype, channels, rate, lengths):
    alpha, magnitude = torch.linspace(0.3, 3, channels), torch.linspace(0.2, 2, channels)
    x = draw(2, 100, channels, dtype=dtype)
    assert_same(kernels.snake, x, alpha, magnitude, lengths_of(*lengths), rate, dtype=dtype)


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("channels", "out", "taps", "dilation", "groups"),
    [
        (24, 24, 11, 5, 1),
        (96, 96, 7, 3, 1),
        (64, 1, 7, 1, 1),
        (48, 160, 3, 1, 1),
        (64, 64, 8, 1, 2),
    ],
)
def test_convolve(dtype, channels, out, taps, dilation, groups):
    width = taps * channels // groups
    lengths = lengths_of(35, 16)
    assert_same(
        kernels.convolve,
        draw(2, 70, channels, dtype=dtype),
        (draw(out, width) / width**0.5).to(dtype),
        draw(out),
        lengths,
        dtype=dtype,
        valid=frame_mask(2 * lengths, 70),
        **{"taps": taps, "dilation": dilation, "groups": groups, "rate": 2, "scale": 0.5},
        residual=draw(2, 70, out, dtype=dtype),
        other=draw(2, 70, out, dtype=dtype),
    )


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("joined", [False, True])
def test_normalize(dtype, neighbours, joined):
    extra = {"added": draw(2, 40, 80, dtype=dtype), "film": draw(2, 160)} if joined else {}

    def run(x, gain, shift, lengths, **settings):
        to = dtype if x.device.type == DEVICE and kernels.triton else torch.float32
        return kernels.normalize(
            x, gain, shift, lengths, silu=True, neighbours=neighbours, dtype=to, **settings
        )

    x, gain, shift = draw(2, 40, 80), draw(2, 80), draw(80)
    assert_same(run, x, gain, shift, lengths_of(40, 17), dtype=dtype, **extra)


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "width", "frames"), [(2, 32, 150), (1, 128, 65)])
def test_attend(dtype, heads, width, frames):
    lengths = lengths_of(frames, 3)
    qkv = draw(2, frames, 3 * heads * width, dtype=dtype)
    valid = frame_mask(lengths, frames)
    assert_same(kernels.attend, qkv, heads, lengths, dtype=dtype, valid=valid)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.skipif(torch.cuda.is_available(), reason="runs above, on the GPU")
@pytest.mark.skipif(kernels.INTERPRETED, reason="is run by this")
def test_kernels_compute_the_same_in_the_interpreter():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    # This one, and the eight of the next.
    assert re.search(r" passed, 9 skipped", result.stdout), result.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.skipif(kernels.INTERPRETED, reason="compiles")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("out", "channels"), [(1024, 512), (512, 512), (256, 256), (64, 64)])
def test_tiles_of_a_convolution_fit_the_shared_memory_of_an_h100(dtype, out, channels):
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = kernels._conv_kernel
    rows, outputs, inputs, warps, stages = kernels._conv_blocks(out, channels, False, 1, dtype)
    constants = {
        "residual_ptr": None,
        "other_ptr": None,
        "CHANNELS": channels,
        "C": channels,
        "OUT": out,
        "FLAT": False,
        "BLOCK_M": rows,
        "BLOCK_N": outputs,
        "BLOCK_K": inputs,
    }
    number = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    types = {"lengths_ptr": "*i32", "bias_ptr": "*fp32", "scale": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    signature = {
        name: types.get(name, f"*{number}" if name.endswith("_ptr") else "i32")
        for name in kernel.arg_names
    }
    aligned = [n for n, kind in signature.items() if kind.startswith("*")]
    compiled = compile(
        ASTSource(
            kernel,
            signature,
            {(kernel.arg_names.index(name),): value for name, value in constants.items()},
            {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        ),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    assert compiled.metadata.shared <= 227 * 1024


def test_convolve_without_a_gpu_is_a_convolution_of_the_valid_frames():
    x, weight, bias = draw(1, 20, 6), draw(4, 6, 3), draw(4)
    results = kernels.convolve(
        x, weight.transpose(1, 2).flatten(1), bias, lengths_of(13), taps=3, dilation=2
    )
    expected = F.conv1d(x[:, :13].transpose(1, 2), weight, bias, padding=2, dilation=2)
    torch.testing.assert_close(results[:, :13], expected.transpose(1, 2))


def test_neighbours_stand_before_and_after_and_are_zero_beyond_the_ends():
    x = torch.tensor([[[1.0], [2.0], [3.0], [9.0]]])
    _, y = kernels.normalize(x, None, None, lengths_of(3), neighbours=True, dtype=torch.float32)
    expected = [[[0.0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 0]]]
    torch.testing.assert_close(y, torch.tensor(expected))


def test_film_comes_after_what_is_added():
    x, _ = kernels.normalize(
        torch.tensor([[[1.0]]]),
        None,
        None,
        lengths_of(1),
        added=torch.tensor([[[2.0]]]),
        film=torch.tensor([[10.0, 5.0]]),
        dtype=torch.float32,
    )
    assert x.item() == (1 + 2) * (1 + 10) + 5


def test_groups_that_tiles_do_not_fit_are_refused(monkeypatch):
    if kernels.triton is None:
        pytest.skip("needs Triton")
    monkeypatch.setattr(kernels, "_runs_triton", lambda _: True)
    with pytest.raises(ValueError, match=r"out / groups \(72 / 3\) must be a multiple of the tile"):
        kernels.convolve(draw(1, 8, 72), draw(72, 24), None, lengths_of(8), groups=3)

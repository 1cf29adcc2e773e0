"""Snake and its low-pass filters beside SciPy's."""

import math

import numpy as np
import pytest
import torch
from scipy import signal, special
from torch import Tensor

from takin_vc.snake import anti_aliased_snake, low_pass_taps


def test_low_pass_filter_is_scipys_kaiser_design():
    beta = signal.kaiser_beta(2.285 * 5 * math.pi * 1.2 + 7.95)
    expected = signal.firwin(12, 0.5, window=("kaiser", beta))
    torch.testing.assert_close(low_pass_taps(), torch.from_numpy(expected).float())


def test_snake_of_a_constant_is_the_formula():
    # The filter's even and odd taps are each other's mirror image: both sum to a half, and a
    # constant passes unchanged, up to the ends.
    x = torch.full((1, 2, 20), 0.7)
    y = anti_aliased_snake(x, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5]), low_pass_taps())
    for channel, (alpha, beta) in enumerate([(1.0, 1.0), (3.0, 0.5)]):
        expected = 0.7 + math.sin(alpha * 0.7) ** 2 / beta
        torch.testing.assert_close(y[0, channel], torch.full((20,), expected))


def test_snake_is_upfirdn_snake_upfirdn():
    # SciPy's polyphase filters, on a signal whose ends are repeated before each of them.
    taps = low_pass_taps().double()
    x = torch.randn(23, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    doubled = 2 * signal.upfirdn(taps.numpy(), np.pad(x.numpy(), 5, mode="edge"), up=2)
    doubled = doubled[15 : 15 + 46]
    doubled = doubled + np.sin(1.7 * doubled) ** 2 / 0.6
    padded = np.pad(doubled, (5, 6), mode="edge")
    expected = signal.upfirdn(taps.numpy(), padded, down=1)[11 : 11 + 46 : 2]
    alpha, beta = torch.tensor([1.7]).double(), torch.tensor([0.6]).double()
    y = anti_aliased_snake(x[None, None], alpha, beta, taps)
    torch.testing.assert_close(y[0, 0], torch.from_numpy(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("frequency", [0.3, 0.35, 0.4])
def test_snake_makes_weaker_aliases_at_twice_the_rate(frequency):
    # sin^2(a cos w) has the second harmonic J2(2a) cos 2w, here over half the rate: it folds back.
    samples = torch.arange(2000)
    x = 0.5 * torch.cos(2 * math.pi * frequency * samples)[None, None]
    one, window = torch.ones(1), torch.hann_window(len(samples))

    def alias(y: Tensor) -> float:
        turned = y[0, 0] * window * torch.exp(-4j * math.pi * frequency * samples)
        return float(2 * turned.sum().abs() / window.sum())

    plain = alias(x + torch.sin(x).square())
    assert plain == pytest.approx(special.jv(2, 1.0), abs=1e-3)
    assert alias(anti_aliased_snake(x, one, one, low_pass_taps())) < plain / 2

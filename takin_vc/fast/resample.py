"""Resampling on the device of the model, by soxr's own filter.

soxr is linear, and its filter repeats: where the rates are as `up` to `down`, output `m + up`
weighs the inputs `down` samples later as output `m` does. So its answers to `down` unit impulses
are all of the filter. `Resampler` asks soxr for them once for each pair of rates. It then resamples
by one matrix product: a row for each block of input, a column for each output.

It differs from soxr by rounding alone: by at most 2e-6 of the largest sample, over the rates of
`tests/takin_vc/fast/test_resample.py`. The first 4 ms are an exception where a rate is a multiple
of 11025 Hz: soxr's first samples are wrong there, by up to 2 % of the largest sample.
"""

import math

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

MOST_PHASES = 1000  # of a filter; pairs of rates that need more are left to soxr
LEAST_BLOCK = 64  # outputs of one row of the product
REACH = 160.0  # inputs, at the lower rate, on each side that an output can depend on
SMALLEST_WEIGHT = 1e-6  # of the largest; those outside it are rounding errors of soxr


class Resampler:
    """Resamples waveforms that are on a device, as soxr does on the CPU.

    Filters are kept for each pair of rates and each device.
    """

    def __init__(self) -> None:
        self.filters: dict[tuple[int, int, torch.device], tuple[Tensor, int, int]] = {}

    @staticmethod
    def supports(old: int, new: int) -> bool:
        """Whether the filter between these rates (Hz) is small enough to be a matrix."""
        return max(old, new) // math.gcd(old, new) <= MOST_PHASES

    @torch.no_grad()
    def __call__(self, samples: Tensor, old: int, new: int) -> Tensor:
        """Waveforms at another rate.

        Args:
            samples: (B, T), float32, at `old` Hz.
            old: in Hz.
            new: in Hz; `supports(old, new)`.

        Returns:
            (B, T'), float32, at `new` Hz; T' is T x new / old, rounded half up, as soxr has it.
        """
        if old == new:
            return samples
        key = (old, new, samples.device)
        if key not in self.filters:
            weights, stride, left = _matrix(old, new)
            self.filters[key] = weights.to(samples.device), stride, left
        weights, stride, left = self.filters[key]
        width, outputs = weights.shape
        count = resampled_length(samples.shape[1], old, new)
        rows = -(-count // outputs)
        right = (rows - 1) * stride + width - left - samples.shape[1]
        padded = F.pad(samples, (left, right))  # a negative `right` cuts
        return (padded.unfold(1, width, stride) @ weights).flatten(1)[:, :count]


def resampled_length(samples: int, old: int, new: int) -> int:
    """How many samples soxr makes at `new` Hz of `samples` at `old` Hz."""
    return (2 * samples * new + old) // (2 * old)


def _matrix(old: int, new: int) -> tuple[Tensor, int, int]:
    """soxr's filter as a matrix.

    Returns:
        Weights (inputs, outputs); by how many inputs each row of inputs starts after the one before
        it; and how many of a row's inputs stand before those of its first output.
    """
    up, down = new // math.gcd(old, new), old // math.gcd(old, new)
    reach = math.ceil(REACH * max(1.0, old / new))
    # One signal with an impulse for each place, so far apart that their answers do not touch.
    apart = -(-(2 * reach + 2 * down + 1) // down)  # in periods of the filter
    starts = down * apart * np.arange(1, down + 1)
    impulses = np.zeros(down * apart * (down + 2), np.float32)
    impulses[starts + np.arange(down)] = 1
    answers = soxr.resample(impulses, old, new)
    periods = -(-LEAST_BLOCK // up)
    weights = np.zeros((2 * reach + periods * down, periods * up), np.float32)
    outputs = np.arange(periods * up)
    for place, start in enumerate(starts):
        # Input `place + down k` of a row, for all periods k; its weight in output n is that of
        # input `place` in output n - up k.
        k = np.arange(-((reach + place) // down), (periods * down + reach - 1 - place) // down + 1)
        weights[reach + place + down * k] = answers[start // down * up + outputs - up * k[:, None]]
    kept = np.nonzero((np.abs(weights) > SMALLEST_WEIGHT * np.abs(weights).max()).any(1))[0]
    first, last = int(kept[0]), int(kept[-1])
    return torch.from_numpy(weights[first : last + 1].copy()), periods * down, reach - first

"""Long recordings in overlapping chunks that join without a seam."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """How long something may be at once, and how much neighbouring chunks share.

    Every chunk of a long recording is equally long; together they cover it from end to end. Within
    an overlap, the middle half fades from one chunk to the next: what sees no further than a
    quarter of the overlap gives the same in chunks as in one piece.

    Args:
        size: of a chunk; a multiple of `grid`.
        overlap: least that neighbours share.
        grid: chunks begin at multiples of it.

    Raises:
        ValueError: if the overlap is over a third of the size, or the size is off the grid.
    """

    size: int
    overlap: int
    grid: int = 1

    def __post_init__(self) -> None:
        # Up to a third, no two fades meet, however the chunks are spread.
        if not 0 < self.overlap <= self.size // 3 - self.grid:
            raise ValueError(
                f"overlap ({self.overlap}) must be positive and at most a third of size "
                f"({self.size}), less the grid ({self.grid})"
            )
        if self.size % self.grid:
            raise ValueError(f"size ({self.size}) must be a multiple of grid ({self.grid})")

    def starts(self, length: int) -> list[int]:
        """Where the chunks of a recording begin; the last one ends at or after its end."""
        if length <= self.size:
            return [0]
        step = (self.size - self.overlap) // self.grid
        last = math.ceil((length - self.size) / self.grid)
        count = math.ceil(last / step)
        # Spread evenly: no chunk is a short remainder, which a network would know less about.
        return [i * last // count * self.grid for i in range(count + 1)]


def fade_weights(starts: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
    """The share that each chunk has in each of its positions; shares at one position sum to 1.

    Args:
        starts: first position of each chunk, rising.
        sizes: positions of each; neighbours overlap.
    """
    weights = [torch.ones(size) for size in sizes]
    for i in range(1, len(starts)):
        overlap = starts[i - 1] + sizes[i - 1] - starts[i]
        position = torch.arange(overlap) + 0.5
        rising = ((position - overlap / 4) / (overlap / 2)).clamp(0, 1)
        weights[i][:overlap] *= rising
        weights[i - 1][sizes[i - 1] - overlap :] *= 1 - rising
    return weights

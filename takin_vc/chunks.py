"""Long sources in overlapping chunks: how they are cut, encoded, vocoded and joined.

The flow over chunks is `takin_vc.model.TakinVC`'s: its chunks share every step of the solver.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from takin_vc.content import Content, HybridContentEncoder
from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.inputs import pad_rows
from takin_vc.mel import frame_mask, mask_if_padded
from takin_vc.vocoder import Vocoder


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


@dataclass(frozen=True, eq=False)
class Piece:
    """The k-th chunks of all sources with more than k chunks.

    Attributes:
        rows: the batch item of each, (N,).
        index: their frames in these items, (N, S); the last frame repeated beyond the end.
        shares: of each in the whole, 0 beyond the end, (N, S).
        mask: (N, S), True on valid frames; None where all are.
        whole: every item is one chunk: nothing is cut.
    """

    rows: Tensor
    index: Tensor
    shares: Tensor
    mask: Tensor | None
    whole: bool

    def repeat(self, copies: int, batch: int) -> "Piece":
        """The same of a batch that is `copies` times the old one of `batch` items."""
        rows = torch.cat([self.rows + copy * batch for copy in range(copies)])
        return Piece(
            rows, self.index.repeat(copies, 1), self.shares.repeat(copies, 1), None, self.whole
        )

    def cut(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (N, C, S)."""
        index = self.index[:, None].expand(-1, x.shape[1], -1)
        return x[self.rows].gather(2, index)

    def add(self, piece: Tensor, total: Tensor) -> None:
        """Adds the shares of `piece` (N, C, S) to `total` (B, C, L), in place."""
        index = self.index[:, None].expand_as(piece)
        total[self.rows] = total[self.rows].scatter_add(2, index, piece * self.shares[:, None])


def cut_pieces(lengths: list[int], chunks: Chunks, device: torch.device) -> list[Piece]:
    """Cuts sources of `lengths` frames into chunks."""
    longest = max(lengths)
    starts = [chunks.starts(length) for length in lengths]
    sizes = [
        [min(chunks.size, length - start) for start in begins]
        for length, begins in zip(lengths, starts, strict=True)
    ]
    shares = [fade_weights(*pair) for pair in zip(starts, sizes, strict=True)]
    size = min(chunks.size, longest)
    pieces = []
    for k in range(max(map(len, starts))):
        rows = [i for i, begins in enumerate(starts) if k < len(begins)]
        counts = torch.tensor([sizes[i][k] for i in rows], device=device)
        first = torch.tensor([starts[i][k] for i in rows], device=device)
        index = first[:, None] + torch.arange(size, device=device)
        pieces.append(
            Piece(
                torch.tensor(rows, device=device),
                index.clamp(max=longest - 1),
                pad_rows([*(shares[i][k] for i in rows), torch.zeros(size)])[:-1].to(device),
                mask_if_padded(counts, size),
                whole=longest <= chunks.size,
            )
        )
    return pieces


def chunks_of(seconds: float, overlap: float, rate: float, grid: int) -> Chunks:
    """Chunks of at most `seconds` at `rate` a second, on the grid."""
    size = int(seconds * rate) // grid * grid
    return Chunks(size, int(overlap * rate), grid)


def content_in_chunks(
    encoder: HybridContentEncoder, waveform: Tensor, lengths: Tensor, chunks: Chunks
) -> Content:
    """The content of long sources in overlapping chunks, with no gradient.

    Args:
        encoder: of the content.
        waveform: (B, T) at 16 kHz.
        lengths: in samples, (B,).
        chunks: in samples; their grid is a whole number of content frames.

    Returns:
        The content of the whole sources; its commitment is 0 if there are several chunks.
    """
    if waveform.shape[1] <= chunks.size:
        return encoder(waveform, lengths)
    counts = lengths.tolist()
    starts = [chunks.starts(count) for count in counts]
    encoded: list[list[Tensor]] = [[] for _ in starts]
    # The k-th chunks of all sources with more than k chunks run as one batch.
    for k in range(max(map(len, starts))):
        items = [i for i, begins in enumerate(starts) if k < len(begins)]
        pieces = [waveform[i, starts[i][k] : counts[i]][: chunks.size] for i in items]
        sizes = torch.tensor([len(piece) for piece in pieces], device=waveform.device)
        content = encoder(pad_rows(pieces), sizes)
        for i, features, mask in zip(items, content.features, content.mask, strict=True):
            encoded[i].append(features[mask])
    wholes = []
    for begins, features in zip(starts, encoded, strict=True):
        frames = [int(start * encoder.frame_rate / SAMPLE_RATE) for start in begins]
        shares = fade_weights(frames, [len(piece) for piece in features])
        whole = features[0].new_zeros(frames[-1] + len(features[-1]), features[0].shape[1])
        for start, piece, share in zip(frames, features, shares, strict=True):
            whole[start : start + len(piece)] += piece * share.to(piece)[:, None]
        wholes.append(whole)
    joined = pad_rows(wholes)
    new_lengths = torch.tensor([len(whole) for whole in wholes], device=waveform.device)
    mask = frame_mask(new_lengths, joined.shape[1])
    return Content(joined, mask, joined.new_zeros(()))


def vocode_in_chunks(vocoder: Vocoder, mel: Tensor, lengths: Tensor, size: int) -> Tensor:
    """Vocodes log mels (B, n_mels, L) of `lengths` frames (B,) to (B, T), `size` frames at a time.

    Each chunk also gets the frames before and after it on which its samples depend, so the result
    is that of the whole.
    """
    reach, hop = vocoder.reach_frames, vocoder.hop_length
    frames = mel.shape[2]
    mel = mel.to(next(vocoder.parameters()).dtype)
    waveforms = []
    for start in range(0, frames, size):
        end = min(start + size, frames)
        left, right = max(start - reach, 0), min(end + reach, frames)
        valid = (lengths - left).clamp(0, right - left)
        partial = None if bool((valid == right - left).all()) else valid
        waveform = vocoder(mel[:, :, left:right], partial)
        waveforms.append(waveform[:, (start - left) * hop : (end - left) * hop])
    return torch.cat(waveforms, dim=1)

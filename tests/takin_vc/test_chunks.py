"""Chunks cover a recording, and their shares sum to one."""

from itertools import pairwise

import pytest
import torch

from takin_vc.chunks import Chunks, fade_weights

CHUNKS = [Chunks(30, 8), Chunks(40, 8, grid=4), Chunks(100, 30), Chunks(64, 5, grid=16)]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_chunks_cover_every_length_with_shares_of_one(chunks):
    for length in range(1, 400):
        starts = chunks.starts(length)
        assert starts[0] == 0
        assert all(start % chunks.grid == 0 for start in starts)
        assert starts[-1] + chunks.size >= length
        assert len(starts) == 1 or starts[-1] < length
        sizes = [min(chunks.size, length - start) for start in starts]
        total = torch.zeros(length)
        for start, size, share in zip(starts, sizes, fade_weights(starts, sizes), strict=True):
            total[start : start + size] += share
            assert share.min() >= 0
        torch.testing.assert_close(total, torch.ones(length))
        for before, after in pairwise(starts):
            assert before + chunks.size - after >= chunks.overlap


def test_what_fits_one_chunk_stays_whole():
    assert Chunks(30, 8).starts(30) == [0]
    assert Chunks(30, 8).starts(31) == [0, 1]
    assert Chunks(30, 8).starts(52) == [0, 22]
    assert Chunks(30, 8).starts(53) == [0, 11, 23]


def test_fade_is_in_the_middle_half_of_an_overlap():
    first, second = fade_weights([0, 12], [20, 20])  # they share 8 positions
    assert first[:14].tolist() == [1.0] * 14
    assert first[14:18].tolist() == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8])
    assert first[18:].tolist() == [0.0] * 2
    assert second[:2].tolist() == [0.0] * 2
    assert second[6:].tolist() == [1.0] * 14


def test_sizes_that_cannot_be_name_both_values():
    with pytest.raises(ValueError, match=r"overlap \(11\) .* third of size \(30\)"):
        Chunks(30, 11)
    with pytest.raises(ValueError, match=r"overlap \(0\) must be positive"):
        Chunks(30, 0)
    with pytest.raises(ValueError, match=r"size \(30\) must be a multiple of grid \(4\)"):
        Chunks(30, 4, grid=4)

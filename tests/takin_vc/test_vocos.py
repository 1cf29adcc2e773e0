"""Vocos: padding, reach, and waveforms of spectra that are known."""

import math
from typing import Any

import pytest
import torch

from takin_vc.chunks import vocode_in_chunks
from takin_vc.fast.model import RecordedVocoder
from takin_vc.vocoder import OverlapAdd
from takin_vc.vocos import Vocos

HOP = 16


def small(**settings: Any) -> Vocos:
    """A vocoder of hop 16 whose every part has an effect."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_mels": 6, "hop_length": HOP, "dim": 12, "hidden": 24, "blocks": 2}
    model = Vocos(**sizes | settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


@pytest.mark.parametrize("rate", [1, 2])
def test_padding_never_changes_a_sample(rate):
    model = small(rate=rate)
    mel, lengths = torch.randn(3, 6, 50), torch.tensor([50, 31, 7])
    for row, n in zip(mel, lengths, strict=True):
        row[:, n:] = 9.0  # what lies beyond must not matter
    with torch.no_grad():
        batched = model(mel, lengths)
        for row, waveform, n in zip(mel, batched, lengths, strict=True):
            alone = model(row[None, :, :n])[0]
            torch.testing.assert_close(waveform[: n * HOP], alone, atol=1e-5, rtol=0)
            assert torch.all(waveform[n * HOP :] == 0)


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_nothing_beyond_its_reach_has_an_effect(rate):
    model = small(rate=rate).double()
    mel = torch.randn(1, 6, 120, dtype=torch.float64)
    other = mel.clone()
    other[:, :, :60] += 1
    with torch.no_grad():
        moved = (model(mel) - model(other))[0].abs()
    assert torch.all(moved[(60 + model.reach_frames) * HOP :] == 0)
    assert moved[(60 + model.reach_frames - 3) * HOP :].max() > 0  # and it is no wild guess


def test_chunks_give_the_samples_of_the_whole():
    model = small(rate=2)
    mel, lengths = torch.randn(2, 6, 90), torch.tensor([90, 70])
    with torch.no_grad():
        whole = model(mel, lengths)
        pieces = vocode_in_chunks(model, mel, lengths, 20)
    torch.testing.assert_close(pieces, whole, atol=1e-6, rtol=0)


def test_a_spectrum_of_one_bin_is_a_cosine():
    size, bin_number, frames = 64, 5, 40
    hop = size // 4
    spectrum = torch.full((1, size + 2, frames), -20.0)  # log magnitudes far below
    spectrum[:, size // 2 + 1 :] = 0.0
    spectrum[:, bin_number] = math.log(size / 2)  # amplitude 1
    # Frame k begins at sample k hop: its phase follows that of one cosine.
    spectrum[:, size // 2 + 1 + bin_number] = (
        2 * math.pi * bin_number * hop / size * torch.arange(frames)
    )
    wave = OverlapAdd(size)(spectrum)[0, 0]
    assert wave.shape == (frames * hop,)
    time = torch.arange(frames * hop) + 3 * hop / 2  # a hop and a half is cut off
    expected = torch.cos(2 * math.pi * bin_number / size * time)
    inner = slice(3 * hop, -3 * hop)  # where four frames overlap
    torch.testing.assert_close(wave[inner], expected[inner], atol=1e-4, rtol=0)


def test_the_preset_has_13_million_parameters():
    with torch.device("meta"):
        model = Vocos()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 13.3


def test_a_rate_that_does_not_divide_the_hop_is_named():
    with pytest.raises(ValueError, match=r"rate \(3\) must divide hop_length \(160\)"):
        Vocos(rate=3)


def test_the_fast_path_gives_the_same_samples():
    model = small(rate=2)
    mel, lengths = torch.randn(2, 6, 50), torch.tensor([50, 31])
    with torch.no_grad():
        fast = RecordedVocoder(model)(mel, lengths)
        torch.testing.assert_close(fast, model(mel, lengths), atol=1e-6, rtol=0)

"""CAM++ against 3D-Speaker's code and the paper's figures."""

import copy
import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

from takin_vc.frontends.campplus import CAMPPlus, segment_means
from takin_vc.tensors import WeightsError


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Weights, and batch statistics that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            if module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                torch.nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> CAMPPlus:
    torch.manual_seed(0)
    return randomised(CAMPPlus())


def test_512_channels_make_the_papers_7_18_million_parameters():
    """Wang et al. 2023, Table 1: CAM++ has 7.18 M parameters, with an embedding of 512."""
    parameters = sum(p.numel() for p in CAMPPlus(embedding_dim=512).parameters())
    assert round(parameters / 1e6, 2) == 7.18


@torch.no_grad()
def test_padding_changes_no_embedding(model):
    torch.manual_seed(1)
    fbank = torch.randn(3, 261, 80)
    lengths = torch.tensor([261, 118, 205])  # one and several 2 s segments, odd and even
    mask = torch.arange(261) < lengths[:, None]
    batched = model(fbank.masked_fill(~mask[:, :, None], 100.0), mask)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(
            batched[i], model(fbank[i : i + 1, :length])[0], atol=1e-4, rtol=1e-4
        )


def test_segment_means_by_hand():
    """Segments of 2 over 1 2 | 3 (pad) | (pad): means 1.5, 3 and none."""
    x = torch.tensor([[[1.0, 2.0, 3.0, 0.0, 0.0]]])
    valid = torch.tensor([[[1.0, 1.0, 1.0, 0.0, 0.0]]])
    expected = torch.tensor([[[1.5, 1.5, 3.0, 3.0, 0.0]]])
    torch.testing.assert_close(segment_means(x, valid, segment=2), expected)


def test_saved_weights_come_back(model, tmp_path):
    path = tmp_path / "campplus_cn_en_common.pt"
    torch.save(model.state_dict(), path)
    fbank = torch.randn(1, 50, 80)
    for source in (path, tmp_path):
        loaded = CAMPPlus.from_pretrained(source)
        assert not loaded.training
        with torch.no_grad():
            assert torch.equal(loaded(fbank), model(fbank))


def test_missing_weights_say_what_to_get(tmp_path):
    with pytest.raises(WeightsError, match=r"campplus_cn_en_common\.pt.*ModelScope"):
        CAMPPlus.from_pretrained(tmp_path)


def test_weights_of_another_width_name_the_first_tensor(tmp_path):
    path = tmp_path / "campplus_cn_en_common.pt"
    torch.save(CAMPPlus(embedding_dim=64).state_dict(), path)
    with pytest.raises(WeightsError, match=r"xvector\.dense\.linear\.weight.*\(64, 1024, 1\)"):
        CAMPPlus.from_pretrained(path)


def test_bands_that_cannot_be_halved_are_named():
    with pytest.raises(ValueError, match=r"n_mels \(81\) must be a multiple of 8"):
        CAMPPlus(n_mels=81)


@pytest.mark.skipif(
    "THREE_D_SPEAKER_DIR" not in os.environ,
    reason="set THREE_D_SPEAKER_DIR to a checkout of modelscope/3D-Speaker",
)
@torch.no_grad()
def test_equals_3d_speaker_under_the_same_weights(model, monkeypatch):
    folder = Path(os.environ["THREE_D_SPEAKER_DIR"])
    assert (folder / "speakerlab").is_dir(), f"{folder} holds no speakerlab"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    original = importlib.import_module("speakerlab.models.campplus.DTDNN").CAMPPlus(
        feat_dim=80, embedding_size=192
    )
    original.load_state_dict(model.state_dict())  # strict: the names are the same
    original.eval()
    torch.manual_seed(2)
    fbank = 3 * torch.randn(2, 298, 80)  # 3 s
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        ours, expected = (m.to(dtype)(fbank.to(dtype)) for m in (copy.deepcopy(model), original))
        scale = expected.abs().max().item()
        difference = (ours - expected).abs().max().item()
        print(f"CAM++ in {dtype}: max abs difference {difference:.1e} of values up to {scale:.1f}")
        assert difference < tolerance * scale
    # The embedding hears its input, so that agreement says something.
    assert (expected[0] - expected[1]).abs().max() > 0.1 * scale

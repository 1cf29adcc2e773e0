"""HiFi-GAN in the published format: names, weight normalisation, lengths, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from baselines.nets.hifigan import HiFiGAN, load_hifigan, without_weight_norm
from bench.errors import UserError
from tests.support.tiny_judges import random_tensors
from tests.support.tiny_systems import SMALL_VOCODER, hifigan_shapes


def write(path, state):
    torch.save({"generator": state}, path)
    return path


def test_the_published_sizes_have_the_published_names_and_shapes():
    knn_vc = {"features": 1024, "projected": 512, "rates": (10, 8, 2, 2)}
    for sizes in ({}, {**knn_vc, "kernels": (20, 16, 4, 4)}):
        with torch.device("meta"):
            ours = {k: tuple(v.shape) for k, v in HiFiGAN(**sizes).state_dict().items()}
        published = hifigan_shapes(**sizes)
        folded = {
            k.replace("weight_v", "weight"): shape
            for k, shape in published.items()
            if not k.endswith("weight_g")
        }
        assert ours == folded


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 7), nn.ConvTranspose1d(3, 5, 4)])
def test_weights_without_weight_norm_are_torchs(layer):
    normalised = parametrizations.weight_norm(layer)
    nn.init.normal_(normalised.parametrizations.weight.original0)
    folded = without_weight_norm(
        {
            "up.weight_g": normalised.parametrizations.weight.original0.detach(),
            "up.weight_v": normalised.parametrizations.weight.original1.detach(),
            "up.bias": normalised.bias.detach(),
        }
    )
    assert folded.keys() == {"up.weight", "up.bias"}
    torch.testing.assert_close(folded["up.weight"], normalised.weight.detach())


def test_each_frame_becomes_one_hop_of_samples_within_full_scale(tmp_path):
    state = random_tensors(hifigan_shapes(**SMALL_VOCODER))
    model = load_hifigan(write(tmp_path / "g.pt", state), "a vocoder", "ask", **SMALL_VOCODER)
    with torch.inference_mode():
        samples = model(torch.randn(2, SMALL_VOCODER["features"], 9))
    assert samples.shape == (2, 9 * 320)
    assert samples.abs().max() <= 1
    assert samples.std() > 0


def test_one_stage_by_hand():
    """Without residual blocks that add anything, what is left is three convolutions."""
    sizes = {"features": 2, "channels": 4, "rates": (2,), "kernels": (4,)}
    model = HiFiGAN(**sizes).eval()
    for block in model.resblocks:
        for plain in block.convs2:
            nn.init.zeros_(plain.weight)
            nn.init.zeros_(plain.bias)
    x = torch.randn(1, 2, 6)
    with torch.inference_mode():
        y = model.ups[0](nn.functional.leaky_relu(model.conv_pre(x), 0.1))
        expected = torch.tanh(model.conv_post(nn.functional.leaky_relu(y, 0.01)))[:, 0]
        torch.testing.assert_close(model(x), expected)


def test_another_file_is_refused_with_the_tensor_that_differs(tmp_path):
    state = random_tensors(hifigan_shapes(**SMALL_VOCODER))
    del state["ups.1.weight_g"]
    with pytest.raises(UserError, match=r"is not a vocoder: ups\.1\.weight is missing, .*; ask"):
        load_hifigan(write(tmp_path / "cut.pt", state), "a vocoder", "ask", **SMALL_VOCODER)
    state["ups.1.weight_g"] = torch.ones(3, 1, 1)
    with pytest.raises(UserError, match=r"ups\.1\.weight is missing"):
        load_hifigan(write(tmp_path / "odd.pt", state), "a vocoder", "ask", **SMALL_VOCODER)
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no state dict 'generator'; ask"):
        load_hifigan(tmp_path / "other.pt", "a vocoder", "ask")

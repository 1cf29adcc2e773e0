"""Content: fusion by hand, interpolation as torch does it, no effect of padding."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.content import HybridContentEncoder, resize_frames
from takin_vc.mel import frame_mask
from takin_vc.quantize import VectorQuantizer
from tests.support.tiny_frontends import (
    hybridformer,
    speech,
    wavlm,
)

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


# ---------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("new", [3, 7, 8, 20])
def test_frames_are_stretched_as_torch_interpolates(new):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 5)
    whole = torch.ones(2, 7, dtype=torch.bool)
    expected = F.interpolate(x.transpose(1, 2), size=new, mode="linear").transpose(1, 2)
    result = resize_frames(x, whole, torch.ones(2, new, dtype=torch.bool))
    torch.testing.assert_close(result, expected)


def test_each_utterance_is_stretched_over_its_frames():
    torch.manual_seed(0)
    lengths, new_lengths = torch.tensor([6, 3]), torch.tensor([4, 9])
    mask, new_mask = frame_mask(lengths, 6), frame_mask(new_lengths, 9)
    x = torch.randn(2, 6, 5).masked_fill(~mask[..., None], 1e3)
    result = resize_frames(x, mask, new_mask)
    for row in range(2):
        valid = x[row : row + 1, : lengths[row]].transpose(1, 2)
        expected = F.interpolate(valid, size=int(new_lengths[row]), mode="linear")[0].T
        torch.testing.assert_close(result[row, : new_lengths[row]], expected)
        assert (result[row, new_lengths[row] :] == 0).all()


# ---------------------------------------------------------------------------- fusion


class Prepared(nn.Module):
    """Stands in for a front end whose features are given."""

    def __init__(self, dim: int, frame_rate: float) -> None:
        super().__init__()
        self.name = f"prepared-{dim}"
        self.dim = dim
        self.frame_rate = frame_rate
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = lengths // 4
        features = waveform[:, ::4, None].expand(-1, -1, self.dim) * self.weight
        return features, frame_mask(frames, features.shape[1])


def valid(frames: int) -> Tensor:
    return torch.ones(1, frames, dtype=torch.bool)


@torch.no_grad()
def test_acl_fusion_by_hand():
    """LeakyReLU_0.2(Conv1d(VQ(ssl))) * ppg, two channels, four SSL frames over two of the PPG."""
    quantizer = VectorQuantizer(2, 2, kmeans_iters=0)
    quantizer.vq._codebook.embed.copy_(torch.tensor([[[1.0, 2.0], [-3.0, 1.0]]]))
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(2, 25), quantizer, dim=2).eval()
    # kernel 3: the first channel is the frame before plus the frame after of channel 0,
    # the second is 10 times this frame's channel 1, less 25
    encoder.conv.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 1, 0], [0, 0, 0, 10, 0, 0]]))
    encoder.conv.linear.bias.copy_(torch.tensor([0.0, -25.0]))
    ssl = torch.tensor([[[1.1, 2.0], [0.9, 1.9], [-3.0, 1.2], [-2.5, 1.0]]])
    # VQ:            1  2        1  2        -3  1        -3  1
    # convolved:     0+1  -5     1-3  -5     1-3  -15     -3+0  -15
    # leaky:         1    -1     -0.4 -1     -0.4 -3      -0.6  -3
    # two frames:    0.3  -1                 -0.5  -3
    ppg = torch.tensor([[[10.0, 100.0], [20.0, 200.0]]])
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    expected = torch.tensor([[[3.0, -100.0], [-10.0, -600.0]]])
    torch.testing.assert_close(content.features, expected)
    assert content.codes.tolist() == [[0, 0, 1, 1]]
    # squared distances 0.01, 0.01 + 0.01, 0.04, 0.25 over 8 numbers
    assert content.commitment.item() == pytest.approx(0.32 / 8)


@torch.no_grad()
def test_iclr_fusion_by_hand():
    """ReLU(Conv1d(a_ssl VQ(ssl) + a_ppg ppg)), one channel."""
    quantizer = VectorQuantizer(1, 2, kmeans_iters=0)
    quantizer.vq._codebook.embed.copy_(torch.tensor([[[1.0], [-2.0]]]))
    encoder = HybridContentEncoder(
        Prepared(1, 50), Prepared(1, 25), quantizer, dim=1, fusion="iclr"
    ).eval()
    assert (encoder.ssl_weight.item(), encoder.ppg_weight.item()) == (0.5, 0.5)
    encoder.ssl_weight.fill_(3.0)
    encoder.ppg_weight.fill_(0.1)
    encoder.conv.linear.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))  # frame before, this frame
    encoder.conv.linear.bias.fill_(1.0)
    ssl = torch.tensor([[[0.8], [1.1], [-1.8], [0.9]]])
    ppg = torch.tensor([[[10.0], [20.0]]])
    # VQ 1 1 -2 1, over two frames 1 and -0.5; the sums 3 + 1 = 4 and -1.5 + 2 = 0.5
    # convolved 2 * 4 + 1 = 9 and 4 + 2 * 0.5 + 1 = 6
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    torch.testing.assert_close(content.features, torch.tensor([[[9.0], [6.0]]]))
    encoder.conv.linear.weight.neg_()
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    assert (content.features == 0).all()  # ReLU of -7 and -4


@torch.no_grad()
def test_without_ssl_acl_content_is_the_ppg():
    encoder = HybridContentEncoder(None, Prepared(3, 25), VectorQuantizer(2, 2), dim=3)
    ppg = torch.randn(1, 4, 3)
    content = encoder.forward_features(None, None, ppg, valid(4))
    assert torch.equal(content.features, ppg)
    assert content.commitment == 0
    assert content.codes is None
    assert encoder.quantizer is None
    assert encoder.name == "prepared-3"


@torch.no_grad()
def test_without_ppg_acl_content_is_the_gate_at_the_ssls_rate():
    encoder = HybridContentEncoder(Prepared(2, 50), None, None, dim=3, kernel_size=1)
    ssl = torch.randn(1, 5, 2)
    content = encoder.forward_features(ssl, valid(5), None, None)
    expected = F.leaky_relu(encoder.conv.linear(ssl), 0.2)
    torch.testing.assert_close(content.features, expected)
    assert encoder.frame_rate == 50


@torch.no_grad()
def test_iclr_leaves_out_the_missing_term():
    ppg_only = HybridContentEncoder(None, Prepared(3, 25), None, dim=3, fusion="iclr")
    ppg = torch.randn(1, 4, 3)
    content = ppg_only.forward_features(None, None, ppg, valid(4))
    torch.testing.assert_close(content.features, F.relu(ppg_only.conv(0.5 * ppg)))
    ssl_only = HybridContentEncoder(Prepared(3, 50), None, None, dim=3, fusion="iclr")
    content = ssl_only.forward_features(ppg, valid(4), None, None)
    torch.testing.assert_close(content.features, F.relu(ssl_only.conv(0.5 * ppg)))


@torch.no_grad()
def test_other_widths_are_brought_to_dim_and_equal_ones_are_not():
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(3, 25), None, dim=4)
    assert isinstance(encoder.ppg_projection, nn.Linear)
    assert encoder.forward_features(
        torch.randn(1, 6, 2), valid(6), torch.randn(1, 3, 3), valid(3)
    ).features.shape == (1, 3, 4)
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(4, 25), None, dim=4)
    assert isinstance(encoder.ppg_projection, nn.Identity)


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["acl", "iclr"])
@pytest.mark.parametrize("missing", [None, "ssl", "ppg"])
def test_padding_never_changes_the_content(fusion, missing):
    torch.manual_seed(0)
    encoder = HybridContentEncoder(
        None if missing == "ssl" else wavlm(),
        None if missing == "ppg" else hybridformer(),
        VectorQuantizer(16, 12, kmeans_iters=0),
        dim=16,
        fusion=fusion,
    ).eval()
    waveform, lengths = speech()
    content = encoder(waveform, lengths)
    for row, length in enumerate(lengths):
        alone = encoder(waveform[row : row + 1, :length], lengths[row : row + 1])
        frames = alone.features.shape[1]
        assert content.mask[row].sum() == frames
        difference = content.features[row, :frames] - alone.features[0]
        assert float(difference.abs().max()) < 1e-4
        assert (content.features[row, frames:] == 0).all()


def test_front_ends_are_frozen_and_the_rest_learns():
    torch.manual_seed(0)
    encoder = HybridContentEncoder(
        wavlm(), hybridformer(), VectorQuantizer(16, 12, kmeans_iters=0), dim=16
    ).train()
    assert not encoder.ssl.training
    assert not encoder.ppg.training
    assert encoder.quantizer.training
    before = encoder.quantizer.codebook.clone()
    content = encoder(*speech())
    content.features.square().sum().backward()
    trained = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert trained == ["conv.linear.weight", "conv.linear.bias"]
    assert not torch.equal(encoder.quantizer.codebook, before)


def test_prepared_features_give_the_same_content():
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(2, 25), None, dim=2).eval()
    waveform, lengths = torch.randn(2, 40), torch.tensor([40, 24])
    content = encoder(waveform, lengths)
    again = encoder.forward_features(
        *encoder.ssl(waveform, lengths), *encoder.ppg(waveform, lengths)
    )
    assert torch.equal(content.features, again.features)


def test_parts_that_do_not_fit_are_named():
    ssl, ppg = Prepared(2, 50), Prepared(3, 25)
    with pytest.raises(ValueError, match="ssl and ppg are both None"):
        HybridContentEncoder(None, None, None)
    with pytest.raises(ValueError, match="'acl' or 'iclr', not 'sum'"):
        HybridContentEncoder(ssl, ppg, None, fusion="sum")
    with pytest.raises(ValueError, match="prepared-2 has 2 channels, the quantizer 4"):
        HybridContentEncoder(ssl, ppg, VectorQuantizer(4, 2))
    with pytest.raises(ValueError, match=r"kernel_size \(2\) must be odd"):
        HybridContentEncoder(ssl, ppg, None, kernel_size=2)
    features = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="has ssl front end, and ssl features are missing"):
        HybridContentEncoder(ssl, ppg, None).forward_features(None, None, features, valid(2))
    with pytest.raises(ValueError, match="has no ssl front end, and ssl features are given"):
        HybridContentEncoder(None, ppg, None).forward_features(
            features, valid(2), features, valid(2)
        )

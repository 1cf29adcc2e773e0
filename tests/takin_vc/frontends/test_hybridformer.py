"""HybridFormer against formulas written out, its fused form, and itself without padding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from takin_vc.frontends.hybridformer import HybridFormer, HybridFormerPPG
from takin_vc.mel import frame_mask
from takin_vc.tensors import WeightsError
from tests.support.tiny_frontends import HYBRIDFORMER, hybridformer, speech

SIZES = {"n_mels": 16, "dim": 16, "heads": 2, "kernel_size": 9, "branch_kernels": (3, 5)}


def tiny(**settings) -> HybridFormer:
    torch.manual_seed(0)
    return HybridFormer(**{**SIZES, **settings})


def trained_a_little(model: HybridFormer) -> HybridFormer:
    """Batch norms with statistics, gains and biases of their own."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    model.train()
    for _ in range(3):
        model(*batch(lengths=(60, 41)))
    return model.eval()


def batch(lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(len(lengths), max(lengths), 16), frame_mask(
        torch.tensor(lengths), max(lengths)
    )


@torch.no_grad()
def test_fused_form_equals_training_form():
    model = trained_a_little(tiny())
    fbank, mask = batch(lengths=(80, 55))
    before, _ = model(fbank, mask)
    weights = sum(p.numel() for p in model.parameters())
    after, _ = model.fuse()(fbank, mask)
    difference = float((before - after).abs().max())
    print(f"fused HybridFormer: largest difference {difference:.1e}")
    assert difference < 1e-5
    assert not any(isinstance(module, nn.BatchNorm1d) for module in model.modules())
    assert sum(p.numel() for p in model.parameters()) < weights


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
def test_padding_never_changes_valid_frames(fused):
    model = trained_a_little(tiny())
    if fused:
        model.fuse()
    lengths = (83, 7, 50)
    fbank, mask = batch(lengths)
    features, valid = model(fbank.masked_fill(~mask[..., None], 1e3), mask)
    for row, length in enumerate(lengths):
        alone, whole = model(*(z[row : row + 1, :length] for z in (fbank, mask)))
        frames = alone.shape[1]
        assert whole.all()
        assert valid[row].sum() == frames == model.frames(torch.tensor(length))
        assert float((features[row, :frames] - alone[0]).abs().max()) < 1e-4
        assert (features[row, frames:] == 0).all()


def test_one_second_gives_25_frames_a_second_less_the_edges():
    model = tiny()
    assert model.frame_rate == 25.0
    # 98 filter-bank frames of 25 ms fit into a second; two convolutions of 3 take 1 frame each
    assert model.frames(torch.tensor([98, 7, 6])).tolist() == [23, 1, 0]


@torch.no_grad()
def test_middle_layers_run_at_half_the_rate_by_softmax():
    model = tiny().eval()
    frames = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, __: frames.append(inputs[0].shape[1]))
    features, _ = model(*batch(lengths=(83,)))
    assert features.shape[1] == 20
    assert frames == [20] * 5 + [10] * 6 + [20]
    linear = [block.attention.linear for block in model.blocks]
    assert linear == [True] * 5 + [False] * 6 + [True]


@torch.no_grad()
def test_time_can_stay_as_it_is_and_any_layers_be_linear():
    model = tiny(layers=3, reduce_at=None, linear_layers=[1]).eval()
    assert [block.attention.linear for block in model.blocks] == [False, True, False]
    features, _ = model(*batch(lengths=(83,)))
    assert features.shape == (1, 20, 16)


def test_default_size_is_twelve_layers_of_512():
    with torch.device("meta"):
        model = HybridFormer()
    assert len(model.blocks) == 12
    assert model.dim == 512
    assert sum(p.numel() for p in model.parameters()) == 82_147_328


def test_filter_banks_are_normalised_by_the_training_sets_statistics():
    model = tiny().eval()
    fbank, mask = batch(lengths=(40,))
    plain, _ = model(fbank, mask)
    model.fbank_mean += 3.0
    model.fbank_std *= 2.0
    shifted, _ = model(2 * fbank + 3.0, mask)
    torch.testing.assert_close(plain, shifted, atol=1e-5, rtol=1e-5)


def test_a_recogniser_learns_one_utterance():
    """CTC on two utterances: the loss falls under a tenth, and the best paths spell the targets."""
    model = tiny(layers=3, reduce_at=1, recover_at=2, vocabulary=5, dropout=0.0).train()
    fbank, mask = batch(lengths=(95, 71))
    targets = torch.tensor([[1, 2, 3, 4], [4, 2, 0, 0]])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        features, valid = model(fbank, mask)
        log_probabilities = model.logits(features).log_softmax(-1).transpose(0, 1)
        loss = F.ctc_loss(log_probabilities, targets, valid.sum(1), torch.tensor([4, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    for path, count, target in zip(
        log_probabilities.argmax(-1).T, valid.sum(1), ([1, 2, 3, 4], [4, 2]), strict=True
    ):
        merged = torch.unique_consecutive(path[:count])
        assert merged[merged > 0].tolist() == target


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True])
def test_saved_weights_rebuild_the_model(tmp_path, fused):
    model = trained_a_little(tiny(vocabulary=5))
    if fused:
        model.fuse()
    model.save(tmp_path / "hybridformer")
    again = HybridFormer.load(tmp_path / "hybridformer")
    fbank, mask = batch(lengths=(40,))
    assert torch.equal(model(fbank, mask)[0], again(fbank, mask)[0])


def test_missing_or_foreign_weights_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"config.yaml: no such file.*not public"):
        HybridFormer.load(tmp_path)
    tiny().save(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("vocabulary: null", "vocabulary: 5"))
    with pytest.raises(WeightsError, match=r"no tensor 'ctc\.weight'"):
        HybridFormer.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, r"heads \(3\) must divide dim \(16\)"),
        ({"heads": 16}, r"heads \(16\) must divide dim \(16\) into even widths"),
        ({"n_mels": 6}, r"n_mels \(6\) must be at least 7"),
        ({"reduce_at": 11}, r"reduce_at \(11\) < recover_at \(11\)"),
        ({"layers": 11}, r"recover_at \(11\) < layers \(11\)"),
        ({"branch_kernels": (9,)}, r"branch kernel \(9\) must be under kernel_size \(9\)"),
        ({"branch_kernels": (4,)}, "odd to keep time in place, not 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_too_short_speech_and_a_missing_head_are_named():
    with pytest.raises(ValueError, match=r"at least 7 filter-bank frames.*not 6"):
        tiny()(*batch(lengths=(6,)))
    with pytest.raises(ValueError, match="no CTC head"):
        tiny().logits(torch.zeros(1, 2, 16))


@torch.no_grad()
def test_hybridformer_gives_its_last_block_or_its_posteriors():
    waveform, lengths = speech((16000,))
    bottleneck, posteriors = hybridformer(), hybridformer("posteriors")
    features, _ = bottleneck(waveform, lengths)
    assert features.shape == (1, 23, 16)
    expected = bottleneck.hybridformer.logits(features).softmax(-1)
    found, _ = posteriors(waveform, lengths)
    torch.testing.assert_close(found, expected)
    assert posteriors.dim == 5


@torch.no_grad()
def test_a_saved_hybridformer_comes_back_fused(tmp_path):
    trained = hybridformer()
    trained.hybridformer.save(tmp_path)
    front_end = HybridFormerPPG.from_pretrained(tmp_path)
    assert front_end.hybridformer.config["fused"]
    found, expected = (f(*speech())[0] for f in (front_end, trained))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_missing_weights_say_that_none_are_public(tmp_path):
    with pytest.raises(WeightsError, match="not public: train one"):
        HybridFormerPPG.from_pretrained(tmp_path)


def test_outputs_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="'bottleneck' or 'posteriors', not 'logits'"):
        hybridformer("logits")
    with pytest.raises(ValueError, match="CTC head; build it with vocabulary"):
        HybridFormerPPG(HybridFormer(**{**HYBRIDFORMER, "vocabulary": None}), output="posteriors")

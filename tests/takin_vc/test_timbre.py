"""Voiceprints, tokens and cross-attention: padding, order and preparation."""

import os

import pytest
import torch

from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.mel import KaldiFbank
from takin_vc.tensors import WeightsError
from takin_vc.timbre import (
    CAMPPlusVoiceprint,
    ContextAwareTimbre,
    ECAPAVoiceprint,
    MelVoiceprint,
    timbre_tokens,
)


def test_speechbrain_is_kept_from_switching_tf32_on(monkeypatch) -> None:
    """Its import would switch TF32 on for everything."""
    monkeypatch.setenv("SB_DISABLE_QUIRKS", "")  # so that it is put back
    monkeypatch.delenv("SB_DISABLE_QUIRKS")
    ECAPAVoiceprint(channels=32, dim=24)
    assert os.environ["SB_DISABLE_QUIRKS"] == "allow_tf32"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def voiceprints() -> dict:
    torch.manual_seed(0)
    return {
        "campplus": CAMPPlusVoiceprint(CAMPPlus().eval()),
        "ecapa": ECAPAVoiceprint(channels=32, dim=24),
        "mel": MelVoiceprint(dim=24, channels=32),
    }


@pytest.mark.parametrize("kind", ["campplus", "ecapa", "mel"])
@torch.no_grad()
def test_padding_changes_no_voiceprint(kind, voiceprints):
    """The padding after a reference has no effect, be it silence or noise."""
    voiceprint = voiceprints[kind]
    waveform = 0.1 * torch.randn(2, 24000, generator=seeded(1))
    lengths = torch.tensor([24000, 15011])
    batched = voiceprint(waveform, lengths)
    assert batched.shape == (2, voiceprint.dim)
    for i, length in enumerate(lengths):
        alone = voiceprint(waveform[i : i + 1, :length], lengths[i : i + 1])
        torch.testing.assert_close(batched[i], alone[0], atol=1e-4, rtol=1e-4)
    assert (batched[0] - batched[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["campplus", "mel"])
@torch.no_grad()
def test_loudness_changes_no_voiceprint_of_centred_filter_banks(kind, voiceprints):
    """Four times as loud adds log 16 to every energy, which the mean takes away again."""
    waveform = 0.1 * torch.randn(1, 16000, generator=seeded(1))
    lengths = torch.tensor([16000])
    quiet, loud = (voiceprints[kind](gain * waveform, lengths) for gain in (1, 4))
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_campplus_voiceprint_gets_centred_kaldi_filter_banks(voiceprints):
    """The preparation that 3D-Speaker's infer_sv.py makes, written out."""
    waveform = 0.1 * torch.randn(1, 16000, generator=seeded(1))
    fbank = KaldiFbank()(waveform)
    voiceprint = voiceprints["campplus"]
    expected = voiceprint.model(fbank - fbank.mean(1, keepdim=True))
    torch.testing.assert_close(voiceprint(waveform, torch.tensor([16000])), expected)


@torch.no_grad()
def test_ecapa_equals_speechbrains_pipeline(voiceprints):
    """Features, sentence normalisation and model as speechbrain's interface chains them."""
    from speechbrain.processing.features import InputNormalization

    voiceprint = voiceprints["ecapa"]
    waveform = 0.1 * torch.randn(1, 16000, generator=seeded(1))
    relative = torch.ones(1)
    normalise = InputNormalization(norm_type="sentence", std_norm=False)
    expected = voiceprint.model(normalise(voiceprint.fbank(waveform), relative), relative)
    torch.testing.assert_close(voiceprint(waveform, torch.tensor([16000])), expected[:, 0])


@pytest.mark.parametrize("kind", ["campplus", "ecapa"])
def test_public_voiceprints_stay_frozen_in_training(kind, voiceprints):
    voiceprint = voiceprints[kind].train()
    assert not voiceprint.model.training
    assert not any(p.requires_grad for p in voiceprint.parameters())


def test_mel_voiceprint_learns(voiceprints):
    voiceprint = voiceprints["mel"]
    waveform = 0.1 * torch.randn(2, 8000, generator=seeded(1))
    voiceprint(waveform, torch.tensor([8000, 6000])).square().mul(torch.rand(24)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in voiceprint.parameters())


@pytest.mark.parametrize("kind", ["campplus", "ecapa", "mel"])
def test_a_reference_too_short_is_named(kind, voiceprints):
    with pytest.raises(ValueError, match=r"a reference of 3999 samples .* at least 4000"):
        voiceprints[kind](torch.zeros(2, 16000), torch.tensor([16000, 3999]))


def test_ecapa_weights_come_back_and_missing_ones_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"ECAPA-TDNN: .*embedding_model\.ckpt"):
        ECAPAVoiceprint.from_pretrained(tmp_path)
    model = ECAPAVoiceprint().model
    # The mean and deviation of 3 x 1024 channels, to 192.
    assert model.fc.conv.weight.shape == (192, 6144, 1)
    torch.save(model.state_dict(), tmp_path / "embedding_model.ckpt")
    loaded = ECAPAVoiceprint.from_pretrained(tmp_path).model
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    assert not loaded.training


def test_tokens_are_mel_frames_joined_with_the_voiceprint():
    mel = torch.randn(2, 3, 5)
    voiceprint = torch.randn(2, 4)
    tokens = timbre_tokens(mel, voiceprint, shuffle=False)
    assert tokens.shape == (2, 5, 7)
    torch.testing.assert_close(tokens[1, 2], torch.cat([mel[1, :, 2], voiceprint[1]]))
    torch.testing.assert_close(timbre_tokens(mel, None, shuffle=False), mel.transpose(1, 2))


def test_shuffling_permutes_valid_frames_and_leaves_padding_behind_them():
    mel = torch.arange(1.0, 41.0).expand(2, 1, 40)
    mask = torch.arange(40) < torch.tensor([40, 25])[:, None]
    tokens = timbre_tokens(mel, torch.ones(2, 1), mask, generator=seeded(0))
    first, second = tokens[..., 0]
    assert not torch.equal(first, mel[0, 0])
    torch.testing.assert_close(first.sort().values, mel[0, 0])
    torch.testing.assert_close(second[:25].sort().values, mel[1, 0, :25])
    assert tokens[1, 25:].abs().max() == 0


def test_one_generator_an_item_makes_shuffling_independent_of_the_batch():
    mel = torch.randn(3, 4, 30)
    lengths = torch.tensor([30, 11, 18])
    mask = torch.arange(30) < lengths[:, None]
    batched = timbre_tokens(mel, None, mask, generator=[seeded(7 + i) for i in range(3)])
    for i, length in enumerate(lengths):
        alone = timbre_tokens(mel[i : i + 1, :, :length], None, generator=[seeded(7 + i)])
        assert torch.equal(batched[i, :length], alone[0])


def test_shuffling_repeats_with_its_seed():
    mel = torch.randn(1, 4, 30)
    tokens = [timbre_tokens(mel, None, generator=seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


def cross_attention(**settings: int) -> ContextAwareTimbre:
    torch.manual_seed(0)
    return ContextAwareTimbre(6, 10, **{"dim": 16, "layers": 3, "heads": 2, **settings}).eval()


@torch.no_grad()
def test_the_order_of_the_reference_does_not_matter():
    module = cross_attention()
    content, mel = torch.randn(2, 7, 6), torch.randn(2, 8, 40)
    voiceprint = torch.randn(2, 2)
    mask = torch.arange(40) < torch.tensor([40, 25])[:, None]
    plain = timbre_tokens(mel, voiceprint, mask, shuffle=False)
    shuffled = timbre_tokens(mel, voiceprint, mask, generator=seeded(0))
    assert not torch.equal(plain, shuffled)
    torch.testing.assert_close(
        module(content, None, shuffled, mask), module(content, None, plain, mask)
    )


@torch.no_grad()
def test_padding_changes_no_valid_frame():
    module = cross_attention()
    content, timbre = torch.randn(2, 12, 6), torch.randn(2, 20, 10)
    content_mask = torch.arange(12) < torch.tensor([12, 5])[:, None]
    timbre_mask = torch.arange(20) < torch.tensor([20, 9])[:, None]
    noisy = timbre.masked_fill(~timbre_mask[:, :, None], 1e3)
    batched = module(content, content_mask, noisy, timbre_mask)
    alone = module(content[1:, :5], None, timbre[1:, :9], None)
    torch.testing.assert_close(batched[1:, :5], alone, atol=1e-4, rtol=0)
    assert batched[1, 5:].abs().max() == 0


@torch.no_grad()
def test_each_content_frame_is_answered_by_itself():
    """So a chunk of a long source gets the very timbre that it gets within the whole."""
    module = cross_attention()
    content, timbre = torch.randn(1, 12, 6), torch.randn(1, 20, 10)
    whole = module(content, None, timbre, None)
    chunk = module(content[:, 4:9], None, timbre, None)
    torch.testing.assert_close(chunk, whole[:, 4:9])


@torch.no_grad()
def test_a_prepared_reference_equals_recomputation():
    module = cross_attention()
    content, timbre = torch.randn(2, 12, 6), torch.randn(2, 20, 10)
    mask = torch.arange(20) < torch.tensor([20, 9])[:, None]
    prepared = module.prepare(timbre, mask)
    for part in (content, content[:, :5]):
        assert torch.equal(module.ask(part, None, prepared), module(part, None, timbre, mask))


@torch.no_grad()
def test_one_reference_frame_is_all_that_attention_can_choose():
    """With a single token, each layer adds the token's value, whatever the query."""
    module = cross_attention(layers=1)
    module.layers[0].feedforward = torch.nn.Identity()
    timbre = torch.randn(1, 1, 10)
    value = module.keys_values(module.timbre_input(timbre))[..., 16:]
    content = torch.randn(1, 4, 6)
    x = module.content_input(content) + module.layers[0].output(value)
    torch.testing.assert_close(module(content, None, timbre, None), module.norm(2 * x))


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"heads \(3\) must divide dim \(16\)"):
        cross_attention(heads=3)

"""The codec stage: HiFi-Codec's decoder with its weights, lengths, padding; one batch learned."""

import importlib
import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from takin_vc.content import Content, HybridContentEncoder
from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.mel import LogMel, frame_mask
from takin_vc.quantize import VectorQuantizer
from takin_vc.train.codec.codec import ContentCodec, HiFiCodecDecoder
from takin_vc.train.codec.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from takin_vc.train.codec.losses import CodecObjective, MelLoss, SpeakerAdversary

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


def small_decoder(**settings) -> HiFiCodecDecoder:
    torch.manual_seed(0)
    return HiFiCodecDecoder(
        16,
        **{
            "channels": 32,
            "upsample_rates": (8, 5, 8),
            "upsample_kernels": (16, 11, 16),
            "kernels": (3,),
            "dilations": ((1, 3),),
            **settings,
        },
    )


def loud(decoder: HiFiCodecDecoder) -> HiFiCodecDecoder:
    """With weights large enough that differences would show."""
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if name.endswith("original0"):
                weight.mul_(3)
    return decoder.eval()


def small_codec() -> ContentCodec:
    torch.manual_seed(0)
    ssl = WavLMFeatures.from_config(
        {
            "hidden_size": 16,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_hidden_layers": 6,
            "conv_dim": [8] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
        }
    )
    ppg = HybridFormerPPG.from_config(
        {
            "dim": 16,
            "heads": 2,
            "layers": 3,
            "reduce_at": 1,
            "recover_at": 2,
            "kernel_size": 7,
            "branch_kernels": [3],
        }
    )
    content = HybridContentEncoder(ssl, ppg, VectorQuantizer(16, 8, kmeans_iters=5), dim=16)
    return ContentCodec(content, small_decoder())


@torch.no_grad()
def test_every_frame_becomes_hop_length_samples():
    decoder = small_decoder()
    assert (decoder.hop_length, decoder.frame_rate) == (320, 50.0)
    assert decoder(torch.randn(2, 7, 16)).shape == (2, 7 * 320)
    faster = small_decoder(
        sample_rate=24000, upsample_rates=(8, 5, 3, 2), upsample_kernels=(16, 11, 7, 4)
    )
    assert (faster.hop_length, faster.frame_rate) == (240, 100.0)
    assert faster(torch.randn(1, 5, 16)).shape == (1, 5 * 240)


def test_the_default_decoder_is_hificodecs_at_16_khz():
    with torch.device("meta"):
        decoder = HiFiCodecDecoder()
    assert decoder.conv_pre.in_channels == 512
    assert decoder.upsample_rates == (8, 5, 4, 2)
    assert decoder.frame_rate == 50.0
    assert len(decoder.resblocks) == 12


@torch.no_grad()
def test_padding_never_changes_the_decoders_speech():
    decoder = loud(small_decoder())
    lengths = torch.tensor([9, 4])
    mask = frame_mask(lengths, 9)
    features = torch.randn(2, 9, 16)
    batch = decoder(features.masked_fill(~mask[..., None], 1e3), mask)
    for row, frames in enumerate(lengths):
        alone = decoder(features[row : row + 1, :frames])[0]
        assert float(alone.abs().max()) > 1e-2
        assert float((batch[row, : 320 * frames] - alone).abs().max()) < 1e-4
        assert (batch[row, 320 * frames :] == 0).all()


@torch.no_grad()
def test_padding_never_changes_the_codecs_speech():
    codec = small_codec().eval()
    loud(codec.decoder)
    lengths = torch.tensor([4000, 1999])
    waveform = 0.1 * torch.randn(2, 4000) * frame_mask(lengths, 4000)
    batch, _ = codec(waveform, lengths)
    assert batch.shape == waveform.shape
    for row, length in enumerate(lengths):
        alone, _ = codec(waveform[row : row + 1, :length], lengths[row : row + 1])
        assert alone.shape == (1, length)
        assert float((batch[row, :length] - alone[0]).abs().max()) < 1e-4
        assert (batch[row, length:] == 0).all()


@torch.no_grad()
def test_content_at_25_frames_a_second_is_interpolated_to_the_decoders_rate():
    codec = small_codec().eval()
    seen = []
    codec.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ramp = torch.arange(4.0)[None, :, None].expand(1, 4, 16)
    content = Content(ramp, torch.ones(1, 4, dtype=torch.bool), torch.zeros(()))
    waveform = codec.decode(content, torch.tensor([2500]), 2500)
    # 2500 samples fill 7.8 frames of 320: eight, each half a content frame from the next
    assert waveform.shape == (1, 2500)
    expected = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])
    torch.testing.assert_close(seen[0][0, :, 0], expected)


@torch.no_grad()
def test_a_decoder_at_another_rate_gives_the_same_duration():
    codec = small_codec().eval()
    codec.decoder = small_decoder(
        sample_rate=24000, upsample_rates=(8, 5, 3, 2), upsample_kernels=(16, 11, 7, 4)
    )
    waveform, _ = codec(torch.randn(1, 4000), torch.tensor([4000]))
    assert waveform.shape == (1, 6000)


def test_the_voiceprint_is_added_to_every_frame():
    decoder = loud(small_decoder(voiceprint_dim=3))
    features, voiceprint = torch.randn(2, 5, 16), torch.randn(2, 3)
    plain = loud(small_decoder())
    plain.load_state_dict(
        {k: v for k, v in decoder.state_dict().items() if not k.startswith("voiceprint")}
    )
    expected = plain(features + decoder.voiceprint(voiceprint)[:, None])
    torch.testing.assert_close(decoder(features, voiceprint=voiceprint), expected)
    with pytest.raises(ValueError, match="takes a voiceprint, and none is given"):
        decoder(features)
    with pytest.raises(ValueError, match="takes no voiceprint"):
        plain(features, voiceprint=voiceprint)


def test_a_kernel_that_does_not_fit_its_rate_is_named():
    with pytest.raises(ValueError, match=r"kernel \(10\) must be at least its rate \(5\)"):
        small_decoder(upsample_kernels=(16, 10, 16))


def test_the_codec_stage_learns_one_batch():
    """Forty alternating steps on two utterances: what the mel hears amiss falls under a tenth."""
    codec = small_codec().train()
    adversary = SpeakerAdversary(16, 2, hidden=16)
    discriminators = Discriminators(
        [
            MultiPeriodDiscriminator((2,), channels=(4, 8)),
            MultiScaleSTFTDiscriminator((256,), channels=2),
        ]
    )
    mel = MelLoss(
        [LogMel(sample_rate=16000, n_fft=256, win_length=256, hop_length=80, n_mels=20)], (45.0,)
    )
    objective = CodecObjective(discriminators, mel, adversary=adversary)
    frozen = [p.clone() for p in codec.content.ppg.parameters()]
    time = torch.arange(1600) / 16000
    harmonics = [
        sum(0.15 * torch.sin(2 * torch.pi * f0 * k * time) / k for k in range(1, 6))
        for f0 in (120.0, 210.0)
    ]
    waveform = torch.stack(harmonics) * torch.linspace(0.2, 1, 1600) + 0.05 * torch.randn(2, 1600)
    lengths = torch.tensor([1600, 1600])
    for_codec = torch.optim.AdamW([*codec.parameters(), *adversary.parameters()], 1e-2)
    for_discriminators = torch.optim.AdamW(discriminators.parameters(), 2e-4)
    heard = []
    for _ in range(40):
        generated, content = codec(waveform, lengths)
        for_discriminators.zero_grad()
        objective.discriminator(waveform, generated).backward()
        for_discriminators.step()
        losses = objective.generator(waveform, generated, content, torch.tensor([0, 1]))
        for_codec.zero_grad()
        losses.total.backward()
        for_codec.step()
        heard.append(losses.mel.item())
    print(f"mel loss {heard[0]:.1f} -> {heard[-1]:.1f}")
    assert heard[-1] < 0.1 * heard[0]
    for before, after in zip(frozen, codec.content.ppg.parameters(), strict=True):
        assert torch.equal(before, after)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_decoder_is_hificodecs_generator_with_its_weights(monkeypatch):
    folder = os.environ.get("ACADEMICODEC_DIR")
    if not folder:
        pytest.skip(
            "set ACADEMICODEC_DIR to a copy of yangdongchao/AcademiCodec to compare with it"
        )
    monkeypatch.syspath_prepend(folder)
    models = importlib.import_module("academicodec.models.hificodec.models")
    torch.manual_seed(0)
    settings = SimpleNamespace(
        resblock="1",
        upsample_rates=[8, 5, 4, 2],
        upsample_kernel_sizes=[16, 11, 8, 4],
        upsample_initial_channel=512,
        resblock_kernel_sizes=[3, 7, 11],
        resblock_dilation_sizes=[[1, 3, 5]] * 3,
    )
    theirs: nn.Module = models.Generator(settings).eval()
    for name, weight in theirs.named_parameters():
        if name.endswith("weight_g"):
            weight.mul_(1.8)  # fresh weights give almost silence
    decoder = HiFiCodecDecoder().eval()
    decoder.load_state_dict(theirs.state_dict())
    features = torch.randn(2, 20, 512)
    expected = theirs(features.transpose(1, 2))[:, 0]
    difference = float((decoder(features) - expected).abs().max())
    print(f"HiFi-Codec decoder: largest difference {difference:.1e} of {expected.abs().max():.2f}")
    assert difference < 1e-5

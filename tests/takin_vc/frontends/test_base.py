"""All front ends: padding, frame rate, rebuilding, precision, shortest speech."""

import pytest
import torch
from torch import nn
from transformers import (
    Wav2Vec2FeatureExtractor,
)

from takin_vc.frontends.base import standardise
from takin_vc.mel import frame_mask
from tests.support.tiny_frontends import (
    GROUP_NORM,
    LAYER_NORM,
    hubert,
    hybridformer,
    speech,
    wavlm,
    whisper_encoder,
)

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

FRONT_ENDS = {
    "wavlm large": lambda: wavlm(LAYER_NORM),
    "wavlm base": lambda: wavlm(GROUP_NORM),
    "hubert large": lambda: hubert(LAYER_NORM),
    "hubert base": lambda: hubert(GROUP_NORM),
    "whisper": whisper_encoder,
    "whisper, normalised": lambda: whisper_encoder(layer=2, normalize=True),
    "hybridformer": hybridformer,
    "hybridformer, posteriors": lambda: hybridformer("posteriors"),
}
EVERY_FRONT_END = pytest.mark.parametrize(
    "build", FRONT_ENDS.values(), ids=[name.replace(" ", "-") for name in FRONT_ENDS]
)


@torch.no_grad()
@EVERY_FRONT_END
def test_padding_never_changes_valid_frames(build):
    front_end = build()
    waveform, lengths = speech()
    features, mask = front_end(waveform, lengths)
    assert features.shape == (*mask.shape, front_end.dim)
    for row, length in enumerate(lengths):
        alone, whole = front_end(waveform[row : row + 1, :length], lengths[row : row + 1])
        frames = alone.shape[1]
        assert whole.all()
        assert mask[row].tolist() == [True] * frames + [False] * (mask.shape[1] - frames)
        assert float((features[row, :frames] - alone[0]).abs().max()) < 1e-4
        assert (features[row, frames:] == 0).all()


@torch.no_grad()
@EVERY_FRONT_END
def test_frame_rate_is_frames_per_second(build):
    front_end = build()
    longer, shorter = (front_end(*speech((n,)))[0].shape[1] for n in (48000, 16000))
    assert (longer - shorter) / 2 == front_end.frame_rate


@torch.no_grad()
@EVERY_FRONT_END
def test_config_and_weights_rebuild_a_front_end(build):
    front_end = build()
    torch.manual_seed(99)
    again = type(front_end).from_config(**front_end.config)
    again.load_state_dict(front_end.state_dict())
    assert again.name == front_end.name
    assert torch.equal(again(*speech())[0], front_end(*speech())[0])


@torch.no_grad()
@EVERY_FRONT_END
@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_bfloat16_changes_features_by_a_few_percent_at_most(build, how):
    """Eight bits of mantissa round by 0.4 % at most, some dozen times over."""
    front_end = build()
    if front_end.name.startswith("wavlm") and torch.cpu._is_amx_tile_supported():
        pytest.skip(
            "oneDNN's AMX kernels in torch 2.11 move WavLM's features in bfloat16 by 30 %; with "
            "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 they do not"
        )
    waveform, lengths = speech()
    expected, _ = front_end(waveform, lengths)
    if how == "cast":
        for part in ("model", "encoder", "hybridformer"):
            getattr(front_end, part, nn.Identity()).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        result, _ = front_end(waveform, lengths)
    assert result.dtype == torch.bfloat16
    assert float((result.float() - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize(
    ("build", "shortest"),
    [(wavlm, 400), (hubert, 400), (whisper_encoder, 400), (hybridformer, 1360)],
)
def test_too_short_speech_is_named_also_within_a_batch(build, shortest):
    front_end = build()
    assert front_end(*speech((shortest,)))[1].sum() == 1
    for lengths in ((shortest - 1,), (16000, shortest - 1)):
        with pytest.raises(ValueError, match=f"at least {shortest} samples.*not {shortest - 1}"):
            front_end(*speech(lengths))


def test_waveforms_are_normalised_as_the_published_preprocessor_does():
    waveform, lengths = speech()
    of_transformers = Wav2Vec2FeatureExtractor(do_normalize=True)(
        [w[:n].numpy() for w, n in zip(waveform, lengths, strict=True)],
        sampling_rate=16000,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).input_values
    ours = standardise(waveform, frame_mask(lengths, 16000))
    torch.testing.assert_close(ours, of_transformers, atol=1e-5, rtol=0)

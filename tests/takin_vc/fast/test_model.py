"""The fast parts equal the plain ones: on the CPU in 32 bits, on a GPU in 16."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from takin_vc.estimator import UNetEstimator
from takin_vc.fast import accelerate
from takin_vc.fast.flow import FastEstimator
from takin_vc.fast.graphs import Replayed, pad_to
from takin_vc.fast.model import FastContent, RecordedPart, RecordedVoiceprint, tf32
from takin_vc.fast.resample import Resampler
from takin_vc.fast.vocoder import FastBigVGAN, folded, group_convolution, group_transposed
from takin_vc.fast.wavlm import prepare_wavlm
from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.inputs import InputError, Speech
from takin_vc.timbre import CAMPPlusVoiceprint
from takin_vc.vocoder import BigVGAN
from tests.support.tiny_models import draw_weights
from tests.support.tiny_models import new as tiny


def noise(seconds: float, seed: int = 0, sample_rate: int = 16000) -> Speech:
    generator = torch.Generator().manual_seed(seed)
    return Speech(0.1 * torch.randn(round(seconds * sample_rate), generator=generator), sample_rate)


@pytest.mark.parametrize("fusion", ["film", "gated", None])
@pytest.mark.parametrize("frames", [20, 21])
@torch.inference_mode()
def test_estimator(fusion, frames):
    torch.manual_seed(0)
    sizes = {"hidden": 64, "blocks": 4, "resnet_blocks": 2, "half_rate_blocks": 2, "heads": 2}
    plain = UNetEstimator(
        n_mels=20, context_dim=24, memory_dim=16, memory_fusion=fusion, **sizes
    ).eval()
    draw_weights(plain)
    fast = FastEstimator(plain, torch.float32)
    context, xt, t = torch.randn(2, frames, 24), torch.randn(2, 20, frames), torch.rand(2)
    memory = None if fusion is None else torch.randn(2, 16)
    for mask in (None, torch.arange(frames) < torch.tensor([[frames], [11]])):
        for drop in (None, torch.tensor([True, False])):
            given = (context, memory, mask, drop)
            expected = plain.velocity(xt, t, plain.prepare(*given))
            result = fast.velocity(xt, t, fast.prepare(*given))
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("half_rate_blocks", [0, 4])
@torch.inference_mode()
def test_estimator_of_one_rate(half_rate_blocks):
    torch.manual_seed(0)
    plain = UNetEstimator(
        n_mels=8,
        context_dim=8,
        memory_dim=8,
        hidden=32,
        blocks=4,
        heads=1,
        half_rate_blocks=half_rate_blocks,
    ).eval()
    draw_weights(plain)
    fast = FastEstimator(plain, torch.float32)
    given = (torch.randn(1, 10, 8), torch.randn(1, 8))
    xt, t = torch.randn(1, 8, 10), torch.tensor([0.3])
    expected = plain.velocity(xt, t, plain.prepare(*given))
    result = fast.velocity(xt, t, fast.prepare(*given))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


def vocoder(**settings) -> BigVGAN:
    torch.manual_seed(0)
    sizes = {"upsample_rates": (4, 2), "upsample_kernel_sizes": (8, 4), "initial_channels": 96}
    model = BigVGAN(n_mels=10, **{**sizes, **settings}).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            nn.init.normal_(module.weight, 0, 0.5 / (module.weight[0].numel()) ** 0.5)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},  # 48 and 24 channels, which run several samples at a time
        {"plain_after": False, "final_tanh": True, "final_bias": True},
        {"own_magnitude": False, "log_scale": False},
        {"anti_aliased": False},
        {"upsample_rates": (5, 4), "upsample_kernel_sizes": (11, 8), "initial_channels": 32},
    ],
)
@torch.inference_mode()
def test_vocoder(settings):
    plain = vocoder(**settings)
    fast = FastBigVGAN(plain, torch.float32)
    mel = torch.randn(2, 10, 23)
    torch.testing.assert_close(fast(mel), plain(mel), atol=1e-5, rtol=1e-4)
    lengths = torch.tensor([23, 9])
    torch.testing.assert_close(fast(mel, lengths), plain(mel, lengths), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_vocoder_with_weight_norm_is_left_as_it_is():
    plain = vocoder()
    mel = torch.randn(1, 10, 5)
    expected = plain(mel)
    plain.add_weight_norm()
    torch.testing.assert_close(
        FastBigVGAN(plain, torch.float32)(mel), expected, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(plain(mel), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("taps", "dilation", "group"), [(3, 1, 4), (7, 3, 2), (11, 5, 4), (5, 1, 1)]
)
def test_a_convolution_over_groups_of_samples_is_one_over_samples(taps, dilation, group):
    weight, x = torch.randn(3, 2, taps), torch.randn(1, 2, 24)
    expected = F.conv1d(x, weight, padding=taps // 2 * dilation, dilation=dilation)
    grouped = group_convolution(weight, dilation, group)
    rows = x.transpose(1, 2).reshape(1, 24 // group, group * 2).transpose(1, 2)
    y = F.conv1d(rows, grouped.transpose(1, 2), padding=grouped.shape[1] // 2)
    result = y.transpose(1, 2).reshape(1, 24, 3).transpose(1, 2)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rate", "taps"), [(2, 4), (4, 8), (5, 11), (3, 3)])
def test_a_transposed_convolution_is_one_over_frames(rate, taps):
    weight, x, padding = torch.randn(2, 3, taps), torch.randn(1, 2, 9), (taps - rate) // 2
    expected = F.conv_transpose1d(x, weight, stride=rate, padding=padding)
    grouped = group_transposed(weight, rate, padding)
    y = F.conv1d(x, grouped.transpose(1, 2), padding=grouped.shape[1] // 2)
    result = y.transpose(1, 2).reshape(1, 9 * rate, 3).transpose(1, 2)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_wavlm_and_its_padding():
    torch.manual_seed(0)
    plain = tiny().content.ssl
    assert isinstance(plain, WavLMFeatures)
    fast = copy.deepcopy(plain)
    prepare_wavlm(fast.model)
    waveform, lengths = torch.randn(2, 8000), torch.tensor([8000, 3000])
    for result, expected in zip(fast(waveform, lengths), plain(waveform, lengths), strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_content_of_whole_seconds_is_that_of_the_utterance():
    plain = tiny().content
    fast = FastContent(plain)
    waveform = torch.randn(1, 19000)
    expected = plain(waveform, torch.tensor([19000]))
    result = fast(waveform, torch.tensor([19000]))
    frames = expected.features.shape[1]
    assert result.mask.sum() == frames
    torch.testing.assert_close(result.features[:, :frames], expected.features, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_voiceprint_of_whole_seconds_is_that_of_the_utterance():
    plain = CAMPPlusVoiceprint(CAMPPlus(growth=4, channels=16).eval())
    waveform, lengths = torch.randn(2, 20000), torch.tensor([20000, 9000])
    vectors = RecordedVoiceprint(plain)(waveform, lengths)
    torch.testing.assert_close(vectors, plain(waveform, lengths), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_timbre_and_memory_in_buckets_are_those_of_the_frames(padded):
    plain = tiny()
    channels = plain.mel.n_mels + plain.voiceprint.dim
    content, tokens = torch.randn(2, 30, plain.content.dim), torch.randn(2, 50, channels)
    mask = torch.arange(50) < torch.tensor([[50], [20]]) if padded else None
    valid = torch.ones(2, 30, dtype=torch.bool)
    timbre = RecordedPart(plain.timbre, torch.float32, 25, 96)
    given = (content, valid, tokens, mask)
    torch.testing.assert_close(timbre(*given), plain.timbre(*given), atol=1e-5, rtol=1e-4)
    memory = RecordedPart(plain.memory, torch.float32, 96)
    torch.testing.assert_close(
        memory(tokens, mask), plain.memory(tokens, mask), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.timbre=null",),
        ("model.memory=null",),
        ("model.voiceprint=null",),
        ("model.content.ssl=null",),
        ("model.guidance=0", "model.solver=heun"),
        ("model.estimator.memory_fusion=gated", "model.shuffle_memory=false"),
    ],
)
def test_conversion(overrides):
    plain = tiny(*overrides)
    fast = accelerate(plain, dtype=torch.float32)
    speech = [noise(0.5), noise(1.3, 1)], [noise(0.6, 2), noise(1.0, 3)]
    result = fast.convert_batch(*speech, seeds=[4, 5])
    expected = plain.convert_batch(*speech, seeds=[4, 5])
    for actual, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(actual.samples, wanted.samples, atol=1e-5, rtol=1e-4)


def test_unknown_parts_are_refused_and_others_are_left():
    plain = tiny()
    with pytest.raises(ValueError, match="no part 'nope'; there are content"):
        accelerate(plain, parts=["nope"])
    fast = accelerate(plain, parts=["vocoder"])
    assert isinstance(fast.vocoder, FastBigVGAN)
    assert fast.content is plain.content
    assert fast.estimator is plain.estimator
    assert fast.flow is plain.flow


@pytest.mark.parametrize("rate", [16000, 24000, 16001])
def test_resampling_on_the_device_moves_the_mel_by_rounding_alone(rate):
    plain = tiny()
    fast = accelerate(plain, dtype=torch.float32)
    fast.resampler = Resampler()
    speech = [noise(0.5, 0, rate), noise(1.3, 1, rate)], [noise(0.6, 2, rate), noise(1.0, 3, rate)]
    for items in (slice(0, 1), slice(0, 2)):
        sources, references = speech[0][items], speech[1][items]
        batch, expected = (m.prepare(sources, references) for m in (fast, plain))
        torch.testing.assert_close(batch.source, expected.source, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(batch.reference, expected.reference, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(batch.reference_mel, expected.reference_mel, atol=2e-3, rtol=0)
        for lengths in ("source_lengths", "reference_lengths", "reference_mel_lengths"):
            assert torch.equal(getattr(batch, lengths), getattr(expected, lengths))
        assert torch.equal(batch.mel_lengths, expected.mel_lengths)


def test_faults_are_those_of_the_plain_model():
    fast = accelerate(tiny())
    fast.resampler = Resampler()
    with pytest.raises(InputError, match="the source is silent"):
        fast.convert(Speech(torch.zeros(16000), 24000), noise(1.0), seed=0)


def test_conversion_in_chunks():
    plain = tiny("model.chunk_seconds=1.6", "model.overlap_seconds=0.4")
    fast = accelerate(plain, dtype=torch.float32)
    result = fast.convert(noise(3.1), noise(0.5, 1), seed=2)
    expected = plain.convert(noise(3.1), noise(0.5, 1), seed=2)
    torch.testing.assert_close(result.samples, expected.samples, atol=1e-5, rtol=1e-4)


def test_the_plain_model_stays_as_it_is():
    plain = tiny()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    parts = {name: type(part) for name, part in plain.named_children()}
    accelerate(plain).convert(noise(0.3), noise(0.5, 1), seed=0)
    assert {name: type(part) for name, part in plain.named_children()} == parts
    after = plain.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        accelerate(tiny().train())


def test_padding_goes_to_the_end_up_to_the_bucket():
    x = torch.ones(2, 5, 3)
    assert pad_to(x, 1, 4).shape == (2, 8, 3)
    assert pad_to(x, 1, 5) is x
    assert pad_to(x, 2, 4)[..., 3:].sum() == 0
    assert pad_to(x, 2, 4).sum() == x.sum()


def test_folding_leaves_a_parametrised_convolution_as_it_is():
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 5, dilation=2, padding=4))
    x = torch.randn(1, 2, 20)
    torch.testing.assert_close(folded(convolution)(x), convolution(x))
    assert nn.utils.parametrize.is_parametrized(convolution)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_graphs_give_what_their_function_gives_whatever_came_before():
    replay = Replayed(lambda x, y: (x @ y, x.sum(0)))
    for rows in (3, 5, 3):
        x, y = torch.randn(rows, 4, device="cuda"), torch.randn(4, 2, device="cuda")
        product, total = replay(x, y)
        replay(x + 1, y)  # must not overwrite what was given out
        torch.testing.assert_close(product, x @ y)
        torch.testing.assert_close(total, x.sum(0))
    assert len(replay.captured) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conversion_on_a_gpu(dtype):
    plain = tiny("model.estimator.hidden=128", "model.steps=4").cuda()
    fast = accelerate(plain, dtype=dtype)
    mels: dict[nn.Module, torch.Tensor] = {}
    for model in (plain, fast):
        model.vocoder.register_forward_pre_hook(
            lambda module, inputs: mels.__setitem__(module, inputs[0].clone())
        )
    for seconds in (0.7, 1.9, 0.7):
        speech = [noise(seconds), noise(0.5, 1)], [noise(0.6, 2), noise(1.1, 3)]
        for model in (plain, fast):
            model.convert_batch(*speech, seeds=[4, 5])
        expected = (mels[plain.vocoder] - plain.mel_mean) / plain.mel_std
        result = (mels[fast.vocoder] - plain.mel_mean) / plain.mel_std
        assert float((result - expected).norm() / expected.norm()) < 1e-2


def precisions() -> list[str]:
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return [part.fp32_precision for part in parts]  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", [None, torch.backends.cuda.matmul, torch.backends.cudnn.conv])
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("allowed", [True, False])
def test_rounding_is_set_and_restored_where_torch_refuses_its_older_setting(
    part, precision, allowed
):
    try:
        if part is not None:
            part.fp32_precision = precision
        before = precisions()
        with tf32(allowed):
            assert precisions() == ["tf32" if allowed else "ieee"] * 3
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
        assert precisions() == before
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.fp32_precision = "none"

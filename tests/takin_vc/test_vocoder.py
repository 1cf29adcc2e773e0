"""BigVGAN against closed forms, SciPy's filter design, and NVIDIA's code and configurations."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from takin_vc.tensors import WeightsError, load_tensors
from takin_vc.vocoder import BigVGAN, fold_weight_norm, settings_of_nvidia

PUBLIC = (  # every configuration in NVIDIA's repository
    "bigvgan_22khz_80band",
    "bigvgan_24khz_100band",
    "bigvgan_base_22khz_80band",
    "bigvgan_base_24khz_100band",
    "bigvgan_v2_22khz_80band_256x",
    "bigvgan_v2_22khz_80band_fmax8k_256x",
    "bigvgan_v2_24khz_100band_256x",
    "bigvgan_v2_44khz_128band_256x",
    "bigvgan_v2_44khz_128band_512x",
)

NVIDIA_24KHZ = {  # the settings that matter of nvidia/bigvgan_v2_24khz_100band_256x/config.json
    "sampling_rate": 24000,
    "num_mels": 100,
    "upsample_initial_channel": 1536,
    "upsample_rates": [4, 4, 2, 2, 2, 2],
    "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "activation": "snakebeta",
    "snake_logscale": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NVIDIA's `bigvgan` module; where its repository is, is the caller's business."""
    folder = os.environ.get("BIGVGAN_DIR")
    if not folder:
        pytest.skip("set BIGVGAN_DIR to a copy of NVIDIA/BigVGAN to compare with it")
    monkeypatch.syspath_prepend(folder)
    for module in ("env", "utils", "meldataset", "activations", "bigvgan"):
        sys.modules.pop(module, None)
    import bigvgan

    return bigvgan


def small(**settings: Any) -> BigVGAN:
    """A vocoder of hop 16 with weights of about unit gain, so that every part has an effect."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "sample_rate": 16000,
        "n_mels": 6,
        "initial_channels": 16,
        "upsample_rates": (4, 4),
        "upsample_kernel_sizes": (8, 8),
        "kernel_sizes": (3, 7),
        "dilations": ((1, 3), (1, 3)),
    }
    model = BigVGAN(**{**defaults, **settings}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                fan_in = parameter.shape[0] * 2 if ".up." in name else parameter[0].numel()
                parameter.normal_(0, 0.5 * fan_in**-0.5)
            elif name.endswith(("alpha", "beta")):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_weight_norm_folds_to_what_pytorch_computes():
    torch.manual_seed(0)
    for convolution in (nn.Conv1d(4, 6, 3), nn.ConvTranspose1d(4, 6, 3)):
        normed = weight_norm(convolution)
        with torch.no_grad():
            normed.parametrizations.weight.original0.mul_(2.5)
        tensors = normed.state_dict()
        old_names = {
            "weight_g": tensors["parametrizations.weight.original0"],
            "weight_v": tensors["parametrizations.weight.original1"],
            "bias": tensors["bias"],
        }
        for named in (tensors, old_names):
            folded = fold_weight_norm(named)
            assert folded.keys() == {"weight", "bias"}
            torch.testing.assert_close(folded["weight"], normed.weight)


def test_weight_norm_leaves_the_function_and_comes_off_again():
    model = small()
    mel = torch.randn(1, 6, 20)
    with torch.no_grad():
        before = model(mel)
        model.add_weight_norm()
        torch.testing.assert_close(model(mel), before, atol=1e-6, rtol=0)
        model.remove_weight_norm()
        torch.testing.assert_close(model(mel), before, atol=1e-6, rtol=0)
    assert not any("parametrizations" in name for name in model.state_dict())


@pytest.mark.parametrize("anti_aliased", [True, False])
def test_autocast_trains_and_ends_in_float32(anti_aliased):
    vocoder = small(anti_aliased=anti_aliased)
    mel = torch.randn(1, vocoder.conv_pre.in_channels, 20)
    exact = vocoder(mel)
    with torch.autocast("cpu", torch.bfloat16):
        speech = vocoder(mel)
    assert speech.dtype == torch.float32
    assert 0 < (speech - exact).abs().max() < 0.1 * exact.abs().max()
    speech.square().sum().backward()
    assert all(p.grad is not None for p in vocoder.parameters())


@pytest.mark.parametrize("anti_aliased", [True, False])
def test_padding_never_changes_a_sample(anti_aliased):
    model = small(anti_aliased=anti_aliased)
    mel, lengths = torch.randn(3, 6, 50), torch.tensor([50, 31, 7])
    for row, n in zip(mel, lengths, strict=True):
        row[:, n:] = 9.0  # what lies beyond must not matter
    with torch.no_grad():
        batched = model(mel, lengths)
        for row, waveform, n in zip(mel, batched, lengths, strict=True):
            alone = model(row[None, :, :n])[0]
            torch.testing.assert_close(waveform[: n * 16], alone, atol=1e-5, rtol=0)
            assert torch.all(waveform[n * 16 :] == 0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"plain_after": False}, {"anti_aliased": False}, {"upsample_kernel_sizes": (4, 16)}],
)
def test_nothing_beyond_its_reach_has_an_effect(settings):
    model = small(**settings).double()
    mel = torch.randn(1, 6, 120, dtype=torch.float64)
    other = mel.clone()
    other[:, :, :60] += 1
    with torch.no_grad():
        moved = (model(mel) - model(other))[0].abs()
    assert torch.all(moved[(60 + model.reach_frames) * 16 :] == 0)
    assert moved[(60 + model.reach_frames // 3) * 16 :].max() > 0  # and it is no wild guess


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"use_tanh_at_final": True, "use_bias_at_final": True},  # version 1
        {"activation": "snake", "snake_logscale": False},
        {"resblock": "2", "resblock_dilation_sizes": [[1, 3]] * 3},
        {"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4]},
    ],
    ids=["v2", "v1", "snake", "block2", "base"],
)
def test_waveform_is_nvidias(nvidia, changed):
    config = nvidia.AttrDict(
        {**NVIDIA_24KHZ, "upsample_initial_channel": 128, "num_mels": 20, **changed}
    )
    torch.manual_seed(0)
    original = nvidia.BigVGAN(config).eval()
    mel = torch.randn(2, 20, 40)
    with torch.no_grad():
        for name, parameter in original.named_parameters():
            if name.endswith("weight_g"):  # about unit gain, so that every part has an effect
                v = original.get_parameter(name.replace("weight_g", "weight_v"))
                fan_in = v.shape[0] * 2 if name.startswith("ups") else v[0].numel()
                norm = v.flatten(1).norm(dim=1).view_as(parameter)
                gain = 0.3 + 0.4 * torch.rand_like(parameter)
                parameter.copy_(norm / v.std() * gain / fan_in**0.5)
            elif name.endswith(("alpha", "beta")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        ours = BigVGAN(**settings_of_nvidia(config)).eval()
        load_tensors(ours, ours.from_nvidia_names(original.state_dict()), "NVIDIA")
        expected = original(mel)[:, 0]
        difference = float((ours(mel) - expected).abs().max())
    print(f"BigVGAN: largest difference {difference:.1e}, peak {float(expected.abs().max()):.2f}")
    assert float(expected.std()) > 1e-3
    assert difference <= 1e-5


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configuration_has_nvidias_names_and_shapes(nvidia, name):
    path = Path(os.environ["BIGVGAN_DIR"]) / "configs" / f"{name}.json"
    config = nvidia.load_hparams_from_json(path)
    with torch.device("meta"):
        original = nvidia.BigVGAN(config)
        ours = BigVGAN(**settings_of_nvidia(config))
    tensors = {n: t for n, t in original.state_dict().items() if not n.endswith("filter")}
    renamed = {n: t.shape for n, t in ours.from_nvidia_names(tensors).items()}
    assert renamed == {n: t.shape for n, t in ours.state_dict().items()}
    assert ours.hop_length == config.hop_size


def test_version_2_at_24_khz_has_112_million_parameters():
    with torch.device("meta"):  # the figure is from NVIDIA's README
        model = BigVGAN(**settings_of_nvidia(NVIDIA_24KHZ))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 112


def test_version_1_ends_in_a_tanh_and_a_bias():
    config = {k: v for k, v in NVIDIA_24KHZ.items() if not k.startswith("use_")}
    settings = settings_of_nvidia(config)
    assert settings["final_tanh"]
    assert settings["final_bias"]


def nvidia_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as NVIDIA publishes them."""
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"generator": tensors}, folder / "bigvgan_generator.pt")
    return folder


def test_folder_without_weights_names_the_file(tmp_path):
    with pytest.raises(WeightsError, match=r"holds no config\.json; put it there"):
        BigVGAN.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps(NVIDIA_24KHZ | {"upsample_initial_channel": 64})
    )
    with pytest.raises(WeightsError, match=r"holds no .*bigvgan_generator\.pt; put it there"):
        BigVGAN.from_pretrained(tmp_path)


def test_folder_of_another_size_names_the_first_tensor_that_differs(tmp_path):
    config = NVIDIA_24KHZ | {"upsample_initial_channel": 64, "num_mels": 20}
    tensors = BigVGAN(**settings_of_nvidia(config | {"num_mels": 21})).state_dict()
    with pytest.raises(
        WeightsError, match=r"'conv_pre.weight' has shape \(64, 21, 7\), .* needs \(64, 20, 7\)"
    ):
        BigVGAN.from_pretrained(nvidia_folder(tmp_path, config, tensors))


def test_other_filters_are_refused():
    model = small()
    with pytest.raises(WeightsError, match="low-pass filter"):
        model.from_nvidia_names({"activation_post.upsample.filter": torch.ones(1, 1, 12) / 12})


def test_settings_that_cannot_be_name_both_values():
    with pytest.raises(ValueError, match=r"initial_channels \(24\) .* multiple of 16"):
        small(initial_channels=24, upsample_rates=(2,) * 4, upsample_kernel_sizes=(4,) * 4)
    with pytest.raises(ValueError, match=r"kernel \(10\) must be its rate \(5\) plus an even"):
        small(upsample_rates=(5, 4), upsample_kernel_sizes=(10, 8))
    with pytest.raises(ValueError, match=r"kernel_sizes \(1\) and dilations \(2\)"):
        small(kernel_sizes=(3,))

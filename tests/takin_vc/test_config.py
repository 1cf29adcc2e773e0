"""Settings: what is accepted, what is refused, and what the errors say."""

import pytest
import torch
from torch import nn

from takin_vc.config import ConfigError, build, build_model, load, load_public_weights, weight_nodes
from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.parts import PARTS, finder, part
from takin_vc.tensors import WeightsError
from takin_vc.timbre import MelVoiceprint
from takin_vc.vocoder import BigVGAN

VOICEPRINT = {"part": "mel_voiceprint", "dim": 4, "channels": 8, "layers": 1}


def test_a_part_is_built_with_its_parts():
    built = build({"list": [VOICEPRINT, 1], "name": "x", "inner": VOICEPRINT}, "here")
    assert isinstance(built["inner"], MelVoiceprint)
    assert isinstance(built["list"][0], MelVoiceprint)
    assert built["inner"].dim == 4
    assert (built["list"][1], built["name"]) == (1, "x")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "takin_vc.content.torch.load",  # reached through an import
        "takin_vc.content.WavLMModel",  # a class of transformers, likewise
        "takin_vc.model.soxr.resample",
        "takin_vc.checkpoint.save_checkpoint",  # a function that writes
        "takin_vc.frontends.hybridformer.HybridFormer.save",  # a method
        "takin_vc.frontends.hybridformer.HybridFormer.__init__",
        "takin_vc.tensors.read_tensors",
        "takin_vc.model.Speech",  # no part of a model
        "takin_vc.frontends.hybridformer",
        "takin_vc.nothing.Nothing",
        "takin_vc.memory.Nothing",
        "takin_vc",
    ],
)
def test_nothing_but_a_part_of_a_model_can_be_named(target):
    with pytest.raises(ConfigError, match=r"here: no part is called '.*'"):
        build({"part": target}, "here")


@pytest.mark.parametrize("name", [None, 3, ["unet_estimator"], {"a": 1}, "", "unet_estimator "])
def test_a_name_of_no_part_is_refused_whatever_it_is(name):
    with pytest.raises(ConfigError, match="here: no part is called"):
        build({"part": name}, "here")


def test_a_mistyped_part_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'unet_estimator'"):
        build({"part": "unet_estimater"}, "here")


def test_every_part_in_the_table_can_be_built_by_something():
    for name in PARTS:
        assert callable(part(name))
        if name.endswith((".pretrained", ".installed")):
            assert callable(finder(name))


def test_arguments_that_a_part_does_not_take_are_named():
    with pytest.raises(ConfigError, match=r"here: .*unexpected keyword argument 'chanels'"):
        build({**VOICEPRINT, "chanels": 3}, "here")
    with pytest.raises(ConfigError, match=r"here: .*missing 1 required positional argument"):
        build({"part": "timbre_memory", "dim": 3}, "here")


def test_an_error_inside_a_part_passes_through():
    node = {
        "part": "timbre_memory",
        "timbre_dim": 3,
        "dim": 10,
        "groups": 5,
        "heads": 3,
    }
    with pytest.raises(ValueError, match=r"heads \(3\) must divide dim \(10\)"):
        build(node, "here")


@pytest.mark.parametrize(
    "override", ["model=nothing", "model.nothing=1", "model.steps=[", "nothing", "model/timbre=x"]
)
def test_overrides_that_are_not_understood_raise_and_name_the_models(override):
    with pytest.raises(ConfigError, match=r"models: acl, global_timbre, iclr, mini, tiny"):
        load([override])


def test_missing_and_unknown_settings_are_named():
    config = load(["model=tiny"])["model"]
    with pytest.raises(ConfigError, match="lack flow, mel"):
        build_model({k: v for k, v in config.items() if k not in ("mel", "flow")})
    with pytest.raises(ConfigError, match=r"model: .*unexpected keyword argument 'stepps'"):
        build_model(config | {"stepps": 3})


def test_public_weights_fill_their_part(tmp_path):
    config = load(["model=tiny"])["model"]
    torch.manual_seed(7)
    trained = HybridFormer(**config["content"]["ppg"]["config"])
    trained.save(tmp_path)
    config["content"]["ppg"]["_weights_"] = {
        "part": "hybridformer.pretrained",
        "folder": str(tmp_path),
    }
    assert [name for name, _ in weight_nodes(config)] == ["content.ppg"]
    model = build_model(config)
    ours = model.content.ppg.hybridformer.state_dict()
    assert not torch.equal(ours["subsample.conv.weight"], trained.subsample.conv.weight)
    load_public_weights(model, config)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(ours[name], tensor)


def test_missing_public_weights_name_the_file_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(["model=acl", "model.content.ssl._weights_=null"])["model"]
    with torch.device("meta"):
        model = build_model(config)
    with pytest.raises(WeightsError, match=r"campplus_cn_en_common\.pt of .* on ModelScope"):
        load_public_weights(model, config)


def test_vocoder_settings_are_those_of_its_public_weights():
    # What the YAML says must be what NVIDIA's config.json makes (see test_vocoder for that).
    config = load(["model=acl"])["model"]["vocoder"]
    with torch.device("meta"):
        model = build(config, "vocoder")
        expected = BigVGAN()
    assert isinstance(model, nn.Module)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in expected.state_dict().items()}

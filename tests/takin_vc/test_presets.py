"""Every shipped YAML is complete, can be built, and has the papers' values."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from takin_vc.config import FOLDER, build_model, load, presets
from takin_vc.model import TakinVC
from takin_vc.parts import part

DERIVED = {"n_mels", "context_dim", "memory_dim", "content_dim", "timbre_dim"}  # by build_model
GROUPS = sorted(path for path in (FOLDER / "model").rglob("*.yaml") if path.parent.name != "model")


def on_meta(*overrides: str) -> TakinVC:
    """A model with shapes and no values."""
    with torch.device("meta"):
        return build_model(load(overrides)["model"])


def millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_there_are_five_models():
    assert presets() == ["acl", "global_timbre", "iclr", "mini", "tiny"]


@pytest.mark.parametrize("name", ["acl", "global_timbre", "iclr", "mini", "tiny"])
def test_every_argument_is_listed(name):
    def check(node: Any, where: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                check(value, f"{where}.{key}")
            if "part" in node and not where.endswith("_weights_"):
                wanted = inspect.signature(part(node["part"])).parameters.keys()
                listed = node.keys() - {"part", "_weights_"}
                assert listed | DERIVED >= set(wanted), where
                assert listed <= set(wanted), where

    config = load([f"model={name}"])["model"]
    check(config, "model")
    assert config.keys() == inspect.signature(TakinVC).parameters.keys()


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_part_that_is_shipped_builds_in_a_model(path: Path):
    group = str(path.parent.relative_to(FOLDER))
    small = "16khz" in path.stem or path.stem == "tiny"
    overrides = [f"model={'tiny' if small else 'acl'}", f"{group}={path.stem}"]
    if "vocos" in path.stem:
        overrides[0] = "model=mini"  # `tiny` has settings of BigVGAN
    if path.stem == "whisper_base":
        overrides.append("model.content.quantizer=null")  # of WavLM's width
    if "16khz" in path.stem:
        overrides += ["model.mel.n_mels=80", "model.vocoder.n_mels=80"]
    assert path.read_text().startswith("# ")
    on_meta(*overrides)


def test_acl_is_what_the_paper_says():
    model = on_meta("model=acl")
    content, estimator = model.content, model.estimator
    assert content.fusion == "acl"
    assert content.ssl.name == "wavlm-1024-layer6"
    assert content.quantizer.codebook.shape == (8200, 1024)
    assert len(content.ppg.hybridformer.blocks) == 12
    assert model.voiceprint.dim == 192
    assert (len(model.timbre.layers), model.timbre.heads, model.timbre.dim) == (6, 8, 1024)
    assert (len(model.memory.blocks), model.memory.dim) == (4, 1024)
    assert (len(estimator.blocks), len(estimator.resnet_blocks)) == (10, 3)
    assert estimator.hidden == 1280
    assert (model.steps, model.guidance, model.flow.sigma_min) == (10, 0.7, 1e-4)
    assert (model.commitment_weight, model.solver) == (0.01, "euler")
    assert (model.sample_rate, model.mel.n_mels, model.mel.hop_length) == (24000, 100, 256)
    assert type(estimator.blocks[0].fusion).__name__ == "FiLM"


def test_iclr_differs_from_acl_where_the_paper_does():
    model = on_meta("model=iclr")
    assert model.content.fusion == "iclr"
    assert model.content.quantizer.frozen
    assert model.memory.output is not None
    assert type(model.estimator.blocks[0].fusion).__name__ == "GatedFusion"
    assert model.steps == 50
    acl, iclr = load(["model=acl"])["model"], load(["model=iclr"])["model"]
    different = {key for key in acl if acl[key] != iclr[key]}
    assert different == {"content", "memory", "estimator", "shuffle_memory", "steps"}


def test_mini_is_smaller_than_whisper():
    model = on_meta("model=mini")
    whisper = millions(model.content.ssl) + millions(model.content.ppg)
    assert 25 < millions(model) - whisper < 34
    assert model.content.ssl.layer == 2
    assert model.content.ppg.layer is None
    assert model.sample_rate == 16000


@pytest.mark.parametrize("preset", ["acl", "mini"])
def test_every_ablation_is_one_override(preset):
    assert on_meta(f"model={preset}", "model.content.ppg=null").content.ppg is None
    assert on_meta(f"model={preset}", "model.content.ssl=null").content.ssl is None
    assert on_meta(f"model={preset}", "model.timbre=null").timbre is None
    assert on_meta(f"model={preset}", "model.voiceprint=null").voiceprint is None
    model = on_meta(f"model={preset}", "model.memory=null")
    assert model.memory is None
    assert model.estimator.null_memory is None


def test_first_lines_of_the_files_say_what_they_are():
    for path in FOLDER.rglob("*.yaml"):
        text = path.read_text().removeprefix("# @package _global_\n")  # a directive of Hydra's
        first, *rest = text.splitlines()
        assert first.startswith("# ")
        assert first.endswith((".", ":")), path
        assert yaml.safe_load("\n".join(rest)) is not None

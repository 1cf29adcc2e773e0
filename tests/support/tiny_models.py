"""A small model in which every part changes the output, and speech to convert."""

import math
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from takin_vc.config import build_model, load
from takin_vc.frontends.squeezeformer import Attention
from takin_vc.inputs import Speech
from takin_vc.model import TakinVC


def new(*overrides: str, seed: int = 0) -> TakinVC:
    """The preset `tiny` in evaluation mode, its weights drawn by `draw_weights`."""
    torch.manual_seed(seed)
    model = build_model(load(["model=tiny", *overrides])["model"]).eval()
    for name, part in model.named_children():
        draw_weights(part, gain=0.5 if name == "vocoder" else 0.7)  # louder, it would clip
    return model


@torch.no_grad()
def draw_weights(module: nn.Module, *, gain: float = 0.7) -> None:
    """Draws the weights of every layer, from torch's global generator.

    Args:
        module: changed in place.
        gain: of a linear layer from inputs to outputs, in deviations.

    Freshly built, a vocoder is nearly silent and modulations are zero, so that half of the model
    could be missing and no test would detect it.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            if ".up." in name:  # a transposed convolution: (in, out, kernel)
                fan_in = parameter.shape[0] * 2
            parameter.normal_(0, gain * fan_in**-0.5)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))


@lru_cache
def model(*overrides: str) -> TakinVC:
    """The same, built once; not to be changed."""
    return new(*overrides)


def forget_attention(model: nn.Module) -> None:
    """Sets the output of all attention to 0, so that frames see only their neighbours."""
    for module in model.modules():
        if hasattr(module, "output") and hasattr(module, "query_key_value"):
            nn.init.zeros_(module.output.weight)
        elif isinstance(module, Attention):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)


def speech(seconds: float, seed: int = 0, sample_rate: int = 16000) -> Speech:
    """Something with a pitch, syllables and noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 100 + 20 * seed + 10 * torch.sin(2 * math.pi * 0.7 * t)
    phase = 2 * math.pi * torch.cumsum(pitch, 0) / sample_rate
    voice = sum(torch.sin(k * phase) / k for k in range(1, 12))
    syllables = 0.6 + 0.4 * torch.sin(2 * math.pi * (3 + 0.3 * seed) * t)
    noise = 0.05 * torch.randn(len(t), generator=generator)
    return Speech(0.1 * (voice * syllables + noise).float(), sample_rate)


def hub_cache(root: Path, monkeypatch: pytest.MonkeyPatch, repository: str, *files: str) -> Path:
    """Makes `root` the Hugging Face hub's cache, with empty files of a repository; their folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    snapshot = folder / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).touch()
    return snapshot

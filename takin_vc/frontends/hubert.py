"""A public HuBERT recogniser's posteriors: a front end instead of HybridFormer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import HubertConfig, HubertForCTC

from takin_vc.frontends.base import (
    LARGE,
    WEIGHT_FILES,
    frames_per_second,
    load_pretrained,
    plain_config,
    run_wav2vec,
)
from takin_vc.tensors import find_files

# The shape of facebook/hubert-large-ls960-ft, for random weights.
HUBERT_LARGE: Mapping[str, Any] = {
    **LARGE,
    "num_hidden_layers": 24,
    "conv_bias": True,
    "vocab_size": 32,
}


class HuBERTPosteriors(nn.Module):
    """A public CTC recogniser's posteriors, instead of HybridFormer's: a PPG in the literal sense.

    `facebook/hubert-large-ls960-ft` classifies 32 characters and blanks, 50 times a second, trained
    on LibriSpeech. CTC posteriors are peaky: most frames say "blank", so little but the
    words comes through.

    Args:
        model: a HuBERT with a CTC head from transformers.
    """

    def __init__(self, model: HubertForCTC) -> None:
        super().__init__()
        self.model = model.eval()
        self.name = f"hubert-{model.config.hidden_size}-ctc-posteriors"
        self.dim = int(model.config.vocab_size)
        self.frame_rate = frames_per_second(model)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] = HUBERT_LARGE) -> "HuBERTPosteriors":
        """Random weights in the shape of a HuBERT: arguments of transformers' `HubertConfig`."""
        return cls(HubertForCTC(HubertConfig(**config)))

    @classmethod
    def from_pretrained(cls, source: str = "facebook/hubert-large-ls960-ft") -> "HuBERTPosteriors":
        """Published weights: a folder with `config.json` and the weights, or a repository in the
        Hugging Face hub's cache.

        Raises:
            WeightsError: if there are none.
        """
        return cls(load_pretrained(HubertForCTC, cls.find_weights(source)))

    @staticmethod
    def find_weights(source: str = "facebook/hubert-large-ls960-ft") -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return find_files(source, what="HuBERT", files=("config.json",), either=WEIGHT_FILES)

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": plain_config(self.model.config)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> posteriors (B, L, characters), mask (B, L).

        Raises:
            ValueError: if a waveform is shorter than one frame (25 ms).
        """

        def run(samples: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = self.model(samples, attention_mask=mask).logits
            return logits.float().softmax(-1).to(logits.dtype)

        return run_wav2vec(self.model, run, waveform, lengths)

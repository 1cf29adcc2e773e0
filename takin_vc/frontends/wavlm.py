"""WavLM's features after one of its transformer layers: the self-supervised front end (SSL)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from takin_vc.frontends.base import (
    LARGE,
    WEIGHT_FILES,
    conv_frames,
    frames_per_second,
    load_pretrained,
    plain_config,
    run_wav2vec,
)
from takin_vc.mel import frame_mask
from takin_vc.tensors import find_files

# The shape of microsoft/wavlm-large, for random weights.
WAVLM_LARGE: Mapping[str, Any] = {**LARGE, "num_hidden_layers": 24}


class WavLMFeatures(nn.Module):
    """WavLM's features after a transformer layer: the sixth, as both papers have it (§4.4).

    Layer k is the output of the k-th transformer layer, `hidden_states[k]` of transformers, where
    `hidden_states[0]` is the input of the first; the original `extract_features(output_layer=k)`
    (microsoft/UniSpeech, commit 40d3227) counts alike, and neither applies WavLM-Large's final
    layer norm. Layers past it are dropped from the model.

    The papers do not say which WavLM; Large is the one whose 1024 channels fit the codebook's.
    Large and every model with layer norm in its convolutions takes waveforms of mean 0 and
    variance 1, Base takes them unchanged (their published preprocessors). Base normalises its
    first convolution over time, padding included; its utterances are therefore run in groups of
    equal length, without padding.

    Checked against transformers 5.23, random weights: equal to the full model's
    `hidden_states[k]`, bit for bit.

    Args:
        model: a WavLM from transformers; its later layers are removed in place.
        layer: from 1.

    Raises:
        ValueError: if the model has fewer layers.
    """

    def __init__(self, model: WavLMModel, layer: int = 6) -> None:
        super().__init__()
        depth = len(model.encoder.layers)
        if not 1 <= layer <= depth:
            raise ValueError(f"layer ({layer}) must be between 1 and the model's {depth} layers")
        if model.adapter is not None:
            raise ValueError("WavLM with an adapter on top is not supported; its frames are fewer")
        model.encoder.layers = model.encoder.layers[:layer]
        model.config.num_hidden_layers = layer
        if model.config.do_stable_layer_norm:
            # The norm after the last layer; Base has one of this name before its first layer.
            model.encoder.layer_norm = nn.Identity()  # type: ignore[assignment]
        self.model = model.eval()
        self.layer = layer
        self.name = f"wavlm-{model.config.hidden_size}-layer{layer}"
        self.dim = int(model.config.hidden_size)
        self.frame_rate = frames_per_second(model)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] = WAVLM_LARGE, *, layer: int = 6
    ) -> "WavLMFeatures":
        """Random weights in the shape of a WavLM.

        Args:
            config: arguments of transformers' `WavLMConfig`.
            layer: from 1.
        """
        shape = WavLMConfig(**config)
        if layer > shape.num_hidden_layers:
            raise ValueError(f"layer ({layer}) must be at most {shape.num_hidden_layers}")
        shape.num_hidden_layers = layer  # later layers would only be dropped
        return cls(WavLMModel(shape), layer)

    @classmethod
    def from_pretrained(
        cls, source: str = "microsoft/wavlm-large", *, layer: int = 6
    ) -> "WavLMFeatures":
        """Published weights: a folder with `config.json` and the weights, or a repository in the
        Hugging Face hub's cache.

        Raises:
            WeightsError: if there are none.
        """
        return cls(load_pretrained(WavLMModel, cls.find_weights(source)), layer)

    @staticmethod
    def find_weights(source: str = "microsoft/wavlm-large") -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return find_files(source, what="WavLM", files=("config.json",), either=WEIGHT_FILES)

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": plain_config(self.model.config), "layer": self.layer}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> features (B, L, dim), mask (B, L); 50 frames
        a second.

        Raises:
            ValueError: if a waveform is shorter than one frame (25 ms).
        """

        def run(samples: Tensor, mask: Tensor) -> Tensor:
            # As the model's own forward, which copies a number to the device: a CUDA graph cannot.
            x = self.model.feature_extractor(samples).transpose(1, 2)  # (B, C, L) -> (B, L, C)
            x, _ = self.model.feature_projection(x)
            valid = frame_mask(conv_frames(self.model, mask.sum(1)), x.shape[1])
            hidden: Tensor = self.model.encoder(x, attention_mask=valid).last_hidden_state
            return hidden

        return run_wav2vec(self.model, run, waveform, lengths)

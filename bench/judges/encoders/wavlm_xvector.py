"""WavLM x-vectors (`microsoft/wavlm-base-plus-sv`, and others in transformers' format)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.audio import Waveform
from bench.devices import torch_device
from bench.judges import identity
from bench.judges.nn import wav2vec2 as wave
from bench.judges.nn.batches import (
    full_precision,
    in_batches,
    mask,
    masked_mean,
    masked_variance,
    pad,
)
from bench.weights import Weights
from bench.weights.find import HubFiles, find_folder

SAMPLE_RATE = 16_000  # Hz


class WavLMXVector:
    """Speaker embeddings by WavLM and an x-vector head (Chen et al. 2022, arXiv 2110.13900).

    The forward pass of transformers includes 6 frames of padding in its pooling (it ignores the
    dilation of its convolutions) and normalises over padding. Here both are masked, so that a clip
    has the same embedding in a batch as alone.

    Args:
        weights: a folder with config.json, preprocessor_config.json and model.safetensors or
            pytorch_model.bin; None for the hub's cache.
        repository: the model on the hub.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.
    """

    VERSION = 1

    def __init__(
        self,
        weights: str | None = None,
        repository: str = "microsoft/wavlm-base-plus-sv",
        device: str = "auto",
        batch_size: int = 16,
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        self._repository = repository
        self._folder, self._weights = find_folder(
            f"WavLM x-vectors {repository}",
            HubFiles(
                repository,
                files=("config.json", "preprocessor_config.json"),
                either=("model.safetensors", "pytorch_model.bin"),
                size=404_000_000,
            ),
            given=weights,
            licence="CC BY-SA 3.0",
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self._weights

    @property
    def networks(self) -> tuple[str, ...]:
        return (self._repository,)

    @property
    def fingerprint(self) -> str:
        return identity("xvector", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def standardise(self) -> float | None:
        return wave.standardises(self._folder)

    @cached_property
    def model(self) -> Any:
        """transformers' WavLMForXVector, loaded when first used."""
        from transformers import WavLMForXVector

        unused = ("objective.", "classifier.")  # they classify the speakers of the training
        model: Any = wave.load_pretrained(WavLMForXVector, self._folder, ignore=unused)
        wave.prepare(model.wavlm)
        return model.to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, C), each row of unit length."""
        clips = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        return np.stack(in_batches(clips, self.batch_size, self._run))

    def _run(self, clips: Sequence[Tensor]) -> list[np.ndarray]:
        model, config = self.model, self.model.config
        # Frames lost in the head's convolutions, and two for a standard deviation.
        lost = sum(
            (k - 1) * d for k, d in zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
        )
        floor = wave.shortest(model.wavlm) + (lost + 1) * wave.step(model.wavlm)
        longer = [F.pad(clip, (0, max(0, floor - len(clip)))) for clip in clips]
        with full_precision():
            ready = wave.ready(model.wavlm, longer, self.standardise)
            weigh = config.use_weighted_layer_sum
            output, frames = wave.forward(
                model.wavlm, *pad(ready, self.device), output_hidden_states=weigh
            )
            x = output.last_hidden_state  # (B, L, C)
            if weigh:
                states = (*output.hidden_states[:-1], output.last_hidden_state)
                shares = model.layer_weights.softmax(0)
                x = sum(share * state for share, state in zip(shares, states, strict=True))
            x = model.projector(x)
            for layer in model.tdnn:
                x = layer(x)
            x = x.transpose(1, 2)  # (B, L, C) -> (B, C, L)
            valid = mask(frames - lost, x.shape[2])[:, None]
            deviation = masked_variance(x, valid, unbiased=True).sqrt()
            pooled = torch.cat([masked_mean(x, valid), deviation], dim=1).squeeze(2)
            embeddings = F.normalize(model.feature_extractor(pooled), dim=1)
        return list(embeddings.cpu().numpy())

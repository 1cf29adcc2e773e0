"""The speaker judge of Takin-VC and seed-tts-eval: WavLM-Large under an ECAPA-TDNN head.

Its file, `wavlm_large_finetune.pth`, is published with microsoft/UniSpeech
(`downstreams/speaker_verification`) and loads as it is. WavLM (Chen et al. 2022, arXiv 2110.13900)
is that of transformers, the head is written here; padding is masked in both.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
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
from bench.weights.find import HubFiles, find
from bench.weights.state import load_state, read_state

SAMPLE_RATE = 16_000  # Hz
SHORTEST = 720  # samples: two frames of WavLM, or its features have no variance over time
FILE = "wavlm_large_finetune.pth"
# The authors' copy is on Google Drive; several projects download this one.
HUB = HubFiles(
    "k2-fsa/TTS_eval_models",
    files=(f"speaker_similarity/{FILE}",),
    revision="e876de7154845cd668b599bd4866f1d354c723df",
    size=1_296_000_000,
)
# WavLM-Large, as the transformers configuration of microsoft/wavlm-large has it.
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "max_bucket_distance": 800,
}
# Tensors that only training used.
LEFT_OUT = ("loss_calculator.",)

# Our tensors' names -> the published ones, applied in this order.
PUBLISHED_NAMES = (
    (r"^wavlm\.", r"feature_extract.model."),
    (r"masked_spec_embed", r"mask_emb"),
    (r"conv_layers\.(\d+)\.conv", r"conv_layers.\1.0"),
    (r"conv_layers\.(\d+)\.layer_norm", r"conv_layers.\1.2.1"),
    (r"feature_projection\.layer_norm", r"layer_norm"),
    (r"feature_projection\.projection", r"post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", r"pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", r"pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", r"pos_conv.0.bias"),
    (r"encoder\.layers\.(\d+)\.layer_norm", r"encoder.layers.\1.self_attn_layer_norm"),
    (r"\.attention\.gru_rel_pos_const", r".self_attn.grep_a"),
    (r"\.attention\.gru_rel_pos_linear", r".self_attn.grep_linear"),
    (r"\.attention\.rel_attn_embed", r".self_attn.relative_attention_bias"),
    (r"\.attention\.", r".self_attn."),
    (r"feed_forward\.intermediate_dense", r"fc1"),
    (r"feed_forward\.output_dense", r"fc2"),
)


class _Block(nn.Module):
    """Convolution, ReLU, batch normalisation; outside of a clip there are zeros."""

    def __init__(self, channels: int, out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, out, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(out)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, L), valid (B, 1, L) True on valid frames -> (B, C', L), zero elsewhere."""
        return self.bn(F.relu(self.conv(x))) * valid


class _Res2(nn.Module):
    """Groups of channels in turn; each adds the output of the previous group to its input."""

    def __init__(self, channels: int, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(scale - 1))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, L), valid (B, 1, L) -> (B, C, L)."""
        *parts, last = x.chunk(len(self.convs) + 1, dim=1)
        outputs: list[Tensor] = []
        for part, conv, bn in zip(parts, self.convs, self.bns, strict=True):
            inputs = part + outputs[-1] if outputs else part
            outputs.append(bn(F.relu(conv(inputs))) * valid)
        return torch.cat([*outputs, last], dim=1)


class _SqueezeExcite(nn.Module):
    """Weighs each channel by a function of the clip's mean."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, L), valid (B, 1, L) -> (B, C, L)."""
        squeezed = F.relu(self.linear1(masked_mean(x, valid).squeeze(2)))
        return x * torch.sigmoid(self.linear2(squeezed))[:, :, None]


class _SERes2(nn.Module):
    def __init__(self, channels: int, dilation: int, scale: int, bottleneck: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = _Block(channels, channels)
        self.Res2Conv1dReluBn = _Res2(channels, dilation, scale)
        self.Conv1dReluBn2 = _Block(channels, channels)
        self.SE_Connect = _SqueezeExcite(channels, bottleneck)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, L), valid (B, 1, L) -> (B, C, L)."""
        y = self.Res2Conv1dReluBn(self.Conv1dReluBn1(x, valid), valid)
        out: Tensor = x + self.SE_Connect(self.Conv1dReluBn2(y, valid), valid)
        return out


class _Pooling(nn.Module):
    """Mean and standard deviation over time, weighed by attention."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, attention, 1)
        self.linear2 = nn.Conv1d(attention, channels, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, C, L), valid (B, 1, L) -> (B, 2 C)."""
        weight = self.linear2(torch.tanh(self.linear1(x)))
        weight = weight.masked_fill(~valid, float("-inf")).softmax(dim=2)
        mean = (weight * x).sum(2)
        variance = (weight * x.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


class WavLMEcapa(nn.Module):
    """WavLM, a weighted sum of all its layers, and an ECAPA-TDNN over that.

    Args:
        wavlm: settings of transformers' WavLMConfig.
        channels: of the head's blocks.
        pooled: channels that are pooled over time.
        dim: of the embedding.
        bottleneck: channels of the squeeze-and-excitation and of the pooling's attention.
    """

    def __init__(
        self,
        wavlm: Mapping[str, Any] = LARGE,
        channels: int = 512,
        pooled: int = 1536,
        dim: int = 256,
        bottleneck: int = 128,
    ) -> None:
        # Here, not above: the import takes seconds, and without weights no one needs it.
        from transformers import WavLMConfig, WavLMModel

        super().__init__()
        config = WavLMConfig(**wavlm)
        self.wavlm = WavLMModel(config)
        wave.prepare(self.wavlm)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.layer1 = _Block(config.hidden_size, channels, kernel=5)
        self.layer2 = _SERes2(channels, dilation=2, scale=8, bottleneck=bottleneck)
        self.layer3 = _SERes2(channels, dilation=3, scale=8, bottleneck=bottleneck)
        self.layer4 = _SERes2(channels, dilation=4, scale=8, bottleneck=bottleneck)
        self.conv = nn.Conv1d(3 * channels, pooled, 1)
        self.pooling = _Pooling(pooled, bottleneck)
        self.bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, dim)

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """samples (B, T) at 16 kHz, each clip standardised, lengths (B,) -> (B, dim)."""
        output, frames = wave.forward(self.wavlm, samples, lengths, output_hidden_states=True)
        shares = self.feature_weight.softmax(0)
        # The input of each layer and the output of the model. The last of transformers' hidden
        # states is normalised in some of its versions only; the output always is.
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        layers = zip(shares, states, strict=True)
        x = sum(share * layer for share, layer in layers).transpose(1, 2)  # (B, C, L)
        valid = mask(frames, x.shape[2])[:, None]
        centred = x - masked_mean(x, valid)
        # Instance normalisation, and zeros outside of the clip, as a convolution alone has them.
        x = centred * (masked_variance(x, valid) + 1e-5).rsqrt() * valid
        first = self.layer1(x, valid)
        second = self.layer2(first, valid)
        third = self.layer3(second, valid)
        fourth = self.layer4(third, valid)
        y = F.relu(self.conv(torch.cat([second, third, fourth], dim=1)))
        embedding: Tensor = self.linear(self.bn(self.pooling(y, valid)))
        return embedding


def published_name(name: str) -> str:
    """The name in the published file of the tensor `name` of a `WavLMEcapa`."""
    for pattern, published in PUBLISHED_NAMES:
        name = re.sub(pattern, published, name)
    return name


def load(path: str | Path, **sizes: Any) -> WavLMEcapa:
    """The network with the weights of a file in UniSpeech's format, ready to embed.

    Args:
        path: the file; PyTorch's format, the tensors under "model".
        sizes: arguments of `WavLMEcapa` where the file's model is not the published size.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    name, remedy = "WavLM-Large with an ECAPA-TDNN head", f"get it: {HUB.how}"
    content = read_state(path, name, remedy)
    state = content.get("model", content)
    if not isinstance(state, dict):
        raise UserError(f"{path} is not {name}: its 'model' is no state dict; {remedy}")
    state = {key: value for key, value in state.items() if not key.startswith(LEFT_OUT)}
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = WavLMEcapa(**sizes)
    load_state(model, state, path, name, remedy, published_name)
    return model.requires_grad_(False).eval()


class WavLMLargeECAPA:
    """Speaker embeddings (256,) by WavLM-Large and ECAPA-TDNN; cosines lie in [-1, 1].

    Args:
        weights: `wavlm_large_finetune.pth`; None for the hub's cache and torch.hub's folder.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.
    """

    VERSION = 1

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 16
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        candidates = [HUB.cached(HUB.files[0]), Path(torch.hub.get_dir()) / "checkpoints" / FILE]
        self._weights = find(
            "WavLM-Large ECAPA-TDNN",
            given=weights,
            candidates=[path for path in candidates if path is not None],
            how=HUB,
            sha256=None,  # its authors publish none
            licence="CC BY-SA 3.0",
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def networks(self) -> tuple[str, ...]:
        return ("wavlm-large-finetune",)

    @property
    def fingerprint(self) -> str:
        return identity("wavlm_ecapa", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def model(self) -> WavLMEcapa:
        """The network, loaded when first used."""
        return load(self._weights.path).to(self.device)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, 256), each row of unit length."""
        clips = [w.resample(SAMPLE_RATE).samples for w in waveforms]
        return np.stack(in_batches(clips, self.batch_size, self._run))

    def _run(self, clips: Sequence[Tensor]) -> list[np.ndarray]:
        model = self.model
        with full_precision():
            longer = [F.pad(clip, (0, max(0, SHORTEST - len(clip)))) for clip in clips]
            ready = wave.ready(model.wavlm, longer, standardise=1e-5)  # as s3prl
            embeddings = F.normalize(model(*pad(ready, self.device)), dim=1)
        return list(embeddings.cpu().numpy())

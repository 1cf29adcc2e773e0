"""The wav2vec 2.0 family (HuBERT, WavLM) in batches in which padding changes nothing.

Models that normalise each frame ("layer") need an attention mask. In those that normalise the first
layer over time ("group"), `TimeNorm` must replace that layer, or padding would count as sound.
"""

import json
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.judges.nn.batches import mask, masked_mean, masked_variance

Model = TypeVar("Model", bound=nn.Module)
# Only training uses it; some checkpoints leave it out.
TRAINING_ONLY = "masked_spec_embed"
# The names that transformers gives tensors -> fairseq's, applied in this order.
FAIRSEQ_NAMES = (
    (r"masked_spec_embed", r"mask_emb"),
    (r"conv_layers\.(\d+)\.conv", r"conv_layers.\1.0"),
    (r"conv_layers\.(\d+)\.layer_norm", r"conv_layers.\1.2"),
    (r"feature_projection\.layer_norm", r"layer_norm"),
    (r"feature_projection\.projection", r"post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", r"pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", r"pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", r"pos_conv.0.bias"),
    (r"encoder\.layers\.(\d+)\.layer_norm", r"encoder.layers.\1.self_attn_layer_norm"),
    (r"\.attention\.", r".self_attn."),
    (r"feed_forward\.intermediate_dense", r"fc1"),
    (r"feed_forward\.output_dense", r"fc2"),
)


class TimeNorm(nn.GroupNorm):
    """Group normalisation, one channel a group, over each clip's valid frames.

    Attributes:
        frames: (B,) valid frames of the batch that comes next; set by `forward`.
    """

    frames: Tensor | None = None

    @classmethod
    def in_place_of(cls, norm: nn.GroupNorm) -> "TimeNorm":
        """The same normalisation with the same weights.

        Raises:
            ValueError: if `norm` puts several channels into one group.
        """
        if norm.num_groups != norm.num_channels:
            raise ValueError(
                f"{norm.num_groups} groups of {norm.num_channels} channels: not over time"
            )
        masked = cls(norm.num_groups, norm.num_channels, eps=norm.eps)
        masked.weight, masked.bias = norm.weight, norm.bias
        return masked

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, L) -> (B, C, L)."""
        assert self.frames is not None
        valid = mask(self.frames, x.shape[2])[:, None]
        centred = x - masked_mean(x, valid)
        scale = (masked_variance(x, valid) + self.eps).rsqrt()
        return centred * scale * self.weight[:, None] + self.bias[:, None]


def prepare(model: nn.Module) -> None:
    """Makes a model of the wav2vec 2.0 family of transformers ready for `forward`; call it once.

    `TimeNorm` replaces the layer that normalises over time. WavLM's attention is replaced:
    transformers projects queries, keys and values frame by frame and reads the whole matrix each
    time, which takes four tenths of WavLM-Large's time in a batch. The output is the same up to
    rounding.
    """
    parts = cast(Any, model)
    first = parts.feature_extractor.conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        first.layer_norm = TimeNorm.in_place_of(first.layer_norm)
    for layer in parts.encoder.layers:
        if hasattr(layer.attention, "torch_multi_head_self_attention"):  # WavLM
            layer.attention.torch_multi_head_self_attention = partial(_attend, layer.attention)


def base() -> Any:
    """wav2vec 2.0 base (Baevski et al. 2020), its weights not set, ready for `forward`."""
    # Here, not above: the import takes seconds, and without weights no one needs it.
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model = Wav2Vec2Model(
        Wav2Vec2Config(
            conv_dim=(512,) * 7,
            conv_kernel=(10, 3, 3, 3, 3, 2, 2),
            conv_stride=(5, 2, 2, 2, 2, 2, 2),  # one frame every 320 samples: 20 ms
            feat_extract_norm="group",
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=3072,
            num_conv_pos_embeddings=128,
            num_conv_pos_embedding_groups=16,
            do_stable_layer_norm=False,
        )
    )
    prepare(model)
    return model


def fairseq_name(name: str) -> str:
    """fairseq's name of the tensor that transformers calls `name`; other names stay."""
    for pattern, published in FAIRSEQ_NAMES:
        name = re.sub(pattern, published, name)
    return name


def _attend(attention: Any, x: Tensor, valid: Tensor | None, bias: Tensor) -> tuple[Tensor, None]:
    """transformers' `WavLMAttention.torch_multi_head_self_attention`, over all frames at once.

    Args:
        attention: the layer.
        x: (B, L, C).
        valid: (B, L), 0 behind a clip's end; None if there is no padding.
        bias: (B * heads, L, L), added to the products of queries and keys; overwritten.

    Returns:
        (B, L, C), and no weights.
    """
    heads = (*x.shape[:2], attention.num_heads, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    q, k, v = (project(x).view(heads).transpose(1, 2) for project in projections)
    bias = bias.view(len(x), attention.num_heads, *bias.shape[1:])
    if valid is not None:
        bias.masked_fill_(valid[:, None, None] == 0, float("-inf"))
    attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attention.out_proj(attended.transpose(1, 2).flatten(2)), None


def frames_of(model: Any, samples: Any, layers: int | None = None) -> Any:
    """The number of frames that the convolutions give for `samples` (a number or a tensor)."""
    shapes = list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    for kernel, stride in shapes[:layers]:
        samples = (samples - kernel) // stride + 1
    return samples


def shortest(model: Any) -> int:
    """Samples that one frame depends on."""
    samples = 1
    for kernel, stride in reversed(
        list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    ):
        samples = (samples - 1) * stride + kernel
    return samples


def step(model: Any) -> int:
    """Samples from one frame to the next."""
    return math.prod(model.config.conv_stride)


def ready(model: Any, clips: Sequence[Tensor], standardise: float | None) -> list[Tensor]:
    """Clips (T,) at 16 kHz, prepared as the model's training data was.

    Args:
        model: of the wav2vec 2.0 family of transformers.
        clips: a clip too short for one frame is padded with zeros.
        standardise: gives each clip mean 0 and variance 1; this value is added to the variance
            first. None leaves the clips as they are.
    """
    floor = shortest(model)
    if standardise is not None:
        clips = [(c - c.mean()) / torch.sqrt(c.var(correction=0) + standardise) for c in clips]
    return [nn.functional.pad(c, (0, max(0, floor - len(c)))) for c in clips]


def forward(model: Any, samples: Tensor, lengths: Tensor, **options: Any) -> tuple[Any, Tensor]:
    """The model's output for a padded batch, and each clip's number of frames (B,).

    Args:
        model: of the wav2vec 2.0 family of transformers, after `prepare`.
        samples: (B, T), zeros behind each clip.
        lengths: (B,) in samples.
        options: for the model.

    Returns:
        The output of transformers; frames (B, L, C) behind a clip's end hold nothing of use.
    """
    first = model.feature_extractor.conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), TimeNorm):
        first.layer_norm.frames = frames_of(model, lengths, layers=1)
    valid = mask(lengths, samples.shape[1])
    output = model(samples, attention_mask=None if valid.all() else valid.long(), **options)
    return output, frames_of(model, lengths)


def load_pretrained(kind: type[Model], folder: Path, ignore: Sequence[str] = ()) -> Model:
    """A model of transformers from a folder with config.json and its weights; no code in it runs.

    Args:
        kind: its class.
        folder: on this machine.
        ignore: prefixes of tensors that may be missing, since nothing here uses them.

    Raises:
        UserError: if the file lacks a tensor or one has another shape: a partly random model
            would give wrong numbers.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # its warnings are errors below
    logging.disable_progress_bar()
    try:
        model, report = cast(Any, kind).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, weights_only=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder}: no {kind.__name__} can be read from it ({reason})") from error
    missing = [
        name
        for name in sorted(report["missing_keys"])
        if not name.endswith(TRAINING_ONLY) and not name.startswith(tuple(ignore))
    ]
    wrong = sorted(str(key[0]) for key in report["mismatched_keys"])
    if missing or wrong:
        problem = f"has no tensor {missing[0]}" if missing else f"has another shape of {wrong[0]}"
        raise UserError(f"{folder}: not these weights: it {problem}; get them again")
    return cast(Model, model.requires_grad_(False).eval())


def standardises(folder: Path) -> float | None:
    """The argument `standardise` of `ready`, from the model's preprocessor_config.json."""
    settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    if (rate := settings.get("sampling_rate", 16000)) != 16000:
        raise UserError(f"{folder}: its input is {rate} Hz; only models of 16000 Hz are supported")
    # 1e-7 as transformers' Wav2Vec2FeatureExtractor has it.
    return 1e-7 if settings.get("do_normalize", True) else None

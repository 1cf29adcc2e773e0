"""Small front ends with random weights, and noise to feed them."""

import torch
from torch import Tensor

from takin_vc.frontends.hubert import HuBERTPosteriors
from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.mel import frame_mask

TINY = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 8,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # as Large
GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}  # as Base
HYBRIDFORMER = {
    "dim": 16,
    "heads": 2,
    "layers": 3,
    "reduce_at": 1,
    "recover_at": 2,
    "kernel_size": 7,
    "branch_kernels": [3],
    "vocabulary": 5,
}
LENGTHS = (9000, 16000, 4321)


def speech(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Noise that swells, and zeros after each utterance."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.tensor(lengths)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    waveform *= torch.linspace(0.2, 1, max(lengths))
    return waveform * frame_mask(counts, max(lengths)), counts


def wavlm(norm: dict = LAYER_NORM) -> WavLMFeatures:
    torch.manual_seed(0)
    return WavLMFeatures.from_config({**TINY, **norm})


def hubert(norm: dict = LAYER_NORM) -> HuBERTPosteriors:
    torch.manual_seed(0)
    return HuBERTPosteriors.from_config({**TINY, **norm, "vocab_size": 9})


def whisper_encoder(**settings) -> WhisperEncoderFeatures:
    torch.manual_seed(0)
    return WhisperEncoderFeatures.from_config(n_state=32, n_head=4, n_layer=3, **settings)


def hybridformer(output: str = "bottleneck") -> HybridFormerPPG:
    torch.manual_seed(0)
    return HybridFormerPPG.from_config(HYBRIDFORMER, output=output)

"""transformers' WavLM prepared for CUDA graphs, in place: `prepare_wavlm`."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from takin_vc.fast.vocoder import FastConvolution


def prepare_wavlm(model: WavLMModel) -> None:
    """Replaces the two steps of a WavLM that are slow on a GPU or cannot be recorded, in place.

    The convolution over positions becomes a `FastPositions`. The distances of the attention's
    position bias are computed on the device; older versions of transformers copy them from the CPU.

    Args:
        model: WavLM.
    """
    encoder: Any = model.encoder
    encoder.pos_conv_embed = FastPositions(encoder.pos_conv_embed.conv)
    attention = encoder.layers[0].attention  # the later layers take its bias
    attention.compute_bias = MethodType(_position_bias, attention)


class FastPositions(nn.Module):
    """WavLM's convolution over positions, by the Triton kernel, in 32 bits.

    It has 128 taps and 16 groups, for which cuDNN has no fast algorithm.

    Args:
        convolution: of transformers' `WavLMPositionalConvEmbedding`; its activation is GELU.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        weight = convolution.weight.detach().transpose(1, 2)  # (out, in, taps) -> (out, taps, in)
        self.convolution = FastConvolution(weight, convolution.bias, 1, 1, torch.float32)
        self.groups = convolution.groups

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, L, C), 0 on padding -> (B, L, C)."""
        batch, frames, _ = hidden_states.shape
        lengths = torch.full((batch,), frames, dtype=torch.int32, device=hidden_states.device)
        return F.gelu(self.convolution(hidden_states, lengths, 1, groups=self.groups))


def _position_bias(attention: WavLMAttention, query_length: int, key_length: int) -> Tensor:
    """As `WavLMAttention.compute_bias`: (H, query_length, key_length)."""
    device = attention.rel_attn_embed.weight.device
    distances = (
        torch.arange(key_length, device=device) - torch.arange(query_length, device=device)[:, None]
    )
    buckets = attention._relative_positions_bucket(distances)
    return attention.rel_attn_embed(buckets).permute(2, 0, 1)

"""WavLM at speed: `FusedWavLM` does what transformers' `WavLMModel` does."""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WavLMModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from takin_vc.fast.vocoder import FastConvolution
from takin_vc.layers import masked
from takin_vc.mel import frame_mask


class FusedWavLM(nn.Module):
    """transformers' WavLM with weight norm folded, fused attention, and no wait for the device.

    Args:
        model: of the kind with layer norm in its convolutions (Large); stays as it is.
    """

    def __init__(self, model: WavLMModel) -> None:
        super().__init__()
        self.config = model.config
        self.feature_extractor = model.feature_extractor
        self.feature_projection = model.feature_projection
        encoder: Any = model.encoder
        positions = encoder.pos_conv_embed.conv
        # Half the channels of a group see the other half 128 frames long: cuDNN has no fast way.
        self.positions = FastConvolution(
            positions.weight.detach().transpose(1, 2), positions.bias, 1, 1, torch.float32
        )
        self.groups = positions.groups
        self.frames = model._get_feat_extract_output_lengths
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in encoder.layers)
        for layer in self.layers:
            layer.attention = FusedWavLMAttention(cast(WavLMAttention, layer.attention))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.feature_projection.projection.weight.dtype

    def forward(self, samples: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        """samples (B, T), attention_mask (B, T), 1 on valid ones -> last_hidden_state (B, L, C)."""
        x = self.feature_extractor(samples).transpose(1, 2)  # (B, C, L) -> (B, L, C)
        x, _ = self.feature_projection(x)
        lengths: Any = attention_mask.sum(1)
        mask = frame_mask(self.frames(lengths), x.shape[1])
        x = masked(x, mask)
        x = x + F.gelu(self.positions(x, mask.sum(1, dtype=torch.int32), 1, groups=self.groups))
        bias = None
        for layer in self.layers:
            x, bias = layer(x, attention_mask=mask, position_bias=bias)
        return BaseModelOutput(last_hidden_state=x)


class FusedWavLMAttention(nn.Module):
    """WavLM's attention by PyTorch's fused kernels.

    Args:
        attention: of transformers.
    """

    def __init__(self, attention: WavLMAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.position_bias = attention if hasattr(attention, "rel_attn_embed") else None
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.weight = nn.Parameter(torch.cat([p.weight.data for p in projections]), False)
        self.bias = nn.Parameter(torch.cat([p.bias.data for p in projections]), False)
        self.out_proj = attention.out_proj
        self.gate = attention.gru_rel_pos_linear
        self.gate_constant = attention.gru_rel_pos_const

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        position_bias: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None, Tensor]:
        """As transformers' `WavLMAttention`, without the weights.

        Args:
            hidden_states: (B, L, C).
            attention_mask: (B, L), True on valid frames.
            position_bias: (1, H, L, L), of the first layer; None in that.
        """
        frames = hidden_states.shape[1]
        if position_bias is None:
            assert self.position_bias is not None
            # As its `compute_bias`, which in some versions of transformers goes by way of the CPU.
            at = torch.arange(frames, device=hidden_states.device)
            apart = self.position_bias._relative_positions_bucket(at[None] - at[:, None])
            position_bias = self.position_bias.rel_attn_embed(apart).permute(2, 0, 1)[None]
        gates = self.gate(hidden_states.unflatten(-1, (self.heads, -1)).transpose(1, 2))
        gates = gates.unflatten(-1, (2, 4)).sum(-1).sigmoid()  # (B, H, L, 2)
        gate = gates[..., :1] * (gates[..., 1:] * self.gate_constant - 1.0) + 2.0
        bias = (gate * position_bias).masked_fill(~attention_mask[:, None, None], -torch.inf)
        qkv = F.linear(hidden_states, self.weight, self.bias).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out_proj(x.transpose(1, 2).flatten(2)), None, position_bias

"""Takin-VC at the speed of a GPU: `accelerate` prepares the parts of a model for inference.

What is done, and PERFORMANCE.md says what each step gives:
    Graphs. Each part runs as one CUDA graph a shape. Lengths are padded to buckets, and every
        kernel knows how many frames are valid, so that a few graphs serve all lengths.
    Streams. The two front ends run side by side, and the voiceprint beside both.
    Flow and vocoder. `takin_vc.fast.flow` and `takin_vc.fast.vocoder`.
    Precision. 16-bit products with 32-bit sums in timbre, memory, flow and vocoder; the flow's
        state in 32 bits. 32 bits in the self-supervised front end and where its codes are chosen:
        between two codes nothing is small. TF32 in the recogniser and the voiceprint.

On the CPU the same code runs without graphs and kernels: so it is tested.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import WavLMModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from takin_vc.content import Content, HybridContentEncoder
from takin_vc.estimator import UNetEstimator
from takin_vc.fast.flow import FastEstimator, FastFlow
from takin_vc.fast.graphs import FRAME_BUCKET, Outputs, Replayed, pad_to
from takin_vc.fast.vocoder import FastBigVGAN, FastConvolution
from takin_vc.frontends.base import FrameFeatures
from takin_vc.frontends.campplus import CAMPPlus, Transit
from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.layers import masked
from takin_vc.mel import frame_mask
from takin_vc.memory import TimbreMemory
from takin_vc.model import Audio, Batch, TakinVC
from takin_vc.timbre import CAMPPlusVoiceprint, ContextAwareTimbre, MelVoiceprint
from takin_vc.vocoder import BigVGAN

SAMPLE_BUCKET = 16000  # samples: 1 s for the front ends
CONTENT_BUCKET = 25  # content frames: 1 s


def accelerate(model: TakinVC, *, dtype: torch.dtype = torch.bfloat16) -> "FastTakinVC":
    """The same model for fast inference: for `convert` and `convert_batch` alone.

    `model` stays as it is, and shares with it what is not replaced. The first conversion of a new
    length (to about a second) and batch size takes seconds longer.

    Args:
        model: on the device where it is to run, in evaluation mode.
        dtype: of the products in timbre, memory, flow and vocoder: torch.bfloat16, torch.float16,
            or torch.float32 to compare.

    Raises:
        ValueError: if the model is in training mode.
    """
    if model.training:
        raise ValueError("accelerate needs the model in evaluation mode: call eval() first")
    fast = FastTakinVC.__new__(FastTakinVC)
    fast.__dict__.update(model.__dict__)
    fast._modules = dict(model._modules)
    if all(map(_can_replay, (model.content.ssl, model.content.ppg))):
        fast.content = cast(HybridContentEncoder, FastContent(model.content))
    if isinstance(model.voiceprint, CAMPPlusVoiceprint | MelVoiceprint):
        fast.voiceprint = FastVoiceprint(model.voiceprint)
    if model.timbre is not None:
        fast.timbre = cast(ContextAwareTimbre, FastTimbre(model.timbre, dtype))
    if model.memory is not None:
        fast.memory = cast(TimbreMemory, FastMemory(model.memory, dtype))
    estimator = FastEstimator(model.estimator, dtype)
    fast.estimator = cast(UNetEstimator, estimator)
    fast.flow = FastFlow(model.flow, estimator)
    fast.vocoder = cast(BigVGAN, FastBigVGAN(model.vocoder, dtype))
    return fast.eval()


class FastTakinVC(TakinVC):
    """What `accelerate` makes."""

    def prepare(
        self, sources: Sequence[Audio], references: Sequence[Audio], *, targets: bool = False
    ) -> Batch:
        """As `TakinVC.prepare`; the voiceprint starts beside what follows."""
        batch = super().prepare(sources, references, targets=targets)
        if isinstance(self.voiceprint, FastVoiceprint):
            self.voiceprint.begin(batch.reference, batch.reference_lengths)
        return batch


class FastContent(nn.Module):
    """The content encoder, of whole seconds. Only for evaluation.

    Args:
        content: stays as it is.
    """

    def __init__(self, content: HybridContentEncoder) -> None:
        super().__init__()
        self.part = copy.deepcopy(content).eval()
        self.name, self.dim, self.frame_rate = content.name, content.dim, content.frame_rate
        self.beside = torch.cuda.Stream() if torch.cuda.is_available() else None
        if isinstance(self.part.ssl, WavLMFeatures):
            self.part.ssl.model = cast(WavLMModel, FusedWavLM(self.part.ssl.model))
        if isinstance(self.part.ppg, HybridFormerPPG):
            self.part.ppg.hybridformer.fuse()
        self.replay = Replayed(self._hear)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Content:
        """waveform (B, T) at 16 kHz, lengths (B,) -> Content, padded to whole seconds."""
        features, mask = self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)
        return Content(features, mask, features.new_zeros(()))

    def _hear(self, waveform: Tensor, lengths: Tensor) -> Outputs:
        # Both front ends are many small kernels, which run side by side.
        here = torch.cuda.current_stream() if waveform.is_cuda else None
        if here is not None and self.beside is not None:
            self.beside.wait_stream(here)
        with torch.cuda.stream(self.beside if waveform.is_cuda else None), tf32(True):
            ppg = (None, None) if self.part.ppg is None else self.part.ppg(waveform, lengths)
        with tf32(False):
            ssl = (None, None) if self.part.ssl is None else self.part.ssl(waveform, lengths)
            if here is not None and self.beside is not None:
                here.wait_stream(self.beside)
            content = self.part.forward_features(*ssl, *ppg)
        return content.features, content.mask


def _can_replay(front_end: FrameFeatures | None) -> bool:
    """Whether a front end never waits for the device."""
    if isinstance(front_end, WavLMFeatures):
        return bool(front_end.model.config.do_stable_layer_norm)
    return front_end is None or isinstance(front_end, HybridFormerPPG | WhisperEncoderFeatures)


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


class FastVoiceprint(nn.Module):
    """A voiceprint of references padded to whole seconds.

    Args:
        part: stays as it is.
    """

    def __init__(self, part: CAMPPlusVoiceprint | MelVoiceprint) -> None:
        super().__init__()
        self.part = copy.deepcopy(part)
        self.dim = part.dim
        if isinstance(self.part, CAMPPlusVoiceprint):
            _fold_batch_norms(self.part.model)
        self.replay = Replayed(self._hear, alone=True)
        self.beside = torch.cuda.Stream() if torch.cuda.is_available() else None
        self.begun: tuple[Tensor, Tensor] | None = None

    def begin(self, waveform: Tensor, lengths: Tensor) -> None:
        """Starts on a stream of its own; `forward` of the same tensor waits for it."""
        if waveform.is_cuda and self.beside is not None:
            self.beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.beside):
                found = self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)[0]
            self.begun = waveform, found

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim)."""
        if self.begun is not None and self.begun[0] is waveform and self.beside is not None:
            here, found = torch.cuda.current_stream(), self.begun[1]
            self.begun = None
            here.wait_stream(self.beside)
            found.record_stream(here)
            return found
        return self.replay(pad_to(waveform, 1, SAMPLE_BUCKET), lengths)[0]

    def _hear(self, waveform: Tensor, lengths: Tensor) -> Outputs:
        with tf32(True):
            return (self.part(waveform, lengths),)


def _fold_batch_norms(model: CAMPPlus) -> None:
    """Puts the batch norms that follow a convolution into it, in place."""
    for module in model.modules():
        names = {name for name, _ in module.named_children()}
        pairs: list[tuple[Any, str, Any, str]] = [
            (module, f"conv{i}", module, f"bn{i}")
            for i in (1, 2)
            if {f"conv{i}", f"bn{i}"} <= names
        ]
        shortcut = getattr(module, "shortcut", None)
        if shortcut is not None and len(shortcut):
            pairs.append((shortcut, "0", shortcut, "1"))
        for linear, nonlinear in (("linear1", "nonlinear2"), ("linear", "nonlinear")):
            # Where the norm comes second: the transitions have it first.
            if {linear, nonlinear} <= names and not isinstance(module, Transit):
                pairs.append((module, linear, module.get_submodule(nonlinear), "batchnorm"))
        for owner, convolution, norm_owner, norm in pairs:
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(norm_owner, norm))
            setattr(owner, convolution, fused)
            setattr(norm_owner, norm, nn.Identity())


class FastTimbre(nn.Module):
    """The cross-attention.

    Args:
        timbre: stays as it is.
        dtype: of its products.
    """

    def __init__(self, timbre: ContextAwareTimbre, dtype: torch.dtype) -> None:
        super().__init__()
        self.part = copy.deepcopy(timbre).to(dtype)
        self.dim = timbre.dim
        self.replay = Replayed(lambda *inputs: (self.part(*inputs),))

    def forward(
        self, content: Tensor, content_mask: Tensor, timbre: Tensor, timbre_mask: Tensor | None
    ) -> Tensor:
        """As `ContextAwareTimbre`: content (B, L, C), timbre (B, R, C') -> (B, L, dim)."""
        frames = content.shape[1]
        timbre, timbre_mask = pad_tokens(timbre, timbre_mask)
        content = pad_to(content, 1, CONTENT_BUCKET)
        content_mask = pad_to(content_mask, 1, CONTENT_BUCKET)
        return self.replay(content, content_mask, timbre, timbre_mask)[0][:, :frames]


class FastMemory(nn.Module):
    """The memory module.

    Args:
        memory: stays as it is.
        dtype: of its products.
    """

    def __init__(self, memory: TimbreMemory, dtype: torch.dtype) -> None:
        super().__init__()
        self.part = copy.deepcopy(memory).to(dtype)
        self.dim = memory.dim
        self.replay = Replayed(lambda *inputs: (self.part(*inputs),))

    def forward(self, timbre: Tensor, mask: Tensor | None = None) -> Tensor:
        """timbre (B, R, C), mask (B, R) -> (B, dim)."""
        return self.replay(*pad_tokens(timbre, mask))[0]


def pad_tokens(timbre: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tokens (B, R, C) and their mask (B, R), padded to a bucket."""
    if mask is None:
        mask = torch.ones(timbre.shape[:2], dtype=torch.bool, device=timbre.device)
    return pad_to(timbre, 1, FRAME_BUCKET), pad_to(mask, 1, FRAME_BUCKET)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether 32-bit products and convolutions may round their factors to 10 bits."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, was in zip(backends, before, strict=True):
            backend.allow_tf32 = was

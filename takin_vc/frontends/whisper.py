"""Whisper's encoder: a front end instead of HybridFormer."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from whisper import available_models
from whisper.audio import mel_filters
from whisper.model import AudioEncoder, ResidualAttentionBlock

from takin_vc.frontends.base import SAMPLE_RATE, check_lengths, standardise
from takin_vc.layers import attend, masked
from takin_vc.mel import frame_mask
from takin_vc.tensors import (
    OPENAI_WHISPER,
    MissingWeights,
    WeightsError,
    load_tensors,
    read_tensors,
    reading,
)


class WhisperEncoderFeatures(nn.Module):
    """Whisper's encoder, instead of HybridFormer: a bottleneck that holds the words and much of the
    expression.

    Whisper was trained on clips padded with silence to 30 s, and its code pads every clip so.
    Here each utterance is encoded at its length, with the first positions and no padding: 10 s
    of speech cost a third, and no frame is spent on silence. The frames differ somewhat from those
    of a padded clip, so a model trained on the one does not fit the other. Its log mel is
    Whisper's, including the floor 8 below the loudest value (base-10 logarithm); after an
    utterance comes silence.

    Checked against openai-whisper 20250625 on 30 s of audio, random weights: its log mel within
    2.4e-7, its encoder's output within 8.3e-7.

    Args:
        encoder: of openai-whisper.
        layer: frames after this block (from 1), before the final layer norm; after the last one,
            normed, where None.
        normalize: give each channel mean 0 and variance 1 over an utterance, which takes away what
            is constant in it, part of the voice included.

    Raises:
        ValueError: if the encoder has fewer layers.
    """

    window: Tensor
    filters: Tensor

    N_FFT = 400  # samples: 25 ms
    HOP_LENGTH = 160  # samples: 10 ms; the encoder halves that rate

    def __init__(
        self, encoder: AudioEncoder, *, layer: int | None = None, normalize: bool = False
    ) -> None:
        super().__init__()
        blocks = nn.ModuleList(encoder.blocks)
        if layer is not None and not 1 <= layer <= len(blocks):
            raise ValueError(f"layer ({layer}) must be between 1 and the encoder's {len(blocks)}")
        encoder.blocks = blocks[:layer]
        self.encoder = encoder.eval()
        self.layer = layer
        self.normalize = normalize
        self.n_mels = encoder.conv1.in_channels
        self.dim = encoder.conv1.out_channels
        self.name = f"whisper-{self.dim}-encoder" + ("" if layer is None else f"-layer{layer}")
        self.frame_rate = SAMPLE_RATE / self.HOP_LENGTH / 2
        self.register_buffer("window", torch.hann_window(self.N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters("cpu", self.n_mels).clone(), persistent=False)

    @classmethod
    def from_config(
        cls,
        *,
        n_mels: int = 80,
        n_ctx: int = 1500,
        n_state: int = 512,
        n_head: int = 8,
        n_layer: int = 6,
        layer: int | None = None,
        normalize: bool = False,
    ) -> "WhisperEncoderFeatures":
        """Random weights in the shape of an encoder, Whisper base's where not given."""
        encoder = AudioEncoder(n_mels, n_ctx, n_state, n_head, n_layer)
        return cls(encoder, layer=layer, normalize=normalize)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, layer: int | None = None, normalize: bool = False
    ) -> "WhisperEncoderFeatures":
        """Weights by openai-whisper's names (`encoder.conv1.weight`, …); a decoder's are unused."""
        state = {
            name.removeprefix("encoder."): tensor
            for name, tensor in state.items()
            if name.startswith("encoder.")
        }
        n_state, n_mels, _ = state["conv1.weight"].shape
        n_layer = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        # Every released Whisper has heads of 64 channels.
        encoder = AudioEncoder(
            n_mels, len(state["positional_embedding"]), n_state, n_state // 64, n_layer
        )
        load_tensors(encoder, state, "Whisper")
        return cls(encoder, layer=layer, normalize=normalize)

    @classmethod
    def from_pretrained(
        cls, source: str = "base", *, layer: int | None = None, normalize: bool = False
    ) -> "WhisperEncoderFeatures":
        """Published weights: OpenAI's `.pt` file, or the name of one in openai-whisper's cache.

        Raises:
            WeightsError: if there are none.
        """
        (path,) = cls.find_weights(source)
        tensors = {
            name.removeprefix("model_state_dict."): tensor
            for name, tensor in read_tensors(path).items()
        }
        with reading(path, "not a Whisper", "get it again"):
            return cls.from_state_dict(tensors, layer=layer, normalize=normalize)

    @staticmethod
    def find_weights(source: str = "base") -> list[Path]:
        """The file of `from_pretrained`, or its WeightsError."""
        folder = Path(os.getenv("XDG_CACHE_HOME", Path.home() / ".cache")) / "whisper"
        cached = folder / f"{source}.pt"
        path = cached if cached.is_file() else Path(source).expanduser()
        if path.is_file():
            return [path]
        lacking = f"Whisper {source}: no weights (looked at {path} and {cached})"
        if source not in available_models():
            raise WeightsError(f"{lacking}; name a .pt file or one of {available_models()}")
        how = f'python -c "import whisper; whisper.load_model({source!r})"'
        raise MissingWeights(lacking, how, OPENAI_WHISPER, (source,))

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        blocks = self.encoder.blocks
        return {
            "n_mels": self.n_mels,
            "n_ctx": len(self.encoder.positional_embedding),
            "n_state": self.dim,
            "n_head": next(iter(blocks)).attn.n_head,
            "n_layer": len(list(blocks)),
            "layer": self.layer,
            "normalize": self.normalize,
        }

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> features (B, L, dim), mask (B, L); 50 frames
        a second.

        Raises:
            ValueError: if a waveform is shorter than 25 ms or longer than the encoder's positions
                (30 s).
        """
        check_lengths(waveform, lengths, self.N_FFT, self.name)
        longest = len(self.encoder.positional_embedding) * 2 * self.HOP_LENGTH
        if waveform.shape[1] >= longest + self.HOP_LENGTH:
            raise ValueError(
                f"{self.name} takes at most {longest / SAMPLE_RATE:g} s at a time, not "
                f"{waveform.shape[1] / SAMPLE_RATE:g} s; cut the speech into overlapping chunks"
            )
        return self.encode(*self.log_mel(waveform, lengths))

    def encode(self, mel: Tensor, mel_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `log_mel` gives, (B, n_mels, R) and mask (B, R) -> features (B, R / 2, dim), mask
        (B, R / 2)."""
        mask = frame_mask((mel_mask.sum(1) + 1) // 2, (mel.shape[2] + 1) // 2)
        x = mel.to(self.encoder.conv1.weight.dtype)
        # Utterances end in zeros at every convolution, as a single one does.
        x = F.gelu(self.encoder.conv1(x)) * mel_mask[:, None]
        x = F.gelu(self.encoder.conv2(x)).transpose(1, 2)  # (B, C, L) -> (B, L, C)
        x = x + self.encoder.positional_embedding[: x.shape[1]].to(x.dtype)
        for block in self.encoder.blocks:
            x = _whisper_block(block, x, mask)
        if self.layer is None:
            x = _layer_norm(self.encoder.ln_post, x)
        if self.normalize:
            x = standardise(x.float(), mask).to(x.dtype)
        return masked(x, mask), mask

    def log_mel(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Whisper's log mel: (B, n_mels, T // 160), mask (B, T // 160); 0 on padding."""
        with torch.autocast(waveform.device.type, enabled=False):
            samples = waveform.float() * frame_mask(lengths, waveform.shape[1])
            half = self.N_FFT // 2
            samples = F.pad(F.pad(samples, (half, 0), mode="reflect"), (0, half))
            spectrum = torch.stft(
                samples,
                self.N_FFT,
                self.HOP_LENGTH,
                window=self.window.float(),
                center=False,
                return_complex=True,
            )
            power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)
            mel = (self.filters.float() @ power).clamp(min=1e-10).log10()
            mask = frame_mask(lengths // self.HOP_LENGTH, mel.shape[2])
            loudest = mel.masked_fill(~mask[:, None], -10).amax((1, 2), keepdim=True)
            mel = (torch.maximum(mel, loudest - 8) + 4) / 4
        return mel * mask[:, None], mask


def _whisper_block(block: ResidualAttentionBlock, x: Tensor, mask: Tensor) -> Tensor:
    """A block of openai-whisper's encoder, with a mask (B, L) over keys that its code lacks."""
    attention = block.attn
    y = _layer_norm(block.attn_ln, x)

    def split(z: Tensor) -> Tensor:
        return z.unflatten(-1, (attention.n_head, -1)).transpose(1, 2)  # (B, heads, L, C / heads)

    q, k, v = split(attention.query(y)), split(attention.key(y)), split(attention.value(y))
    x = x + attention.out(attend(q, k, v, mask))
    out: Tensor = x + block.mlp(_layer_norm(block.mlp_ln, x))
    return out


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """openai-whisper's layer norm in float32, also where the weights are not."""
    y = F.layer_norm(
        x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps
    )
    return y.to(x.dtype)

"""Content: what is said and how it is said, frame by frame, with as little as possible of who says
it.

Takin-VC §3.2: two frozen models hear the source. A speech recogniser's features (PPG) hold the
words and hardly the voice; a self-supervised model's features (SSL) hold expression too, and lose
their timbre by vector quantisation. A small convolution learns to put the second into the first.

    waveform (B, T) -> ssl (B, L1, C1) -> quantizer -> conv -.
                    -> ppg (B, L2, C2) ---------------------- fusion -> content (B, L2, dim)

A front end is any module with a `name`, a `dim`, a `frame_rate` and
`forward(waveform (B, T) at 16 kHz, lengths (B,)) -> (features (B, L, dim), mask (B, L))`, 0 on
padding. The features of an utterance do not depend on what else is in the batch.

For bfloat16 use autocast, or cast a front end's `model`, `encoder` or `hybridformer`; cast whole,
its filter bank would lose its precision too.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertForCTC, PreTrainedModel, WavLMConfig, WavLMModel
from transformers.utils import logging
from whisper import available_models
from whisper.audio import mel_filters
from whisper.model import AudioEncoder, ResidualAttentionBlock

from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.layers import FrameConv, attend, masked
from takin_vc.mel import KaldiFbank, frame_mask
from takin_vc.quantize import VectorQuantizer
from takin_vc.tensors import (
    OPENAI_WHISPER,
    MissingWeights,
    WeightsError,
    find_files,
    load_tensors,
    read_tensors,
    reading,
)

Model = TypeVar("Model", bound=PreTrainedModel)
Count = TypeVar("Count", int, Tensor)

SAMPLE_RATE = 16000  # Hz: what every front end hears
# What transformers calls a model's tensors, best first.
FORMATS = ("model.safetensors", "pytorch_model.bin")

# The shapes of microsoft/wavlm-large and facebook/hubert-large-ls960-ft, for random weights.
LARGE = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
WAVLM_LARGE: Mapping[str, Any] = {**LARGE, "num_hidden_layers": 24}
HUBERT_LARGE: Mapping[str, Any] = {
    **LARGE,
    "num_hidden_layers": 24,
    "conv_bias": True,
    "vocab_size": 32,
}


class FrameFeatures(Protocol):
    """A front end: one vector per frame of a 16 kHz waveform. Implementations are `nn.Module`s.

    Attributes:
        name: what it is, for results.
        dim: channels of a frame.
        frame_rate: frames per second.
    """

    name: str
    dim: int
    frame_rate: float

    def __call__(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) in [-1, 1], lengths (B,) -> features (B, L, dim), mask (B, L)."""
        ...


@dataclass(frozen=True, eq=False)
class Content:
    """What the content encoder hears.

    Attributes:
        features: (B, L, dim), 0 on padding.
        mask: (B, L), True on valid frames.
        commitment: the quantiser's commitment loss, a scalar; 0 without a quantiser.
        codes: the quantiser's codes, (B, L1) at the rate of the SSL, -1 on padding; None without.
    """

    features: Tensor
    mask: Tensor
    commitment: Tensor
    codes: Tensor | None = None


class HybridContentEncoder(nn.Module):
    """Fuses the recogniser's features with the quantised self-supervised ones (§3.2, equation 1 of
    each paper).

    acl:  content = LeakyReLU_0.2(Conv1d(VQ(ssl))) * ppg, the first factor interpolated to the
        PPG's frames
    iclr: content = ReLU(Conv1d(a_ssl * VQ(ssl) + a_ppg * ppg)), a_ssl and a_ppg learned

    ACL §4.4 has "several convolutional layers, an activation layer, and weighted summation", which
    fits ICLR's equation better than its own; the equations are followed, with one convolution. Not
    stated, and chosen: kernel 3; linear interpolation; ICLR's quantised SSL is interpolated before
    the sum, and its weights start at 1/2 each. Where the equations need equal channels and a front
    end has others, a linear layer without bias brings it to `dim`; HybridFormer's 512 need none.
    Without `ssl` the content of `acl` is the PPG, without `ppg` it is the left factor; `iclr` loses
    a term (ACL table 3, w/o SSL and w/o ppg).

    Both front ends are frozen: no gradients, always in evaluation mode.

    Args:
        ssl: self-supervised front end; None is the ablation w/o ssl.
        ppg: recogniser's front end; None is the ablation w/o ppg.
        quantizer: of the SSL features; None leaves them as they are.
        dim: channels of the content. 512 is what HiFi-Codec's decoder takes.
        fusion: "acl" or "iclr".
        kernel_size: of the convolution; odd.

    Raises:
        ValueError: if neither front end is given, or sizes do not fit.
    """

    def __init__(
        self,
        ssl: FrameFeatures | None,
        ppg: FrameFeatures | None,
        quantizer: VectorQuantizer | None,
        *,
        dim: int = 512,
        fusion: Literal["acl", "iclr"] = "acl",
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if ssl is None and ppg is None:
            raise ValueError("content needs a front end: ssl and ppg are both None")
        if fusion not in ("acl", "iclr"):
            raise ValueError(f"fusion must be 'acl' or 'iclr', not {fusion!r}")
        if ssl is not None and quantizer is not None and ssl.dim != quantizer.dim:
            raise ValueError(f"{ssl.name} has {ssl.dim} channels, the quantizer {quantizer.dim}")
        self.ssl = ssl
        self.ppg = ppg
        self.quantizer = quantizer if ssl is not None else None
        self.dim = dim
        self.fusion = fusion
        self.frame_rate = (ppg or ssl).frame_rate  # type: ignore[union-attr]
        self.ppg_projection = None if ppg is None else _projection(ppg.dim, dim)
        self.ssl_projection: nn.Module | None = None
        self.conv: FrameConv | None = None
        if fusion == "iclr":
            self.ssl_projection = None if ssl is None else _projection(ssl.dim, dim)
            self.ssl_weight = nn.Parameter(torch.tensor(0.5))
            self.ppg_weight = nn.Parameter(torch.tensor(0.5))
            self.conv = FrameConv(dim, dim, kernel_size)
        elif ssl is not None:
            self.conv = FrameConv(ssl.dim, dim, kernel_size)
        for front_end in (ssl, ppg):
            if isinstance(front_end, nn.Module):
                front_end.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """The front ends, for results."""
        return " + ".join(part.name for part in (self.ssl, self.ppg) if part is not None)

    def train(self, mode: bool = True) -> "HybridContentEncoder":
        """As usual, except that the front ends stay in evaluation mode."""
        super().train(mode)
        for front_end in (self.ssl, self.ppg):
            if isinstance(front_end, nn.Module):
                front_end.eval()
        return self

    def forward(self, waveform: Tensor, lengths: Tensor) -> Content:
        """The content of each waveform.

        Args:
            waveform: (B, T) at 16 kHz, in [-1, 1].
            lengths: samples of each, (B,).
        """
        with torch.no_grad():
            ssl = (None, None) if self.ssl is None else self.ssl(waveform, lengths)
            ppg = (None, None) if self.ppg is None else self.ppg(waveform, lengths)
        return self.forward_features(*ssl, *ppg)

    def forward_features(
        self,
        ssl_features: Tensor | None,
        ssl_mask: Tensor | None,
        ppg_features: Tensor | None,
        ppg_mask: Tensor | None,
    ) -> Content:
        """As `forward`, from the front ends' features: they are frozen and can be prepared once.

        Args:
            ssl_features: (B, L1, C1), None without an SSL front end.
            ssl_mask: (B, L1).
            ppg_features: (B, L2, C2), None without a PPG front end.
            ppg_mask: (B, L2).

        Raises:
            ValueError: if features are given for a front end that is not there, or the reverse.
        """
        for name, front_end, given in (
            ("ssl", self.ssl, ssl_features),
            ("ppg", self.ppg, ppg_features),
        ):
            if (front_end is None) != (given is None):
                raise ValueError(
                    f"this content encoder has {'no ' * (front_end is None)}{name} front end, "
                    f"and {name} features are {'missing' if given is None else 'given'}"
                )
        mask = ssl_mask if ppg_mask is None else ppg_mask
        assert mask is not None
        codes = None
        commitment = torch.zeros((), device=mask.device)
        ssl, ppg = ssl_features, ppg_features
        if ssl is not None and self.quantizer is not None:
            quantized = self.quantizer(ssl, ssl_mask)
            ssl, codes, commitment = quantized.features, quantized.codes, quantized.commitment
        if ppg is not None and self.ppg_projection is not None:
            ppg = self.ppg_projection(ppg)
        if self.fusion == "acl":
            features = self._multiply(ssl, ssl_mask, ppg, mask)
        else:
            features = self._add(ssl, ssl_mask, ppg, mask)
        return Content(masked(features, mask), mask, commitment, codes)

    def _multiply(
        self, ssl: Tensor | None, ssl_mask: Tensor | None, ppg: Tensor | None, mask: Tensor
    ) -> Tensor:
        """ACL, equation 1."""
        if ssl is None or ssl_mask is None or self.conv is None:
            assert ppg is not None
            return ppg
        gate = F.leaky_relu(self.conv(ssl, ssl_mask), 0.2)
        return gate if ppg is None else resize_frames(gate, ssl_mask, mask) * ppg

    def _add(
        self, ssl: Tensor | None, ssl_mask: Tensor | None, ppg: Tensor | None, mask: Tensor
    ) -> Tensor:
        """ICLR, equation 1."""
        terms = []
        if ssl is not None and ssl_mask is not None and self.ssl_projection is not None:
            ssl = self.ssl_projection(ssl)
            terms.append(self.ssl_weight * resize_frames(ssl, ssl_mask, mask))
        if ppg is not None:
            terms.append(self.ppg_weight * ppg)
        assert self.conv is not None
        return F.relu(self.conv(torch.stack(terms).sum(0), mask))


def resize_frames(features: Tensor, mask: Tensor, new_mask: Tensor) -> Tensor:
    """Stretches each utterance's valid frames over its valid frames in `new_mask`, linearly.

    For one utterance the same as `F.interpolate(mode="linear")`, whatever the padding.

    Args:
        features: (B, L, C).
        mask: (B, L), True on the first frames of each.
        new_mask: (B, L'), True on the first frames of each.

    Returns:
        (B, L', C); 0 on padding.
    """
    lengths, new_lengths = mask.sum(1, keepdim=True), new_mask.sum(1, keepdim=True)
    index = torch.arange(new_mask.shape[1], device=features.device)
    position = (index + 0.5) * (lengths / new_lengths.clamp(min=1)) - 0.5  # (B, L')
    position = torch.minimum(position.clamp(min=0), (lengths - 1).clamp(min=0))
    left = position.floor().long()
    right = torch.minimum(left + 1, (lengths - 1).clamp(min=0))
    weight = (position - left)[..., None].to(features.dtype)

    def at(frames: Tensor) -> Tensor:
        return features.gather(1, frames[..., None].expand(-1, -1, features.shape[2]))

    return masked(torch.lerp(at(left), at(right), weight), new_mask)


class WavLMFeatures(nn.Module):
    """WavLM's features after a transformer layer: the sixth, as both papers have it (§4.4).

    Layer k is the output of the k-th transformer layer, `hidden_states[k]` of transformers, where
    `hidden_states[0]` is what enters the first; WavLM's own `extract_features(output_layer=k)`
    (microsoft/UniSpeech, commit 40d3227) counts alike, and neither applies WavLM-Large's final
    layer norm. Layers past it are dropped from the model.

    The papers do not say which WavLM; Large is the one whose 1024 channels fit the codebook's.
    Large and every model with layer norm in its convolutions hears waveforms of mean 0 and
    variance 1, Base hears them as they are (their published preprocessors). Base normalises its
    first convolution over time, padding included; its utterances are therefore run in groups of
    equal length, without padding.

    Checked against transformers 5.23, random weights: equal to the full model's
    `hidden_states[k]`, bit for bit.

    Args:
        model: a WavLM from transformers; its later layers are removed in place.
        layer: from 1.

    Raises:
        ValueError: if the model has fewer layers.
    """

    def __init__(self, model: WavLMModel, layer: int = 6) -> None:
        super().__init__()
        depth = len(model.encoder.layers)
        if not 1 <= layer <= depth:
            raise ValueError(f"layer ({layer}) must be between 1 and the model's {depth} layers")
        if model.adapter is not None:
            raise ValueError("WavLM with an adapter on top is not supported; its frames are fewer")
        model.encoder.layers = model.encoder.layers[:layer]
        model.config.num_hidden_layers = layer
        if model.config.do_stable_layer_norm:
            # The norm after the last layer; Base has one of this name before its first layer.
            model.encoder.layer_norm = nn.Identity()  # type: ignore[assignment]
        self.model = model.eval()
        self.layer = layer
        self.name = f"wavlm-{model.config.hidden_size}-layer{layer}"
        self.dim = int(model.config.hidden_size)
        self.frame_rate = _frame_rate(model)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] = WAVLM_LARGE, *, layer: int = 6
    ) -> "WavLMFeatures":
        """Random weights in the shape of a WavLM.

        Args:
            config: arguments of transformers' `WavLMConfig`.
            layer: from 1.
        """
        shape = WavLMConfig(**config)
        if layer > shape.num_hidden_layers:
            raise ValueError(f"layer ({layer}) must be at most {shape.num_hidden_layers}")
        shape.num_hidden_layers = layer  # the others would be made only to be dropped
        return cls(WavLMModel(shape), layer)

    @classmethod
    def from_pretrained(
        cls, source: str = "microsoft/wavlm-large", *, layer: int = 6
    ) -> "WavLMFeatures":
        """Published weights: a folder with `config.json` and the weights, or a repository in the
        Hugging Face hub's cache.

        Raises:
            WeightsError: if there are none.
        """
        return cls(_pretrained(WavLMModel, cls.find_weights(source)), layer)

    @staticmethod
    def find_weights(source: str = "microsoft/wavlm-large") -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return find_files(source, what="WavLM", files=("config.json",), either=FORMATS)

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": _plain(self.model.config), "layer": self.layer}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> features (B, L, dim), mask (B, L); 50 frames
        a second.

        Raises:
            ValueError: if a waveform is shorter than one frame (25 ms).
        """

        def run(samples: Tensor, mask: Tensor) -> Tensor:
            hidden: Tensor = self.model(samples, attention_mask=mask).last_hidden_state
            return hidden

        return _run_wave_model(self.model, run, waveform, lengths)


class HuBERTPosteriors(nn.Module):
    """A public CTC recogniser's posteriors, in HybridFormer's place: what a PPG is to the letter.

    `facebook/hubert-large-ls960-ft` tells 32 characters and blanks apart, 50 times a second,
    trained on LibriSpeech. CTC posteriors are peaky: most frames say "blank", so little but the
    words comes through.

    Args:
        model: a HuBERT with a CTC head from transformers.
    """

    def __init__(self, model: HubertForCTC) -> None:
        super().__init__()
        self.model = model.eval()
        self.name = f"hubert-{model.config.hidden_size}-ctc-posteriors"
        self.dim = int(model.config.vocab_size)
        self.frame_rate = _frame_rate(model)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] = HUBERT_LARGE) -> "HuBERTPosteriors":
        """Random weights in the shape of a HuBERT: arguments of transformers' `HubertConfig`."""
        return cls(HubertForCTC(HubertConfig(**config)))

    @classmethod
    def from_pretrained(cls, source: str = "facebook/hubert-large-ls960-ft") -> "HuBERTPosteriors":
        """Published weights: a folder with `config.json` and the weights, or a repository in the
        Hugging Face hub's cache.

        Raises:
            WeightsError: if there are none.
        """
        return cls(_pretrained(HubertForCTC, cls.find_weights(source)))

    @staticmethod
    def find_weights(source: str = "facebook/hubert-large-ls960-ft") -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return find_files(source, what="HuBERT", files=("config.json",), either=FORMATS)

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": _plain(self.model.config)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> posteriors (B, L, characters), mask (B, L).

        Raises:
            ValueError: if a waveform is shorter than one frame (25 ms).
        """

        def run(samples: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = self.model(samples, attention_mask=mask).logits
            return logits.float().softmax(-1).to(logits.dtype)

        return _run_wave_model(self.model, run, waveform, lengths)


class WhisperEncoderFeatures(nn.Module):
    """Whisper's encoder, in HybridFormer's place: a bottleneck that holds the words and much
    expression.

    Whisper was trained on clips padded with silence to 30 s, and its own code pads every clip so.
    Here each utterance is encoded at its own length, with the first positions and no padding: 10 s
    of speech cost a third, and no frame is spent on silence. The frames differ somewhat from those
    of a padded clip, so a model trained on the one does not fit the other. Its log mel is
    Whisper's own, including the floor 8 below the loudest value (base-10 logarithm); after an
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
        _check_lengths(waveform, lengths, self.N_FFT, self.name)
        longest = len(self.encoder.positional_embedding) * 2 * self.HOP_LENGTH
        if waveform.shape[1] >= longest + self.HOP_LENGTH:
            raise ValueError(
                f"{self.name} hears at most {longest / SAMPLE_RATE:g} s at a time, not "
                f"{waveform.shape[1] / SAMPLE_RATE:g} s; cut the speech into overlapping chunks"
            )
        mel, mel_mask = self.log_mel(waveform, lengths)
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
            x = _standardise(x.float(), mask).to(x.dtype)
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


class HybridFormerPPG(nn.Module):
    """HybridFormer's frames as the PPG.

    The papers say neither what the PPG's channels are, nor whether it is posteriors or a
    bottleneck, and call both HybridFormer's output and its features PPG (§3.2). "bottleneck", the
    last block's output, is the default: 512 channels multiply with a 512-channel gate, where
    posteriors would multiply by nearly 0 almost everywhere.

    Args:
        hybridformer: trained, or not.
        output: "bottleneck", or "posteriors" of its CTC head.

    Raises:
        ValueError: if posteriors are asked of a HybridFormer without a CTC head.
    """

    def __init__(
        self,
        hybridformer: HybridFormer,
        *,
        output: Literal["bottleneck", "posteriors"] = "bottleneck",
    ) -> None:
        super().__init__()
        if output not in ("bottleneck", "posteriors"):
            raise ValueError(f"output must be 'bottleneck' or 'posteriors', not {output!r}")
        if output == "posteriors" and hybridformer.vocabulary is None:
            raise ValueError(
                "posteriors need a HybridFormer with a CTC head; build it with vocabulary=..."
            )
        self.fbank = KaldiFbank(n_mels=hybridformer.config["n_mels"])
        self.hybridformer = hybridformer.eval()
        self.output = output
        self.name = f"hybridformer-{hybridformer.dim}-{output}"
        self.dim = hybridformer.dim
        if output == "posteriors" and hybridformer.vocabulary is not None:
            self.dim = hybridformer.vocabulary
        self.frame_rate = hybridformer.frame_rate

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | None = None,
        *,
        output: Literal["bottleneck", "posteriors"] = "bottleneck",
    ) -> "HybridFormerPPG":
        """Random weights: `config` has `HybridFormer`'s arguments, its defaults where None."""
        return cls(HybridFormer(**(config or {})), output=output)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, output: Literal["bottleneck", "posteriors"] = "bottleneck"
    ) -> "HybridFormerPPG":
        """A HybridFormer that `HybridFormer.save` wrote, fused for inference.

        Raises:
            WeightsError: if there is none.
        """
        return cls(HybridFormer.load(Path(folder)).fuse(), output=output)

    @staticmethod
    def find_weights(folder: str | Path) -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return HybridFormer.find(Path(folder))

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": dict(self.hybridformer.config), "output": self.output}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> features (B, L, dim), mask (B, L); 25 frames
        a second.

        Raises:
            ValueError: if a waveform is shorter than 85 ms.
        """
        shortest = self.fbank.win_length + 6 * self.fbank.hop_length
        _check_lengths(waveform, lengths, shortest, self.name)
        fbank = self.fbank(waveform, lengths)
        mask = frame_mask(self.fbank.frames(lengths), fbank.shape[1])
        x, mask = self.hybridformer(fbank, mask)
        if self.output == "posteriors":
            x = masked(self.hybridformer.logits(x).float().softmax(-1).to(x.dtype), mask)
        return x, mask


def _projection(channels: int, dim: int) -> nn.Module:
    return nn.Identity() if channels == dim else nn.Linear(channels, dim, bias=False)


def _check_lengths(waveform: Tensor, lengths: Tensor, shortest: int, name: str) -> None:
    """Raises a ValueError where an utterance has fewer than `shortest` samples."""
    found = waveform.shape[1]
    # Reading the lengths waits for the device, which a graph under capture forbids.
    if not torch.compiler.is_compiling() and not (
        lengths.is_cuda and torch.cuda.is_current_stream_capturing()
    ):
        found = min(found, int(lengths.min()))
    if found < shortest:
        raise ValueError(
            f"{name} needs at least {shortest} samples ({1000 * shortest / SAMPLE_RATE:g} ms) "
            f"of speech, not {found}"
        )


def _standardise(x: Tensor, mask: Tensor) -> Tensor:
    """x (B, L, ...) with mean 0 and variance 1 over each utterance's valid frames; 0 on padding."""
    weight = mask.reshape(mask.shape + (1,) * (x.ndim - 2)).to(x.dtype)
    count = weight.sum(1, keepdim=True)
    x = (x - (x * weight).sum(1, keepdim=True) / count) * weight
    variance = x.square().sum(1, keepdim=True) / count
    return x / (variance + 1e-7).sqrt()  # 1e-7 as in transformers' Wav2Vec2FeatureExtractor


def _conv_frames(model: PreTrainedModel, lengths: Count) -> Count:
    """Frames that the convolutions of a wav2vec 2.0 relative make of `lengths` samples."""
    for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def _frame_rate(model: PreTrainedModel) -> float:
    return SAMPLE_RATE / math.prod(model.config.conv_stride)


def _run_wave_model(
    model: PreTrainedModel,
    run: Callable[[Tensor, Tensor], Tensor],
    waveform: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor]:
    """Runs a wav2vec 2.0 relative so that padding changes nothing.

    Args:
        model: its configuration says how it normalises.
        run: (samples (B, T), attention mask (B, T)) -> (B, L, C).
        waveform: (B, T).
        lengths: (B,).

    Returns:
        Features (B, L, C), 0 on padding, and mask (B, L).
    """
    shortest = 1
    for kernel, stride in reversed(
        list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True))
    ):
        shortest = (shortest - 1) * stride + kernel
    _check_lengths(waveform, lengths, shortest, model.config.model_type)
    sample_mask = frame_mask(lengths, waveform.shape[1])
    mask = frame_mask(_conv_frames(model, lengths), _conv_frames(model, waveform.shape[1]))
    if model.config.feat_extract_norm == "layer":
        samples = _standardise(waveform.float(), sample_mask).to(model.dtype)
        return masked(run(samples, sample_mask.long()), mask), mask
    samples = waveform.to(model.dtype)
    features: Tensor | None = None
    for length in lengths.unique().tolist():
        rows = lengths == length
        found = run(samples[rows, :length], sample_mask[rows, :length].long())
        if features is None:
            features = found.new_zeros(*mask.shape, found.shape[2])
        features[rows, : found.shape[1]] = found
    assert features is not None
    return features, mask


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


def _pretrained(kind: type[Model], files: Sequence[Path]) -> Model:
    """A model of transformers from its two files, `config.json` first; nothing is downloaded.

    Raises:
        WeightsError: if they are not this model's, or lack a tensor: transformers would leave it
            random.
    """
    logging.set_verbosity_error()  # what it would warn of is an error below
    logging.disable_progress_bar()
    with reading(files[-1], f"not the weights of a {kind.__name__}", "get it again"):
        loaded: Any = kind.from_pretrained(
            files[0].parent, local_files_only=True, weights_only=True, output_loading_info=True
        )
        model, report = loaded
        # Only training uses the last one; some published files leave it out.
        missing = [n for n in report["missing_keys"] if not n.endswith("masked_spec_embed")]
        wrong = [key[0] for key in report["mismatched_keys"]]
        if lacking := sorted(missing + wrong):
            raise ValueError(f"it has no {lacking[0]} of this shape")
    return cast(Model, model)


def _plain(config: Any) -> dict[str, Any]:
    """A transformers configuration as plain values, only those that differ from the defaults."""
    default = type(config)().to_dict()
    values = {name: value for name, value in config.to_dict().items() if value != default.get(name)}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

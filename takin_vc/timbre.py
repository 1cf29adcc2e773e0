"""The reference's timbre: voiceprint, tokens, and the cross-attention from the content to them.

What the paper states and what was chosen:
    Voiceprint. CAM++ (ICLR footnote 2; ACL: a lightweight pre-trained speaker verification model),
        192 channels from 16 kHz speech. ECAPA is the alternative, `MelVoiceprint` a small one that
        trains with the model.
    Tokens. The voiceprint is "concatenated" with the shuffled reference mel; figures 3 and 4 show
        one voiceprint a mel frame: it is repeated over the frames and joined to the bands.
    Shuffling. Both versions shuffle the reference's frames. Since nothing in the cross-attention
        depends on a token's position, its result is the same; the memory module's convolutions
        do depend on the order.
    Cross-attention. Q is the content, K and V are the tokens; linear projections, multi-head
        attention, LayerNorm and a position-wise feed-forward network; 6 layers of 8 heads and 1024
        channels (sections 3.3 and 4.4). Not stated, chosen: the norm stands before each part
        (pre-norm), the feed-forward network is 4 times as wide with GELU, all layers ask the same
        projected tokens. There is no self-attention: each frame of content is answered by itself,
        so that neither padding nor chunking of the source can change it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.layers import FrameConv, attend, check_heads, masked
from takin_vc.mel import KaldiFbank, frame_mask
from takin_vc.tensors import find_files, load_tensors, read_tensors


class Voiceprint(Protocol):
    """Embeds speech in one vector that identifies the speaker.

    Attributes:
        dim: channels of the vector.
    """

    dim: int

    def __call__(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim)."""
        ...


class CAMPPlusVoiceprint(nn.Module):
    """CAM++'s embedding of Kaldi filter banks less their mean over time; frozen.

    Args:
        model: CAM++, with its weights.
    """

    def __init__(self, model: CAMPPlus) -> None:
        super().__init__()
        self.fbank = KaldiFbank(n_mels=model.n_mels)
        self.model = model.requires_grad_(False).eval()
        self.dim = model.embedding_dim

    def train(self, mode: bool = True) -> "CAMPPlusVoiceprint":
        """Keeps the frozen model in evaluation mode: its batch norms must not follow batches."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim).

        Raises:
            ValueError: if a reference is too short.
        """
        fbank, mask = _centred_fbank(self.fbank, waveform, lengths)
        return self.model(fbank, mask)


class ECAPAVoiceprint(nn.Module):
    """speechbrain's ECAPA-TDNN, as `speechbrain/spkrec-ecapa-voxceleb` has it; frozen.

    Its convolutions reflect at the batch's end, padding included: each utterance runs alone.

    Args:
        channels: of its first blocks; the last has three times as many.
        dim: channels of the voiceprint.
    """

    def __init__(self, *, channels: int = 1024, dim: int = 192) -> None:
        super().__init__()
        # Its import switches TF32 on for the whole process unless this is set.
        os.environ.setdefault("SB_DISABLE_QUIRKS", "allow_tf32")
        # Here, because it takes seconds and no other part needs it.
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        self.fbank = Fbank(n_mels=80)
        self.model = ECAPA_TDNN(
            80,
            lin_neurons=dim,
            channels=[channels] * 4 + [3 * channels],
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=128,
        )
        self.model.requires_grad_(False).eval()
        self.dim = dim

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "ECAPAVoiceprint":
        """The model with its public weights.

        Args:
            source: `embedding_model.ckpt`, a folder that holds it, or
                "speechbrain/spkrec-ecapa-voxceleb" in the Hugging Face hub's cache.

        Raises:
            WeightsError: if the file is missing or holds other tensors.
        """
        (path,) = cls.find_weights(source)
        voiceprint = cls()
        load_tensors(voiceprint.model, read_tensors(path), path)
        return voiceprint

    @staticmethod
    def find_weights(source: str | Path) -> list[Path]:
        """The file of `from_pretrained`, or its WeightsError."""
        return find_files(source, what="ECAPA-TDNN", files=("embedding_model.ckpt",))

    def train(self, mode: bool = True) -> "ECAPAVoiceprint":
        """Keeps the frozen model in evaluation mode: its batch norms must not follow batches."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim).

        Raises:
            ValueError: if a reference is too short.
        """
        _check_lengths(lengths)
        embeddings = []
        for samples, length in zip(waveform, lengths.tolist(), strict=True):
            fbank = self.fbank(samples[None, :length])
            embeddings.append(self.model(fbank - fbank.mean(1, keepdim=True)).squeeze(1))
        return torch.cat(embeddings)


class MelVoiceprint(nn.Module):
    """A small voiceprint that trains with the model: dilated convolutions, attentive statistics.

    The pooling is that of Okabe et al. 2018: mean and standard deviation over time, weighted per
    channel. The output is normalised to mean 0 and variance 1 over its channels, which is about the
    scale of CAM++'s.

    Args:
        dim: channels of the voiceprint.
        channels: inside.
        layers: convolutions; the i-th sees frames 2^i apart.
    """

    def __init__(self, *, dim: int = 192, channels: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.dim = dim
        self.fbank = KaldiFbank()
        self.input = FrameConv(self.fbank.n_mels, channels, 5)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(layers))
        self.convolutions = nn.ModuleList(
            FrameConv(channels, channels, 3, dilation=2**i) for i in range(layers)
        )
        self.weights = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, channels // 2),
            nn.Tanh(),
            nn.Linear(channels // 2, channels),
        )
        self.output = nn.Linear(2 * channels, dim)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, T) at 16 kHz, lengths (B,) in samples -> (B, dim).

        Raises:
            ValueError: if a reference is too short.
        """
        fbank, mask = _centred_fbank(self.fbank, waveform, lengths)
        x = self.input(fbank, mask)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = x + convolution(F.gelu(norm(x)), mask)
        weights = self.weights(x).masked_fill(~mask[:, :, None], -torch.inf).softmax(1)
        mean = (weights * x).sum(1)
        variance = (weights * (x - mean[:, None]).square()).sum(1)
        pooled = torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=-1)
        return F.layer_norm(self.output(pooled), (self.dim,))


MIN_SAMPLES = 4000  # 0.25 s at 16 kHz: 23 filter-bank frames


def _check_lengths(lengths: Tensor) -> None:
    if lengths.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # reading them waits for the device, which a graph under capture forbids
    shortest = int(lengths.min())
    if shortest < MIN_SAMPLES:
        raise ValueError(
            f"a reference of {shortest} samples at 16 kHz is too short for a voiceprint: "
            f"it needs at least {MIN_SAMPLES} ({MIN_SAMPLES / 16000:.2f} s)"
        )


def _centred_fbank(fbank: KaldiFbank, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Filter banks (B, R, n_mels) less their mean over the valid frames, and the mask (B, R)."""
    _check_lengths(lengths)
    x = fbank(waveform, lengths)
    mask = frame_mask(fbank.frames(lengths), x.shape[1])
    mean = masked(x, mask).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    return masked(x - mean, mask), mask


def timbre_tokens(
    reference_mel: Tensor,
    voiceprint: Tensor | None,
    mask: Tensor | None = None,
    *,
    shuffle: bool = True,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """The reference as tokens (X_timb): mel frames in random order, each joined to the voiceprint.

    Args:
        reference_mel: (B, n_mels, R).
        voiceprint: (B, V); None leaves it out (the ablation without voiceprint).
        mask: (B, R), True on valid frames, which come first; None where all are.
        shuffle: whether the valid frames are permuted; padding stays behind them.
        generator: source of the order. One a batch item makes an item's order independent of the
            batch that it is in.

    Returns:
        (B, R, n_mels + V), 0 on padded frames.
    """
    mel = reference_mel.transpose(1, 2)  # (B, n_mels, R) -> (B, R, n_mels)
    batch, frames, _ = mel.shape
    if shuffle:
        if generator is None or isinstance(generator, torch.Generator):
            device = mel.device if generator is None else generator.device
            keys = torch.rand(batch, frames, generator=generator, device=device).to(mel.device)
            if mask is not None:
                keys = keys.masked_fill(~mask, 2.0)  # padding sorts to the end
            order = keys.argsort(1)
        else:
            lengths = [frames] * batch if mask is None else mask.sum(1).tolist()
            order = torch.arange(frames).repeat(batch, 1)
            for item, (length, source) in enumerate(zip(lengths, generator, strict=True)):
                permutation = torch.randperm(length, generator=source, device=source.device)
                order[item, :length] = permutation.cpu()
            if mel.is_cuda:  # from pinned memory the copy does not wait for the device
                order = order.pin_memory()
            order = order.to(mel.device, non_blocking=True)
        mel = mel.gather(1, order[:, :, None].expand_as(mel))
    if voiceprint is not None:
        mel = torch.cat([mel, voiceprint.to(mel)[:, None].expand(-1, frames, -1)], dim=-1)
    return masked(mel, mask)


class PreparedTimbre(NamedTuple):
    """All that the cross-attention needs of a reference.

    Attributes:
        keys: of every layer, (B, layers, H, R, D).
        values: likewise.
        mask: (B, R), True on valid frames; None where all are.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class ContextAwareTimbre(nn.Module):
    """Gives each frame of content the timbre of the reference frames that sound like it (X_ctt).

    `forward` does all of it. For many sources with one reference: `prepare` once, `ask` each time.

    Args:
        content_dim: channels of the content.
        timbre_dim: channels of a timbre token: mel bands and voiceprint.
        dim: channels inside and out.
        layers: of cross-attention and feed-forward network.
        heads: attention heads; divides dim.
        feedforward_dim: channels inside a feed-forward network; 4 dim where None.

    Raises:
        ValueError: if heads does not divide dim.
    """

    def __init__(
        self,
        content_dim: int,
        timbre_dim: int,
        *,
        dim: int = 1024,
        layers: int = 6,
        heads: int = 8,
        feedforward_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.dim = dim
        self.heads = heads
        self.content_input = nn.Linear(content_dim, dim)
        self.timbre_input = nn.Sequential(nn.Linear(timbre_dim, dim), nn.LayerNorm(dim))
        # One product for the keys and values of all layers: they all ask the same tokens.
        self.keys_values = nn.Linear(dim, layers * 2 * dim)
        self.layers = nn.ModuleList(
            _CrossAttentionLayer(dim, heads, feedforward_dim or 4 * dim) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        content: Tensor,
        content_mask: Tensor | None,
        timbre: Tensor,
        timbre_mask: Tensor | None,
    ) -> Tensor:
        """The timbre that belongs to each frame of content.

        Args:
            content: (B, L, content_dim).
            content_mask: (B, L), True on valid frames; None where all are.
            timbre: tokens as of `timbre_tokens`, (B, R, timbre_dim).
            timbre_mask: (B, R), True on valid frames; None where all are.

        Returns:
            (B, L, dim), 0 on padded frames.
        """
        return self.ask(content, content_mask, self.prepare(timbre, timbre_mask))

    def prepare(self, timbre: Tensor, mask: Tensor | None = None) -> PreparedTimbre:
        """Computes what depends on the reference alone; the arguments are `forward`'s."""
        projected = self.keys_values(self.timbre_input(timbre))
        projected = projected.unflatten(-1, (len(self.layers), 2, self.heads, -1))
        keys, values = projected.permute(3, 0, 2, 4, 1, 5)  # each (B, layers, H, R, D)
        return PreparedTimbre(keys, values, mask)

    def ask(self, content: Tensor, mask: Tensor | None, prepared: PreparedTimbre) -> Tensor:
        """As `forward`, of a prepared reference: content (B, L, content_dim) -> (B, L, dim)."""
        x = self.content_input(content)
        for i, layer in enumerate(self.layers):
            x = layer(x, prepared.keys[:, i], prepared.values[:, i], prepared.mask)
        return masked(self.norm(x), mask)


class _CrossAttentionLayer(nn.Module):
    """Cross-attention and feed-forward network, each behind a norm and with a shortcut."""

    def __init__(self, dim: int, heads: int, feedforward_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, feedforward_dim),
            nn.GELU(),
            nn.Linear(feedforward_dim, dim),
        )

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L, C), keys and values (B, H, R, D), mask (B, R) -> (B, L, C)."""
        query = self.query(self.attention_norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        x = x + self.output(attend(query, keys, values, mask))
        return x + self.feedforward(x)

"""The codec stage: speech to content and back, which teaches the content encoder what to keep.

ICLR figure 2: before conversion is trained, the quantiser, the fusion and a decoder learn to
reconstruct speech, HybridFormer and WavLM frozen. The decoder "adopts the same structure and
configuration as HiFi-codec" (ACL §4.4; Yang et al. 2023, arXiv 2305.02765), whose decoder is
HiFi-GAN's generator (Kong et al. 2020). Which of HiFi-Codec's configurations is not stated: 16 kHz
with 320 samples a frame is the one at WavLM's 50 frames a second, and LibriTTS was "processed at a
16kHz sampling rate". ValidationConversion does not use the decoder.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from takin_vc.content import Content, HybridContentEncoder, resize_frames
from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.mel import frame_mask

SLOPE = 0.1  # of leaky ReLU, everywhere


class HiFiCodecDecoder(nn.Module):
    """HiFi-Codec's decoder: frames to samples by transposed convolutions and residual blocks.

    The decoder of the papers sees the content alone, so whatever it needs of the voice, the content
    must carry. With `voiceprint_dim` a voiceprint is added to every frame; PromptCodec (Pan et al.
    2024, which ACL cites) supports its decoder with one too. Use it with `losses.SpeakerAdversary`,
    which otherwise forbids what reconstruction asks for.

    Checked against AcademiCodec's `Generator` (commit b6ac134) with the same random weights: equal
    bit for bit. Its tensors' names are kept.

    Args:
        dim: channels of the content.
        voiceprint_dim: of the voiceprint; None takes none.
        sample_rate: of the waveform, in Hz.
        upsample_rates: their product is the samples of a frame.
        upsample_kernels: of the transposed convolutions; each as even or odd as its rate, and
            longer.
        channels: after the first convolution; halved by every upsampling.
        kernels: of the residual blocks that stand side by side after each upsampling.
        dilations: of each of these blocks' convolutions.

    Raises:
        ValueError: if a kernel does not fit its rate.
    """

    def __init__(
        self,
        dim: int = 512,
        *,
        voiceprint_dim: int | None = None,
        sample_rate: int = 16000,
        upsample_rates: Sequence[int] = (8, 5, 4, 2),
        upsample_kernels: Sequence[int] = (16, 11, 8, 4),
        channels: int = 512,
        kernels: Sequence[int] = (3, 7, 11),
        dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    ) -> None:
        super().__init__()
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    f"upsample kernel ({kernel}) must be at least its rate ({rate}) "
                    "and differ from it by an even number"
                )
        self.sample_rate = sample_rate
        self.hop_length = prod(upsample_rates)
        self.upsample_rates = tuple(upsample_rates)
        self.voiceprint = None if voiceprint_dim is None else nn.Linear(voiceprint_dim, dim)
        self.conv_pre = weight_norm(nn.Conv1d(dim, channels, 7, padding=3))
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()  # those after upsampling i are i * K ... i * K + K - 1
        self.parallel = len(kernels)
        width = channels
        for rate, kernel in zip(upsample_rates, upsample_kernels, strict=True):
            up = nn.ConvTranspose1d(
                width, width // 2, kernel, stride=rate, padding=(kernel - rate) // 2
            )
            self.ups.append(weight_norm(_small(up)))
            width //= 2
            for k, ds in zip(kernels, dilations, strict=True):
                self.resblocks.append(CodecResidualBlock(width, k, ds))
        self.conv_post = weight_norm(_small(nn.Conv1d(width, 1, 7, padding=3)))

    @property
    def frame_rate(self) -> float:
        """Frames of content per second that it takes."""
        return self.sample_rate / self.hop_length

    def forward(
        self, features: Tensor, mask: Tensor | None = None, voiceprint: Tensor | None = None
    ) -> Tensor:
        """Speech of the content's frames, each `hop_length` samples long.

        Args:
            features: (B, L, dim) at `frame_rate`.
            mask: (B, L), True on valid frames; None where all are.
            voiceprint: (B, voiceprint_dim), where the decoder takes one.

        Returns:
            (B, L * hop_length) in [-1, 1]; 0 on padding.

        Raises:
            ValueError: if a voiceprint is missing or not wanted.
        """
        if (voiceprint is None) != (self.voiceprint is None):
            wants = (
                "no voiceprint" if self.voiceprint is None else "a voiceprint, and none is given"
            )
            raise ValueError(f"this decoder takes {wants}")
        if self.voiceprint is not None:
            features = features + self.voiceprint(voiceprint)[:, None]
        x = features.transpose(1, 2)  # (B, L, C) -> (B, C, L)
        valid = None if mask is None else mask[:, None].to(x.dtype)
        x = self.conv_pre(_keep(x, valid))
        for i, (up, rate) in enumerate(zip(self.ups, self.upsample_rates, strict=True)):
            x = up(_keep(F.leaky_relu(x, SLOPE), valid))
            if valid is not None:
                valid = valid.repeat_interleave(rate, dim=-1)
            blocks = self.resblocks[i * self.parallel : (i + 1) * self.parallel]
            x = torch.stack([block(x, valid) for block in blocks]).mean(0)
        x = torch.tanh(self.conv_post(_keep(F.leaky_relu(x, SLOPE), valid)))
        return _keep(x, valid)[:, 0]


class CodecResidualBlock(nn.Module):
    """Pairs of convolutions, the first of each dilated, each pair added to its input."""

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel_size // 2)
            return weight_norm(
                _small(
                    nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
                )
            )

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x (B, C, T), valid (B, 1, T) of 0 and 1 -> (B, C, T)."""
        for conv1, conv2 in zip(self.convs1, self.convs2, strict=True):
            y = conv1(_keep(F.leaky_relu(x, SLOPE), valid))
            x = x + conv2(_keep(F.leaky_relu(y, SLOPE), valid))
        return x


class ContentCodec(nn.Module):
    """A content encoder and the decoder that reconstructs speech from it.

    Content comes at the PPG's rate, 25 frames a second of HybridFormer, and is interpolated
    linearly to the decoder's, 50: neither paper states how the two are aligned.

    Args:
        content: trained with the decoder, its front ends excepted.
        decoder: of the content's channels.
    """

    def __init__(self, content: HybridContentEncoder, decoder: HiFiCodecDecoder) -> None:
        super().__init__()
        self.content = content
        self.decoder = decoder

    def forward(
        self, waveform: Tensor, lengths: Tensor, voiceprint: Tensor | None = None
    ) -> tuple[Tensor, Content]:
        """The speech again, and the content between.

        Args:
            waveform: (B, T) at 16 kHz.
            lengths: samples of each, (B,).
            voiceprint: (B, voiceprint_dim), where the decoder takes one.

        Returns:
            Waveform (B, T') at the decoder's rate, T' = T there; 0 on padding. And the content.
        """
        content = self.content(waveform, lengths)
        return self.decode(content, lengths, waveform.shape[1], voiceprint), content

    def decode(
        self, content: Content, lengths: Tensor, samples: int, voiceprint: Tensor | None = None
    ) -> Tensor:
        """The waveform of `content`: of `lengths` (B,) and at most `samples` samples at 16 kHz."""
        rate, hop = self.decoder.sample_rate, self.decoder.hop_length
        lengths, samples = lengths * rate // SAMPLE_RATE, samples * rate // SAMPLE_RATE
        mask = frame_mask(-(-lengths // hop), -(-samples // hop))
        features = resize_frames(content.features, content.mask, mask)
        waveform = self.decoder(features, mask, voiceprint)[:, :samples]
        return waveform * frame_mask(lengths, samples)


def _small(conv: nn.Conv1d | nn.ConvTranspose1d) -> nn.Module:
    """HiFi-GAN's first weights: normal, of deviation 0.01."""
    nn.init.normal_(conv.weight, 0.0, 0.01)
    return conv


def _keep(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid

"""An autoencoder of mel spectrograms that separates voice from words by instance normalisation.

    mel of the source ----> encoder --> content (narrow, squashed) --> decoder --> converted mel
    mel of the reference -> encoder --> mean and deviation of every layer --^

The mean and the standard deviation of a channel over time belong to the utterance, not to a sound:
the encoder takes them away after every block (instance normalisation), and the decoder puts those
of the reference in their place, the last first (adaptive instance normalisation). What is left of
the voice is kept out by a narrow content and a flat sigmoid on it.

Sources: AdaIN-VC, Chou et al. 2019, arXiv 1904.05742; one encoder for both, means and deviations
of every layer, and the flat sigmoid ("activation guidance"): AGAIN-VC, Chen et al. 2021, arXiv
2011.00316, sections 2.2 and 2.3. Chosen here: residual blocks with dilated convolutions, no
recurrent layer, and the sizes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_VARIANCE = 1e-5
# About the mean and the deviation of log mels of speech; see takin_vc.model.
MEL_MEAN, MEL_STD = -6.0, 2.0
WEIGHTS, FACTS = "autoencoder.safetensors", "facts.yaml"  # what a training writes


class EncodedMel(NamedTuple):
    """What the encoder makes of a mel.

    Attributes:
        content: the words, (B, content_dim, L), from 0 to 1.
        means: of every block's output over time, (B, blocks, hidden): the voice.
        deviations: likewise the standard deviations.
    """

    content: Tensor
    means: Tensor
    deviations: Tensor


class InstanceNormAutoencoder(nn.Module):
    """Encodes a mel, and decodes it with the voice of another.

    Args:
        n_mels: mel bands.
        hidden: channels of every block.
        blocks: in the encoder; the decoder has as many.
        content_dim: channels of the content.
        slope: of the sigmoid on the content (AGAIN-VC's alpha).
        kernel_size: of the convolutions, odd, in frames.
    """

    def __init__(
        self,
        *,
        n_mels: int = 80,
        hidden: int = 224,
        blocks: int = 6,
        content_dim: int = 4,
        slope: float = 0.1,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.slope = slope
        dilations = [2 ** (i // 2) for i in range(blocks)]
        self.encoder_input = nn.Conv1d(n_mels, hidden, 1)
        self.encoder = nn.ModuleList(_Block(hidden, kernel_size, d) for d in dilations)
        self.content = nn.Conv1d(hidden, content_dim, 1)
        self.decoder_input = nn.Conv1d(content_dim, hidden, kernel_size, padding="same")
        self.decoder = nn.ModuleList(_Block(hidden, kernel_size, d) for d in dilations[::-1])
        self.output = nn.Sequential(
            _Block(hidden, kernel_size, 1), nn.Conv1d(hidden, n_mels, kernel_size, padding="same")
        )

    def forward(self, source: Tensor, reference: Tensor) -> Tensor:
        """The words of `source` in the voice of `reference`.

        Args:
            source: a mel, scaled to about mean 0 and variance 1, (B, n_mels, L).
            reference: likewise, (B, n_mels, R).

        Returns:
            (B, n_mels, L).
        """
        encoded = self.encode(reference)
        return self.decode(self.encode(source).content, encoded.means, encoded.deviations)

    def encode(self, mel: Tensor) -> EncodedMel:
        """The content and the voice of a mel (B, n_mels, L)."""
        x = self.encoder_input(mel)
        means, deviations = [], []
        for block in self.encoder:
            x = block(x)
            mean = x.mean(-1)
            deviation = (x.var(-1, correction=0) + SMALLEST_VARIANCE).sqrt()
            x = (x - mean[:, :, None]) / deviation[:, :, None]
            means.append(mean)
            deviations.append(deviation)
        content = torch.sigmoid(self.slope * self.content(x))
        return EncodedMel(content, torch.stack(means, 1), torch.stack(deviations, 1))

    def decode(self, content: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
        """A mel (B, n_mels, L) of a content (B, content_dim, L) and a voice."""
        x = self.decoder_input(content)
        for i, block in enumerate(self.decoder):
            x = F.instance_norm(block(x), eps=SMALLEST_VARIANCE)
            at = len(self.decoder) - 1 - i
            x = x * deviations[:, at, :, None] + means[:, at, :, None]
        y: Tensor = self.output(x)
        return y


class _Block(nn.Module):
    """Two convolutions behind nonlinearities, and a shortcut: (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, kernel_size, padding="same", dilation=dilation)
        self.second = nn.Conv1d(channels, channels, kernel_size, padding="same", dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2))

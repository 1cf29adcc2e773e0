"""The networks of FreeVC that convert: VITS without text (Li et al. 2022, arXiv 2210.15418).

A posterior over the latent of VITS (Kim et al. 2021, arXiv 2106.06103) is estimated from WavLM's
features, an invertible flow brings it into the target speaker's, and HiFi-GAN makes the waveform.
Modules carry the published tensors' names (OlaWod/FreeVC at commit 60032a7). Weight normalisation
is folded into the weights when they are read.
"""

from typing import cast

import torch
from torch import Tensor, nn

from baselines.nets.hifigan import HiFiGAN


class _WaveNet(nn.Module):
    """Gated convolutions with skip connections (van den Oord et al. 2016), not dilated.

    Args:
        channels: of x.
        layers: how many.
        condition: size of the vector that steers the gates; None for no such vector.
    """

    def __init__(self, channels: int, layers: int, condition: int | None = None) -> None:
        super().__init__()
        self.channels = channels
        if condition is not None:
            self.cond_layer = nn.Conv1d(condition, 2 * channels * layers, 1)
        self.in_layers = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, 5, padding=2) for _ in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(channels, channels if last else 2 * channels, 1)
            for last in (*[False] * (layers - 1), True)
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, C, L), condition (B, condition) -> (B, C, L)."""
        steered: list[Tensor | float] = [0.0] * len(self.in_layers)
        if condition is not None:
            steered = list(self.cond_layer(condition[:, :, None]).split(2 * self.channels, dim=1))
        skipped = torch.zeros_like(x)
        for n, (gated, out) in enumerate(zip(self.in_layers, self.res_skip_layers, strict=True)):
            signal, gate = (gated(x) + steered[n]).chunk(2, dim=1)
            y = out(signal.tanh() * gate.sigmoid())
            if n < len(self.in_layers) - 1:
                x = x + y[:, : self.channels]
                y = y[:, self.channels :]
            skipped = skipped + y
        return skipped


class _Posterior(nn.Module):
    """Features to mean and log deviation of the latent."""

    def __init__(self, features: int, channels: int, latent: int, layers: int) -> None:
        super().__init__()
        self.pre = nn.Conv1d(features, channels, 1)
        self.enc = _WaveNet(channels, layers)
        self.proj = nn.Conv1d(channels, 2 * latent, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, features, L) -> mean and log deviation, (B, latent, L) each."""
        mean, deviation = self.proj(self.enc(self.pre(x))).chunk(2, dim=1)
        return mean, deviation


class _Coupling(nn.Module):
    """Moves one half of the latent by a function of the other half (Dinh et al. 2017)."""

    def __init__(self, latent: int, channels: int, layers: int, condition: int) -> None:
        super().__init__()
        self.pre = nn.Conv1d(latent // 2, channels, 1)
        self.enc = _WaveNet(channels, layers, condition)
        self.post = nn.Conv1d(channels, latent // 2, 1)

    def inverse(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, latent, L), condition (B, condition) -> (B, latent, L)."""
        kept, moved = x.chunk(2, dim=1)
        return torch.cat([kept, moved - self.post(self.enc(self.pre(kept), condition))], dim=1)


class _Flow(nn.Module):
    """Couplings, with the channels reversed after each of them."""

    def __init__(self, latent: int, channels: int, layers: int, flows: int, condition: int) -> None:
        super().__init__()
        self.flows = nn.ModuleList(
            part
            for _ in range(flows)
            for part in (_Coupling(latent, channels, layers, condition), nn.Identity())
        )

    def inverse(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, latent, L), condition (B, condition) -> (B, latent, L)."""
        for coupling in reversed(self.flows[::2]):
            x = cast(_Coupling, coupling).inverse(x.flip(1), condition)
        return x


class FreeVCNetwork(nn.Module):
    """WavLM's features and a speaker embedding to a waveform.

    Args:
        features: size of WavLM's.
        channels: of the hidden layers.
        latent: channels of the latent.
        speaker: size of the embedding.
        posterior_layers, flow_layers, flows: how many.
        vocoder: channels of the decoder after its first convolution.
    """

    def __init__(
        self,
        features: int = 1024,
        channels: int = 192,
        latent: int = 192,
        speaker: int = 256,
        posterior_layers: int = 16,
        flow_layers: int = 4,
        flows: int = 4,
        vocoder: int = 512,
    ) -> None:
        super().__init__()
        self.enc_p = _Posterior(features, channels, latent, posterior_layers)
        self.flow = _Flow(latent, channels, flow_layers, flows, speaker)
        self.dec = HiFiGAN(
            latent,
            channels=vocoder,
            rates=(10, 8, 2, 2),
            condition=speaker,
            last_bias=False,
        )

    def forward(self, features: Tensor, speaker: Tensor, generator: torch.Generator) -> Tensor:
        """The waveform of one drawing of the latent.

        Args:
            features: (B, L, features).
            speaker: embedding (B, speaker).
            generator: of the latent's noise, on the CPU.

        Returns:
            (B, 320 L), in [-1, 1].
        """
        mean, deviation = self.enc_p(features.mT)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        latent = self.flow.inverse(mean + noise * deviation.exp(), speaker)
        return self.dec(latent, speaker)

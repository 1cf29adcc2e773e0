"""The vocoder stage: trains a vocoder to generate waveforms from mels, against discriminators.

As BigVGAN version 2 is trained (Lee et al. 2023, sec. 3; NVIDIA/BigVGAN's README): LSGAN, twice the
feature matching, and log mels of seven resolutions; the discriminators are the multi-period one and
complex spectrograms of several resolutions. The first steps have no discriminators: the mel loss
alone brings the generator to where an adversary helps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.mel import LogMel
from takin_vc.tensors import write_tensors
from takin_vc.train.codec.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleSTFTDiscriminator,
)
from takin_vc.train.codec.losses import (
    MelLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from takin_vc.train.data.batches import CropSampler, generator
from takin_vc.train.data.versions import Versions, to_device
from takin_vc.train.stage import Apply, Log
from takin_vc.train.validation.images import mel_image
from takin_vc.vocoder import Vocoder

MARGIN = 4  # frames on either side of a crop, so that its mel sees what stood there
# Windows, and bands that every filter still has a bin for (BigVGAN 2, after DAC).
RESOLUTIONS = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))


def many_mels(sample_rate: int, weight: float = 15.0) -> MelLoss:
    """L1 of log mels in seven resolutions, hop a quarter of the window; `weight` times the sum."""
    mels = [
        LogMel(sample_rate=sample_rate, n_fft=n, win_length=n, hop_length=n // 4, n_mels=bands)
        for n, bands in RESOLUTIONS
    ]
    return MelLoss(mels, [weight] * len(mels))


class VocoderStage:
    """Trains a vocoder.

    Args:
        vocoder: to be trained; a `BigVGAN` is given weight norm.
        mel: the vocoder's input.
        versions: of the training recordings.
        sampler: of crops of them; a crop is the generator's output in one step.
        held_out: the same of other speakers; None validates nothing.
        seed: of the batches.
        alone_steps: first steps without discriminators.
        period_channels: of the multi-period discriminator.
        spectrum_sizes: windows of the spectrogram discriminators.
        spectrum_channels: of these.
        spectrum_bands: where these cut the spectrum (`STFTDiscriminator`); none by default.
        mel_weight: of the log mels.
        gain_db: the level of crops is changed at random by up to this.
    """

    def __init__(
        self,
        vocoder: Vocoder,
        mel: LogMel,
        versions: Versions,
        sampler: CropSampler,
        held_out: tuple[Versions, CropSampler] | None,
        *,
        seed: int,
        alone_steps: int = 1000,
        period_channels: Sequence[int] = (32, 128, 512, 1024, 1024),
        spectrum_sizes: Sequence[int] = (1024, 512, 256),
        spectrum_channels: int = 32,
        spectrum_bands: Sequence[float] = (),
        mel_weight: float = 15.0,
        gain_db: float = 6.0,
    ) -> None:
        device = versions.device
        vocoder.requires_grad_(True).to(device).add_weight_norm()
        discriminators = Discriminators(
            [
                MultiPeriodDiscriminator(channels=period_channels),
                MultiScaleSTFTDiscriminator(
                    spectrum_sizes, channels=spectrum_channels, bands=spectrum_bands
                ),
            ]
        ).to(device)
        self.module = nn.ModuleDict({"vocoder": vocoder, "discriminators": discriminators})
        self.averaged = self.vocoder = vocoder
        self.discriminators = discriminators
        self.mel, self.loss = mel.to(device), many_mels(vocoder.sample_rate, mel_weight).to(device)
        self.versions, self.sampler, self.held_out = versions, sampler, held_out
        self.seed, self.alone_steps, self.gain_db = seed, alone_steps, gain_db

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Generator and discriminators."""
        return {
            "vocoder": list(self.vocoder.parameters()),
            "discriminators": list(self.discriminators.parameters()),
        }

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Mels and waveforms of a step."""
        rng = generator(self.seed, step, process)
        mel, real = _crops(self.versions, self.sampler, self.mel, rng, self.gain_db)
        return {"mel": mel, "real": real}

    def phase(self, step: int) -> str:
        """ "alone", without discriminators, and then "adversarial"."""
        return "alone" if step < self.alone_steps else "adversarial"

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """Discriminators, then generator, on one batch of crops."""
        mel, real = batch["mel"], batch["real"]
        spoken = self.vocoder(mel)
        if phase == "alone":
            loss = self.loss(spoken, real)
            return {"mel": loss, "norm": apply("vocoder", loss)}
        self.discriminators.requires_grad_(True)
        # One pass over real and spoken together: half as many, twice as large.
        truth, fake = _halves(self.discriminators(torch.cat([real, spoken.detach()])))
        judged = discriminator_loss(truth, fake)
        apply("discriminators", judged)
        self.discriminators.requires_grad_(False)
        with torch.no_grad():
            truth = self.discriminators(real)
        fake = self.discriminators(spoken)
        adversarial, matching = adversarial_loss(fake), feature_matching_loss(truth, fake)
        mels = self.loss(spoken, real)
        norm = apply("vocoder", adversarial + matching + mels)
        return {
            "mel": mels,
            "adversarial": adversarial,
            "matching": matching,
            "discriminators": judged,
            "norm": norm,
        }

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """Mean absolute difference of log mels, on speakers that are held out."""
        if self.held_out is None:
            return {}
        versions, sampler = self.held_out
        total = 0.0
        for k in range(4):
            mel, real = _crops(versions, sampler, self.mel, generator(0, k), 0.0)
            spoken = averaged(mel)
            total += float(F.l1_loss(self.mel(spoken), self.mel(real)))
            if log is not None and k == 0:
                log.add_audio("held out/spoken", spoken[0].cpu(), step, self.vocoder.sample_rate)
                picture = mel_image([mel[0], self.mel(spoken)[0]], self.mel.silence)
                log.add_image("held out/mel: real, spoken", picture, step)
        return {"mel": total / 4}

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Its tensors with weight norm folded: `vocoder.safetensors`."""
        vocoder = cast(Vocoder, averaged)
        vocoder.remove_weight_norm()
        write_tensors(vocoder.state_dict(), folder / "vocoder.safetensors")


def _halves(verdicts: list[Any]) -> tuple[list[Any], list[Any]]:
    """Verdicts of the first and of the second half of a batch."""
    halves: tuple[list[Any], list[Any]] = ([], [])
    for verdict in verdicts:
        size = len(verdict.logits) // 2
        for half, part in zip(halves, (slice(size), slice(size, None)), strict=True):
            features = tuple(f[part] for f in verdict.features)
            half.append(type(verdict)(verdict.logits[part], features))
    return halves


def _crops(
    versions: Versions,
    sampler: CropSampler,
    mel: LogMel,
    rng: np.random.Generator,
    gain_db: float,
) -> tuple[Tensor, Tensor]:
    """Mels (B, n_mels, L) and waveforms (B, L hop) of a batch of crops."""
    version, recording, start = sampler.draw(rng)
    hop = mel.hop_length
    frames = int(sampler.crop_seconds * versions.sample_rate) // hop
    wave = versions.crops(version, recording, start, frames * hop, MARGIN * hop)
    if gain_db:
        gain = to_device(10 ** (rng.uniform(-gain_db, gain_db, len(wave)) / 20), wave.device)
        gain = gain.to(wave)[:, None]
        wave = wave * torch.minimum(gain, 0.99 / wave.abs().amax(1, keepdim=True).clamp(min=1e-3))
    spectrum = mel(wave)[:, :, MARGIN : MARGIN + frames]
    return spectrum, wave[:, MARGIN * hop : (MARGIN + frames) * hop]

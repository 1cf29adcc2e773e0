"""The voiceprint stage: trains a speaker encoder to classify the training speakers.

Additive angular margin softmax (Deng et al. 2019, "ArcFace", eq. 3), as CAM++ is trained; every
speed of a speaker counts as another speaker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.tensors import write_tensors
from takin_vc.timbre import MelVoiceprint
from takin_vc.train.data.batches import CropSampler, generator
from takin_vc.train.data.formants import coloured, colours
from takin_vc.train.data.versions import Versions, at_16_khz, to_device
from takin_vc.train.stage import Apply, Log

COLOUR_POINTS = 33  # frequencies at which the response of a random filter is given
NOISE_DB = (5.0, 30.0)  # by which the noise is below the speech


class AngularMargin(nn.Module):
    """Cross-entropy of scaled cosines to a vector a class, the true angle widened by a margin.

    Args:
        dim: of the embeddings.
        classes: how many.
        scale: of the cosines.
        margin: in radians.
    """

    def __init__(self, dim: int, classes: int, *, scale: float = 30.0, margin: float = 0.2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
        self.scale, self.margin = scale, margin

    def forward(self, embedding: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """embedding (B, C), label (B,) -> loss, and the share of right answers without margin."""
        with torch.autocast(embedding.device.type, enabled=False):
            cosine = F.linear(F.normalize(embedding.float()), F.normalize(self.weight))
            true = cosine.gather(1, label[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
            widened = torch.cos(true.acos() + self.margin)
            logits = self.scale * cosine.scatter(1, label[:, None], widened)
            right = (cosine.argmax(1) == label).float().mean()
            return F.cross_entropy(logits, label), right


class VoiceprintStage:
    """Trains a `MelVoiceprint`.

    Args:
        voiceprint: to be trained.
        versions: of the training recordings.
        sampler: of crops of those whose speaker is known.
        held_out: the same of other speakers; None validates nothing.
        seed: of the batches.
        colour_db: standard deviation, in dB, of the random smooth filters that crops pass
            (`colours`): where each speaker has one microphone, the microphone names the speaker.
        noise: share of the crops that get stationary noise, 5 to 30 dB below the speech.
    """

    def __init__(
        self,
        voiceprint: MelVoiceprint,
        versions: Versions,
        sampler: CropSampler,
        held_out: tuple[Versions, CropSampler] | None,
        *,
        seed: int,
        colour_db: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        classes = len(sampler.names) * len(versions.speeds)
        margin = AngularMargin(voiceprint.dim, classes).to(versions.device)
        self.module = nn.ModuleDict({"voiceprint": voiceprint, "margin": margin})
        self.averaged = voiceprint
        self.margin = margin
        self.versions, self.sampler, self.held_out, self.seed = versions, sampler, held_out, seed
        self.colour_db, self.noise = colour_db, noise

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One: the encoder and the classes' vectors."""
        return {"voiceprint": list(self.module.parameters())}

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Crops of a step."""
        rng = generator(self.seed, step, process)
        wave, label = _crops(self.versions, self.sampler, rng)
        if self.colour_db:
            wave = coloured(wave, self._colour(rng, wave))
        if self.noise:
            hiss = torch.Generator(wave.device).manual_seed(int(rng.integers(2**62)))
            noise = torch.randn(wave.shape, device=wave.device, generator=hiss)
            noise = coloured(noise, self._colour(rng, noise))
            quieter_db = rng.uniform(*NOISE_DB, len(wave))
            gain = np.where(rng.random(len(wave)) < self.noise, 10 ** (-quieter_db / 20), 0.0)
            level = wave.std(1, keepdim=True) / noise.std(1, keepdim=True).clamp(min=1e-5)
            wave = wave + noise * level * to_device(gain, wave.device).to(wave)[:, None]
        return {"wave": wave, "label": label}

    def _colour(self, rng: np.random.Generator, wave: Tensor) -> Tensor:
        return to_device(colours(rng, len(wave), COLOUR_POINTS, self.colour_db), wave.device)

    def phase(self, step: int) -> str:
        """There is one."""
        return "tell apart"

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step on one batch of crops."""
        embedding = self.averaged(batch["wave"], _full(batch["wave"]))
        loss, right = self.margin(embedding, batch["label"])
        return {"loss": loss, "right": right, "norm": apply("voiceprint", loss)}

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """Equal error rate over all pairs of crops of held-out speakers."""
        if self.held_out is None:
            return {}
        versions, sampler = self.held_out
        averaged.eval()
        embeddings, labels = [], []
        for k in range(4):
            wave, label = _crops(versions, sampler, generator(0, k))
            embeddings.append(F.normalize(averaged(wave, _full(wave)).float()))
            labels.append(label)
        joined, label = torch.cat(embeddings), torch.cat(labels)
        scores = (joined @ joined.T).triu(1)
        pair = torch.ones_like(scores, dtype=torch.bool).triu(1)
        same = (label[:, None] == label) & pair
        return {"eer": equal_error_rate(scores[same], scores[pair & ~same])}

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Its tensors: `voiceprint.safetensors`."""
        write_tensors(averaged.state_dict(), folder / "voiceprint.safetensors")


def equal_error_rate(same: Tensor, different: Tensor) -> float:
    """Where as many same-speaker scores are under a threshold as different-speaker ones over it."""
    thresholds = torch.cat([same, different]).sort().values
    missed = torch.searchsorted(same.sort().values, thresholds) / len(same)
    false = 1 - torch.searchsorted(different.sort().values, thresholds) / len(different)
    at = int((missed - false).abs().argmin())
    return float((missed[at] + false[at]) / 2)


def _crops(
    versions: Versions, sampler: CropSampler, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    version, recording, start = sampler.draw(rng)
    samples = int(sampler.crop_seconds * versions.sample_rate)
    wave = versions.crops(version, recording, start, samples)
    label = sampler.speakers[recording] * len(versions.speeds) + version
    return (
        at_16_khz(wave, versions.sample_rate),
        to_device(label, wave.device),
    )


def _full(wave: Tensor) -> Tensor:
    return torch.full((len(wave),), wave.shape[1], device=wave.device)

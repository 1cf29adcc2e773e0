"""The content stage: quantiser, fusion and a decoder reconstruct speech, front ends frozen (ICLR
figure 2). Its result is the content encoder; the decoder is discarded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from takin_vc.content import HybridContentEncoder
from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.tensors import write_tensors
from takin_vc.train.codec.codec import ContentCodec, HiFiCodecDecoder
from takin_vc.train.codec.losses import CodecObjective, MelLoss, SpeakerAdversary
from takin_vc.train.data.batches import CropSampler, generator
from takin_vc.train.data.versions import Versions, at_16_khz, to_device
from takin_vc.train.stage import Apply, Log


class ContentStage:
    """Trains a content encoder with HiFi-Codec's recipe (`takin_vc.train.codec.losses`).

    Args:
        content: with the weights of its front ends.
        decoder: of its channels.
        discriminators: of waveforms.
        versions: of the training recordings.
        sampler: of crops of them.
        held_out: the same of other speakers; None validates nothing.
        seed: of the batches.
        adversary_strength: of the gradient that hides the speaker in the content; 0 has none.
    """

    def __init__(
        self,
        content: HybridContentEncoder,
        decoder: HiFiCodecDecoder,
        discriminators: nn.Module,
        versions: Versions,
        sampler: CropSampler,
        held_out: tuple[Versions, CropSampler] | None,
        *,
        seed: int,
        adversary_strength: float = 1.0,
    ) -> None:
        device = versions.device
        adversary = None
        if adversary_strength:
            speakers = len(sampler.names)
            adversary = SpeakerAdversary(content.dim, speakers, strength=adversary_strength)
        self.codec = ContentCodec(content, decoder).to(device)
        self.objective = CodecObjective(discriminators, MelLoss(), adversary=adversary).to(device)
        self.module = nn.ModuleDict({"codec": self.codec, "objective": self.objective})
        self.averaged = self.codec
        self.versions, self.sampler, self.held_out, self.seed = versions, sampler, held_out, seed

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Codec and adversary, and the discriminators."""
        judges = list(self.objective.discriminators.parameters())
        apart = set(judges)
        others = [p for p in self.module.parameters() if p.requires_grad and p not in apart]
        return {"codec": others, "discriminators": judges}

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Crops of a step at 16 kHz, and whose they are."""
        rng = generator(self.seed, step, process)
        return _crops(self.versions, self.sampler, rng)

    def phase(self, step: int) -> None:
        """The quantiser's vectors move, which waits for the device."""
        return None

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """Discriminators, then codec, on one batch of crops."""
        real = batch["wave"]
        lengths = torch.full((len(real),), real.shape[1], device=real.device)
        spoken, content = self.codec(real, lengths)
        judged = self.objective.discriminator(real, spoken)
        apply("discriminators", judged)
        self.objective.discriminators.requires_grad_(False)
        losses = self.objective.generator(real, spoken, content, batch["speaker"])
        norm = apply("codec", losses.total)
        self.objective.discriminators.requires_grad_(True)
        return {
            "mel": losses.mel,
            "adversarial": losses.adversarial,
            "matching": losses.matching,
            "commitment": losses.commitment,
            "leak": losses.leak,
            "discriminators": judged,
            "norm": norm,
        }

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """The mel loss of reconstructions, on speakers that are held out."""
        if self.held_out is None:
            return {}
        averaged.eval()
        total = 0.0
        for k in range(4):
            real = _crops(*self.held_out, generator(0, k))["wave"]
            lengths = torch.full((len(real),), real.shape[1], device=real.device)
            spoken, _ = averaged(real, lengths)
            total += float(self.objective.mel(spoken, real))
            if log is not None and k == 0:
                log.add_audio("held out/spoken", spoken[0].cpu(), step, SAMPLE_RATE)
        return {"mel": total / 4}

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """The content encoder's tensors without its front ends: `content.safetensors`."""
        content = averaged.get_submodule("content")
        tensors = {
            name: tensor
            for name, tensor in content.state_dict().items()
            if not name.startswith(("ssl.", "ppg."))
        }
        write_tensors(tensors, folder / "content.safetensors")


def _crops(versions: Versions, sampler: CropSampler, rng: np.random.Generator) -> dict[str, Tensor]:
    version, recording, start = sampler.draw(rng)
    samples = int(sampler.crop_seconds * versions.sample_rate)
    wave = versions.crops(version, recording, start, samples)
    speaker = sampler.speakers[recording].astype(np.int64)
    # Each recording without a speaker has another name, which begins with a null.
    unknown = np.array([str(name).startswith("\0") for name in sampler.names])[speaker]
    wave = at_16_khz(wave, versions.sample_rate)
    whole = wave.shape[1] // 320 * 320  # frames of 20 ms
    return {
        "wave": wave[:, :whole],
        "speaker": to_device(np.where(unknown, -1, speaker), wave.device),
    }

"""The conversion stage: fusion, timbre, memory and the flow's network (ICLR figure 2; ACL eq. 5).

The target is a part of a recording, the reference another recording of its speaker (or a part of
the same that does not overlap), both at one speed. The content comes from the target's recording
at another speed, or converted to another voice (`takin_vc.train.data.voices`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from takin_vc.checkpoint import Checkpoint, save_checkpoint
from takin_vc.content import Content
from takin_vc.inputs import Batch
from takin_vc.model import TakinVC
from takin_vc.train.data.batches import Draw, PairSampler, generator
from takin_vc.train.data.formants import colours, move_formants, tracts
from takin_vc.train.data.versions import Versions, at_16_khz, to_device
from takin_vc.train.stage import Apply, Log
from takin_vc.train.stages.consistency import Consistency
from takin_vc.train.validation.trials import ValidationTrials

VALIDATION_BATCHES = 4
MARGIN = 4  # frames before and after a part whose formants are moved: its mel sees across its ends
FILE_BYTES = 15 << 20  # of exported files: small enough for any repository


class ConversionStage:
    """Trains a `TakinVC`.

    Args:
        model: with the public weights of its front ends where they are not in `versions`.
        versions: of the training recordings.
        sampler: of pairs of them.
        held_out: versions and a sampler of other speakers; None validates nothing.
        config: the model's settings, for the export.
        trained_on: corpora and speakers of the training recordings, for the export.
        seed: of the batches.
        colour_db: standard deviation, in dB, of the random smooth filters that targets and their
            references pass (`colours`), to vary microphones and voices.
        formants: by how much the formants of targets and their references are moved at most
            (`tracts`), to vary voices; 0 leaves them.
        train_voiceprint: train the voiceprint too; else it stays as it is, as in the papers.
        codebook_steps: after which the quantiser's vectors stay as they are; None trains them on.
        leave_out: parts with public weights that the export need not hold.
        trials: conversions of held-out speech to be shown and judged; None for none.
        consistency: judges whole conversions once the quantiser's vectors stay; None for none.
    """

    def __init__(
        self,
        model: TakinVC,
        versions: Versions,
        sampler: PairSampler,
        held_out: tuple[Versions, PairSampler] | None,
        *,
        config: Mapping[str, Any],
        trained_on: frozenset[str],
        seed: int,
        colour_db: float = 0.0,
        formants: float = 0.0,
        train_voiceprint: bool = True,
        codebook_steps: int | None = None,
        leave_out: tuple[str, ...] = (),
        trials: ValidationTrials | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        if not train_voiceprint and isinstance(model.voiceprint, nn.Module):
            model.voiceprint.requires_grad_(False)
        self.module = self.averaged = self.model = model
        self.versions, self.sampler, self.held_out = versions, sampler, held_out
        self.trials = trials
        self.consistency = consistency
        self.config, self.trained_on, self.leave_out = config, trained_on, leave_out
        self.seed, self.codebook_steps = seed, codebook_steps
        self.colour_db, self.formants = colour_db, formants

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One: all that is not frozen."""
        return {"model": [p for p in self.model.parameters() if p.requires_grad]}

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Targets, references and content of a step."""
        rng = generator(self.seed, step, process)
        draw = self.sampler.draw(rng)
        factors = None
        if self.formants:
            factors = tracts(rng, len(draw.target), self.formants)
        batch = gather(self.model, self.versions, draw, factors)
        if self.colour_db:
            mel = batch["mel"]
            colour = to_device(colours(rng, len(mel), mel.shape[1], self.colour_db), mel.device)
            for name in ("mel", "reference_mel"):
                batch[name] = (batch[name] + colour[:, :, None]).clamp(min=self.model.mel.silence)
        return batch

    def phase(self, step: int) -> str | None:
        """None while the quantiser's vectors move, which waits for the device."""
        quantizer = self.model.content.quantizer
        if quantizer is not None and self.codebook_steps is not None:
            quantizer.frozen = step >= self.codebook_steps
        moving = quantizer is not None and not quantizer.frozen
        stored = "ssl" in self.versions.streams or "ppg" in self.versions.streams
        if moving or not stored:
            return None
        judged = self.consistency is not None and step % self.consistency.settings.every == 0
        return "judged" if judged else "flow"

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step on one batch."""
        inputs, content = assemble(self.model, batch)
        loss = self.model.loss_of_content(inputs, content)
        judged: dict[str, Tensor] = {}
        if phase == "judged" and self.consistency is not None:
            judged = self.consistency(self.model, inputs, content, batch["ppg"])
        norm = apply("model", loss.total + sum(judged.values()))
        return {"flow": loss.flow, "commitment": loss.commitment, **judged, "norm": norm}

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """The flow's loss on held-out speakers, for the same pairs and noise every time, and the
        judges' scores of the trials' conversions, if there are judges."""
        if self.held_out is None:
            return {}
        versions, sampler = self.held_out
        model = cast(TakinVC, averaged).eval()
        total = 0.0
        torch.manual_seed(0)
        for k in range(VALIDATION_BATCHES):
            batch = gather(model, versions, sampler.draw(generator(0, k)))
            total += float(model.loss_of_content(*assemble(model, batch)).flow)
        values = {"flow": total / VALIDATION_BATCHES}
        return values if self.trials is None else values | self.trials.validate(model, step, log)

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """A checkpoint that converts, or will once it has a vocoder (`takin_vc.train.bundle`)."""
        model = cast(TakinVC, averaged).eval()
        save_checkpoint(
            folder / "checkpoint",
            Checkpoint(model, self.config, self.trained_on, {"conversion": dict(facts)}),
            leave_out=self.leave_out,
            bits=16,
            file_bytes=FILE_BYTES,
        )


def gather(
    model: TakinVC, versions: Versions, draw: Draw, factors: np.ndarray | None = None
) -> dict[str, Tensor]:
    """Reads a batch from the recordings.

    Args:
        model: whose batch it is.
        versions: of the recordings.
        draw: which parts of which recordings.
        factors: by which the formants of targets and references are moved, (B, points); None: not
            at all.

    Returns:
        "mel" (B, n_mels, L) of the targets, "reference_mel" (B, n_mels, R) and "reference" (B, T)
        at 16 kHz, and of the content "ssl" and "ppg" (B, L', C), or else "source" (B, T') at 16
        kHz, the input of the front ends.
    """
    rows = draw.version * versions.recordings + draw.target
    rate = versions.frame_rates["mel"]
    hop = round(versions.sample_rate / rate)
    frames = int(draw.target_seconds * rate)
    first = _first(versions, "mel", rows, draw.target_start, frames)

    reference_rows = draw.version * versions.recordings + draw.reference
    count = int(draw.reference_seconds * rate)
    start = _first(versions, "mel", reference_rows, draw.reference_start, count)
    if factors is None:
        mel = versions.frames("mel", rows, first, frames).float().transpose(1, 2)
        reference_mel = versions.frames("mel", reference_rows, start, count)
        reference_mel = reference_mel.float().transpose(1, 2)
        reference = versions.wave(reference_rows, start * hop, count * hop)
    else:
        mel, _ = _with_moved_formants(model, versions, rows, first, frames, factors)
        reference_mel, reference = _with_moved_formants(
            model, versions, reference_rows, start, count, factors
        )
    batch = {
        "mel": mel,
        "reference_mel": reference_mel,
        "reference": at_16_khz(reference, versions.sample_rate),
    }
    content_speeds = np.array(versions.content_speeds)
    ratio = np.array(versions.speeds)[draw.version] / content_speeds[draw.content_version]
    content_rows = draw.content_version * versions.recordings + draw.target
    for stream, front_end in (("ssl", model.content.ssl), ("ppg", model.content.ppg)):
        if front_end is not None and stream in versions.streams:
            stream_rate = versions.frame_rates[stream]
            begin = (first / rate + 0.5 / stream_rate) * ratio * stream_rate - 0.5
            count = int(frames * stream_rate / rate)
            features = versions.stretched(stream, content_rows, begin, ratio, count)
            batch[stream] = features.float()
    if not {"ssl", "ppg"} & batch.keys():
        source = versions.wave(rows, first * hop, frames * hop)
        batch["source"] = at_16_khz(source, versions.sample_rate)
    return batch


def _with_moved_formants(
    model: TakinVC,
    versions: Versions,
    rows: np.ndarray,
    first: np.ndarray,
    frames: int,
    factors: np.ndarray,
) -> tuple[Tensor, Tensor]:
    """Mels (B, n_mels, frames) and waves (B, T) of rows (B,) with their formants moved."""
    hop = model.mel.hop_length
    wave = versions.wave(rows, (first - MARGIN) * hop, (frames + 2 * MARGIN) * hop)
    moved = move_formants(wave, to_device(factors, wave.device), versions.sample_rate)
    mel = model.mel(moved)[:, :, MARGIN : MARGIN + frames]
    return mel, moved[:, MARGIN * hop : (MARGIN + frames) * hop]


def assemble(model: TakinVC, tensors: dict[str, Tensor]) -> tuple[Batch, Content]:
    """The model's batch and its content, from what `gather` returns; nothing in it is padded."""
    mel, reference = tensors["mel"], tensors["reference"]
    size, device = len(mel), mel.device

    def full(count: int, where: torch.device | str = device) -> Tensor:
        return torch.full((size,), count, device=where)

    def features_of(stream: str) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if stream not in tensors:
            return None, None
        features = tensors[stream]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=device)

    if "source" in tensors:
        content = model.content(tensors["source"], full(tensors["source"].shape[1]))
    else:
        content = model.content.forward_features(*features_of("ssl"), *features_of("ppg"))
    batch = Batch(
        source=mel.new_zeros(size, 0),
        source_lengths=full(0),
        reference=reference,
        reference_lengths=full(reference.shape[1]),
        reference_mel=tensors["reference_mel"],
        # On the CPU, where reading them does not wait for the GPU.
        reference_mel_lengths=full(tensors["reference_mel"].shape[2], "cpu"),
        mel_lengths=full(mel.shape[2], "cpu"),
        mel=mel,
    )
    return batch, content


def _first(
    versions: Versions, stream: str, rows: np.ndarray, start: np.ndarray, count: int
) -> np.ndarray:
    """The first frames of parts of `count` frames that begin about `start` seconds in."""
    room = versions.lengths(stream).numpy()[rows] - count
    first = np.floor(start * versions.frame_rates[stream]).astype(np.int64)
    # Even: front ends of half the mel's rate then have a frame exactly here.
    return np.clip(first, 0, np.maximum(room, 0)) // 2 * 2

"""The CTC stage: trains HybridFormer to transcribe characters.

Characters, as LibriSpeech's texts have them; HybridFormer's paper (Hu et al. 2023) trains by CTC on
LibriSpeech, the Takin-VC papers on 500,000 hours that are not public. Bands and frames are masked
as in SpecAugment (Park et al. 2019), policy LD without warping.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jiwer
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.mel import KaldiFbank, frame_mask
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording
from takin_vc.train.data.versions import Versions, at_16_khz, to_device
from takin_vc.train.stage import Apply, Log

CHARACTERS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # blank is 0, these follow
VOCABULARY = len(CHARACTERS) + 1


def spell(text: str) -> list[int]:
    """Codes of the characters of a text; what is no letter, apostrophe or space is left out."""
    words = " ".join(text.upper().split())
    return [CHARACTERS.index(c) + 1 for c in words if c in CHARACTERS]


def read_greedily(logits: Tensor) -> list[str]:
    """Texts of logits (B, L, vocabulary): the likeliest character of each frame, repeats and blanks
    taken out."""
    texts = []
    for codes in logits.argmax(-1).tolist():
        kept = [c for c, before in zip(codes, [0, *codes], strict=False) if c and c != before]
        texts.append("".join(CHARACTERS[c - 1] for c in kept))
    return texts


class TextSampler:
    """Draws whole recordings whose text is known, of about one length to a batch.

    Args:
        recordings: all of them.
        seconds: how long each is at each speed, (speeds, recordings).
        batch_seconds: of padded speech in a batch.
        longest: recordings of more seconds are left out.

    Raises:
        CorpusError: if no recording has a text.
    """

    def __init__(
        self,
        recordings: Sequence[TrainingRecording],
        seconds: np.ndarray,
        *,
        batch_seconds: float,
        longest: float = 20.0,
    ) -> None:
        self.texts = [spell(r.text) for r in recordings]
        flat = seconds.flatten()
        known = np.tile(np.array([bool(text) for text in self.texts]), len(seconds))
        rows = np.flatnonzero(known & (flat <= longest))
        if not len(rows):
            raise CorpusError(
                f"no recording of up to {longest:g} s has a text (column `text`); CTC needs them"
            )
        self.rows = rows[np.argsort(flat[rows], kind="stable")]
        self.seconds, self.batch_seconds = flat, batch_seconds

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of the versions, (B,), neighbours in length."""
        last = int(rng.integers(len(self.rows)))
        size = max(1, int(self.batch_seconds / self.seconds[self.rows[last]]))
        return self.rows[max(0, last + 1 - size) : last + 1]


class CTCStage:
    """Trains a `HybridFormer` with a CTC head of `VOCABULARY` outputs.

    Args:
        model: not fused.
        versions: of the training recordings.
        sampler: of them.
        held_out: the same of other speakers; None validates nothing.
        seed: of the batches.
        mask_bands: widest mask over filter banks; two a recording.
        mask_frames: widest mask over time, in filter-bank frames; two a recording.
    """

    def __init__(
        self,
        model: HybridFormer,
        versions: Versions,
        sampler: TextSampler,
        held_out: tuple[Versions, TextSampler] | None,
        *,
        seed: int,
        mask_bands: int = 27,
        mask_frames: int = 100,
    ) -> None:
        self.fbank = KaldiFbank(n_mels=model.config["n_mels"]).to(versions.device)
        self.module = self.averaged = self.model = model.to(versions.device)
        self.versions, self.sampler, self.held_out, self.seed = versions, sampler, held_out, seed
        self.mask_bands, self.mask_frames = mask_bands, mask_frames
        self._measure_banks()

    @torch.no_grad()
    def _measure_banks(self) -> None:
        """Mean and deviation of the filter banks, over some batches."""
        valid = []
        for k in range(8):
            batch = _batch(self.versions, self.sampler, generator(self.seed, 0, k))
            banks = self.fbank(batch["wave"], batch["lengths"])
            valid.append(banks[frame_mask(self.fbank.frames(batch["lengths"]), banks.shape[1])])
        joined = torch.cat(valid)
        self.model.fbank_mean.copy_(joined.mean(0))
        self.model.fbank_std.copy_(joined.std(0).clamp(min=1e-3))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One."""
        return {"model": list(self.model.parameters())}

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Recordings of a step, and their texts."""
        return _batch(self.versions, self.sampler, generator(self.seed, step, process))

    def phase(self, step: int) -> None:
        """None: every batch has another shape."""
        return None

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step on one batch."""
        banks = self.fbank(batch["wave"], batch["lengths"])
        mask = frame_mask(self.fbank.frames(batch["lengths"]), banks.shape[1])
        banks = _hide(banks, 1, self.mask_frames, self.model.fbank_mean)
        banks = _hide(banks, 2, self.mask_bands, self.model.fbank_mean)
        loss = _ctc(self.model, banks, mask, batch)
        return {"ctc": loss, "norm": apply("model", loss)}

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """Loss and character error rate on held-out speakers, decoded greedily."""
        if self.held_out is None:
            return {}
        versions, sampler = self.held_out
        model = cast(HybridFormer, averaged).eval()
        total, texts, transcripts = 0.0, [], []
        for k in range(4):
            batch = _batch(versions, sampler, generator(0, k))
            banks = self.fbank(batch["wave"], batch["lengths"])
            mask = frame_mask(self.fbank.frames(batch["lengths"]), banks.shape[1])
            total += float(_ctc(model, banks, mask, batch))
            features, valid = model(banks, mask)
            logits = model.logits(features).masked_fill(~valid[..., None], -torch.inf)
            logits[..., 0] = torch.where(valid, logits[..., 0], 0.0)  # padding is blank
            transcripts += read_greedily(logits)
            for codes, count in zip(
                batch["text"].tolist(), batch["text_lengths"].tolist(), strict=True
            ):
                texts.append("".join(CHARACTERS[c - 1] for c in codes[:count]))
        return {"ctc": total / 4, "cer": jiwer.cer(texts, transcripts)}

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """A folder for `HybridFormerPPG.from_pretrained`: `hybridformer`."""
        cast(HybridFormer, averaged).save(folder / "hybridformer")


def _ctc(model: HybridFormer, banks: Tensor, mask: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Mean loss a character; recordings too short for their text count as nothing."""
    features, valid = model(banks, mask)
    with torch.autocast(banks.device.type, enabled=False):
        log_probabilities = model.logits(features.float()).log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(
            log_probabilities,
            batch["text"],
            valid.sum(1),
            batch["text_lengths"],
            zero_infinity=True,
        )


def _hide(banks: Tensor, axis: int, widest: int, mean: Tensor) -> Tensor:
    """Two bands of up to `widest` along `axis` of banks (B, F, n_mels) become their mean."""
    size, count = len(banks), banks.shape[axis]
    index = torch.arange(count, device=banks.device)
    for _ in range(2):
        width = torch.rand(size, 1, device=banks.device) * min(widest, count // 2)
        first = torch.rand(size, 1, device=banks.device) * (count - width)
        hidden = (index >= first) & (index < first + width)
        hidden = hidden[:, :, None] if axis == 1 else hidden[:, None]
        banks = torch.where(hidden, mean, banks)
    return banks


def _batch(versions: Versions, sampler: TextSampler, rng: np.random.Generator) -> dict[str, Tensor]:
    rows = sampler.draw(rng)
    lengths = versions.lengths("wave")[rows]
    wave = versions.wave(rows, np.zeros(len(rows), np.int64), int(lengths.max()))
    texts = [torch.tensor(sampler.texts[row % versions.recordings]) for row in rows]
    ratio = versions.sample_rate / 16000
    return {
        "wave": at_16_khz(wave, versions.sample_rate),
        "lengths": to_device((lengths / ratio).long(), wave.device),
        "text": to_device(nn.utils.rnn.pad_sequence(texts, batch_first=True), wave.device),
        "text_lengths": torch.tensor([len(text) for text in texts], device=wave.device),
    }

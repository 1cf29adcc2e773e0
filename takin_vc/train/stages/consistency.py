"""Losses of whole conversions: the voice of the reference, the words of the source.

Flow matching trains on pairs of one speaker. At use, content and reference are of two speakers,
and nothing in the training has seen what then comes out. Here the model converts some items of a
batch to the voice of the next item, by the steps that it takes at use, and the gradient passes
through all of them (Clark et al. 2024, "Directly fine-tuning diffusion models on differentiable
rewards", arXiv 2309.17400). Neither Takin-VC paper has this.

CAM++ judges the voice, and the recogniser's encoder, Whisper's, the words. Both are frozen, and
each reads another spectrum than the flow's log mel. A linear map, fitted to training speech, makes
that spectrum from the log mel, so no vocoder is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.content import Content
from takin_vc.frontends.base import SAMPLE_RATE, standardise
from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.inputs import Batch
from takin_vc.model import TakinVC
from takin_vc.timbre import CAMPPlusVoiceprint
from takin_vc.train.data.versions import Versions
from takin_vc.train.stage import TrainingError

NEIGHBOURS = 3  # frames of the log mel that a frame of another spectrum is made of
FITTED_SECONDS = 4.0  # of each recording that the maps between spectra are fitted to
FITTED_RECORDINGS = 64


@dataclass(frozen=True)
class ConsistencySettings:
    """How conversions are judged while the model trains.

    Attributes:
        seconds: of conversions in a judged batch.
        voice: weight of 1 - cos between the voiceprints of the conversion and of a recording of
            the reference's speaker.
        words: weight of 1 - cos between the recogniser's frames of the conversion and of the
            source.
        every: steps from one judged batch to the next, at least 1.
        voiceprint: file of CAM++'s public weights; None: CAM++ is the model's own voiceprint.

    Raises:
        TrainingError: if `every` is no such number.
    """

    seconds: float = 48.0
    voice: float = 0.1
    words: float = 0.1
    every: int = 1
    voiceprint: str | None = None

    def __post_init__(self) -> None:
        if type(self.every) is not int or self.every < 1:
            raise TrainingError(f"conversion.consistency.every is {self.every!r}; give 1 or more")


class Consistency(nn.Module):
    """The losses; frozen networks and linear maps.

    Args:
        model: with Whisper's encoder as its recogniser, and a mel of 16 kHz and 100 frames a
            second.
        waveform: training speech (B, T) at 16 kHz that the maps are fitted to.
        settings: weights and amounts.

    Raises:
        TrainingError: if the voiceprint, the recogniser or the mel is another.
        WeightsError: if CAM++'s weights cannot be read.
    """

    def __init__(self, model: TakinVC, waveform: Tensor, settings: ConsistencySettings) -> None:
        super().__init__()
        voiceprint, recogniser = model.voiceprint, model.content.ppg
        if settings.voiceprint is not None:
            campplus = CAMPPlus.from_pretrained(settings.voiceprint)
            voiceprint = CAMPPlusVoiceprint(campplus).to(waveform.device)
        if not (
            isinstance(voiceprint, CAMPPlusVoiceprint)
            and isinstance(recogniser, WhisperEncoderFeatures)
            and model.sample_rate == SAMPLE_RATE
            and model.mel.hop_length == recogniser.HOP_LENGTH
        ):
            raise TrainingError(
                "conversion.consistency needs CAM++ (consistency.voiceprint=campplus_cn_en_common"
                ".pt or model/voiceprint=campplus), model/content=whisper_base and mels of 16 kHz "
                "and 100 frames a second; leave it out (conversion.consistency=null)"
            )
        self.settings = settings
        self.campplus, self.recogniser = voiceprint.model, recogniser
        lengths = torch.full((len(waveform),), waveform.shape[1], device=waveform.device)
        mel = model.mel(waveform)
        whisper_mel = recogniser.log_mel(waveform, lengths)[0]
        self.to_fbank = SpectrumMap(mel, voiceprint.fbank(waveform, lengths))
        self.to_whisper = SpectrumMap(mel, whisper_mel.transpose(1, 2))

    @classmethod
    def fitted(
        cls,
        model: TakinVC,
        versions: Versions,
        settings: Mapping[str, Any],
        codebook_steps: int | None,
    ) -> "Consistency":
        """The losses, their maps fitted to some of the training recordings.

        Args:
            model: see `Consistency`.
            versions: of the training recordings.
            settings: the fields of `ConsistencySettings`.
            codebook_steps: after which the quantiser's vectors stay as they are.

        Raises:
            TrainingError: if no batch could be judged, if no recording is long enough, if a setting
                is unknown or wrong, or as `Consistency` raises it.
            WeightsError: as `Consistency` raises it.
        """
        leave_out = "leave it out (conversion.consistency=null)"
        if "ppg" not in versions.streams:
            raise TrainingError(
                "conversion.consistency compares stored features: give features.stored=true, or "
                + leave_out
            )
        quantizer = model.content.quantizer
        if quantizer is not None and not quantizer.frozen and codebook_steps is None:
            raise TrainingError(
                "conversion.consistency judges once the quantiser's vectors stay: give "
                f"conversion.codebook_steps, or {leave_out}"
            )
        long = np.flatnonzero(versions.seconds()[0] >= FITTED_SECONDS)
        if not len(long):
            raise TrainingError(
                f"conversion.consistency needs recordings of {FITTED_SECONDS:g} s; {leave_out}"
            )
        try:
            given = ConsistencySettings(**settings)
        except TypeError as error:
            raise TrainingError(f"conversion.consistency: {error}") from error
        rows = long[np.linspace(0, len(long) - 1, FITTED_RECORDINGS).astype(np.int64)]
        with torch.no_grad():
            samples = round(FITTED_SECONDS * versions.sample_rate)
            speech = versions.wave(rows, np.zeros(len(rows), np.int64), samples)
            return cls(model, speech, given)

    def forward(
        self, model: TakinVC, batch: Batch, content: Content, words: Tensor
    ) -> dict[str, Tensor]:
        """The weighted losses of conversions of the batch's first items: "voice" and "words".

        Args:
            model: in training.
            batch: nothing in it is padded; its target mels are speech of the references' speakers.
            content: of its items.
            words: the recogniser's frames of its sources, (B, L, C).
        """
        assert batch.mel is not None
        frames = batch.mel.shape[2]
        size = max(
            2, min(len(batch.mel), round(self.settings.seconds * model.mel.frame_rate / frames))
        )
        # Each item's content, the reference of the next.
        part = replace(content, features=content.features[:size], mask=content.mask[:size])
        others = replace(
            batch,
            reference=batch.reference[:size].roll(-1, 0),
            reference_lengths=batch.reference_lengths[:size],
            reference_mel=batch.reference_mel[:size].roll(-1, 0),
            reference_mel_lengths=batch.reference_mel_lengths[:size],
            mel_lengths=batch.mel_lengths[:size],
        )
        converted = model.flow.sample(
            model.estimator.velocity,
            torch.randn_like(batch.mel[:size]),
            model.estimator.prepare(*model.condition(others, part)),
            steps=model.steps,
            solver=model.solver,
            guidance=0.0,
        )
        mel = converted.float() * model.mel_std + model.mel_mean
        with torch.no_grad():
            wanted = self.embed(batch.mel[:size].roll(-1, 0))
        voice = 1 - F.cosine_similarity(self.embed(mel), wanted, dim=-1).mean()
        frames_out = self.encode(mel)
        mask = torch.ones(words[:size].shape[:2], dtype=torch.bool, device=words.device)
        frames_in = standardise(words[:size].float(), mask)
        count = min(frames_out.shape[1], frames_in.shape[1])
        similarity = F.cosine_similarity(frames_out[:, :count], frames_in[:, :count], dim=-1)
        return {
            "voice": self.settings.voice * voice,
            "words": self.settings.words * (1 - similarity.mean()),
        }

    def embed(self, mel: Tensor) -> Tensor:
        """Log mel (B, n_mels, L) -> CAM++'s embedding (B, C)."""
        fbank = self.to_fbank(mel)
        mask = torch.ones(fbank.shape[:2], dtype=torch.bool, device=mel.device)
        return self.campplus(fbank - fbank.mean(1, keepdim=True), mask).float()

    def encode(self, mel: Tensor) -> Tensor:
        """Log mel (B, n_mels, L) -> the recogniser's frames, each channel standardised over time,
        (B, L / 2, C)."""
        spectrum = self.to_whisper(mel).transpose(1, 2)
        loudest = spectrum.amax((1, 2), keepdim=True)
        spectrum = torch.maximum(spectrum, loudest - 2)  # as in `log_mel`, 8 / 4
        mask = torch.ones(len(mel), spectrum.shape[2], dtype=torch.bool, device=mel.device)
        features, valid = self.recogniser.encode(spectrum, mask)
        return standardise(features.float(), valid)


class SpectrumMap(nn.Module):
    """A linear map from a log mel's frame and its neighbours to a frame of another log spectrum.

    Fitted by least squares.

    Args:
        mel: log mel (B, n_mels, L).
        wanted: the other spectrum of the same speech, (B, L', C), at the same frame rate.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, mel: Tensor, wanted: Tensor) -> None:
        super().__init__()
        inputs = _with_neighbours(mel)
        frames = min(inputs.shape[1], wanted.shape[1])
        x = inputs[:, :frames].flatten(0, 1).double().cpu()
        y = wanted[:, :frames].flatten(0, 1).double().cpu()
        ones = x.new_ones(len(x), 1)
        solution = torch.linalg.lstsq(torch.cat([x, ones], dim=1), y).solution.float()
        self.register_buffer("weight", solution[:-1].to(mel.device), persistent=False)
        self.register_buffer("bias", solution[-1].to(mel.device), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Log mel (B, n_mels, L) -> (B, L, C)."""
        with torch.autocast(mel.device.type, enabled=False):
            return _with_neighbours(mel.float()) @ self.weight + self.bias


def _with_neighbours(mel: Tensor) -> Tensor:
    """Each frame with the ones before and after it: (B, C, L) -> (B, L, 3 C)."""
    padded = F.pad(mel, (1, 1), mode="replicate")
    return padded.unfold(2, NEIGHBOURS, 1).permute(0, 2, 1, 3).flatten(2)

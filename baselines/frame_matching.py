"""Conversion without training: each frame of the source becomes similar frames of the reference."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.audio import Waveform
from bench.devices import torch_device
from bench.stages.timing import stage
from takin_vc.chunks import content_in_chunks
from takin_vc.content import resize_frames
from takin_vc.system import TakinVCSystem, load_for_system

ROWS = 2048  # source frames that are compared with all reference frames at a time


class FrameMatching:
    """Matches content frames and averages the mels of the matches.

    Source and reference pass the content encoder of a Takin-VC checkpoint. Each frame of the source
    becomes the mean of the log mels of the `k` reference frames whose content has the largest
    cosine to its own. The checkpoint's vocoder speaks the result. Nothing is trained for it, and
    the voice comes from the reference alone, so it needs a reference that has all sounds of the
    source: `vcbench run suite=mini_reference_length` shows how much.

    Source: kNN-VC, Baas et al. 2023, arXiv 2305.18975, section 3 (k = 4, cosine, means). It matches
    frames of WavLM-Large and its vocoder speaks those; here content is matched and mels are spoken.

    Args:
        checkpoint: folder of the Takin-VC checkpoint whose encoder and vocoder are used.
        k: frames of the reference that are averaged, 1 or more.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        UserError: if the checkpoint cannot be loaded.
        ValueError: if k is less than 1.
    """

    def __init__(self, checkpoint: str | Path, *, k: int = 4, device: str = "auto") -> None:
        if k < 1:
            raise ValueError(f"k is {k}; it must be 1 or more")
        self.k = k
        loaded = load_for_system(checkpoint, "frame_matching", torch_device(device))
        self.model, self.trained_on = loaded.model, loaded.trained_on

    @staticmethod
    def training_data(checkpoint: str | Path, **_: Any) -> frozenset[str]:
        """See `bench.systems.System`: the encoder and the vocoder are trained."""
        return TakinVCSystem.training_data(checkpoint)

    @staticmethod
    def networks(checkpoint: str | Path, **_: Any) -> list[Mapping[str, str]]:
        """See `bench.systems.System`."""
        return list(TakinVCSystem.networks(checkpoint))

    @torch.inference_mode()
    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in frames of `reference`, at the checkpoint's sample rate."""
        model = self.model
        with stage("content"):
            batch = model.prepare([source], [reference])
            mels = batch.reference_mel[0].T  # (R, n_mels)
            words = self._content(batch.source, batch.source_lengths, int(batch.mel_lengths))
            candidates = self._content(batch.reference, batch.reference_lengths, len(mels))
        with stage("matching"):
            matched = mean_of_nearest(words, candidates, mels, self.k)
        with stage("vocoder"):
            (speech,) = model.speak(matched.T[None], batch.mel_lengths)
        return Waveform(speech.samples, speech.sample_rate)

    def _content(self, waveform: Tensor, lengths: Tensor, frames: int) -> Tensor:
        """The content of a waveform (1, T) at 16 kHz, on the frames of its mel: (frames, C)."""
        content = content_in_chunks(
            self.model.content, waveform, lengths, self.model.content_chunks
        )
        every = torch.ones(1, frames, dtype=torch.bool, device=waveform.device)
        return resize_frames(content.features, content.mask, every)[0]


def mean_of_nearest(words: Tensor, candidates: Tensor, mels: Tensor, k: int) -> Tensor:
    """For each frame the mean mel of the candidates whose content is nearest by cosine.

    Args:
        words: content of the source, (L, C).
        candidates: content of the reference, (R, C).
        mels: log mels of the same frames of the reference, (R, n_mels).
        k: candidates that are averaged; all where there are fewer.

    Returns:
        (L, n_mels).
    """
    candidates = F.normalize(candidates, dim=-1)
    means = []
    for rows in F.normalize(words, dim=-1).split(ROWS):
        nearest = (rows @ candidates.T).topk(min(k, len(candidates)), dim=-1).indices
        means.append(mels[nearest].mean(1))
    return torch.cat(means)

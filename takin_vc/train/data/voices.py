"""Converts training recordings to other speakers' voices, as further sources of their words.

In a conversion the content comes from one voice and the reference from another. With content of a
converted recording, training has such pairs, and the target is still real speech. Neither
Takin-VC paper has this; Seed-VC (Liu 2024, arXiv 2411.09943) trains with sources whose
timbre another model has changed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from takin_vc.checkpoint import load_checkpoint
from takin_vc.inputs import SHORTEST_SOURCE, InputError, Speech, check_speech, resample
from takin_vc.tensors import fingerprint
from takin_vc.train.data.batches import by_length, generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording, read

REFERENCE_SECONDS = 1.0, 6.0  # of a reference, at least and at most
ATTEMPTS = 20  # to find a reference that is long enough


@dataclass(frozen=True)
class VoicesSettings:
    """How recordings are converted.

    Attributes:
        checkpoint: folder of the checkpoint that converts.
        count: conversions of each recording, each to another speaker.
        steps: of the flow's solver, without guidance.

    Raises:
        CorpusError: if a number is not a whole number of at least 1.
    """

    checkpoint: str
    count: int = 1
    steps: int = 4

    def __post_init__(self) -> None:
        for name in ("count", "steps"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise CorpusError(f"features.voices.{name} is {value!r}; give 1 or more")


class OtherVoices:
    """Converts recordings to the voices of other speakers of a list.

    Args:
        recordings: the list; its labelled speakers are the voices.
        settings: how many conversions, and by which checkpoint.
        sample_rate: of the recordings when they are converted, in Hz.
        batch_seconds: of padded speech that is converted at a time.
        device: where the model computes.
        threads: that decode references.
        half: whether the model computes in bfloat16 where that is safe (`torch.autocast`).

    Attributes:
        count: conversions of each recording.
        identity: all that conversions depend on, as plain values.

    Raises:
        CorpusError: if there are not two labelled speakers.
        WeightsError, ConfigError: if the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        recordings: Sequence[TrainingRecording],
        settings: VoicesSettings,
        *,
        sample_rate: int,
        batch_seconds: float,
        device: torch.device | str = "cpu",
        threads: int = 8,
        half: bool = False,
    ) -> None:
        self.recordings, self.sample_rate = recordings, sample_rate
        self.threads, self.half = threads, half
        self.batch_seconds, self.count = batch_seconds, settings.count
        self.of_speaker: dict[str, list[TrainingRecording]] = {}
        for recording in recordings:
            if recording.speaker:
                self.of_speaker.setdefault(recording.speaker, []).append(recording)
        if len(self.of_speaker) < 2:
            raise CorpusError("features.voices needs recordings of two labelled speakers or more")
        self.model = load_checkpoint(settings.checkpoint).model.to(device).eval()
        self.model.steps, self.model.guidance = settings.steps, 0.0
        self.identity: dict[str, Any] = {
            "checkpoint": fingerprint(self.model.state_dict()),
            "steps": settings.steps,
            "half": half,
        }

    def convert(self, waves: Sequence[np.ndarray], first: int, number: int) -> list[np.ndarray]:
        """Each wave in another speaker's voice.

        Args:
            waves: of the recordings from index `first` on, each (T,) float32.
            first: index of the first of them in the list.
            number: of the conversion, from 0; each has other references.

        Returns:
            Waves of the same lengths. One that the model refuses, as too short or silent, stays
            as it is.
        """
        converted = list(waves)
        usable = [i for i, w in enumerate(waves) if _usable(self._speech(w), SHORTEST_SOURCE)]
        with ThreadPoolExecutor(self.threads) as pool:
            drawn = pool.map(lambda i: self._reference(first + i, number), usable)
            reference_of = dict(zip(usable, drawn, strict=True))
        for batch in by_length(waves, self.batch_seconds * self.sample_rate):
            able = [i for i in batch if i in reference_of]
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.half):
                outputs = self.model.convert_batch(
                    [self._speech(waves[i]) for i in able],
                    [reference_of[i] for i in able],
                    seeds=[number * len(self.recordings) + first + i for i in able],
                )
            for i, output in zip(able, outputs, strict=True):
                samples = resample(output.samples, output.sample_rate, self.sample_rate).numpy()
                fitted = np.zeros_like(waves[i])
                fitted[: len(samples)] = samples[: len(fitted)]
                converted[i] = fitted
        return converted

    def _speech(self, wave: np.ndarray) -> Speech:
        return Speech(torch.from_numpy(wave), self.sample_rate)

    def _reference(self, index: int, number: int) -> Speech:
        """Speech of another speaker than that of the recording with this index."""
        rng = generator(0, index, number)
        others = [name for name in self.of_speaker if name != self.recordings[index].speaker]
        shortest, longest = REFERENCE_SECONDS
        for _ in range(ATTEMPTS):
            members = self.of_speaker[others[rng.integers(len(others))]]
            wave = read(members[rng.integers(len(members))].path, self.sample_rate)
            speech = self._speech(wave[: round(longest * self.sample_rate)])
            if _usable(speech, shortest):
                return speech
        raise CorpusError(f"features.voices needs recordings of {shortest:g} s or more")


def _usable(speech: Speech, shortest: float) -> bool:
    try:
        check_speech(speech, "recording", shortest)
    except InputError:
        return False
    return True

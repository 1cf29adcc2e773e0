"""Converts held-out speech during a training, shows the conversions and has them judged.

A source and a reference are of different held-out speakers. Trials and seeds are the same at every
validation; only the model differs. TensorBoard shows the conversions; judges score them, if there
are any. Scores are only logged: no gradient, no choice of a checkpoint and no end of training
depends on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from takin_vc.inputs import SILENCE_PEAK, Speech
from takin_vc.model import TakinVC
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import TrainingRecording
from takin_vc.train.data.versions import Versions
from takin_vc.train.stage import Log, TrainingError
from takin_vc.train.validation.images import mel_image

TRIALS = 10
SHOWN = 3  # of these, in TensorBoard
ENROLMENTS = 3  # recordings of a speaker, at most, that a conversion is compared with
SHORTEST, LONGEST = 1.0, 15.0  # seconds of a recording that is used
REFERENCE_SECONDS = 5.0  # that the model is given


@dataclass(frozen=True)
class ValidationTrial:
    """One conversion to be done: recordings by their numbers.

    Attributes:
        source: whose words are kept.
        reference: whose voice is taken; of another speaker.
        enrolment: other recordings of the reference's speaker, which the model does not get.
        source_enrolment: other recordings of the source's speaker.
    """

    source: int
    reference: int
    enrolment: tuple[int, ...]
    source_enrolment: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ValidationConversion:
    """A converted trial, as judges get it.

    Attributes:
        trial_id: the same at every validation.
        converted: the model's output.
        source: the model's source.
        reference: the model's reference, as long as it was used.
        enrolment: other recordings of the target speaker.
        source_enrolment: other recordings of the source speaker.
        text: transcript of the source; empty if unknown.
    """

    trial_id: str
    converted: Speech
    source: Speech
    reference: Speech
    enrolment: tuple[Speech, ...]
    source_enrolment: tuple[Speech, ...]
    text: str


class Judging(Protocol):
    """Scores conversions.

    Attributes:
        reads: the fields of `ValidationConversion` that it needs.
    """

    @property
    def reads(self) -> frozenset[str]: ...

    def __call__(self, conversions: Sequence[ValidationConversion]) -> Mapping[str, float]:
        """Scores over all conversions together, by metric."""
        ...


class ValidationTrials:
    """Converts held-out speech, shows it, and has it judged.

    Args:
        recordings: of held-out speakers.
        versions: of these recordings, at speed 1.
        judging: scores all conversions; None: only a few are converted, to be shown.
        vocoder_trained: whether the vocoder is trained; else mels are shown and no sound.
        seed: of the choice.

    Raises:
        TrainingError: if there is nothing for the judges to judge.
    """

    def __init__(
        self,
        recordings: Sequence[TrainingRecording],
        versions: Versions,
        *,
        judging: Judging | None = None,
        vocoder_trained: bool = True,
        seed: int = 0,
    ) -> None:
        self.recordings, self.versions = recordings, versions
        self.judging, self.vocoder_trained = judging, vocoder_trained
        self.inputs_shown = False  # sources and references, which stay the same
        seconds = versions.seconds()[versions.speeds.index(1.0)]
        able = [
            i
            for i in np.flatnonzero((seconds >= SHORTEST) & (seconds <= LONGEST)).tolist()
            if float(self._speech(i).samples.abs().max()) >= SILENCE_PEAK
        ]
        self.trials = draw_trials(recordings, able, count=TRIALS, seed=seed)
        if judging is not None and not self.trials:
            raise TrainingError(
                "judges of conversions need two held-out speakers with two recordings of "
                f"{SHORTEST:g} to {LONGEST:g} s each; raise held_out.speakers, or leave the judges "
                "out (conversion.judges=null)"
            )
        texts = [recordings[trial.source].text for trial in self.trials]
        if judging is not None and "text" in judging.reads and not any(texts):
            raise TrainingError(
                "a judge of words needs the texts of held-out recordings, and the list has none of "
                "them; leave it out of conversion.judges"
            )

    def validate(self, model: TakinVC, step: int, log: Log | None) -> dict[str, float]:
        """Converts with the solver, steps and guidance of the model.

        Args:
            model: in evaluation mode.
            step: of the training.
            log: gets the first few conversions; None: nothing is shown.

        Returns:
            The judges' scores by name, and those of the unchanged sources as "source/..."; empty
            without judges.
        """
        shown = SHOWN if log is not None else 0
        trials = self.trials[: shown if self.judging is None else None]
        if not trials:
            return {}
        sources = [self._speech(trial.source) for trial in trials]
        references = [self._reference(trial) for trial in trials]
        mels, lengths = model.convert_to_mel(sources, references, seeds=range(len(trials)))
        sounds = model.speak(mels, lengths) if self.vocoder_trained else None
        if log is not None:
            for k, trial in enumerate(trials[:shown]):
                mel = mels[k, :, : int(lengths[k])]
                converted = None if sounds is None else sounds[k]
                self._show(f"held out/{k}", trial, mel, converted, model, step, log)
            self.inputs_shown = True
        if self.judging is None or sounds is None:
            return {}
        return self._judge(sounds) | self._source_scores

    @cached_property
    def _source_scores(self) -> dict[str, float]:
        """The judges' scores of the unchanged sources: the same throughout a training."""
        scores = self._judge([self._speech(trial.source) for trial in self.trials])
        return {f"source/{name}": value for name, value in scores.items()}

    def _judge(self, sounds: Sequence[Speech]) -> dict[str, float]:
        """The judges' scores of one sound for each trial."""
        assert self.judging is not None
        pairs = zip(self.trials, sounds, strict=True)
        return dict(self.judging([self._conversion(trial, speech) for trial, speech in pairs]))

    def _show(
        self,
        tag: str,
        trial: ValidationTrial,
        mel: Tensor,
        converted: Speech | None,
        model: TakinVC,
        step: int,
        log: Log,
    ) -> None:
        """Logs a trial's mel between those of its source and its reference, and its sound."""
        inputs = {"source": self._speech(trial.source), "reference": self._reference(trial)}
        true = {
            name: model.mel(speech.samples[None].to(mel.device))[0]
            for name, speech in inputs.items()
        }
        picture = mel_image([true["source"], mel, true["reference"]], model.mel.silence)
        log.add_image(f"{tag} mel: source, converted, reference", picture, step)
        sounds = {} if self.inputs_shown else inputs
        for name, speech in sounds.items():
            log.add_audio(f"{tag} {name}", speech.samples, step, speech.sample_rate)
        if converted is not None:
            log.add_audio(f"{tag} converted", converted.samples, step, converted.sample_rate)

    def _conversion(self, trial: ValidationTrial, converted: Speech) -> ValidationConversion:
        source, reference = self.recordings[trial.source], self.recordings[trial.reference]
        return ValidationConversion(
            f"{source.utterance_id}-{reference.utterance_id}",
            converted,
            self._speech(trial.source),
            self._reference(trial),
            tuple(map(self._speech, trial.enrolment)),
            tuple(map(self._speech, trial.source_enrolment)),
            source.text,
        )

    def _reference(self, trial: ValidationTrial) -> Speech:
        """The first seconds of the reference: the model's input."""
        samples, rate = self._speech(trial.reference)
        return Speech(samples[: round(REFERENCE_SECONDS * rate)], rate)

    def _speech(self, recording: int) -> Speech:
        """A whole recording at speed 1."""
        row = self.versions.speeds.index(1.0) * self.versions.recordings + recording
        count = int(self.versions.lengths("wave")[row])
        wave = self.versions.wave(np.array([row]), np.array([0]), count)
        return Speech(wave[0].cpu(), self.versions.sample_rate)


def draw_trials(
    recordings: Sequence[TrainingRecording], able: Sequence[int], *, count: int, seed: int
) -> list[ValidationTrial]:
    """Trials between different speakers; each speaker is source, and target, equally often.

    Args:
        recordings: all of them.
        able: numbers of those that may be used; a speaker needs two. Of those with a text the
            source is one, where its speaker has any.
        count: of trials.
        seed: of the choice.

    Returns:
        `count` trials; none where fewer than two speakers are able.
    """
    rng = generator(seed)
    members: dict[str, list[int]] = {}
    for i in able:
        if recordings[i].speaker:
            members.setdefault(recordings[i].speaker, []).append(i)
    names = sorted(name for name, indices in members.items() if len(indices) > 1)
    if len(names) < 2:
        return []
    order = [names[i] for i in rng.permutation(len(names))]

    def pick(among: Sequence[int]) -> int:
        return among[int(rng.integers(len(among)))]

    def others(of: Sequence[int], but: int) -> tuple[int, ...]:
        rest = [i for i in of if i != but]
        return tuple(rest[i] for i in rng.permutation(len(rest))[:ENROLMENTS])

    trials = []
    for k in range(count):
        # The next speaker in a circle, then the one after: every pair comes before any comes twice.
        distance = 1 + k // len(order) % (len(order) - 1)
        of_source = members[order[k % len(order)]]
        of_target = members[order[(k + distance) % len(order)]]
        source = pick([i for i in of_source if recordings[i].text] or of_source)
        reference = pick(of_target)
        trials.append(
            ValidationTrial(
                source, reference, others(of_target, reference), others(of_source, source)
            )
        )
    return trials

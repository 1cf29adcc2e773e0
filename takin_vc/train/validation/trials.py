"""What a validation converts: held-out speech into the voices of other held-out speakers.

The trials are the same at every validation, and so are their seeds: what differs is the model. What
comes out is shown in TensorBoard and, where there is somebody to judge it, judged. A verdict is
written down and nothing else: no gradient, no choice of a checkpoint and no end of training depends
on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from takin_vc.model import SILENCE_PEAK, Speech, TakinVC
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import TrainingRecording
from takin_vc.train.data.features import Versions
from takin_vc.train.stage import Log, TrainingError
from takin_vc.train.validation.images import mel_image

TRIALS = 10
SHOWN = 3  # of these, in TensorBoard
ENROLMENTS = 3  # recordings of a speaker, at most, that a conversion is compared with
SHORTEST, LONGEST = 1.0, 15.0  # seconds of a recording that is used
REFERENCE_SECONDS = 5.0  # that the model is given


@dataclass(frozen=True)
class ValidationTrial:
    """One conversion to make, of recordings by their numbers.

    Attributes:
        source: gives the words.
        reference: gives the voice; of another speaker.
        enrolment: others of the reference's speaker, which the model is not given.
        source_enrolment: others of the source's speaker.
    """

    source: int
    reference: int
    enrolment: tuple[int, ...]
    source_enrolment: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class ValidationConversion:
    """A trial that was converted: all that may be judged.

    Attributes:
        trial_id: the same at every validation.
        converted: what the model made.
        source: whose words it says.
        reference: what it was given of the target speaker.
        enrolment: other recordings of the target speaker.
        source_enrolment: other recordings of the source speaker.
        text: of the source; empty where nobody knows.
    """

    trial_id: str
    converted: Speech
    source: Speech
    reference: Speech
    enrolment: tuple[Speech, ...]
    source_enrolment: tuple[Speech, ...]
    text: str


class Judging(Protocol):
    """Whoever judges conversions.

    Attributes:
        reads: the fields of `ValidationConversion` that it needs.
    """

    @property
    def reads(self) -> frozenset[str]: ...

    def __call__(self, conversions: Sequence[ValidationConversion]) -> Mapping[str, float]:
        """Numbers over all of them together, by their names."""
        ...


class ValidationTrials:
    """Converts held-out speech, shows it, and has it judged.

    Args:
        recordings: of held-out speakers.
        versions: of these, at their own speed.
        judging: who judges all conversions; None: a few are made, to be looked at.
        speaks: whether the model's vocoder is trained; else what it makes is seen and not heard.
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
        speaks: bool = True,
        seed: int = 0,
    ) -> None:
        self.recordings, self.versions = recordings, versions
        self.judging, self.speaks = judging, speaks
        self.introduced = False  # sources and references were shown
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
        """Converts with the model's own solver, steps and guidance.

        Args:
            model: in evaluation mode.
            step: of the training.
            log: is shown the first few; None shows nothing.

        Returns:
            What was judged, by its names, and the same of the sources unchanged, "source/...";
            empty without judges.
        """
        shown = SHOWN if log is not None else 0
        trials = self.trials[: shown if self.judging is None else None]
        if not trials:
            return {}
        sources = [self._speech(trial.source) for trial in trials]
        references = [self._reference(trial) for trial in trials]
        mels, lengths = model.convert_to_mel(sources, references, seeds=range(len(trials)))
        spoken = model.speak(mels, lengths) if self.speaks else None
        if log is not None:
            for k, trial in enumerate(trials[:shown]):
                mel = mels[k, :, : int(lengths[k])]
                converted = None if spoken is None else spoken[k]
                self._show(f"held out/{k}", trial, mel, converted, model, step, log)
            self.introduced = True
        if self.judging is None or spoken is None:
            return {}
        return self._judge(spoken) | self._of_sources

    @cached_property
    def _of_sources(self) -> dict[str, float]:
        """What the judges say of the sources unchanged, which no training moves."""
        found = self._judge([self._speech(trial.source) for trial in self.trials])
        return {f"source/{name}": value for name, value in found.items()}

    def _judge(self, spoken: Sequence[Speech]) -> dict[str, float]:
        """What the judges say of one sound a trial."""
        assert self.judging is not None
        pairs = zip(self.trials, spoken, strict=True)
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
        """One trial's mel between its source's and its reference's, and its sound."""
        given = {"source": self._speech(trial.source), "reference": self._reference(trial)}
        true = {
            name: model.mel(speech.samples[None].to(mel.device))[0]
            for name, speech in given.items()
        }
        picture = mel_image([true["source"], mel, true["reference"]], model.mel.silence)
        log.add_image(f"{tag} mel: source, converted, reference", picture, step)
        sounds = {} if self.introduced else given  # these stay the same
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
        """What the model is given of the target speaker."""
        samples, rate = self._speech(trial.reference)
        return Speech(samples[: round(REFERENCE_SECONDS * rate)], rate)

    def _speech(self, recording: int) -> Speech:
        """A recording whole, as it was spoken."""
        row = self.versions.speeds.index(1.0) * self.versions.recordings + recording
        count = int(self.versions.lengths("wave")[row])
        wave = self.versions.wave(np.array([row]), np.array([0]), count)
        return Speech(wave[0].cpu(), self.versions.sample_rate)


def draw_trials(
    recordings: Sequence[TrainingRecording], able: Sequence[int], *, count: int, seed: int
) -> list[ValidationTrial]:
    """Trials between different speakers, each of which is source, and target, as often as others.

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
    names = sorted(name for name, mine in members.items() if len(mine) > 1)
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
        # The next speaker in the circle, then the one after that: all pairs before any comes twice.
        distance = 1 + k // len(order) % (len(order) - 1)
        mine = members[order[k % len(order)]]
        theirs = members[order[(k + distance) % len(order)]]
        source = pick([i for i in mine if recordings[i].text] or mine)
        reference = pick(theirs)
        trials.append(
            ValidationTrial(source, reference, others(theirs, reference), others(mine, source))
        )
    return trials

"""Draws the recordings of each batch.

Batch k depends only on the seed, on k and on the process, not on earlier batches: a run that
resumes at step k gets the same batches.

All targets of a batch are cut to one length and all references to another, so nothing is padded;
`batch_seconds` sets the number of items. Speakers are drawn in proportion to a power of the
duration of their recordings, so that speakers with few recordings are drawn, but not too often.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from takin_vc.train.data.corpus import CorpusError, TrainingRecording


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """A random generator that depends only on these numbers."""
    return np.random.default_rng([seed, *numbers])


@dataclass(frozen=True, eq=False)
class Draw:
    """A batch of targets and references, in seconds of the versions themselves.

    Attributes:
        version: speed of target and reference, an index, (B,).
        content_version: of the content, an index, (B,).
        target: recordings, (B,).
        target_start: (B,), in seconds.
        target_seconds: of every target.
        reference: recordings of the same speakers, (B,).
        reference_start: (B,), in seconds.
        reference_seconds: of every reference.
    """

    version: np.ndarray
    content_version: np.ndarray
    target: np.ndarray
    target_start: np.ndarray
    target_seconds: float
    reference: np.ndarray
    reference_start: np.ndarray
    reference_seconds: float


class PairSampler:
    """Draws targets, and for each a reference by the same speaker that does not overlap it.

    Args:
        recordings: all of them.
        seconds: how long each is at each speed, (speeds, recordings).
        targets: lengths that a batch's targets may have, in seconds.
        references: likewise of references.
        batch_seconds: of targets in a batch.
        balance: speakers are drawn in proportion to their seconds to this power: 0 all alike, 1 as
            much as they speak.
        content_versions: how many versions there are of the content; None: as many as speeds.
        known_speakers: leave out recordings without a speaker.
        weights: how much more often than others each recording is drawn, (recordings,); None: all
            alike.

    Raises:
        CorpusError: if no recording is long enough for a pair of lengths.
    """

    def __init__(
        self,
        recordings: Sequence[TrainingRecording],
        seconds: np.ndarray,
        *,
        targets: Sequence[float],
        references: Sequence[float],
        batch_seconds: float,
        balance: float = 0.5,
        content_versions: int | None = None,
        known_speakers: bool = False,
        weights: np.ndarray | None = None,
    ) -> None:
        self.seconds = seconds
        self.content_versions = len(seconds) if content_versions is None else content_versions
        self.targets, self.references = tuple(targets), tuple(references)
        self.batch_seconds = batch_seconds
        labels = [r.speaker or f"\0{r.utterance_id}" for r in recordings]
        _, speakers = np.unique(labels, return_inverse=True)
        shortest = seconds.min(axis=0)  # a recording must be long enough at every speed
        self.of_speaker = [np.flatnonzero(speakers == s) for s in range(speakers.max() + 1)]
        total = np.array([seconds[0, members].sum() for members in self.of_speaker])
        share = total**balance / total  # of a second of this speaker
        self.chances: dict[tuple[float, float], np.ndarray] = {}
        self.speakers, self.shortest = speakers, shortest
        wanted = np.array([bool(r.speaker) or not known_speakers for r in recordings])
        for target in self.targets:
            for reference in self.references:
                long = shortest >= reference
                others = np.bincount(speakers, weights=long)[speakers] - long > 0
                able = wanted & (shortest >= target) & (others | (shortest >= target + reference))
                chances = np.where(able, shortest * share[speakers], 0.0)
                if weights is not None:
                    chances = chances * weights
                if chances.sum() > 0:
                    self.chances[target, reference] = np.cumsum(chances) / chances.sum()
        if not self.chances:
            raise CorpusError(
                f"no speaker has a recording of {min(self.targets)} s and another of "
                f"{min(self.references)} s; make conversion.targets and references shorter"
            )

    def draw(self, rng: np.random.Generator) -> Draw:
        """One batch."""
        pairs = list(self.chances)
        target_seconds, reference_seconds = pairs[rng.integers(len(pairs))]
        chances = self.chances[target_seconds, reference_seconds]
        size = max(1, round(self.batch_seconds / target_seconds))
        target = np.searchsorted(chances, rng.random(size), side="right")
        target = np.minimum(target, len(chances) - 1)
        version = rng.integers(len(self.seconds), size=size)
        content_version = rng.integers(self.content_versions, size=size)
        length = self.seconds[version, target]
        target_start = rng.random(size) * np.maximum(length - target_seconds, 0)
        reference = np.empty_like(target)
        reference_start = np.empty(size)
        for i, recording in enumerate(target):
            members = self.of_speaker[self.speakers[recording]]
            others = members[(members != recording) & (self.shortest[members] >= reference_seconds)]
            if len(others):
                reference[i] = others[rng.integers(len(others))]
                room = self.seconds[version[i], reference[i]] - reference_seconds
                reference_start[i] = rng.random() * max(room, 0)
            else:
                reference[i] = recording
                target_start[i], reference_start[i] = _apart(
                    rng, length[i], target_seconds, reference_seconds
                )
        return Draw(
            version,
            content_version,
            target,
            target_start,
            target_seconds,
            reference,
            reference_start,
            reference_seconds,
        )


def _apart(
    rng: np.random.Generator, length: float, first: float, second: float
) -> tuple[float, float]:
    """Starts of two parts of one recording, in either order, that do not overlap."""
    room = max(length - first - second, 0)
    early, late = np.sort(rng.random(2)) * room
    if rng.random() < 0.5:
        return early, late + first
    return late + second, early


class CropSampler:
    """Draws single crops: for the voiceprint, the vocoder and the codec.

    Args:
        recordings: all of them.
        seconds: how long each is at each speed, (speeds, recordings).
        crop_seconds: of every crop.
        size: crops in a batch.
        balance: see `PairSampler`.
        known_speakers: leave out recordings without a speaker.
        weights: see `PairSampler`.

    Raises:
        CorpusError: if no recording is long enough.
    """

    def __init__(
        self,
        recordings: Sequence[TrainingRecording],
        seconds: np.ndarray,
        *,
        crop_seconds: float,
        size: int,
        balance: float = 1.0,
        known_speakers: bool = False,
        weights: np.ndarray | None = None,
    ) -> None:
        self.seconds, self.crop_seconds, self.size = seconds, crop_seconds, size
        labels = [r.speaker or f"\0{r.utterance_id}" for r in recordings]
        self.names, self.speakers = np.unique(labels, return_inverse=True)
        total = np.bincount(self.speakers, weights=seconds[0])
        share = (total**balance / total)[self.speakers]
        able = seconds.min(axis=0) >= crop_seconds
        if known_speakers:
            able &= np.array([bool(r.speaker) for r in recordings])
        chances = np.where(able, seconds[0] * share, 0.0)
        if weights is not None:
            chances = chances * weights
        if not chances.sum() > 0:
            raise CorpusError(f"no recording is {crop_seconds:g} s long; make the crops shorter")
        self.chances = np.cumsum(chances) / chances.sum()

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Versions (B,), recordings (B,), and starts in seconds (B,)."""
        recording = np.searchsorted(self.chances, rng.random(self.size), side="right")
        recording = np.minimum(recording, len(self.chances) - 1)
        version = rng.integers(len(self.seconds), size=self.size)
        room = self.seconds[version, recording] - self.crop_seconds
        return version, recording, rng.random(self.size) * np.maximum(room, 0)


def by_length(waves: Sequence[np.ndarray], samples: float) -> Iterator[list[int]]:
    """Indices of waves in batches of at most `samples` padded samples, longest first."""
    order = sorted(range(len(waves)), key=lambda i: -len(waves[i]))
    batch: list[int] = []
    for i in order:
        if batch and len(waves[batch[0]]) * (len(batch) + 1) > samples:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch

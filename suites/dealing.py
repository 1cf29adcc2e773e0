"""Gives each speaker's recordings their parts in trials, and pairs speakers evenly.

A speaker's recordings are dealt once: a reference or target is never a source or enrolment.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm

from bench.errors import UserError
from bench.trials import Trial, Utterance
from suites.corpora.table import CorpusRecording

SHORTEST_SOURCE, LONGEST_SOURCE = 2.0, 15.0  # seconds
ENROLMENTS = 3  # recordings of a target that SECS compares with
SHORTEST_ENROLMENT = 2.0  # seconds
LENGTH_CLASSES = ("short", "medium", "long")  # thirds of the corpus's sources by duration


@dataclass(frozen=True)
class DealtSpeaker:
    """One speaker's recordings, each with its part.

    Attributes:
        name: the speaker's name in the corpus.
        gender: F or M, or "" where the corpus does not say.
        reference: recordings whose joined duration is what the protocol asks for.
        target: one more recording, for the ceiling row.
        enrolment: other recordings, which SECS compares with.
        sources: length class → recordings that may be a source; enrolment recordings may be too.
        split: the part of the corpus.
        language: "en", "zh", …; "" where the corpus does not say.
    """

    name: str
    gender: str
    reference: tuple[Utterance, ...]
    target: Utterance
    enrolment: tuple[Utterance, ...]
    sources: Mapping[str, tuple[Utterance, ...]]
    split: str
    language: str = ""

    def others_than(self, source: Utterance) -> tuple[Utterance, ...]:
        """Recordings of this speaker that are not `source`, the same wherever possible."""
        if source not in self.enrolment:
            return self.enrolment  # one tuple for all: lists may have a million trials
        return tuple(u for u in (*self.enrolment, self.target) if u != source)[:ENROLMENTS]


def by_speaker(recordings: Sequence[CorpusRecording]) -> dict[str, list[CorpusRecording]]:
    """Speaker → recordings from long to short; speakers sorted by name."""
    groups: dict[str, list[CorpusRecording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.speaker].append(recording)
    return {
        name: sorted(groups[name], key=lambda r: (-r.seconds, r.utterance.utterance_id))
        for name in sorted(groups)
    }


def deal(
    recordings: Sequence[CorpusRecording],
    rng: random.Random,
    *,
    reference_seconds: float,
    source: Callable[[CorpusRecording], bool] = lambda _: True,
    reference: Callable[[CorpusRecording], bool] = lambda _: True,
) -> list[DealtSpeaker]:
    """The speakers who have enough recordings, sorted by name.

    The reference is a speaker's longest recordings until their durations add up to
    `reference_seconds`. The target is the next longest. The rest is shuffled.

    Args:
        recordings: a corpus.
        rng: of the shuffles.
        reference_seconds: least duration of the joined reference.
        source: which recordings may be a source.
        reference: which recordings may be reference, target or enrolment.

    Raises:
        UserError: if no speaker has enough.
    """
    groups = by_speaker(recordings)
    bounds = _bounds([r.seconds for r in recordings if _usable(r) and source(r)])
    speakers = []
    for name, longest_first in groups.items():
        speaker = _speaker(name, longest_first, rng, reference_seconds, source, reference, bounds)
        if speaker is not None:
            speakers.append(speaker)
    if not speakers:
        raise UserError(
            f"none of {len(groups)} speakers has {reference_seconds:g} s of reference, a "
            f"target, {ENROLMENTS} enrolment recordings and a source of {SHORTEST_SOURCE:g} to "
            f"{LONGEST_SOURCE:g} s"
        )
    return speakers


def _speaker(
    name: str,
    longest_first: Sequence[CorpusRecording],
    rng: random.Random,
    reference_seconds: float,
    source: Callable[[CorpusRecording], bool],
    reference: Callable[[CorpusRecording], bool],
    bounds: tuple[float, float],
) -> DealtSpeaker | None:
    """The speaker's recordings with their parts, or None where there are too few."""
    chain: list[CorpusRecording] = []
    seconds = 0.0
    for recording in filter(reference, longest_first):
        if seconds >= reference_seconds:
            break
        chain.append(recording)
        seconds += recording.seconds
    left = [r for r in longest_first if r not in chain]
    candidates = [r for r in left if reference(r)]
    if seconds < reference_seconds or len(candidates) < 1 + ENROLMENTS:
        return None
    target = candidates[0]
    others = [r for r in left if r is not target]
    rng.shuffle(others)
    enrolment = [r for r in others if reference(r) and r.seconds >= SHORTEST_ENROLMENT][
        -ENROLMENTS:
    ]
    sources: dict[str, list[Utterance]] = {c: [] for c in LENGTH_CLASSES}
    for recording in others:
        if _usable(recording) and source(recording):
            sources[_class(recording.seconds, bounds)].append(recording.utterance)
    if len(enrolment) < ENROLMENTS or not any(sources.values()):
        return None
    return DealtSpeaker(
        name,
        longest_first[0].utterance.gender,
        tuple(r.utterance for r in chain),
        target.utterance,
        tuple(r.utterance for r in enrolment),
        {c: tuple(utterances) for c, utterances in sources.items()},
        longest_first[0].split,
        longest_first[0].language,
    )


def _usable(recording: CorpusRecording) -> bool:
    return SHORTEST_SOURCE <= recording.seconds <= LONGEST_SOURCE


def _bounds(seconds: Sequence[float]) -> tuple[float, float]:
    """The two durations that split the list into thirds."""
    ordered = sorted(seconds) or [0.0]
    return ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]


def _class(seconds: float, bounds: tuple[float, float]) -> str:
    return LENGTH_CLASSES[sum(seconds >= bound for bound in bounds)]


def even_pairs(
    sources: Sequence[DealtSpeaker], targets: Sequence[DealtSpeaker], rng: random.Random
) -> Iterator[tuple[DealtSpeaker, DealtSpeaker]]:
    """An endless stream of pairs; every prefix is balanced over sources and targets.

    One list is rotated against the other by one offset after another, in random order. Within one
    offset every source has equally many trials, and so has every target. No pair is repeated before
    all have occurred. Where both lists have the same speakers, nobody is paired with themselves.

    Raises:
        UserError: if there is no pair of two different speakers.
    """
    a, b = rng.sample(list(sources), len(sources)), rng.sample(list(targets), len(targets))
    if {s.name for s in a} == {s.name for s in b}:
        b = a
    block = lcm(len(a), len(b))
    offsets = list(range(len(a) * len(b) // block))
    if all(a[i % len(a)].name == b[i % len(b)].name for i in range(block)):
        offsets = offsets[1:]
    if not offsets:
        raise UserError("a list of trials needs at least two speakers")
    while True:
        for offset in rng.sample(offsets, len(offsets)):
            for i in range(block):
                source, target = a[i % len(a)], b[(i + offset) % len(b)]
                if source.name != target.name:
                    yield source, target


class SourceQueue:
    """Hands out each speaker's source recordings in turn, one length class after another."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = defaultdict(int)
        self._class: dict[tuple[str, str], int] = defaultdict(int)

    def next(
        self, cell: str, source: DealtSpeaker, *targets: DealtSpeaker
    ) -> tuple[Utterance, str]:
        """The next source recording for `targets`, and its length class.

        Within a cell each speaker's trials go through the classes in turn, so that every cell has
        equally many of each. A recording with the same words as a reference is skipped.

        Raises:
            UserError: if every recording has the same words as a reference.
        """
        key = cell, source.name
        first = self._class[key] + sum(map(ord, source.name))
        self._class[key] += 1
        names = [LENGTH_CLASSES[(first + i) % 3] for i in range(3)]
        length = next(name for name in names if source.sources[name])
        reference_texts = {_words(u.text) for target in targets for u in target.reference}
        pool = source.sources[length]
        turn = self._used[source.name, length]
        for i in range(len(pool)):
            utterance = pool[(turn + i) % len(pool)]
            if _words(utterance.text) not in reference_texts:
                self._used[source.name, length] = turn + i + 1
                return utterance, length
        names = [target.name for target in targets]
        raise UserError(f"every source of {source.name} says what a reference of {names} says")


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def make_trial(
    trial_id: str,
    utterance: Utterance,
    source: DealtSpeaker,
    target: DealtSpeaker,
    reference_seconds: float | None,
    factors: Mapping[str, str],
) -> Trial:
    """The trial that converts `utterance` of `source` to the voice of `target`."""
    return Trial(
        re.sub(r"[^A-Za-z0-9_.+-]", "_", trial_id)[:120],
        utterance,
        target.reference,
        target.enrolment,
        source.others_than(utterance),
        target.target,
        reference_seconds,
        _shared(tuple(factors.items())),
    )


@lru_cache(maxsize=4096)
def _shared(factors: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """One mapping for all trials that have these factors."""
    return dict(factors)

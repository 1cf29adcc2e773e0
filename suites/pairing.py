"""Who plays which part: the recordings of each speaker dealt out, and speakers paired evenly."""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import UserError
from bench.trials import Trial, Utterance
from suites.corpora.table import Recording


@dataclass(frozen=True)
class Speaker:
    """One speaker's recordings, dealt out so that no recording plays two parts in one trial.

    Attributes:
        reference: the longest: gives the voice.
        reference_seconds: its duration.
        target: the second longest: the ceiling row.
        enrolment: three others, the same in every trial: what SECS compares with.
        sources: all others and the enrolment ones, in the order in which they are used as sources.
    """

    name: str
    gender: str
    split: str
    reference: Utterance
    reference_seconds: float
    target: Utterance
    enrolment: tuple[Utterance, ...]
    sources: tuple[Utterance, ...]

    def others_than(self, source: Utterance) -> tuple[Utterance, ...]:
        """Three recordings of this speaker that are not `source`, the same wherever possible."""
        return tuple(u for u in (*self.enrolment, self.target) if u != source)[:3]


def deal(recordings: Sequence[Recording], rng: random.Random) -> list[Speaker]:
    """The speakers of a corpus, sorted by name.

    Raises:
        UserError: if a speaker has fewer than 6 recordings (1 reference, 1 target, 3 enrolment and
            a source that is none of them).
    """
    by_speaker = defaultdict(list)
    for recording in recordings:
        by_speaker[recording.speaker].append(recording)
    speakers = []
    for name in sorted(by_speaker):
        own = sorted(by_speaker[name], key=lambda r: (-r.seconds, r.utterance.utterance_id))
        if len(own) < 6:
            raise UserError(
                f"speaker {name} has {len(own)} recordings; a trial list needs 6 of each"
            )
        reference, target, *rest = own
        others = [r.utterance for r in rest]
        rng.shuffle(others)
        speakers.append(
            Speaker(
                name,
                reference.utterance.gender,
                reference.split,
                reference.utterance,
                reference.seconds,
                target.utterance,
                enrolment=tuple(others[-3:]),
                sources=tuple(others),
            )
        )
    return speakers


def pair_evenly(
    sources: Sequence[Speaker], targets: Sequence[Speaker], times: int, rng: random.Random
) -> Iterator[tuple[Speaker, Speaker]]:
    """Pairs in which every source and every target appears `times` times and no pair twice.

    Both orders are shuffled, then the targets turned against the sources by `times` different
    amounts (a Latin square); where both lists hold the same speakers nobody meets themselves.

    Raises:
        ValueError: if the lists differ in length, or have too few speakers for `times` pairs each.
    """
    if len(sources) != len(targets):
        raise ValueError(
            f"{len(sources)} sources and {len(targets)} targets cannot be paired evenly"
        )
    same = {s.name for s in sources} == {t.name for t in targets}
    turns = list(range(1 if same else 0, len(targets)))
    if times > len(turns):
        raise ValueError(f"{len(targets)} speakers give {len(turns)} pairs each, not {times}")
    order = rng.sample(list(sources), len(sources))
    against = order if same else rng.sample(list(targets), len(targets))
    for turn in sorted(rng.sample(turns, times)):
        for place, source in enumerate(order):
            yield source, against[(place + turn) % len(against)]


class SourceTurns:
    """Hands out each speaker's source recordings in turn, so that all are used about equally."""

    def __init__(self) -> None:
        self._used: dict[str, int] = defaultdict(int)

    def next(self, speaker: Speaker) -> Utterance:
        turn = self._used[speaker.name]
        self._used[speaker.name] += 1
        return speaker.sources[turn % len(speaker.sources)]


def make_trial(
    trial_id: str,
    source: Utterance,
    source_speaker: Speaker,
    target: Speaker,
    reference_seconds: float | None,
    factors: Mapping[str, str] | None = None,
) -> Trial:
    """The trial in which `target`'s voice is to say `source`."""
    return Trial(
        trial_id,
        source,
        (target.reference,),
        target.enrolment,
        source_speaker.others_than(source),
        target.target,
        reference_seconds,
        {"gender_pair": f"{source_speaker.gender}2{target.gender}", **(factors or {})},
    )

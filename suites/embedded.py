"""The three frozen lists over the embedded corpus (`suites/data/mini`).

Their bytes never change. Lists over other corpora are built by `suites.protocols`. These three are
older and simpler: a reference is one recording, sources have no length classes, and pairs are drawn
in another random order.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import chain, cycle
from pathlib import Path

from bench.errors import UserError
from bench.trials import Trial, Utterance
from suites.corpora.table import CorpusRecording, read_csv
from suites.dealing import ENROLMENTS, DealtSpeaker, by_speaker, make_trial

MINI = Path(__file__).parent / "data" / "mini"
CELLS = ("F2F", "F2M", "M2F", "M2M")
ANY_LENGTH = ""  # the only length class
TEST_OTHER = frozenset({"test-other"})  # the speakers that no system was trained on


def embedded_suites() -> dict[str, list[Trial]]:
    """The trials of each frozen list, by its name with its version."""
    recordings = read_csv(MINI / "utterances.csv")
    return {
        "mini_cross_gender.v2": cross_gender(recordings, seed=1, times=2, reference_seconds=5.0),
        "mini_unseen_speakers.v2": unseen_speakers(
            recordings, seed=2, splits=TEST_OTHER, times=3, reference_seconds=5.0
        ),
        "mini_reference_length.v2": reference_length(
            recordings, seed=3, splits=TEST_OTHER, lengths=(1.0, 2.0, 4.0, 8.0)
        ),
    }


def cross_gender(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    times: int,
    reference_seconds: float | None,
) -> list[Trial]:
    """In each cell every speaker of the right gender is source and target `times` times.

    The cells are interleaved, so that the first n trials are balanced too.

    Args:
        recordings: a corpus with as many women as men.
        seed: of the shuffles.
        times: trials of each speaker in each role and cell.
        reference_seconds: duration to which the reference is cut; None for all of it.
    """
    rng = random.Random(seed)
    speakers = _deal(recordings, rng)
    of_gender = {g: [s for s in speakers if s.gender == g] for g in "FM"}
    pairs = [list(_pairs(of_gender[c[0]], of_gender[c[2]], times, rng)) for c in CELLS]
    turns = _source_turns(speakers)
    return [
        make_trial(
            f"{CELLS[number % len(CELLS)]}-{number // len(CELLS):02d}-{source.name}-{target.name}",
            next(turns[source.name]),
            source,
            target,
            reference_seconds,
            _gender_pair(source, target),
        )
        for number, (source, target) in enumerate(chain.from_iterable(zip(*pairs, strict=True)))
    ]


def unseen_speakers(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    splits: frozenset[str],
    times: int,
    reference_seconds: float | None,
) -> list[Trial]:
    """Every speaker of `splits` is source `times` times and target `times` times, no pair twice.

    Args:
        recordings: a corpus.
        seed: of the shuffles.
        splits: the parts of the corpus that nobody trains on, such as {"test-other"}.
        times: trials of each speaker in each role.
        reference_seconds: duration to which the reference is cut; None for all of it.
    """
    rng = random.Random(seed)
    speakers = _deal([r for r in recordings if r.split in splits], rng)
    turns = _source_turns(speakers)
    return [
        make_trial(
            f"U-{number:02d}-{source.name}-{target.name}",
            next(turns[source.name]),
            source,
            target,
            reference_seconds,
            {**_gender_pair(source, target), "split": target.split},
        )
        for number, (source, target) in enumerate(_pairs(speakers, speakers, times, rng))
    ]


def reference_length(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    splits: frozenset[str],
    lengths: Sequence[float],
) -> list[Trial]:
    """Every speaker of `splits` is source once and target once, at each of `lengths` seconds.

    The shorter references are prefixes of the longer ones and the enrolment stays the same: within
    a pair only the length varies.

    Raises:
        UserError: if a speaker's reference is shorter than the longest of `lengths`.
    """
    rng = random.Random(seed)
    recordings = [r for r in recordings if r.split in splits]
    for reference, *_ in by_speaker(recordings).values():
        if reference.seconds < max(lengths):
            raise UserError(
                f"{reference.utterance.utterance_id} lasts {reference.seconds} s, "
                f"but a reference of {max(lengths)} s is asked for"
            )
    speakers = _deal(recordings, rng)
    turns = _source_turns(speakers)
    return [
        make_trial(
            f"L-{number:02d}-{source.name}-{target.name}-{seconds:g}s",
            utterance,
            source,
            target,
            seconds,
            {**_gender_pair(source, target), "reference_seconds": f"{seconds:g}"},
        )
        for number, (source, target) in enumerate(_pairs(speakers, speakers, 1, rng))
        for utterance in [next(turns[source.name])]
        for seconds in lengths
    ]


def _deal(recordings: Sequence[CorpusRecording], rng: random.Random) -> list[DealtSpeaker]:
    """The speakers sorted by name: longest recording reference, next target, the rest shuffled.

    Raises:
        UserError: if a speaker has fewer than 6 recordings (1 reference, 1 target, 3 enrolment and
            a source that is none of them).
    """
    speakers = []
    for name, longest_first in by_speaker(recordings).items():
        if len(longest_first) < 6:
            raise UserError(
                f"speaker {name} has {len(longest_first)} recordings; a trial list needs 6 of each"
            )
        reference, target, *rest = longest_first
        others = [r.utterance for r in rest]
        rng.shuffle(others)
        speakers.append(
            DealtSpeaker(
                name,
                reference.utterance.gender,
                (reference.utterance,),
                target.utterance,
                tuple(others[-ENROLMENTS:]),
                {ANY_LENGTH: tuple(others)},
                reference.split,
            )
        )
    return speakers


def _pairs(
    sources: Sequence[DealtSpeaker], targets: Sequence[DealtSpeaker], times: int, rng: random.Random
) -> Iterator[tuple[DealtSpeaker, DealtSpeaker]]:
    """Pairs in which every source and every target occurs `times` times and no pair twice.

    Both orders are shuffled, then the targets are rotated against the sources by `times` different
    offsets (a Latin square). Where both lists have the same speakers, nobody is paired with
    themselves.

    Raises:
        ValueError: if the lists differ in length, or have too few speakers for `times` pairs each.
    """
    if len(sources) != len(targets):
        raise ValueError(
            f"{len(sources)} sources and {len(targets)} targets cannot be paired evenly"
        )
    same = {s.name for s in sources} == {t.name for t in targets}
    offsets = list(range(1 if same else 0, len(targets)))
    if times > len(offsets):
        raise ValueError(f"{len(targets)} speakers give {len(offsets)} pairs each, not {times}")
    order = rng.sample(list(sources), len(sources))
    against = order if same else rng.sample(list(targets), len(targets))
    for offset in sorted(rng.sample(offsets, times)):
        for index, source in enumerate(order):
            yield source, against[(index + offset) % len(against)]


def _source_turns(speakers: Sequence[DealtSpeaker]) -> dict[str, Iterator[Utterance]]:
    """Speaker → source recordings, over and over, so that all are used about equally."""
    return {speaker.name: cycle(speaker.sources[ANY_LENGTH]) for speaker in speakers}


def _gender_pair(source: DealtSpeaker, target: DealtSpeaker) -> dict[str, str]:
    return {"gender_pair": f"{source.gender}2{target.gender}"}

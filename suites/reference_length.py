"""Reference length: the same source and reference, of which the system hears more and more."""

import random
from collections.abc import Sequence

from bench.errors import UserError
from bench.trials import Trial
from suites.corpora.table import Recording
from suites.pairing import SourceTurns, deal, make_trial, pair_evenly


def build(
    recordings: Sequence[Recording],
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
    speakers = deal([r for r in recordings if r.split in splits], rng)
    for speaker in speakers:
        if speaker.reference_seconds < max(lengths):
            raise UserError(
                f"{speaker.reference.utterance_id} lasts {speaker.reference_seconds} s, "
                f"but a reference of {max(lengths)} s is asked for"
            )
    turns = SourceTurns()
    return [
        make_trial(
            f"L-{number:02d}-{source.name}-{target.name}-{seconds:g}s",
            utterance,
            source,
            target,
            seconds,
            {"reference_seconds": f"{seconds:g}"},
        )
        for number, (source, target) in enumerate(pair_evenly(speakers, speakers, 1, rng))
        for utterance in [turns.next(source)]
        for seconds in lengths
    ]

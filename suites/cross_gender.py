"""Cross-gender: F2F, F2M, M2F and M2M in equal numbers, balanced over speakers."""

import random
from collections.abc import Sequence
from itertools import chain

from bench.trials import Trial
from suites.corpora.table import Recording
from suites.pairing import SourceTurns, deal, make_trial, pair_evenly

CELLS = ("F2F", "F2M", "M2F", "M2M")


def build(
    recordings: Sequence[Recording], *, seed: int, times: int, reference_seconds: float | None
) -> list[Trial]:
    """In each cell every speaker of the right gender is source and target `times` times.

    The cells are interleaved, so that the first n trials are balanced too.

    Args:
        recordings: a corpus with as many women as men.
        seed: of the shuffles.
        times: trials of each speaker in each role and cell.
        reference_seconds: how much of the reference the system hears; None for all.
    """
    rng = random.Random(seed)
    speakers = deal(recordings, rng)
    of_gender = {g: [s for s in speakers if s.gender == g] for g in "FM"}
    pairs = [list(pair_evenly(of_gender[c[0]], of_gender[c[2]], times, rng)) for c in CELLS]
    turns = SourceTurns()
    return [
        make_trial(
            f"{CELLS[number % len(CELLS)]}-{number // len(CELLS):02d}-{source.name}-{target.name}",
            turns.next(source),
            source,
            target,
            reference_seconds,
        )
        for number, (source, target) in enumerate(chain.from_iterable(zip(*pairs, strict=True)))
    ]

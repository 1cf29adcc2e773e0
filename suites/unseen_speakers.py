"""Unseen speakers: only speakers that no system was trained on, each as source and as target."""

import random
from collections.abc import Sequence

from bench.trials import Trial
from suites.corpora.table import Recording
from suites.pairing import SourceTurns, deal, make_trial, pair_evenly


def build(
    recordings: Sequence[Recording],
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
        reference_seconds: how much of the reference the system hears; None for all.
    """
    rng = random.Random(seed)
    speakers = deal([r for r in recordings if r.split in splits], rng)
    turns = SourceTurns()
    return [
        make_trial(
            f"U-{number:02d}-{source.name}-{target.name}",
            turns.next(source),
            source,
            target,
            reference_seconds,
            {"split": target.split},
        )
        for number, (source, target) in enumerate(pair_evenly(speakers, speakers, times, rng))
    ]

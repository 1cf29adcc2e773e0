"""Simulates how often `bench.callback` stops a training whose model does not change in quality.

    python -m benchmarks.programs.false_stops [--trainings 100] [--calls 30]

All calls of a training have the same true SECS. Their values differ by noise of trials (standard
deviation 0.015) and of speakers (0.003), as between checkpoints. The margin is 0.02.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from bench.callback import BEST, FIRST, is_better
from bench.stats.gate import REGRESSION, Rules, decide
from tests.support.made_up import scores, side
from tests.support.simulation import ring

RULES = Rules({"secs": 0.02})
DESIGNS = {16: ring(8, 2), 72: ring(18, 4)}
IN_A_ROW = (1, 2, 3)


def training(rng: np.random.Generator, trials: int, calls: int, against: str) -> list[bool]:
    """Whether each call after the first was a regression."""
    source, target = design = DESIGNS[trials]
    speakers = target.max() + 1
    base = 0.7 + 0.05 * rng.normal(size=trials) + 0.05 * rng.normal(size=speakers)[target]
    baseline, regressions = None, []
    for call in range(calls):
        noise = 0.015 * rng.normal(size=trials) + 0.003 * rng.normal(size=speakers)[source]
        candidate = side(f"step_{call}", scores("a", base + noise, design=design))
        if baseline is None:
            baseline = candidate
            continue
        decision = decide(baseline, candidate, RULES)
        regressions.append(decision.outcome == REGRESSION)
        if against == BEST and is_better(decision):
            baseline = candidate
    return regressions


def stopped(regressions: Sequence[bool], in_a_row: int) -> bool:
    """Whether so many regressions follow each other."""
    text = "".join("x" if regression else "." for regression in regressions)
    return "x" * in_a_row in text


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--calls", type=int, default=30)
    given = parser.parse_args(arguments)
    heads = "  ".join(f"stop_after={n}" for n in IN_A_ROW)
    print(f"trials  against  regressions  {heads}")
    for trials in DESIGNS:
        for against in (BEST, FIRST):
            rng = np.random.default_rng(0)
            outcomes = [training(rng, trials, given.calls, against) for _ in range(given.trainings)]
            rates = [np.mean([stopped(o, n) for o in outcomes]) for n in IN_A_ROW]
            shown = "  ".join(f"{rate:12.0%}" for rate in rates)
            print(f"{trials:6}  {against:7}  {np.mean(outcomes):11.1%}  {shown}", flush=True)


if __name__ == "__main__":
    main()

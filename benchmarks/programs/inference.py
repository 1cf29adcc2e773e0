"""Checks the promises of the statistics by simulation at full size.

    python -m benchmarks.programs.inference [PART]

coverage    how often 95% intervals cover a known truth, over designs from the smallest that gets an
            interval to a large one: by `bench.stats.crossed`, by the bare crossed bootstrap and by
            a plain bootstrap over trials. Scores have effects of the source speaker, of the target
            speaker and of the single trial, whose standard deviations are printed.
difference  how often the paired test at 5% detects a difference between two equal systems.
components  the variance components that are estimated where known ones were planted.
gate        the decisions of the gate on candidates worse by half and by twice its margin.
speed       10,000 resamples over 100,000 trials x 10 systems x 5 metrics: seconds and memory.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd

from bench.stats.crossed import Crossed
from bench.stats.gate import Rules, decide
from bench.stats.pooling import Measured, summarise
from tests.support.made_up import scores, side
from tests.support.simulation import covered, drawn, grid, ring

EFFECTS = ((1, 1, 1), (1, 0.2, 0.5), (0.2, 1, 0.5), (0.3, 0.3, 1), (0, 0, 1))


DESIGNS = {
    "8 speakers, 16 trials": ring(8, 2),
    "18 speakers, 72 trials": ring(18, 4),
    "4 x 4, full": grid(4, 4),
    "10 x 10, full": grid(10, 10),
    "40 x 12, 30%": grid(40, 12, 0.3),
    "100 x 12, full": grid(100, 12),
    "40 x 40, 20%": grid(40, 40, 0.2),
}


def coverage(simulations: int = 1000) -> None:
    rng = np.random.default_rng(0)
    print(f"{'design':24}{'source, target, trial':24}{'ours':>8}{'crossed':>9}{'trials':>8}")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS:
            shares = covered(source, target, drawn(source, target, effects, simulations, rng))
            row = "".join(f"{100 * share:8.1f}%" for share in shares.values())
            print(f"{name:24}{', '.join(map(str, effects)):22}{row}", flush=True)


def difference(simulations: int = 1000) -> None:
    rng = np.random.default_rng(0)
    pairs = np.hstack([-np.eye(simulations), np.eye(simulations)])
    print(f"{'design':24}{'source, target, trial':24}  found at 5%")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS[:4]:
            shared = drawn(source, target, (1, 1, 1), simulations, rng)
            sides = [shared + drawn(source, target, effects, simulations, rng) for _ in range(2)]
            values = np.hstack(sides)
            found = Crossed(source, target, 2000).contrasts(values, np.ones_like(values), pairs)
            share = np.mean([e.p_of_no_difference() < 0.05 for e in found])
            print(f"{name:24}{', '.join(map(str, effects)):22}{100 * share:10.1f}%", flush=True)


def components(simulations: int = 300) -> None:
    rng = np.random.default_rng(0)
    print(f"{'design':24}{'planted variances':24}found on average")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS[:4]:
            crossed = Crossed(source, target)
            values = drawn(source, target, effects, simulations, rng)
            parts = [crossed.components(v) for v in values.T]
            found = np.mean([[p.source, p.target, p.trial] for p in parts], axis=0)
            planted = ", ".join(f"{e**2:g}" for e in effects)
            print(f"{name:24}{planted:24}{', '.join(f'{v:.2f}' for v in found)}", flush=True)


def gate(simulations: int = 400) -> None:
    rng = np.random.default_rng(0)
    source, target = ring(18, 4)
    rules = Rules({"secs": 0.02})
    print("worse by (margins)   pass   regression   undecided")
    for share in (-1.0, 0.0, 0.5, 1.0, 2.0):
        counts = dict.fromkeys(("pass", "regression", "undecided"), 0)
        for _ in range(simulations):
            base = 0.6 + drawn(source, target, (0, 0.05, 0.05), 1, rng)[:, 0]
            noise = drawn(source, target, (0.003, 0, 0.015), 1, rng)[:, 0]
            old, new = (scores("a", v) for v in (base, base - share * 0.02 + noise))
            counts[decide(side("old", old), side("new", new), rules).outcome] += 1
        shares = "".join(f"{100 * n / simulations:11.1f}%" for n in counts.values())
        print(f"{share:16.1f}{shares}", flush=True)


def speed(trials: int = 100_000, speakers: int = 500) -> None:
    rng = np.random.default_rng(0)
    one = pd.DataFrame(
        {
            "suite": "s",
            "trial_id": [f"t{i}" for i in range(trials)],
            "status": "ok",
            "source_speaker": rng.integers(0, speakers, trials).astype(str),
            "target_speaker": rng.integers(0, speakers, trials).astype(str),
            "elapsed_seconds": np.nan,
            "audio_seconds": np.nan,
        }
    )
    tables = []
    for system in range(10):
        own = {f"j.{c}": rng.normal(0.6, 0.1, trials) for c in ("secs", "utmos", "ovrl", "sig")}
        own |= {"j.word_errors": rng.poisson(1, trials), "j.words": rng.integers(5, 30, trials)}
        tables.append(one.assign(system=f"s{system}", **own))
    scores = pd.concat(tables, ignore_index=True)
    # Some trials failed, others in each system.
    measured = [c for c in scores.columns if c.startswith("j.")]
    scores.loc[rng.random(len(scores)) < 0.001, measured] = np.nan
    judges = {"j": Measured(("secs", "utmos", "dnsmos_ovrl", "dnsmos_sig", "wer"))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    rows = summarise(scores, judges, {})
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{int((rows['n'] > 0).sum())} intervals over {trials} trials of {speakers} speakers:")
    print(f"{seconds:.1f} s, at most {after:.2f} GB ({before:.2f} GB before)")


PARTS = {f.__name__: f for f in (coverage, difference, components, gate, speed)}

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print((__doc__ or "").strip())
        sys.exit()
    if unknown := set(sys.argv[1:]) - PARTS.keys():
        sys.exit(f"error: no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    for part in sys.argv[1:] or PARTS:
        print(f"\n{part}")
        PARTS[part]()

"""Tests intervals, paired tests, variance components and the gate by simulation at full size.

    python -m benchmarks.programs.inference [PART]

coverage    how often 95% intervals cover a known truth, over designs from the smallest that gets an
            interval to a large one: by `bench.stats.crossed`, by two-way cluster-robust errors
            (Cameron, Gelbach and Miller 2011), by the bare crossed bootstrap and by a plain
            bootstrap over trials. Scores have effects of the source speaker, of the target speaker
            and of the single trial, whose standard deviations are printed.
rates       the same for word error rates that few speakers and trials hold most of (see
            `tests.support.simulation.WordErrors`), for their differences between two systems, and,
            in the same designs, for a similarity and for a share. "mean's" are intervals of the
            shape that other metrics have; width is the median width of ours over theirs.
difference  how often the paired test at 5% detects a difference between two equal systems.
components  the mean estimate of known variance components.
gate        the decisions of the gate on candidates worse by half and by twice its margin.
speed       10,000 resamples over 100,000 trials x 10 systems x 5 metrics: seconds and memory.
"""

import resource
import sys
import time
from statistics import NormalDist

import numpy as np
import pandas as pd

from bench.stats.crossed import Crossed
from bench.stats.gate import Rules, decide
from bench.stats.pooling import Measured, summarise
from tests.support.made_up import scores, side
from tests.support.simulation import (
    WordErrors,
    contains,
    covered,
    drawn,
    grid,
    intervals,
    ring,
    scattered,
)

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

# The shape of the intervals of rates was chosen on the first five, with other seeds.
RATE_DESIGNS = {
    "5 x 5, 25 trials": grid(5, 5),
    "10 x 10, 24 trials": scattered(10, 10, 24),
    "6 x 12, 72 trials": grid(6, 12),
    "100 x 12, 1200 trials": grid(100, 12),
    "40 x 40, 400 trials": scattered(40, 40, 400),
    "18 speakers, 72 trials": ring(18, 4),
    "8 speakers, 16 trials": ring(8, 2),
    "20 x 20, 100 trials": scattered(20, 20, 100),
}
BLOCK = 250  # simulations at a time
RATES = {
    "WER": WordErrors(),
    "WER, milder": WordErrors((0.05,), part=(0.2, 0.8)),
    "difference, equal": WordErrors((0.1, 0.1), (0.04, 0.04)),
    "difference, double": WordErrors((0.05, 0.1), (0.02, 0.04)),
    "difference, bursts": WordErrors((0.1, 0.1), (0.0, 0.04)),
}


def coverage(simulations: int = 1000) -> None:
    """Prints the shares of 95% intervals that contain the truth; see the module."""
    rng = np.random.default_rng(0)
    methods = "".join(f"{name:>9}" for name in ("ours", "two-way", "crossed", "trials"))
    print(f"{'design':24}{'source, target, trial':22}{methods}")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS:
            shares = covered(source, target, drawn(source, target, effects, simulations, rng))
            row = "".join(f"{100 * share:8.1f}%" for share in shares.values())
            print(f"{name:24}{', '.join(map(str, effects)):22}{row}", flush=True)


def rates(simulations: int = 2000) -> None:
    """Prints coverage and width for heavy-tailed rates and for other metrics; see the module."""
    rng = np.random.default_rng(2)
    print(f"{'design':24}{'metric':20}{'ours':>8}  width", end="")
    print("".join(f"{name:>9}" for name in ("mean's", "two-way", "crossed", "trials")))
    share_truth = NormalDist(0, np.sqrt(1 + 2 * 0.4**2)).cdf(0.9)
    for name, (source, target) in RATE_DESIGNS.items():
        ones = np.ones((len(source), BLOCK))
        for metric in (*RATES, "similarity", "share"):
            blocks = []
            for _ in range(simulations // BLOCK):
                if metric in RATES:
                    errors, words = RATES[metric].drawn(source, target, BLOCK, rng)
                    blocks.append(intervals(source, target, errors, words, unbounded=True))
                elif metric == "similarity":
                    values = drawn(source, target, (0.5, 1, 1), BLOCK, rng)
                    blocks.append(intervals(source, target, values[None], ones))
                else:
                    values = drawn(source, target, (0.4, 0.4, 1), BLOCK, rng) < 0.9
                    blocks.append(intervals(source, target, values[None].astype(float), ones))
            bounds = {method: np.concatenate([b[method] for b in blocks]) for method in blocks[0]}
            truth = share_truth if metric == "share" else 0.0
            if metric in RATES:
                truths = RATES[metric].truths
                truth = float(truths[-1] - truths[0]) if len(truths) > 1 else float(truths[0])
                if len(truths) == 1:
                    bounds = {method: np.maximum(of, 0) for method, of in bounds.items()}
            ours, *others = (f"{100 * contains(of, truth):8.1f}%" for of in bounds.values())
            width = np.median(np.diff(bounds["ours"])) / np.median(np.diff(bounds["mean's"]))
            print(f"{name:24}{metric:20}{ours}{width:7.2f}{''.join(others)}", flush=True)


def difference(simulations: int = 1000) -> None:
    """Prints how often equal systems differ at 5%; see the module."""
    rng = np.random.default_rng(0)
    pairs = np.hstack([-np.eye(simulations), np.eye(simulations)])
    print(f"{'design':24}{'source, target, trial':24}  found at 5%")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS[:4]:
            shared = drawn(source, target, (1, 1, 1), simulations, rng)
            sides = [shared + drawn(source, target, effects, simulations, rng) for _ in range(2)]
            values = np.hstack(sides)
            estimates = Crossed(source, target, 2000).contrasts(values, np.ones_like(values), pairs)
            share = np.mean([e.p_of_no_difference() < 0.05 for e in estimates])
            print(f"{name:24}{', '.join(map(str, effects)):22}{100 * share:10.1f}%", flush=True)


def components(simulations: int = 300) -> None:
    """Prints planted and estimated variance components; see the module."""
    rng = np.random.default_rng(0)
    print(f"{'design':24}{'planted variances':24}found on average")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS[:4]:
            crossed = Crossed(source, target)
            values = drawn(source, target, effects, simulations, rng)
            parts = [crossed.components(v) for v in values.T]
            estimated = np.mean([[p.source, p.target, p.trial] for p in parts], axis=0)
            planted = ", ".join(f"{e**2:g}" for e in effects)
            print(f"{name:24}{planted:24}{', '.join(f'{v:.2f}' for v in estimated)}", flush=True)


def gate(simulations: int = 400) -> None:
    """Prints how often the gate takes each decision; see the module."""
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
    """Prints seconds and memory of a large summary; see the module."""
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
        judged = {f"j.{c}": rng.normal(0.6, 0.1, trials) for c in ("secs", "utmos", "ovrl", "sig")}
        judged |= {"j.word_errors": rng.poisson(1, trials), "j.words": rng.integers(5, 30, trials)}
        tables.append(one.assign(system=f"s{system}", **judged))
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


PARTS = {f.__name__: f for f in (coverage, rates, difference, components, gate, speed)}

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print((__doc__ or "").strip())
        sys.exit()
    if unknown := set(sys.argv[1:]) - PARTS.keys():
        sys.exit(f"error: no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    for part in sys.argv[1:] or PARTS:
        print(f"\n{part}")
        PARTS[part]()

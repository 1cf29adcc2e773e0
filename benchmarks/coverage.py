"""How often 95% intervals cover a known truth: `python -m benchmarks.coverage [simulations]`.

Scores are drawn with effects of the source speaker, of the target speaker and of the single trial
(their standard deviations stand in the second column), over designs from the smallest that gets
an interval to a large one. Printed: the share of simulations whose interval holds the truth, by
`bench.bootstrap`, by the bare crossed bootstrap and by a plain bootstrap over trials.
"""

import sys

import numpy as np

from bench.bootstrap import Crossed

EFFECTS = ((1, 1, 1), (1, 0.2, 0.5), (0.2, 1, 0.5), (0.3, 0.3, 1), (0, 0, 1))


def ring(speakers: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Each of `speakers` a source and a target of `each` trials: how the embedded suites are."""
    source = np.repeat(np.arange(speakers), each)
    return source, (source + 1 + np.tile(np.arange(each), speakers)) % speakers


def grid(sources: int, targets: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Every source with every target, of which a share is kept."""
    source, target = np.divmod(np.arange(sources * targets), targets)
    kept = np.random.default_rng(0).random(len(source)) < share
    return source[kept], target[kept]


DESIGNS = {
    "8 speakers, 16 trials": ring(8, 2),
    "18 speakers, 72 trials": ring(18, 4),
    "4 x 4, full": grid(4, 4),
    "10 x 10, full": grid(10, 10),
    "40 x 12, 30%": grid(40, 12, 0.3),
    "100 x 12, full": grid(100, 12),
    "40 x 40, 20%": grid(40, 40, 0.2),
}


def scores(
    source: np.ndarray,
    target: np.ndarray,
    effects: tuple[float, float, float],
    simulations: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scores of mean 0: (trials, simulations)."""
    by_source = rng.normal(0, effects[0], (source.max() + 1, simulations))
    by_target = rng.normal(0, effects[1], (target.max() + 1, simulations))
    return (
        by_source[source]
        + by_target[target]
        + rng.normal(0, effects[2], (len(source), simulations))
    )


def covered(
    source: np.ndarray, target: np.ndarray, values: np.ndarray, truth: float = 0.0
) -> dict[str, float]:
    """The share of columns of `values` (trials, simulations) whose interval holds the truth."""
    crossed = Crossed(source, target, resamples=2000)
    ones = np.ones_like(values)
    ours = np.array([e.interval() for e in crossed.ratios(values, ones)])
    drawn = crossed.totals(np.column_stack([values, ones[:, 0]]))
    drawn = drawn[drawn[:, -1] > 0]
    bare = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0).T
    rng = np.random.default_rng(1)
    trials = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=2000)
    plain = np.quantile(trials @ values / len(values), [0.025, 0.975], axis=0).T
    return {
        name: float(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])))
        for name, bounds in (("ours", ours), ("crossed", bare), ("trials", plain))
    }


def main(simulations: int = 1000) -> None:
    rng = np.random.default_rng(0)
    print(f"{'design':24}{'source, target, trial':24}{'ours':>8}{'crossed':>9}{'trials':>8}")
    for name, (source, target) in DESIGNS.items():
        for effects in EFFECTS:
            shares = covered(source, target, scores(source, target, effects, simulations, rng))
            row = "".join(f"{100 * share:8.1f}%" for share in shares.values())
            print(f"{name:24}{', '.join(map(str, effects)):22}{row}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

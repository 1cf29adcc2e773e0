"""Tests the intervals and the screening of `vcbench ratings report` on simulated listeners.

    python -m benchmarks.programs.listening [SIMULATIONS]

For each panel of `tests.support.raters`, without cheaters: how often 95% intervals contain the
planted mean of a system and the planted difference of two, by four methods. `ours` is
`bench.stats.effects`. `votes` takes all ratings for independent, as the P.808 toolkit does (1.96 s
by sqrt n). `listeners` uses the spread of the listeners' means alone. `two-way` is robust to
clusters of listeners and of sentences (Cameron, Gelbach and Miller 2011). Planted means come from
large samples.

Then 20% cheaters are added to the first panel: the shares of cheaters that are excluded and of
honest listeners that are kept, and the coverage after screening. 1000 simulations by default (about
two minutes on one core), a fifth of them with cheaters.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from bench.stats.effects import GroupMeans
from reports.listening.ratings.results import unblind
from reports.listening.ratings.screening import screen
from reports.listening.ratings.table import Answers, checked, rows_table
from tests.support.raters import PANELS, Panel, loaded
from tests.support.simulation import cluster_robust, contains

METHODS = ("ours", "votes", "listeners", "two-way")


def means_of(rated: pd.DataFrame, panel: Panel) -> GroupMeans:
    """The systems' means of `Panel.rated`."""
    source, target = panel.design
    trial = rated["trial"].to_numpy()
    factors = {"listener": rated["listener"].to_numpy(), "source": source[trial]}
    factors |= {"target": target[trial], "trial": trial}
    rating, system = rated["rating"].to_numpy(), rated["system"].to_numpy()
    return GroupMeans(rating, system, factors, len(panel.quality))


def bounds(rated: pd.DataFrame, panel: Panel, weights: np.ndarray) -> np.ndarray:
    """The interval of a contrast of the systems' means by each of `METHODS`, (4, 2)."""
    means = means_of(rated, panel)
    estimate = means.contrast(weights)
    used = rated[weights[rated["system"].to_numpy()] != 0]
    of_row = weights[used["system"].to_numpy()]
    counts = used.groupby("system")["rating"].transform("size").to_numpy()
    influence = of_row * (used["rating"] - means.means[used["system"]]).to_numpy() / counts
    independent = stats.norm.ppf(0.975) * np.sqrt((influence**2).sum())
    by_listener = np.bincount(used["listener"], influence)
    count = used["listener"].nunique()
    spread = np.sqrt((by_listener**2).sum() * count / (count - 1))
    of_listeners = stats.t.ppf(0.975, count - 1) * spread
    listener, trial = used["listener"].to_numpy(), used["trial"].to_numpy()
    robust = cluster_robust(listener, trial, influence[:, None])[0]
    halves = np.array([0, independent, of_listeners, robust])
    table = estimate.value + np.stack([-halves, halves], axis=1)
    table[0] = estimate.interval()
    return table


def covered(panel: Panel, simulations: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """What is estimated → the share of simulations that each method covers."""
    planted = panel.planted()
    last = len(planted) - 1
    unit = np.eye(last + 1)
    contrasts = {"mean": unit[1], "difference": unit[last - 1] - unit[1]}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in contrasts}
    for _ in range(simulations):
        rated = panel.rated(rng)
        for name, weights in contrasts.items():
            drawn[name].append(bounds(rated, panel, weights))
    shares = {}
    for name, weights in contrasts.items():
        intervals = np.stack(drawn[name], axis=1)  # (methods, simulations, 2)
        shares[name] = [contains(of, float(weights @ planted)) for of in intervals]
    return shares


def screened(
    panel: Panel, simulations: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Shares of cheaters excluded, listeners kept, means covered with and without screening."""
    planted = panel.planted()
    public, key, _ = panel.answers(rng)
    test = loaded(public, key)
    out, kept, after, before = [], [], [], []
    for _ in range(simulations):
        rows = panel.answers(rng)[2].assign(where="", session="")
        table = checked(test, Answers(rows_table(rows.to_dict("records")))).table
        result = screen(test, table)
        people = result.listeners.set_index("listener")["excluded_by"]
        honest = people.index.str.startswith("l")
        out.append((people[~honest] != "").mean())
        kept.append((people[honest] == "").mean())
        for answers, store in ((result.kept, after), (result.trials, before)):
            facts = unblind(test, answers)
            names = ("listener", "source_speaker", "target_speaker", "trial_id")
            number = facts["system"].str.removeprefix("s").astype(int).to_numpy()
            factors = {name: facts[name].to_numpy(str) for name in names}
            means = GroupMeans(facts["rating"].to_numpy(float), number, factors, len(planted))
            for k, unit in enumerate(np.eye(len(planted))):
                low, high = means.contrast(unit).interval()
                store.append(low <= planted[k] <= high)
    return float(np.mean(out)), float(np.mean(kept)), float(np.mean(after)), float(np.mean(before))


def main(simulations: int = 1000) -> None:
    """Prints the tables; see the module."""
    print(f"{'panel':48}{'estimate':12}" + "".join(f"{m:>11}" for m in METHODS))
    for name, panel in PANELS.items():
        for what, shares in covered(panel, simulations, np.random.default_rng(0)).items():
            cells = "".join(f"{100 * share:10.1f}%" for share in shares)
            print(f"{name:48}{what:12}{cells}", flush=True)
    panel = replace(next(iter(PANELS.values())), listeners=40, cheaters=10)
    out, kept, after, before = screened(panel, max(1, simulations // 5), np.random.default_rng(0))
    print(
        f"40 honest listeners and 10 cheaters: {out:.1%} of the cheaters are excluded, "
        f"{kept:.1%} of the honest listeners are kept;\n"
        f"means covered by 95% intervals: {after:.1%} with screening, {before:.1%} without"
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        sys.exit()
    if len(arguments) > 1 or not all(a.isdecimal() and int(a) for a in arguments):
        sys.exit(f"error: {' '.join(arguments)!r} is not one number of simulations")
    main(*map(int, arguments))

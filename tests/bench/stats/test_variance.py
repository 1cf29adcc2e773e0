"""Variance components against planted ones."""

import numpy as np
import pytest

from bench.errors import UserError
from bench.stats.variance import split_variance
from tests.support.made_up import scores, side
from tests.support.simulation import ring

RNG = np.random.default_rng(0)
BASE = 0.6 + 0.05 * RNG.normal(size=72)
NOISE = 0.01 * RNG.normal(size=72)


def repeats(seeds, sampling, rng, speaker=0.05, trial=0.03):
    """The same system under several seeds, with planted standard deviations."""
    source, target = ring(30, 6)
    truth = speaker * rng.normal(size=30)[source] + speaker * rng.normal(size=30)[target]
    truth += trial * rng.normal(size=len(source))
    made = []
    for seed in range(seeds):
        values = 0.7 + truth + sampling * rng.normal(size=len(source))
        table = scores("a", values, design=(source, target))
        made.append(side(f"s{seed}", table, settings={"seed": seed}))
    return made


def test_the_variance_over_seeds_is_split_as_it_was_planted():
    rng = np.random.default_rng(6)
    splits = [split_variance(repeats(3, 0.02, rng), ["secs"])[0] for _ in range(60)]
    assert np.mean([s.sampling for s in splits]) == pytest.approx(0.02**2, rel=0.05)
    assert np.mean([s.speakers.trial for s in splits]) == pytest.approx(0.03**2, rel=0.1)
    assert np.mean([s.speakers.source for s in splits]) == pytest.approx(0.05**2, rel=0.15)
    assert np.mean([s.speakers.target for s in splits]) == pytest.approx(0.05**2, rel=0.15)
    assert sum(splits[0].shares.values()) == pytest.approx(1)
    assert (splits[0].n, splits[0].seeds) == (180, 3)


def test_a_deterministic_system_has_no_sampling_noise():
    split = split_variance(repeats(2, 0.0, np.random.default_rng(7)), ["secs"])[0]
    assert split.sampling == pytest.approx(0, abs=1e-20)


def test_repeats_must_differ_in_their_seed_alone():
    one = side("s0", scores("a", BASE))
    with pytest.raises(UserError, match=r"are \[0, 0\]"):
        split_variance([one, side("s1", scores("a", BASE))])
    systems = {"a": {"settings": {"_target_": "x.A", "steps": 5}}}
    other = side("s1", scores("a", BASE), settings={"seed": 1}, systems=systems)
    with pytest.raises(UserError, match=r"differ in steps \(10 against 5\)"):
        split_variance([one, other])

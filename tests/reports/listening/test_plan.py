"""The plan of a listening test against closed forms and planted variances."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from reports.listening.plan import (
    Spread,
    simulate,
    smallest,
    too_near,
    votes_of_preference,
)

FINE = (-100, 100, 0.001)  # a scale whose rounding and ends do not matter


def test_the_interval_is_the_closed_form():
    spread = Spread(listener=0.5, taste=0.2, sentence=0.3, item=0.25, noise=0.8)
    size = simulate(spread, 4, 24, 20, FINE)
    votes = 20 * 24 / 4
    variance = 0.5**2 / 20 + 0.2**2 / 20 + 0.3**2 / 24 + 0.25**2 / 24 + 0.8**2 / votes
    assert size.half_width == pytest.approx(1.96 * np.sqrt(variance), rel=0.06)
    of_two = 2 * (0.2**2 / 20 + 0.25**2 / 24 + 0.8**2 / votes)
    assert size.detectable == pytest.approx((1.96 + 0.8416) * np.sqrt(of_two), rel=0.06)
    assert size.votes == 480


def test_more_listeners_cannot_replace_sentences():
    assert smallest(Spread(sentence=1.0), 4, 8, half_width=0.2) is None
    few = smallest(Spread(), 4, 24, half_width=0.25)
    more = smallest(Spread(), 4, 24, half_width=0.2)
    assert few is not None
    assert more is not None
    assert few.half_width <= 0.25
    assert more.listeners > few.listeners
    assert more.listeners % 4 == 0


def test_a_detectable_difference_is_detected_at_the_stated_power():
    spread = Spread(listener=0.4, taste=0.1, sentence=0.2, item=0.2, noise=0.7)
    size = simulate(spread, 2, 20, 12, FINE)
    rng = np.random.default_rng(0)
    turn = (np.arange(20)[None] + np.arange(12)[:, None]) % 2
    found = 0
    noise = size.detectable / (1.96 + 0.8416)  # the standard error that it implies
    for _ in range(400):
        rating = size.detectable * turn + rng.normal(0, 0.7, turn.shape)
        rating += rng.normal(0, 0.4, (12, 1)) + rng.normal(0, 0.2, (1, 20))
        rating += np.take_along_axis(rng.normal(0, 0.1, (12, 2)), turn, 1)
        rating += rng.normal(0, 0.2, (20, 2))[np.arange(20), turn]
        found += rating[turn == 1].mean() - rating[turn == 0].mean() > 1.96 * noise
    assert found / 400 == pytest.approx(0.8, abs=0.07)


def planted(spread, listeners=60, trials=60, systems=5, seed=0):
    rng = np.random.default_rng(seed)
    li, tr = np.meshgrid(np.arange(listeners), np.arange(trials), indexing="ij")
    sy = (li + tr) % systems
    rating = (
        3.0 + 0.3 * sy
        + rng.normal(0, spread.listener, listeners)[li]
        + rng.normal(0, spread.taste, (listeners, systems))[li, sy]
        + rng.normal(0, spread.sentence, trials)[tr]
        + rng.normal(0, spread.item, (trials, systems))[tr, sy]
        + rng.normal(0, spread.noise, li.shape)
    )  # fmt: skip
    return pd.DataFrame(
        {
            "listener": li.ravel(),
            "system": sy.ravel(),
            "trial_id": tr.ravel(),
            "rating": rating.ravel(),
        }
    )


def test_planted_spreads_are_recovered_from_ratings():
    truth = Spread(0.5, 0.3, 0.4, 0.35, 0.8)
    found = np.mean(
        [list(vars(Spread.of_ratings(planted(truth, seed=s))).values()) for s in range(8)], axis=0
    )
    np.testing.assert_allclose(found, list(vars(truth).values()), rtol=0.12)


def test_ratings_of_one_listener_are_refused():
    with pytest.raises(UserError, match="do not tell listeners and trials apart"):
        Spread.of_ratings(planted(Spread(), listeners=1))


def test_preference_votes_follow_the_binomial():
    share, votes = votes_of_preference(0.5, Spread(noise=0.5, item=0, taste=0))
    assert share == pytest.approx(0.7602, abs=1e-3)  # normal distribution at 0.5 / (0.5 √2)
    rng = np.random.default_rng(0)
    wins = rng.binomial(votes, share, 4000)
    detected = wins > votes / 2 + 1.96 * np.sqrt(votes) / 2
    assert detected.mean() == pytest.approx(0.8, abs=0.06)
    with pytest.raises(UserError, match="more than 0"):
        votes_of_preference(0.0, Spread())


def test_near_systems_are_named():
    means = pd.Series({"a": 4.0, "b": 3.95, "c": 3.2})
    assert [pair[:2] for pair in too_near(means, 0.2)] == [("a", "b")]

"""Mean opinions and preferences: facts by hand."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.stats.listening import clopper_pearson, opinions, preferences


def ratings(systems=("a", "b"), listeners=6, trials=8, seed=0):
    """Every listener rates every trial of every system; b is better by 1."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "system": s,
            "listener": f"l{k}",
            "trial_id": f"t{t}",
            "source_speaker": f"S{t}",
            "target_speaker": f"T{t % 4}",
            "gender_pair": "F2M" if t % 2 else "M2F",
            "rating": 3 + systems.index(s) + rng.normal(0, 0.3),
        }
        for s in systems
        for k in range(listeners)
        for t in range(trials)
    ]
    return pd.DataFrame(rows)


def test_means_and_differences_are_those_of_the_ratings():
    table = ratings()
    means, differences, notes = opinions(table, ["gender_pair"])
    of_all = means[means["slice"] == ""].set_index("system")
    expected = table.groupby("system")["rating"].mean()
    assert of_all["mean"].to_dict() == pytest.approx(expected.to_dict())
    assert list(of_all["n"]) == [48, 48]
    assert set(means["slice"]) == {"", "gender_pair=F2M", "gender_pair=M2F"}
    row = differences[differences["slice"] == ""].iloc[0]
    assert (row["baseline"], row["candidate"], row["verdict"]) == ("a", "b", "better")
    assert row["low"] < 1 < row["high"]
    assert row["q"] >= row["p"]
    assert notes == [
        f"gender_pair={pair}: 2 target speakers: the intervals are about these alone, since the "
        "spread cannot be known from fewer than 4."
        for pair in ("F2M", "M2F")
    ]


def test_few_listeners_and_speakers_are_noted():
    table = ratings(listeners=3).assign(target_speaker="T0")
    _, _, notes = opinions(table)
    assert any("3 listeners" in note for note in notes)
    assert any("1 target speakers: the intervals are about these alone" in n for n in notes)


def test_intervals_end_with_the_scale():
    table = ratings(trials=4).assign(source_speaker="S0", target_speaker="T0")
    table["rating"] = np.where(table["listener"] == "l0", 2.0, 4.0)
    low, high = opinions(table, limits=(1, 4))[0].set_index("system").loc["b", ["low", "high"]]
    assert 1 <= low < high <= 4
    assert opinions(table)[0].set_index("system").loc["b", "high"] > 4


def test_an_unknown_slice_is_refused():
    with pytest.raises(UserError, match=r"by=gender: .*gender_pair"):
        opinions(ratings(), ["gender"])


def test_clopper_pearson_of_known_tables():
    """None of n: 1 - 0.025^(1/n), and by symmetry all of n; 8 of 10 by R's binom.test."""
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))
    assert clopper_pearson(8, 10) == pytest.approx((0.4439045, 0.9747893), abs=1e-6)
    assert np.isnan(clopper_pearson(0, 0)).all()


def choices(wins=12, ties=4, losses=8):
    """Of b over a, shown in both orders, by 6 listeners over 4 trials."""
    values = [1] * wins + [0] * ties + [-1] * losses
    rows = []
    for k, value in enumerate(np.random.default_rng(0).permutation(values)):
        first, second, sign = ("b", "a", 1) if k % 2 else ("a", "b", -1)
        rows.append(
            {
                "system": first,
                "other": second,
                "rating": float(sign * value),
                "listener": f"l{k % 6}",
                "trial_id": f"t{k // 6}",
                "source_speaker": f"S{k // 6}",
                "target_speaker": f"T{k // 6}",
            }
        )
    return pd.DataFrame(rows)


def test_wins_ties_and_losses_do_not_depend_on_the_order_of_presentation():
    table, _ = preferences(choices())
    row = table.iloc[0]
    assert (row["system"], row["other"]) == ("a", "b")
    assert (row["wins"], row["ties"], row["losses"], row["n"]) == (8, 4, 12, 24)
    assert row["win_rate"] == 40
    assert (row["win_low"], row["win_high"]) == pytest.approx(
        tuple(100 * x for x in clopper_pearson(8, 20))
    )
    assert row["mean"] == pytest.approx(-4 / 24)
    assert row["verdict"] == "not told apart"


def test_all_ties_have_no_win_rate():
    row = preferences(choices(0, 24, 0))[0].iloc[0]
    assert (row["ties"], row["mean"]) == (24, 0)
    assert np.isnan(row["win_rate"])
    assert row["verdict"] == "not told apart"


def test_a_preference_for_the_first_position_is_noted():
    _, notes = preferences(choices(24, 0, 0).assign(rating=1.0))
    assert any("favour a position" in note for note in notes)

"""Agreement with listeners: by hand, and on simulated listeners with planted correlations."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from bench.stats.agreement import agreement
from tests.support.listeners import JUDGE, TESTS, Test, shares
from tests.support.made_up import WER, run, scores
from tests.support.simulation import ring

TEST = Test(ring(8, 2), listeners=6)


@pytest.fixture
def simulated():
    return TEST.simulated(np.random.default_rng(0))


def value(found, metric, coefficient="pearson", level="utterance", column="value"):
    rows = found.table.query(
        "metric == @metric and coefficient == @coefficient and level == @level"
    )
    assert len(rows) == 1
    return rows[column].iloc[0]


def rated(*rows, listener="l"):
    """Ratings from (system, trial, rating)."""
    table = pd.DataFrame(rows, columns=["system", "trial_id", "rating"])
    return table.assign(listener=listener)


def test_coefficients_by_hand_and_lower_is_better_is_negated():
    design = (np.array([0, 1, 2]), np.array([1, 2, 0]))
    a = scores("a", np.array([0.5, 0.6, 0.7]), np.array([3.0, 2.0, 1.0]), design=design)
    b = scores("b", np.array([0.8, 0.9, 0.4]), np.array([0.0, 1.0, 4.0]), design=design)
    facts = {"suites": {"s": {"sha256": "1" * 64, "trials": 3}}}
    given = [("a", "t0000", 2), ("a", "t0001", 3), ("a", "t0002", 4)]
    given += [("b", "t0000", 5), ("b", "t0001", 4), ("b", "t0002", 1)]
    found = agreement(run("r", a, b, **facts), rated(*given))
    ratings, secs = [2, 3, 4, 5, 4, 1], [0.5, 0.6, 0.7, 0.8, 0.9, 0.4]
    assert value(found, "secs") == pytest.approx(np.corrcoef(ratings, secs)[0, 1])
    errors = [3, 2, 1, 0, 1, 4]
    assert value(found, "wer") == pytest.approx(-np.corrcoef(ratings, errors)[0, 1])
    # The one pair of equal ratings has equal errors; the other 14 are ordered as the listeners did.
    assert value(found, "wer", "pairs") == pytest.approx(1.0)
    assert found.table["low"].isna().all()
    assert any("1 listeners; no interval" in note for note in found.notes)


def test_a_mean_is_over_listeners_and_a_system_pools_its_metric():
    design = (np.array([0, 1]), np.array([1, 0]))
    tables = [
        scores(name, np.array([0.5, 0.6]), np.array(errors, float), design=design)
        for name, errors in (("a", [0, 8]), ("b", [2, 2]), ("c", [1, 9]))
    ]
    tables[0][f"{WER}.words"] = [10.0, 90.0]  # a's pooled rate is 8%, the mean of its rates 4.4%
    facts = {"suites": {"s": {"sha256": "1" * 64, "trials": 2}}}
    parts = [
        rated(
            *[
                (s, f"t000{t}", r + by)
                for s, r in zip("abc", (4, 2, 1), strict=True)
                for t in (0, 1)
            ]
        ).assign(listener=f"l{by}")
        for by in (0, 1)
    ]
    found = agreement(run("r", *tables, **facts), pd.concat(parts, ignore_index=True))
    expected = np.corrcoef([-8, -20, -50], [4.5, 2.5, 1.5])[0, 1]
    assert value(found, "wer", level="system") == pytest.approx(expected)
    assert value(found, "wer", level="system", column="n") == 3


def test_the_order_of_rows_and_the_names_of_listeners_move_nothing(simulated):
    results, ratings = simulated
    first = agreement(results, ratings, splits=3).table.query("judge == @JUDGE")
    shuffled = ratings.sample(frac=1, random_state=1)
    again = agreement(results, shuffled, splits=3).table.query("judge == @JUDGE")
    pd.testing.assert_frame_equal(first, again)
    renamed = ratings.assign(listener="x" + ratings["listener"])
    other = agreement(results, renamed, splits=3).table.query("judge == @JUDGE")
    pd.testing.assert_frame_equal(first, other)


def test_where_all_rate_all_a_severe_listener_moves_nothing(simulated):
    results, ratings = simulated
    first = agreement(results, ratings, splits=3).table
    lower = ratings["rating"] - 2.0 * (ratings["listener"] == "l0")
    again = agreement(results, ratings.assign(rating=lower), splits=3).table
    of_metric = first["judge"] == JUDGE
    columns = ["value", "low", "high"]
    assert again[columns][of_metric].to_numpy() == pytest.approx(
        first[columns][of_metric].to_numpy(), abs=1e-6
    )


def test_listeners_who_share_no_taste_widen_the_interval(simulated):
    """Ratings that differ between listeners by system: other listeners would give another order."""
    results, ratings = simulated
    alike = agreement(results, ratings, splits=3)
    rng = np.random.default_rng(3)
    taste = {key: rng.normal(0, 1.5) for key in ratings.groupby(["system", "listener"]).groups}
    tastes = [taste[key] for key in zip(ratings["system"], ratings["listener"], strict=True)]
    shift = pd.Series(tastes, ratings.index)
    shift -= shift.groupby(ratings["system"]).transform("mean")  # the mean ratings stay
    apart = agreement(results, ratings.assign(rating=ratings["rating"] + shift), splits=3)

    def width(found, level):
        bounds = [value(found, "utmos", level=level, column=c) for c in ("low", "high")]
        return bounds[1] - bounds[0]

    for level in ("utterance", "system"):
        assert value(apart, "utmos", level=level) == pytest.approx(
            value(alike, "utmos", level=level)
        )
        assert width(apart, level) > 1.3 * width(alike, level)


def test_the_ceiling_is_the_planted_reliability():
    """All of a panel against another: true variance over true and noise (Spearman 1910)."""
    test = replace(
        TEST,
        design=ring(20, 10),
        listeners=8,
        bias=0.5,
        taste=0.0,
        noise=1.0,
        quality=(3.0,) * 4,
        measured=(3.0, 3.1, 3.2, 3.3),
        effects=(0.3, 0.3, 0.6),
    )
    found = agreement(*test.simulated(np.random.default_rng(4)), splits=20)
    true = 0.3**2 + 0.3**2 + 0.6**2
    assert value(found, "panel") == pytest.approx(true / (true + 1 / 8), abs=0.03)
    assert value(found, "half") == pytest.approx(true / (true + 1 / 4), abs=0.04)
    one = true / np.sqrt((true + 1) * (true + 1 / 7))
    assert value(found, "one") == pytest.approx(one, abs=0.04)
    assert np.isnan(value(found, "panel", "kendall"))


def test_listeners_without_noise_agree_fully():
    test = replace(TEST, noise=0.0, taste=0.0)
    found = agreement(*test.simulated(np.random.default_rng(5)), splits=3)
    ceilings = found.table.query("judge == 'listeners' and value == value")
    assert len(ceilings) == 2 * (3 * 4 - 2)
    assert ceilings["value"].to_numpy() == pytest.approx(1.0)


def test_what_was_rated_is_counted():
    secs = np.linspace(0.4, 0.8, 72)
    results = run("r", scores("a", secs, failed=[0, 1]), scores("b", secs))
    ratings = rated(*[(s, f"t{i:04d}", i % 5) for s in "ab" for i in range(2, 12)])
    counts = agreement(results, ratings).counts.set_index("system")
    assert counts[["ratings", "listeners", "rated"]].to_numpy().tolist() == [[10, 1, 10]] * 2
    assert counts["unrated"].to_dict() == {"a": 60, "b": 62}
    assert counts["without_sound"].to_dict() == {"a": 2, "b": 0}


def test_questions_and_suites_are_kept_apart(simulated):
    results, ratings = simulated
    both = [ratings.assign(question=name) for name in ("nmos", "smos")]
    both[1]["rating"] = -both[1]["rating"]
    found = agreement(results, pd.concat(both, ignore_index=True), splits=3)
    values = found.table.query("metric == 'utmos' and level == 'utterance'")
    by_question = values.pivot(index="coefficient", columns="question", values="value")
    assert by_question["nmos"]["pearson"] == pytest.approx(-by_question["smos"]["pearson"])
    assert by_question["nmos"]["pairs"] == pytest.approx(1 - by_question["smos"]["pairs"])


def test_systems_and_metrics_are_chosen(simulated):
    results, ratings = simulated
    found = agreement(results, ratings, systems=["s0", "s1", "s5"], metrics=["utmos"], splits=3)
    assert set(found.counts["system"]) == {"s0", "s1", "s5"}
    assert any("s2, s3, s4" in note for note in found.notes)
    with pytest.raises(UserError, match=r"no measured metric .* secs"):
        agreement(results, ratings, metrics=["secs"])
    with pytest.raises(UserError, match="did you mean 's1'"):
        agreement(results, ratings, systems=["s11"])


def test_a_metric_that_is_the_same_everywhere_is_named_not_dropped():
    secs = np.full(72, 0.5)
    found = agreement(
        run("r", scores("a", secs)), rated(*[("a", f"t{i:04d}", i % 5) for i in range(9)])
    )
    assert np.isnan(value(found, "secs"))
    assert any("it is the same for all utterances" in note for note in found.notes)
    assert any("fewer than 3 systems" in note for note in found.notes)


def test_systems_over_different_trials_are_named():
    secs = np.linspace(0.4, 0.8, 72)
    ratings = rated(("a", "t0001", 3), ("a", "t0002", 4), ("b", "t0001", 2), ("b", "t0003", 2))
    found = agreement(run("r", scores("a", secs), scores("b", secs)), ratings)
    assert any("rated over different trials" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "wrld"}, r"r.csv:3: outputs.r has no system 'wrld'; known: a, b"),
        ({"suite": "t"}, r"r.csv:3: outputs.r has no suite 't'; known: s"),
        ({"trial_id": "t0"}, r"r.csv:3: outputs.r has no trial 't0' of that system and suite"),
        ({"trial_id": "t0005"}, "r.csv:3: trial 't0005' has no sound in this run"),
        ({"rating": "good"}, "r.csv:3: the rating 'good' is not a number"),
        ({"rating": "inf"}, "r.csv:3: the rating 'inf' is not a number"),
        ({"rating": ""}, "r.csv:3: the rating '' is not a number"),
        ({"listener": " "}, "r.csv:3: no listener"),
        ({"trial_id": "t0001"}, "r.csv:3: listener 'l' rated trial 't0001' .* already in line 2"),
    ],
)
def test_a_wrong_rating_is_named_by_its_line(changes, message):
    secs = np.linspace(0.4, 0.8, 72)
    results = run("r", scores("a", secs, failed=[5]), scores("b", secs))
    rows = [("a", f"t{i:04d}", "3") for i in (1, 2, 3)]
    table = rated(*rows).assign(suite="s")
    table.index = [2, 3, 4]
    for column, text in changes.items():
        table.loc[3, column] = text
    with pytest.raises(UserError, match=message) as caught:
        agreement(results, table, source="r.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rating": None}, "no column 'rating'; ratings have system, trial_id, listener, rating"),
        ({"question": "q", "scale": "q"}, "the columns question and scale"),
    ],
)
def test_wrong_columns_are_named(columns, message):
    table = rated(("a", "t0001", 3))
    for name, text in columns.items():
        table = table.drop(columns=name) if text is None else table.assign(**{name: text})
    with pytest.raises(UserError, match=message):
        agreement(run("r", scores("a", np.linspace(0, 1, 72))), table)


def test_of_several_suites_the_column_is_needed():
    one, other = (scores("a", np.linspace(0, 1, 72)).assign(suite=s) for s in "st")
    suites = {s: {"sha256": "1" * 64, "trials": 72} for s in "st"}
    results = run("r", one, other, suites=suites)
    with pytest.raises(UserError, match=r"no column 'suite', and .* has s, t; add it"):
        agreement(results, rated(("a", "t0001", 3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["18 speakers, 72 trials, 12 listeners"])
def test_intervals_cover_planted_agreement(name):
    """At full size: python -m benchmarks.programs.agreement. 3 standard errors of 60 are 8%."""
    table = shares(TESTS[name], 60, np.random.default_rng(6))
    assert table.query("level == 'utterance'")["covered"].between(0.87, 1.0).all()
    assert table.query("level == 'system'")["covered"].ge(0.87).all()
    errors = (table["mean"] - table["truth"]).abs()
    assert (errors < 0.085).all()

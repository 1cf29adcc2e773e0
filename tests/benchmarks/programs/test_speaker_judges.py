"""Agreement of two speaker judges over conversions, on planted scores."""

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from benchmarks.programs.speaker_judges import agreement, differ_most, ordered_alike, secs_of

JUDGES = ("secs_resemblyzer", "secs_ecapa_small")


@pytest.fixture
def scores() -> pd.DataFrame:
    """System a: the judges agree. System b: they order its trials the other way round."""
    first = np.array([0.1, 0.2, 0.3, 0.4])
    rows = []
    for system, second in (("a", 2 * first), ("b", 1 - first)):
        for n in range(4):
            values = {f"{j}.secs": v[n] for j, v in zip(JUDGES, (first, second), strict=True)}
            rows.append({"system": system, "suite": "s", "trial_id": f"t{n}", **values})
    rows[1] |= {"secs_resemblyzer.secs": 0.25}
    rows.append({"system": "a", "suite": "s", "trial_id": "t9", "secs_resemblyzer.secs": 0.5})
    return pd.DataFrame(rows)


def test_correlations_are_those_that_were_planted(scores):
    rows = agreement(secs_of(scores, JUDGES), JUDGES).set_index("over")
    assert rows.loc["a", "n"] == 4  # t9 has no score by the second
    assert rows.loc["a", "spearman"] == pytest.approx(1)
    assert 0.95 < rows.loc["a", "pearson"] < 1
    assert rows.loc["b", ["pearson", "spearman"]].tolist() == pytest.approx([-1, -1])
    assert rows.loc["b", "secs_ecapa_small"] == pytest.approx(0.75)
    assert [*rows.index] == ["a", "b"]  # two systems' means correlate always


def test_preferences_by_hand(scores):
    """First: equal but for t1, where a is better. Second: a is below b in t0, t1 and t2."""
    table = secs_of(scores, JUDGES)
    assert ordered_alike(table, JUDGES) == (2, 4)


def test_the_trials_with_the_most_different_ranks_come_first(scores):
    most = differ_most(secs_of(scores, JUDGES), JUDGES)
    assert set(most["system"][:4]) == {"b"}
    assert most["difference"].abs().tolist()[:2] == [0.75, 0.75]  # ranks 1/4 and 4/4


def test_a_judge_that_did_not_score_is_named(scores):
    with pytest.raises(UserError, match="secs_resemblyser scored no SECS"):
        secs_of(scores, ("secs_resemblyser", JUDGES[1]))

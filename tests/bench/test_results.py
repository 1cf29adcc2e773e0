"""A scored run in memory."""

import numpy as np
import pandas as pd

from bench.results import timed_on
from tests.support.made_up import facts, run, scores

HERE, OTHER = "A, 2 cores, 2 threads", "B, 8 cores, 8 threads"


def test_recordings_are_no_systems():
    both = [scores("source", np.zeros(72)), scores("a", np.zeros(72))]
    assert run("one", *both, anchors={"source": "floor"}).systems == ["a"]


def test_a_time_without_an_origin_is_of_the_runs_machine():
    table = scores("a", np.zeros(72), failed=[3])
    assert set(timed_on(table, facts())) == {HERE}
    assert 3 not in timed_on(table, facts()).index
    table["origin"] = ["", f"0123456789ab on {OTHER}", *[""] * 70]
    assert timed_on(table, facts()).tolist() == [HERE, OTHER, *[HERE] * 69]


def test_a_table_without_times_has_no_machines():
    table = scores("a", np.zeros(72)).drop(columns="elapsed_seconds")
    assert timed_on(table, facts()).equals(pd.Series(dtype=object))

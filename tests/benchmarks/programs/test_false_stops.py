"""The simulation of trainings that are stopped by chance."""

import numpy as np
import pytest

from benchmarks.programs.false_stops import stopped, training


@pytest.mark.parametrize(("in_a_row", "expected"), [(1, True), (2, True), (3, False)])
def test_regressions_in_a_row_stop(in_a_row, expected):
    assert stopped([True, False, True, True, False], in_a_row) is expected


def test_every_call_but_the_first_is_compared():
    assert len(training(np.random.default_rng(0), 16, 3, "best")) == 2

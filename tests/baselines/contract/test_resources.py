"""Verdicts about time and memory, from made-up calls."""

import numpy as np
import pytest

from baselines.contract.process import Call
from baselines.contract.resources import growth_of, time
from bench.audio import Waveform

SPEECH = Waveform.from_numpy(np.full(16000, 0.5), 16000)


class MadeUp:
    """A subject all of whose calls are the same."""

    class clips:
        pairs = ((SPEECH, SPEECH),)

    def __init__(self, call):
        self._call = call

    def first(self):
        return self._call

    def call(self, *_, **__):
        return self._call

    def speech(self, *_, **__):
        return self._call.converted


@pytest.mark.parametrize(
    ("call", "verdict", "words"),
    [
        (Call(SPEECH, elapsed_seconds=0.1, synchronised_seconds=0.5), "pass", "on the CPU"),
        (
            Call(SPEECH, elapsed_seconds=0.1, synchronised_seconds=0.5, uses_gpu=True),
            "note",
            "RTF 0.100 by its clock, 0.500 synchronised",
        ),
        (
            Call(SPEECH, elapsed_seconds=0.5, synchronised_seconds=0.5, uses_gpu=True),
            "pass",
            "RTF 0.500, once, synchronised",
        ),
        (Call(ended="gave no result within 1 s", late=True), "FAIL", "within 1 s"),
    ],
)
def test_time(call, verdict, words):
    result = time(MadeUp(call))
    assert result.verdict == verdict
    assert words in result.reason


@pytest.mark.parametrize("n", range(13))
def test_one_step_is_no_growth(n):
    assert growth_of([100.0] * n + [160.0] * (12 - n)) == 0


def test_growth_is_measured_by_conversion():
    assert growth_of([100.0 + 2 * n for n in range(12)]) == 2
    assert growth_of([1.0]) == 0

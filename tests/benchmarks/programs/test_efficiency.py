"""`benchmarks.programs.efficiency` reads the stages of several processes."""

import sys

import pytest

from benchmarks.programs.efficiency import Measured, line, measured

PROGRAM = """
import json, sys, time
for stage, seconds in (("convert", {0}), ("score", {1})):
    for done in (0, 1):
        progress = {{"stage": stage, "system": "x", "judge": "j", "done": done, "total": 1}}
        print(json.dumps(progress), file=sys.stderr, flush=True)
        time.sleep(seconds if not done else 0)
print("vcbench: no progress", file=sys.stderr)
sys.exit({2})
"""


def command(*numbers):
    return [sys.executable, "-c", PROGRAM.format(*numbers)], {}


def test_a_stage_takes_as_long_as_in_the_slowest_process():
    result = measured(4, [command(0.3, 0.0, 0), command(0.0, 0.2, 0)], cards=2)
    assert set(result.stages) == {"convert", "score j"}
    assert result.stages["convert"] >= 0.3
    assert result.stages["score j"] >= 0.2
    assert result.whole >= result.work >= 0.3
    together = measured(4, [command(0.2, 0.1, 0)], overlapped=True)
    assert list(together.stages) == ["convert and score"]
    assert together.work >= 0.3


def test_a_failure_is_shown():
    with pytest.raises(SystemExit, match=r"ended with 3:\n(.|\n)*no progress"):
        measured(1, [command(0, 0, 3)])


def test_efficiency_compares_the_work_of_one_card_with_that_of_all():
    one, two = Measured(10, 30.0, 20.0, {}), Measured(10, 30.0, 12.5, {})
    assert "0.80" in line("2 cards", two, one, 2).split()

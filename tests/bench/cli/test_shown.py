"""Progress in JSON lines: what is done, how fast, and how long it still takes."""

import json
import os
import sys

import pytest

from bench.cli.shown import ShownAsJson, shown_as


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_rate_and_time_left_follow_from_the_steps(capsys):
    time = [0.0]
    advance = ShownAsJson(lambda: time[0]).task("convert", "world", 10)
    for _ in range(4):
        time[0] += 2.0
        advance(1)
    first, *others = lines(capsys)
    assert first == {
        "stage": "convert",
        "system": "world",
        "done": 0,
        "total": 10,
        "rate": None,
        "seconds_left": None,
    }
    assert [o["done"] for o in others] == [1, 2, 3, 4]
    assert {o["rate"] for o in others} == {0.5}
    assert [o["seconds_left"] for o in others] == [18.0, 16.0, 14.0, 12.0]


def test_the_rate_forgets_results_that_were_kept(capsys):
    time = [0.0]
    advance = ShownAsJson(lambda: time[0]).task("score", "utmos", 1100)
    advance(1000)  # known scores, at once
    for _ in range(50):
        time[0] += 4.0
        advance(1)
    last = lines(capsys)[-1]
    assert last["judge"] == "utmos"
    assert last["rate"] == 0.25
    assert last["seconds_left"] == 200.0


def test_a_task_writes_a_line_a_second_and_its_end(capsys):
    time = [0.0]
    advance = ShownAsJson(lambda: time[0]).task("check", "mini", 1000)
    for _ in range(1000):
        time[0] += 0.0125
        advance(1)
    written = lines(capsys)
    assert 12 <= len(written) <= 14
    assert written[-1]["done"] == 1000
    assert written[-1]["seconds_left"] == 0


def test_notes_are_json_too_and_none_has_no_bars(capsys):
    ShownAsJson().note("a [b]", caution=True)
    assert lines(capsys) == [{"note": "a [b]", "caution": True}]
    plain = shown_as("none")
    plain.task("convert", "world", 2)(2)
    plain.note("a [b]")
    assert capsys.readouterr().err == "a [b]\n"


@pytest.mark.parametrize("form", ["json", "none", "bars"])
def test_a_reader_that_goes_away_ends_no_run(form, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with shown_as(form) as shown:
            advance = shown.task("convert", "world", 2)
            shown.note("a note")
            advance(1)
            advance(1)
            shown.note("another")

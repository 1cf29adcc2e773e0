"""Leaderboards hold only comparable numbers, and name the field that differs."""

import dataclasses

import numpy as np
import pytest

from reports.site.boards import boards, overviews
from reports.site.runs import read_shown
from reports.site.trends import trends
from tests.reports.site.conftest import SUITE
from tests.support.made_up import SECS, facts, run, scores, write


@pytest.fixture(scope="module")
def shown(outputs):
    return read_shown(sorted(outputs.iterdir()), sounds=False, skip_damaged=False)[0]


@pytest.fixture(scope="module")
def made(shown):
    return boards(shown)


def test_the_newest_run_comes_first(shown):
    assert [s.run.name for s in shown] == ["v3", "v2", "v1", "short", "other_judge"]


def test_runs_that_are_not_comparable_get_tables_of_their_own(made):
    assert [[s.run.name for s in board.runs] for board in made] == [
        ["v3", "v2", "v1"],
        ["other_judge"],
        ["short"],  # newer than other_judge, but of fewer trials
    ]
    assert [board.number for board in made] == [1, 2, 3]
    assert made[0].differs == ""
    assert f"short and v3 differ in suites.{SUITE}.trials (2 against 4)" in made[2].differs
    field = f"judges.{SECS}.fingerprint (999999999999… against ffffffffffff…)"
    assert f"other_judge and v3 differ in {field}" in made[1].differs


def test_a_row_is_of_the_newest_run_of_its_system_with_its_own_interval(made, shown):
    rows = {row.system: row for row in made[0].rows}
    assert list(rows) == ["source", "takin_vc", "world", "target"]  # floor, by SECS, ceiling
    assert rows["takin_vc"].shown.run.name == "v3"
    assert rows["takin_vc"].older == 2
    summary = shown[0].run.summary.query("system == 'takin_vc' and metric == 'secs'").iloc[0]
    assert rows["takin_vc"].cells[0].value == summary["value"]


def test_the_first_table_of_each_suite_is_in_the_overview(made):
    by_secs = overviews(made)[0]
    assert (by_secs.column.judge, by_secs.column.metric) == (SECS, "secs")
    assert by_secs.suites == (SUITE,)
    cells = {row.system: cells[0] for row, cells in by_secs.rows}
    assert cells["takin_vc"] == made[0].rows[1].cells[0]


def test_a_history_has_every_run_with_its_commit(shown):
    of = {(t.system, t.suite): t for t in trends(shown)}
    trend = of["takin_vc", SUITE]
    assert [line.shown.run.name for line in trend.lines] == [s.run.name for s in shown]
    assert [line.shown.commit for line in trend.lines[:3]] == ["c3" * 6, "b2" * 6, "a1" * 6]
    assert [line.failed for line in trend.lines] == [0, 1, 0, 0, 0]
    assert [line.settings for line in trend.lines] == ["steps=4", *["strength=1.0"] * 4]
    assert not of["world", SUITE].settings_differ
    assert [line.cells[0][2] for line in trend.lines] == ["", "", "", "*", "*"]
    assert any("short differs from it in suites." in note for note in trend.notes)
    assert any(f"differs from it in judges.{SECS}.fingerprint" in note for note in trend.notes)
    chart = trend.charts[0]
    assert [point.same_scale for point in chart.points] == [False, False, True, True, True]
    # SECS rises from v1 to v3: up is smaller y, and only these three are joined.
    assert chart.points[2].y > chart.points[3].y > chart.points[4].y
    assert [len(line.split()) for line in chart.lines] == [3]
    assert "v3, commit c3c3c3c3c3c3" in chart.points[4].text


def test_times_of_another_machine_are_marked(tmp_path):
    level = 0.6 + 0.05 * np.random.default_rng(0).normal(size=72)
    other = {"processor": "B", "cores": 4, "torch_threads": 4, "gpus": [], "cuda": None}
    write(run("old", scores("a", level), folder=tmp_path, created="2025-01-01", machine=other))
    write(run("new", scores("b", level), folder=tmp_path, created="2025-01-02"))
    folders = [tmp_path / "old", tmp_path / "new"]
    runs, _ = read_shown(folders, sounds=False, skip_damaged=False)
    board = boards(runs)[0]
    rtf = [column.metric for column in board.columns].index("rtf")
    assert {row.system: row.cells[rtf].mark for row in board.rows} == {"b": "", "a": "*"}
    note = next(note for note in board.notes if note.startswith("*"))
    assert "b on A, 2 cores, 2 threads" in note
    assert "a on B, 4 cores, 4 threads" in note
    secs = runs[0].run.summary.query("metric == 'secs'").iloc[0]  # the interval is the run's own
    assert board.rows[0].cells[0].cell.interval == f"[{secs['low']:.2f}, {secs['high']:.2f}]"


def test_failures_and_suspicious_systems_are_named(shown):
    v2 = next(s for s in shown if s.run.name == "v2")
    board = boards([v2])[0]
    assert any("different trials" in note and "takin_vc 3 of 4" in note for note in board.notes)
    marked = dataclasses.replace(v2, suspicious=frozenset({(SUITE, "world")}))
    board = boards([marked])[0]
    assert [(row.system, row.suspicious) for row in board.rows] == [
        ("source", False),
        ("takin_vc", False),
        ("world", True),  # last of the systems, whatever its numbers
        ("target", False),
    ]
    assert "Suspicious, their numbers mean little: world." in board.notes[0]


def test_other_settings_of_older_runs_are_noted(made):
    assert "Older runs had other settings of takin_vc." in made[0].notes


def test_a_judge_that_did_not_judge_is_named(made):
    assert any(note.startswith("utmos did not judge") for note in made[0].notes)


def test_recordings_alone_have_no_history(tmp_path):
    level = np.full(72, 0.6)
    anchors = {"source": "floor"}
    for name in ("one", "two"):
        folder = write(run(name, scores("source", level), folder=tmp_path, anchors=anchors))
        assert folder.is_dir()
    runs, _ = read_shown([tmp_path / "one", tmp_path / "two"], sounds=False, skip_damaged=False)
    assert trends(runs) == []
    assert boards(runs)[0].rows[0].role == "floor"
    assert facts()["judges"][SECS]["fingerprint"] == "f" * 64

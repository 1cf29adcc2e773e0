"""`benchmarks.programs.efficiency` reads the stages of several processes."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.programs import efficiency, efficiency_parts
from benchmarks.programs.efficiency_parts import (
    Measured,
    MeasurementFailed,
    _overlapped,
    line,
    measured,
    read_progress,
    slowest,
    table,
    write,
)

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


def at_times(monkeypatch, *lines):
    """Reads lines of progress, each (moment, stage, done, total), as if they came at that moment.

    Returns:
        What `read_progress` has of the spans and of the first steps.
    """
    moments, texts = [], []
    for moment, stage, done, total in lines:
        moments.append(moment)
        texts.append(json.dumps({"stage": stage, "judge": "j", "done": done, "total": total}))
    clock = SimpleNamespace(monotonic=iter(moments).__next__)
    monkeypatch.setattr(efficiency_parts, "time", clock)
    spans, firsts = {}, {}
    read_progress(SimpleNamespace(stderr=texts), spans, firsts, [])
    return spans, firsts


def test_a_stage_lasts_from_its_first_line_to_its_last(monkeypatch):
    lines = ((3.0, "convert", 0, 2), (4.0, "convert", 1, 2), (4.5, "score", 0, 1))
    spans, firsts = at_times(monkeypatch, *lines, (6.0, "convert", 2, 2), (7.0, "report", 1, 1))
    assert spans == {"convert": [3.0, 6.0], "score j": [4.5, 4.5]}
    assert firsts == {"convert": (4.0, 0.5)}


def test_a_stage_takes_as_long_as_in_the_slowest_process():
    spans = [{"convert": [1.0, 4.0], "score j": [4.0, 5.0]}, {"convert": [2.0, 3.0]}]
    spans.append({"convert": [2.0, 2.5], "score j": [2.5, 5.5]})
    assert slowest(spans) == (4.0, {"convert": 3.0, "score j": 3.0})


def test_processes_run_together_and_their_stages_are_read():
    result = measured(4, [command(0.3, 0.0, 0), command(0.0, 0.2, 0)], cards=2)
    assert set(result.stages) == {"convert", "score j"}
    assert result.whole >= result.work >= max(result.stages.values()) > 0
    together = measured(4, [command(0.2, 0.1, 0)], overlapped=True)
    assert list(together.stages) == ["convert and score"]
    assert together.whole >= together.work > 0


def test_the_work_of_stages_that_overlap_begins_after_loading(monkeypatch):
    """Of four trials the last two take 2 s, so that all four are taken to need 4 s."""
    lines = ((0.0, "convert", 0, 4), (6.0, "convert", 2, 4), (8.0, "convert", 4, 4))
    begin, end = _overlapped(*at_times(monkeypatch, *lines))
    assert (begin, end) == (4.0, 8.0)


def test_a_failure_is_shown():
    with pytest.raises(MeasurementFailed, match=r"ended with 3:\n(.|\n)*no progress"):
        measured(1, [command(0, 0, 3), command(0, 20, 0)])


def test_a_measurement_ends_when_its_time_is_over():
    with pytest.raises(MeasurementFailed, match="a process ended after"):
        measured(1, [command(0, 20, 0)], seconds=0.3)


def test_efficiency_compares_the_work_of_one_card_with_that_of_all():
    one, two = Measured(10, 30.0, 20.0, {}), Measured(10, 30.0, 12.5, {})
    assert "0.80" in line("2 cards", two, one, 2).split()


def test_a_table_has_what_was_measured_and_what_failed(tmp_path):
    results = {
        "1 cards": Measured(10, 30.0, 20.0, {"convert": 20.0}, {"0": 91.4}, {}, {"0": 2048.0}),
        "2 cards": Measured(10, 30.0, 12.5, {"convert": 12.5}),
    }
    path = tmp_path / "efficiency.json"
    write(path, results, {"1 ray": "a process ended with 3:\nmore"}, {"model": "acl"})
    rows = table(path).splitlines()
    assert rows[2] == "| 1 cards | 10 | 0.50 | 20.0 | 30.0 |  | 91 | 2.0 |"
    assert rows[3] == "| 2 cards | 10 | 0.80 | 12.5 | 30.0 | 0.80 | – | – |"
    assert rows[4].startswith("| 1 ray | not measured: a process ended with 3 |")
    assert all(row.count("|") == 9 for row in rows[:5])
    assert rows[-1].startswith("acl; ")


def test_a_failure_loses_no_other_measurement(tmp_path, monkeypatch, capsys):
    """Ray is missing, one measurement fails, one is too late: all is in the file."""
    monkeypatch.setattr(efficiency, "prepare", lambda *_: (4, 8.0))
    monkeypatch.setattr(efficiency.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(efficiency, "run_loop", lambda *_: Measured(4, 2.0, 1.0, {}))

    def fails(folder, trials, cards, tiny, seconds, threads):
        if cards == 2:
            raise MeasurementFailed("a process ended with 1:\nCUDA error")
        return Measured(4, 3.0, 2.0, {})

    monkeypatch.setattr(efficiency, "run_shards", fails)
    path = tmp_path / "e.json"
    results = efficiency.main(["--json", str(path), "--folder", str(tmp_path)])
    assert list(results) == ["loop", "1 cards"]
    stored = json.loads(path.read_text())["results"]
    assert stored["1 cards"]["trials_per_second"] == 2.0
    assert "CUDA error" in stored["2 cards"]["error"]
    assert stored["1 ray"]["error"] == stored["2 ray"]["error"] == efficiency.NO_RAY
    assert "CUDA error" in capsys.readouterr().out
    efficiency.main(["--json", str(path), "--folder", str(tmp_path), "--limit-seconds", "0"])
    stored = json.loads(path.read_text())["results"]
    assert all(figures["error"].startswith("skipped") for figures in stored.values())


@pytest.mark.parametrize(("cores", "share"), [(32, "8"), (2, "1")])
def test_each_process_has_its_share_of_the_cores(tmp_path, monkeypatch, cores, share):
    """As many threads on one card as where the most processes run."""
    started = []

    def recorded(trials, commands, *_, **__):
        started.append([variables for command, variables in commands if "merge" not in command])
        return Measured(trials, 2.0, 1.0, {})

    monkeypatch.setattr(efficiency, "prepare", lambda *_: (4, 8.0))
    monkeypatch.setattr(efficiency, "cores", lambda: cores)
    monkeypatch.setattr(efficiency, "measured", recorded)
    path = tmp_path / "e.json"
    given = ["--cards", "1", "2", "4", "--loop-trials", "0", "--no-ray", "--json", str(path)]
    efficiency.main([*given, "--folder", str(tmp_path)])
    processes = [variables for commands in started for variables in commands]
    assert [v["CUDA_VISIBLE_DEVICES"] for v in processes] == list("0010123")
    assert {v["OMP_NUM_THREADS"] for v in processes} == {share}
    assert {v["MKL_NUM_THREADS"] for v in processes} == {share}
    stored = json.loads(path.read_text())
    assert (stored["cores"], stored["threads_per_process"]) == (cores, int(share))


def test_no_judge_needs_librosa():
    """The machine with the GPUs may lack it."""
    program = (
        "import sys; sys.modules['librosa'] = sys.modules['speechmos'] = None\n"
        "from benchmarks.programs import efficiency, loop\n"
        "for name in efficiency.JUDGES: efficiency.RandomJudge(name, 'cpu', tiny=True)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=efficiency_parts.ROOT, check=True)


def test_recordings_are_cut(tmp_path):
    from bench.trials import Suite

    trials, seconds = efficiency.prepare(tmp_path, 18, 2, "none", 3.5)
    suite = Suite.load(tmp_path / "crossed.jsonl", root="/")
    assert trials == len(suite.trials) == 36
    assert {trial.source.seconds for trial in suite.trials} <= {3.095, 3.5} or seconds <= 36 * 3.5
    assert max(trial.source.load().seconds for trial in suite.trials) <= 3.5
    cut = [t for t in suite.trials if Path(t.source.path).parent == tmp_path / "recordings"]
    assert cut
    (tmp_path / "outputs").mkdir()
    with pytest.raises(SystemExit, match="an earlier call"):
        efficiency.prepare(tmp_path, 18, 2, "none")
    with pytest.raises(SystemExit, match="too few"):
        efficiency.prepare(tmp_path / "other", 1000, 2, "none")


def test_the_merge_has_what_is_left_of_the_time(tmp_path, monkeypatch):
    limits = []

    def recorded(trials, commands, *_, seconds=None, **__):
        limits.append(seconds)
        return Measured(trials, 2.0, 1.0, {})

    monkeypatch.setattr(efficiency, "measured", recorded)
    efficiency.run_shards(tmp_path, 4, 2, True, 5.0, 1)
    efficiency.run_shards(tmp_path, 4, 2, True, None, 1)
    assert limits == [5.0, 3.0, None, None]

"""Systems that harm their process affect their rows only."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.__main__ import main
from bench.errors import UserError
from bench.guard import ProcessState
from bench.manifest import write_trials
from bench.run.folder import read_table
from bench.stages.convert import Entry, convert_suite
from bench.stages.execute import LONGEST_ERROR
from bench.stages.isolated import MOST_ENDS, Isolated, _outcome
from bench.stages.worker import HEADER, BrokenMessage, receive, send
from bench.trials import Suite
from suites.build import MINI
from tests.conftest import MANIFEST
from tests.support import hostile

HOSTILE = "tests.support.hostile"
STATES = {
    "Dtype": "set torch's default dtype to torch.bfloat16",
    "Threads": "set torch's number of threads to 3",
    "Directory": "set the working directory to /",
    "Environment": "set the environment (OMP_NUM_THREADS)",
    "NumpyErrors": "set numpy's error handling (divide, ",
    "Modes": "set torch's deterministic mode to True; set torch's matmul precision to medium",
    "Seeds": "",
}


@pytest.fixture
def isolated():
    """Creates isolated systems whose processes end with the test."""
    started = []

    def make(name, seconds=60.0, **settings):
        target = {"_target_": f"{HOSTILE}.{name}", **settings}
        started.append(Isolated(name, target, seconds))
        return started[-1]

    yield make
    for system in started:
        system.close()


@pytest.mark.parametrize("name", STATES)
def test_what_a_system_changes_in_this_process_is_restored_and_recorded(name, suite, tmp_path):
    before = ProcessState.now()
    done = convert_suite(Entry("x", getattr(hostile, name)()), suite, tmp_path)
    assert before.changes() == ()
    assert [r.status for r in done.values()] == ["ok"] * 4
    for record in done.values():
        assert record.remarks.startswith(STATES[name])
        assert bool(record.remarks) == bool(STATES[name])


def test_the_global_random_numbers_go_on_as_if_no_system_had_run(suite, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    drawn = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    convert_suite(Entry("x", hostile.Seeds()), suite, tmp_path)
    assert (torch.rand(1), np.random.rand()) == drawn


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Exits", "SystemExit: 0"),
        ("SenselessRate", "1 Hz"),
        ("RaisesUnprintable", "Unprintable: (its message cannot be shown)"),
        ("LongError", "… (2000014 characters)"),
    ],
)
def test_a_systems_strange_end_is_a_failed_row(name, error, suite, tmp_path):
    done = convert_suite(Entry("x", getattr(hostile, name)()), suite, tmp_path)
    for record in done.values():
        assert record.status == "failed"
        assert error in record.error
        assert len(record.error) < LONGEST_ERROR + 100


def test_of_a_subclass_of_waveform_only_the_samples_are_used(suite, tmp_path):
    done = convert_suite(Entry("x", hostile.Subclasses()), suite, tmp_path)
    assert {r.status for r in done.values()} == {"ok"}


def test_a_crash_fails_one_trial_and_the_next_one_gets_a_new_process(isolated, suite, tmp_path):
    system = isolated("CrashesOnce", marker=str(tmp_path / "crashed"))
    done = convert_suite(Entry("x", system), suite, tmp_path)
    assert [r.status for r in done.values()] == ["failed", "ok", "ok", "ok"]
    assert next(iter(done.values())).error == "its process was ended by SIGSEGV"
    again = convert_suite(Entry("x", system), suite, tmp_path)
    assert [r.status for r in again.values()] == ["ok"] * 4


@pytest.mark.slow
def test_a_system_that_always_hangs_is_given_up(isolated, suite, tmp_path):
    start = time.monotonic()
    done = convert_suite(Entry("x", isolated("Hangs", seconds=0.5)), suite, tmp_path)
    assert time.monotonic() - start < 120
    errors = [record.error for record in done.values()]
    assert errors[:MOST_ENDS] == [errors[0]] * MOST_ENDS
    assert "no result after 0.5 s" in errors[0]
    assert "not tried: 3 conversions in a row ended" in errors[MOST_ENDS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("ExitsAtOnce", "its process ended itself with exit code 0"),
        ("Interrupts", "KeyboardInterrupt"),
        ("Asks", "EOFError"),
    ],
)
def test_a_process_that_ends_or_is_interrupted_is_a_failed_row(name, error, isolated, suite):
    trial = suite.trials[0]
    outcome = isolated(name).outcome(trial.source.load(), trial.reference(), 0)
    assert outcome.converted is None
    assert error in outcome.error


@pytest.mark.slow
def test_what_a_system_prints_is_not_the_output_of_the_program(isolated, suite, capfd):
    trial = suite.trials[0]
    assert isolated("Prints").outcome(trial.source.load(), trial.reference(), 0).converted
    assert capfd.readouterr().out == ""


def test_an_isolated_system_gives_what_it_gives_in_this_process(isolated, suite, tmp_path):
    here = convert_suite(Entry("x", hostile.Calm()), suite, tmp_path / "here")
    apart = convert_suite(Entry("x", isolated("Calm")), suite, tmp_path / "apart")
    for trial, record in here.items():
        assert apart[trial].wav_sha256 == record.wav_sha256
        assert apart[trial].origin.split(",")[:2] == record.origin.split(",")[:2]  # not threads
        assert 0 < apart[trial].elapsed_seconds < 10


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("ExitsWhenBuilt", {}, "SystemExit"),
        ("Nothing", {}, "Nothing"),
        ("Calm", {"gain": 1}, "takes no arguments"),
        ("Letters", {}, "trained_on is 'LibriTTS'"),
        ("Numbers", {}, "trained_on is '(1, 2)'"),
        ("Untrained", {}, "trained_on is 'None'"),
        ("NoSystem", {}, "NoSystem is no system"),
    ],
)
def test_a_system_that_cannot_be_built_is_one_line(name, settings, reason, isolated):
    with pytest.raises(UserError, match="system ") as raised:
        _ = isolated(name, **settings).facts
    assert reason in str(raised.value)


def test_a_system_that_hangs_when_it_is_built_is_one_line():
    system = Isolated("x", {"_target_": f"{HOSTILE}.HangsWhenBuilt"}, build_seconds=0.2)
    with pytest.raises(UserError, match=r"not ready after 0\.2 s"):
        _ = system.facts


GOOD = {
    "error": "",
    "elapsed_seconds": 0.5,
    "stages": {"a": 0.1},
    "origin": "x on y",
    "remarks": [],
    "converted": {"rate": 16000, "count": 8000},
}


@pytest.mark.parametrize(
    "change",
    [
        {"elapsed_seconds": -1.0},
        {"elapsed_seconds": 1e9},
        {"elapsed_seconds": 10**400},
        {"streamed": {"first_chunk_seconds": 0, "stream_seconds": 0, "streamed_seconds": 10**400}},
        {"elapsed_seconds": "fast"},
        {"elapsed_seconds": True},
        {"elapsed_seconds": None},
        {"stages": [1]},
        {"stages": {"a": "b"}},
        {"remarks": None},
        {"remarks": [1]},
        {"origin": 3},
        {"error": None},
        {"converted": {"rate": 16000, "count": 7}},
        {"converted": [16000, 8000]},
        {"converted": None},
    ],
)
def test_an_answer_that_cannot_be_is_refused(change):
    samples = np.sin(np.arange(8000, dtype=np.float32))
    assert _outcome(GOOD, samples, 1.0).converted.seconds == 0.5
    with pytest.raises(BrokenMessage):
        _outcome({**GOOD, **change}, samples, 1.0)


@pytest.mark.parametrize("rate", [1, 0, -16000, "16000", 16000.5, None, 10**9])
def test_an_answer_at_a_senseless_rate_is_a_failure(rate):
    samples = np.sin(np.arange(8000, dtype=np.float32))
    answer = {**GOOD, "converted": {"rate": rate, "count": 8000}}
    outcome = _outcome(answer, samples, 1.0)
    assert outcome.converted is None
    assert outcome.error


@pytest.mark.parametrize(
    "sent",
    [
        HEADER.pack(2**32 - 1, 0),
        HEADER.pack(2, 3) + b"{}abc",
        HEADER.pack(4, 0) + b"nope",
        HEADER.pack(2, 0) + b"[]",
        HEADER.pack(10, 0) + b'{"a": NaN}',
        HEADER.pack(2, 0) + b"\xff\xff",
        HEADER.pack(40000, 0) + b"[" * 40000,
    ],
)
def test_what_is_no_message_is_refused(sent):
    here, there = socket.socketpair()
    with here, there:
        there.sendall(sent)
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenMessage):
            receive(here, 5.0)


def test_a_message_that_comes_drop_by_drop_is_not_waited_for():
    here, there = socket.socketpair()
    with here, there:
        there.sendall(HEADER.pack(100, 0) + b"{")
        with pytest.raises(TimeoutError):
            receive(here, 0.1)


def test_a_message_survives_the_socket():
    here, there = socket.socketpair()
    with here, there:
        samples = np.linspace(-1, 1, 1000, dtype=np.float32)
        send(there, {"text": "ä", "n": 1}, samples[:300], samples[300:])
        message, received = receive(here, 5.0)
    assert message == {"text": "ä", "n": 1}
    np.testing.assert_array_equal(received, samples)


@pytest.mark.slow
def test_hostile_systems_change_nothing_of_the_others_rows(tmp_path, monkeypatch):
    """A run of the whole command line, with real judges, is compared with a clean one."""
    monkeypatch.chdir(tmp_path)
    trials = Suite.load(MANIFEST, root=MINI).trials
    # Sources of 4.51 to 5.01 s, doubled, fill one window of DNSMOS; one of 4 s fills eight.
    brief = [t for t in trials if 4.51 <= t.source.load().seconds <= 5.0][:2]
    assert len(brief) == 2
    write_trials(brief, tmp_path / "brief.jsonl", MINI)
    names = ["Dtype", "Threads", "Directory", "NumpyErrors", "Mutates", "Exits", "Crashes", "Hangs"]
    common = [
        *("suite=brief.jsonl", f"root={MINI}", "report=[]", "trial_seconds=5"),
        "judge=[dnsmos,integrity,prosody]",
    ]
    paths = ",".join(f"{HOSTILE}.{name}" for name in names)
    assert vcbench("run", "name=mixed", f"system=[source,world,{paths}]", *common) == 1
    (tmp_path / "outputs/.cache/scores.sqlite").rename(tmp_path / "mixed.sqlite")
    assert vcbench("run", "name=clean", "system=[source,world]", *common) == 0
    shared = tmp_path / "mixed.sqlite"
    assert vcbench("run", "name=after", "system=[source,world]", f"cache={shared}", *common) == 0
    tables = {
        name: read_table(tmp_path / "outputs" / name / "scores.csv")
        for name in ("mixed", "clean", "after")
    }
    timed = ["elapsed_seconds"]
    clean = tables["clean"].drop(columns=timed)
    for name in ("mixed", "after"):
        rows = tables[name][tables[name]["system"].isin(["source", "world"])]
        assert list(rows["elapsed_seconds"].notna()) == list(rows["system"] == "world")
        rows = rows.drop(columns=timed).reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, clean, check_dtype=False, check_exact=True)
    rows = tables["mixed"].groupby("system")
    errors, remarks = rows["error"].first(), rows["remarks"].first()
    assert errors["exits"] == "SystemExit: 0"
    assert errors["crashes"] == "its process was ended by SIGSEGV"
    assert errors["hangs"].startswith("no result after 5 s")
    assert "bfloat16" in remarks["dtype"]
    assert remarks["directory"] == "set the working directory to /"
    assert rows["origin"].first()["threads"].endswith("3 threads")


def vcbench(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


QUICK = ["limit=1", "suite=mini_cross_gender", "report=[]", "judge=[tests.support.fakes.Length]"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's project in another folder: a system in two files, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "best.pt").write_bytes(b"one")
    (tmp_path / "gains.py").write_text("GAIN = 0.5\n")
    (tmp_path / "voices.py").write_text(
        "from bench.audio import Waveform\n"
        "from gains import GAIN\n"
        "class Voice:\n"
        "    trained_on = frozenset()\n"
        "    def __init__(self, checkpoint):\n"
        "        pass\n"
        "    def convert(self, source, reference, *, seed):\n"
        "        return Waveform(source.samples * GAIN, source.sample_rate)\n"
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["best.pt", "gains.py", "voices.py"])
def test_changed_code_or_a_changed_checkpoint_is_noticed(changed, project, capsys):
    run = ["run", "name=a", "system=voices.Voice", "+system.voice.checkpoint=best.pt", *QUICK]
    assert vcbench(*run) == 0
    first = (project / "outputs/a/wav/voice/mini_cross_gender").glob("*.wav")
    first = next(first).read_bytes()
    assert vcbench(*run) == 0
    path = project / changed
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.25") + b"\n#\n")
    capsys.readouterr()
    assert vcbench(*run) == 2
    assert "made with other settings or code" in capsys.readouterr().err
    assert vcbench(*run, "overwrite=true") == 0
    again = next((project / "outputs/a/wav/voice/mini_cross_gender").glob("*.wav")).read_bytes()
    assert (again != first) == (changed == "gains.py")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_setting_that_cannot_be_recorded_is_one_line(value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ["run", "name=a", "system=tests.support.fakes.Louder", f"+system.louder.gain={value}"]
    assert vcbench(*run, *QUICK) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "gain" in error


def test_a_system_is_not_built_where_all_is_converted(project, capsys):
    run = ["name=a", "system=voices.Voice", "+system.voice.checkpoint=best.pt", *QUICK]
    assert vcbench("run", *run) == 0
    (project / "outputs/a/scores.csv").unlink()
    built = sorted((project / "__pycache__").glob("*"))
    for path in built:
        path.unlink()
    assert vcbench("score", *run) == 0
    assert not list((project / "__pycache__").glob("*"))


@pytest.mark.slow
def test_no_process_is_left_behind_by_a_killed_run(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    marker = tmp_path / "pid"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bench", "run", "name=a", f"system={HOSTILE}.WritesPid"),
            *(f"+system.writes_pid.path={marker}", *QUICK),
        ],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    worker = int(json.loads(marker.read_text()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_folder_of_the_same_name_where_the_user_is_does_not_stand_in(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    system = Isolated("x", {"_target_": f"{HOSTILE}.Paths"})
    try:
        facts = system.facts
    finally:
        system.close()
    assert facts.trained_on == {"None"}  # its child processes get the user's search path

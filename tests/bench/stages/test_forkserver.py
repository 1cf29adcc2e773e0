"""A forked process is as separate as one that was started, and ends when it must."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from bench.cli.settings import load
from bench.cli.verbs import systems_of
from bench.stages.forkserver import ForkServer, fork_server
from bench.stages.isolated import Isolated
from bench.stages.worker import receive, send

PROGRAM = "tests.support.forked"


@pytest.fixture
def fork(tmp_path):
    """Starts processes, which end with the test; each with what it says about itself."""
    started = []

    def start(number=0, **variables):
        with (tmp_path / "output.txt").open("ab") as output:
            process = fork_server(number).fork(PROGRAM, output.fileno(), variables)
        started.append(process)
        return process, receive(process.connection, 30.0)[0]

    yield start
    for process in started:
        process.close()


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def ends(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid)


def test_a_process_has_the_environment_and_folder_of_the_caller(fork, tmp_path, monkeypatch):
    fork()  # the server is there before the changes
    monkeypatch.setenv("SET_BY_A_TEST", "1")
    monkeypatch.chdir(tmp_path)
    _, state = fork(TMPDIR=str(tmp_path))
    assert state["environment"] == {**os.environ, "TMPDIR": str(tmp_path)}
    assert state["folder"] == state["temporary"] == str(tmp_path)
    assert state["session"] == state["pid"]
    assert os.getpid() not in (state["parent"], state["session"])


def test_a_process_begins_with_one_thread_and_without_cuda(fork):
    _, state = fork()
    assert state["threads"] == 1
    assert not state["cuda"]


def test_nothing_passes_from_one_process_to_the_next(fork):
    first, before = fork()
    send(first.connection, {"change": True})
    _, after = fork()
    for key in ("default_dtype", "left"):
        assert after[key] == before[key]
    assert after["left"] is None
    assert after["random"] != before["random"]


def test_strings_have_other_hashes_in_the_processes_of_another_server(fork, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    one, same, other = fork(), fork(), fork(1)
    assert one[1]["hash"] == same[1]["hash"] != other[1]["hash"]
    assert one[1]["parent"] == same[1]["parent"] != other[1]["parent"]


def test_libraries_that_read_the_environment_when_loaded_are_loaded_anew(fork, monkeypatch):
    _, before = fork()
    monkeypatch.setenv("OMP_SET_BY_A_TEST", "1")
    process, after = fork()
    assert after["parent"] != before["parent"]
    process.close()
    fork_server().close()


def test_a_process_computes_with_several_threads(fork):
    process, _ = fork()
    send(process.connection, {"compute": True})
    assert receive(process.connection, 60.0)[0] == {"sum": 300.0**3, "threads": 2}


@pytest.mark.parametrize(
    ("message", "code"), [({"exit": 0}, 0), ({"exit": 7}, 7), ({"kill": signal.SIGSEGV}, -11)]
)
def test_the_exit_code_is_that_of_the_process(message, code, fork):
    process, _ = fork()
    assert process.exit_code() is None
    send(process.connection, message)
    assert process.exit_code(10.0) == code
    process.close()
    assert process.exit_code() == code


def test_an_error_is_written_to_the_output(fork, tmp_path):
    with (tmp_path / "error.txt").open("wb") as output:
        process = fork_server().fork("tests.support.no_such_program", output.fileno())
    assert process.exit_code(10.0) == 1
    assert "No module named 'tests.support.no_such_program'" in (tmp_path / "error.txt").read_text()
    process.close()


def test_closing_kills_a_process_that_stays_and_what_it_started(fork):
    process, state = fork()
    send(process.connection, {"start": True, "stay": True})
    started = receive(process.connection, 10.0)[0]["pid"]
    assert is_running(started)
    process.close()
    assert process.exit_code() == -signal.SIGKILL
    assert ends(state["pid"])
    assert ends(started)


def test_a_process_that_ended_leaves_none_that_it_started(fork):
    process, _ = fork()
    send(process.connection, {"start": True})
    started = receive(process.connection, 10.0)[0]["pid"]
    process.connection.close()
    assert process.exit_code(10.0) == 0
    process.close()
    assert ends(started)


def test_a_closed_server_ends_its_processes(tmp_path):
    server = ForkServer()
    with (tmp_path / "output.txt").open("wb") as output:
        process = server.fork(PROGRAM, output.fileno())
    pid = receive(process.connection, 30.0)[0]["pid"]
    send(process.connection, {"stay": True})
    server.close()
    assert not server.alive
    assert ends(pid)
    assert process.exit_code() == -signal.SIGKILL
    with pytest.raises(OSError, match=r".*"):
        server.fork(PROGRAM, 2)


@pytest.fixture
def workers():
    """Makes systems in forked processes, which end with the test."""
    made = []

    def make(settings):
        made.append(Isolated("x", settings, 300.0))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_processes_of_one_server_compute_on_the_gpu_in_turn_and_together(workers, recordings):
    source, reference = recordings[0].load(), recordings[-1].load()
    settings = {"_target_": "tests.support.fakes.OnGpu", "device": "cuda"}
    first, second = workers(settings), workers(settings)
    for worker in (first, second, first):
        converted = worker.convert(source, reference, seed=1)
        torch.testing.assert_close(converted.samples, source.samples / 2)
    first.close()
    third = workers(settings).convert(source, reference, seed=1)
    torch.testing.assert_close(third.samples, source.samples / 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_system_on_the_gpu_gives_what_it_gives_on_the_cpu(workers, recordings):
    source, reference = recordings[0].load(), recordings[-1].load()
    outputs = []
    for device in ("cpu", "cuda"):
        (settings,) = systems_of(load(["system=instance_norm", f"device={device}"])).values()
        outputs.append(workers(settings).convert(source, reference, seed=1).samples)
    assert torch.corrcoef(torch.stack(outputs))[0, 1] > 0.999

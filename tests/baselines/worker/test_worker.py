"""A system in another interpreter: what goes wrong in it costs its own trials only."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from baselines.isolated import __file__ as ISOLATED
from baselines.worker import client
from baselines.worker.client import LONGEST_LOG, TAIL, WorkerFailed
from baselines.worker.system import MOST_ENDS, IsolatedBaseline
from bench.audio import Waveform
from bench.errors import UserError
from bench.stages.isolated import Isolated
from bench.stages.timing import recording_stages

ADAPTERS = Path(__file__).parents[2] / "support" / "adapters"
SPEECH = Waveform.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, 16000), 16000)
LAST = 9  # conversions of one test

# Fault → what the error of the seventh conversion says, and whether the process was started again.
FAULTS = {
    "dies": (r"ended with exit code 3.*its stderr: about to die", True),
    "crashes": (r"was ended by SIGSEGV", True),
    "hangs": (r"no answer after 1 s of converting; its process was ended", True),
    "hangs_in_c": (r"no answer after 1 s of converting", True),
    "answers_late": (r"no answer after 1 s of converting", True),
    "floods_and_dies": (r"exit code 1.* the last words", True),
    "sends_rubbish": (r"a line that is not JSON", True),
    "sends_without_end": (r"a line that is too long", True),
    "sends_another_answer": (r"an answer to no question", True),
    "takes_negative_time": (r"a time that cannot be", True),
    "claims_too_much": (r"a number of samples that cannot be", True),
    "closes_its_connection": (r"closed its connection", True),
    "exits": (r"SystemExit: 0", False),
    "raises": (r"ValueError: too short", False),
    "answers_text": (r"TypeError: convert returned str, not samples", False),
    "answers_stereo": (r"shape \(2, 16000\)", False),
    "answers_nan": (r"converted speech is not finite", False),
    "answers_silence": (r"converted speech is silent", False),
    "answers_nothing": (r"converted speech is empty", False),
}
HARMLESS = ("floods", "prints", "leaves_a_process")


@pytest.fixture(autouse=True)
def environments(tmp_path, monkeypatch):
    """The folder of environments: logs go there."""
    monkeypatch.setenv("VCBENCH_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path / "environments"


@pytest.fixture
def start(tmp_path):
    """Starts systems that end with the test."""
    started = []

    def make(adapter="gain", **options):
        path = str(ADAPTERS / f"{adapter}.py")
        started.append(IsolatedBaseline(path, python=sys.executable, device="cpu", **options))
        return started[-1]

    yield make
    for system in started:
        system.close()


@pytest.fixture
def faulty(start, tmp_path):
    def make(fault, at=7, trial_seconds=1.0):
        return start(
            "faulty",
            fault=fault,
            at=at,
            counter=str(tmp_path / "counter"),
            trial_seconds=trial_seconds,
        )

    return make


def alive(pid):
    """Whether the process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=5.0):
    """Whether all processes end within `seconds`."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, pids))


def command_of(pid):
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def descendants(pid):
    """The processes that a process started, and those that they started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [p for c in map(int, children) for p in (c, *descendants(c))]


def test_speech_goes_there_and_comes_back_bit_for_bit(start):
    system = start(gain=0.5)
    np.testing.assert_array_equal(
        system.convert(SPEECH, SPEECH, seed=1).numpy(), SPEECH.numpy() * np.float32(0.5)
    )


def test_the_handshake_names_what_converts(start):
    system = start()
    assert f"python {sys.version.split()[0]}" in system.versions
    assert f"numpy {np.__version__}" in system.versions


def test_stages_are_those_of_the_worker_and_shorter_than_the_call(start):
    system = start()
    with recording_stages() as stages:
        before = time.perf_counter()
        system.convert(SPEECH, SPEECH, seed=1)
        elapsed = time.perf_counter() - before
    assert set(stages) == {"read", "scale"}
    assert 0 < sum(stages.values()) < elapsed


def test_the_seed_alone_decides_what_is_random(start):
    one, other = start(noise=0.1), start(noise=0.1)
    other.convert(SPEECH, SPEECH, seed=3)
    a, b, c = (s.convert(SPEECH, SPEECH, seed=n) for s, n in ((one, 1), (other, 1), (one, 2)))
    assert a.sha256 == b.sha256 != c.sha256


def test_files_are_float_wavs_that_libraries_read(tmp_path):
    loud = Waveform.from_numpy(np.array([0.1, -1.5, 1e-9, 0.7]), 22050)
    (tmp_path / "x.wav").write_bytes(client.wav_bytes(loud))
    samples, rate = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert (rate, soundfile.info(tmp_path / "x.wav").subtype) == (22050, "FLOAT")
    np.testing.assert_array_equal(samples, loud.numpy())


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_at_the_seventh_conversion_costs_that_one_alone(fault, faulty):
    system = faulty(fault)
    error, restarts = FAULTS[fault]
    for n in range(1, LAST + 1):
        worker = system._worker
        if n == 7:
            with pytest.raises(RuntimeError, match=error) as raised:
                system.convert(SPEECH, SPEECH, seed=n)
            assert len(str(raised.value)) < TAIL + 400
            assert (system._worker is not worker) == restarts
            assert isinstance(raised.value, WorkerFailed) == restarts
        else:
            assert len(system.convert(SPEECH, SPEECH, seed=n).samples) == 16000


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_a_library_prints_or_starts_costs_no_trial(fault, faulty, environments, tmp_path):
    system = faulty(fault, trial_seconds=30.0)
    worker = system._worker
    for n in range(1, LAST + 1):
        system.convert(SPEECH, SPEECH, seed=n)
    assert system._worker is worker
    system.close()
    log = environments / "logs" / "faulty.log"
    assert log.stat().st_size <= LONGEST_LOG + 1000
    assert ("rubbish" in log.read_text(errors="replace")) == (fault == "prints")
    if fault == "leaves_a_process":
        assert gone([int((tmp_path / "counter.pid").read_text())])


def test_nothing_is_tried_after_three_ends_in_a_row(start, tmp_path):
    counter = tmp_path / "counter"
    system = start("faulty", fault="dies", at=1, counter=str(counter))
    for _ in range(MOST_ENDS):
        counter.unlink(missing_ok=True)
        with pytest.raises(RuntimeError, match="exit code 3"):
            system.convert(SPEECH, SPEECH, seed=1)
    with pytest.raises(RuntimeError, match="not tried: 3 conversions in a row"):
        system.convert(SPEECH, SPEECH, seed=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter": "coquii"}, "unknown adapter 'coquii'.*coqui"),
        ({"adapter": "/nowhere/mine.py"}, "no adapter at /nowhere/mine.py"),
        ({"adapter": "coqui"}, "coqui: its environment is not installed.*baseline install coqui"),
        ({"adapter": str(ADAPTERS / "gain.py"), "python": "/nowhere/python"}, "no interpreter at"),
        ({"adapter": str(ADAPTERS / "gain.py"), "gian": 1}, "could not be loaded.*'gian'"),
        (
            {
                "adapter": str(ADAPTERS / "faulty.py"),
                "fault": "cannot_load",
                "at": 1,
                "counter": "",
            },
            "could not be loaded: FileNotFoundError: no checkpoint",
        ),
        (
            {
                "adapter": str(ADAPTERS / "faulty.py"),
                "fault": "senseless_rate",
                "at": 1,
                "counter": "",
            },
            "a sample rate that cannot be .1 Hz",
        ),
    ],
)
def test_a_system_that_cannot_be_built_says_why(settings, message):
    if "python" not in settings and settings["adapter"].endswith(".py"):
        settings = {**settings, "python": sys.executable, "device": "cpu"}
    with pytest.raises(UserError, match=message):
        IsolatedBaseline(**settings)


PARENT = """
import signal, sys
import numpy as np
from baselines.worker.system import IsolatedBaseline
from bench.audio import Waveform
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
adapter, fault, counter = sys.argv[1:]
system = IsolatedBaseline(
    adapter, python=sys.executable, device="cpu", fault=fault, at=2, counter=counter
)
speech = Waveform.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, 16000), 16000)
system.convert(speech, speech, seed=1)
print(system._worker._scratch, flush=True)
system.convert(speech, speech, seed=1)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fault", ["hangs", "hangs_in_c"])
def test_no_process_and_no_file_is_left_whatever_ends_the_parent(fault, number, tmp_path):
    counter = tmp_path / "counter"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ADAPTERS / "faulty.py"), fault, str(counter)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    scratch = Path(parent.stdout.readline().decode().strip())
    while counter.stat().st_size < 2:  # it converts again, and hangs
        time.sleep(0.02)
    pids = descendants(parent.pid)
    assert len(pids) == 2
    assert scratch.is_dir()
    os.kill(parent.pid, number)
    parent.wait(10)
    assert gone(pids)
    assert not scratch.exists()


def test_the_time_limit_of_a_run_ends_all_three_processes(tmp_path):
    settings = {
        "_target_": "baselines.worker.system.IsolatedBaseline",
        "adapter": str(ADAPTERS / "faulty.py"),
        "python": sys.executable,
        "device": "cpu",
        "fault": "hangs_in_c",
        "at": 2,
        "counter": str(tmp_path / "counter"),
    }
    isolated = Isolated("x", settings, 3.0)
    try:
        first = isolated.outcome(SPEECH, SPEECH, 1)
        assert first.error == ""
        assert f", numpy {np.__version__}" in first.origin
        (guard,) = [pid for pid in descendants(os.getpid()) if "server.py" in command_of(pid)][:1]
        pids = [guard, *descendants(guard)]
        assert len(pids) == 2
        assert "no result after 3 s" in isolated.outcome(SPEECH, SPEECH, 1).error
        assert gone(pids)
        assert isolated.outcome(SPEECH, SPEECH, 1).error == ""
    finally:
        isolated.close()


def test_the_worker_ends_with_its_guard(faulty):
    faulty("hangs")
    guard, worker = descendants(os.getpid())[-2:]
    os.kill(guard, signal.SIGKILL)
    assert gone([worker])


def test_the_server_is_python_3_8_with_numpy_alone():
    for path in (client.SERVER, *Path(ISOLATED).parent.glob("*.py"), ADAPTERS / "gain.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {
            (a.name if isinstance(n, ast.Import) else n.module).partition(".")[0]
            for n in top
            for a in n.names
        }
        assert names <= {*sys.stdlib_module_names}, path
    imported = {
        node.names[0].name
        for node in ast.walk(ast.parse(client.SERVER.read_text()))
        if isinstance(node, ast.Import)
    }
    assert imported - {*sys.stdlib_module_names} == {"importlib.util", "numpy", "torch"}

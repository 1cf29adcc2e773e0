"""`executor=ray` on a real Ray: the bytes of this process, also if parts of the cluster end.

`make test-ray` runs these tests; a cluster takes seconds to start.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import UserError
from bench.run.executors import RayExecutor, RaySettings, StageSettings
from bench.run.folder import read_report
from bench.run.judges import DeclaredJudge
from bench.run.run import Run
from bench.stages import execute
from bench.stages.pool import Needs, Program
from bench.stages.worker import BrokenMessage
from reports.findings import findings_of
from tests.support.backend import counted

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

from bench.stages.ray import RayBackend  # noqa: E402 (needs Ray)

MANIFEST = Path(__file__).parents[3] / "suites/manifests/mini_cross_gender.v2.jsonl"
FIXED = "tests.support.fakes.FixedTimes"
ROOT = Path(__file__).parents[3]
SYSTEMS = {
    "source": "baselines.anchors.Source",
    "slow": {"_target_": "tests.support.fakes.Slow", "seconds": 0.1},
}
CLI = [
    *("limit=8", "suite=mini_cross_gender", "report=[]", "progress=none", "isolated=false"),
    *("system=[source,tests.support.fakes.Slow]", "+system.slow.seconds=0.1"),
    *("judge=[tests.support.backend.Counted]", "+judge.counted.log=counted.jsonl"),
]


class Watched(RayBackend):
    """Ray, with an event after a number of answers.

    Args:
        address: of the cluster.
        after: how many answers with work come before the event.
        event: receives the process ids of the workers that have said hello.
    """

    def __init__(self, address, after, event):
        super().__init__(address)
        self.after = after
        self.event = event
        self.pids = []
        self.answers = 0

    def answer(self, call):
        answer = super().answer(call)
        if isinstance(answer.value, dict) and "pid" in answer.value:
            self.pids.append(answer.value["pid"])
        else:
            self.answers += 1
            if self.answers == self.after:
                self.event(self.pids)
        return answer


def suites(limit=8):
    from bench.cli.settings import load
    from bench.cli.verbs import suites_of

    return suites_of(load(["suite=mini_cross_gender", f"limit={limit}"]))


def run_in(folder, connect=None, workers=2, **options):
    executor = None
    if connect is not None:
        stage = StageSettings(workers=workers, cpus=0.5)
        executor = RayExecutor(RaySettings(convert=stage, judge=stage), connect)
    options = {"isolated": False} | options
    return Run(folder / "run", suites=suites(), systems=SYSTEMS, executor=executor, **options)


def judges(folder):
    settings = {"_target_": "tests.support.backend.Counted", "log": str(folder / "log")}
    return {"length": DeclaredJudge(settings)}


def finish(folder, connect=None, **options):
    run = run_in(folder, connect, **options)
    run.convert(judges=judges(folder))
    run.score(judges(folder))
    return tables(folder / "run")


def tables(folder):
    """The tables of a run as texts, without times."""
    scores, summary = (pd.read_csv(folder / f"{name}.csv") for name in ("scores", "summary"))
    times = [c for c in scores if c == "elapsed_seconds" or c.startswith("stage.")]
    return (
        scores.drop(columns=times).to_csv(index=False),
        summary[summary["judge"] != "timing"].to_csv(index=False),
    )


def children():
    """The processes of Ray, its actors and this project, with their parents' deaths survived."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (path / "environ").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        marked = f"VCBENCH_TEST={os.getpid()}".encode() in environment
        # A child of this process is its own fork server, which lasts as long as this one.
        if marked and os.getpid() not in (int(path.name), parent):
            found.append(f"{path.name}: {line[:80]}")
    return found


def none_is_left(seconds=30.0):
    end = time.monotonic() + seconds
    while (left := children()) and time.monotonic() < end:
        time.sleep(0.2)
    return left == [] or left


@pytest.fixture(autouse=True)
def marked(monkeypatch):
    """Processes that the test starts, and those that they start, can be told by a variable."""
    monkeypatch.setenv("VCBENCH_TEST", str(os.getpid()))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The tables of this process, and the sounds that its judge has scored."""
    folder = tmp_path_factory.mktemp("local")
    return finish(folder), sorted(counted(folder / "log"))


def test_killed_actors_change_nothing(tmp_path, local):
    killed = []

    def kill(pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    # Isolated: each system converts in a process that the actor starts.
    found = finish(tmp_path, lambda: Watched(None, 3, kill), isolated=True)
    assert killed
    assert found == local[0]
    scored = counted(tmp_path / "log")
    assert set(scored) == set(local[1])
    remarks = (tmp_path / "run" / "remarks.jsonl").read_text()
    assert remarks.count("a worker ended") >= 1
    assert none_is_left() is True


def test_a_killed_node_changes_nothing(tmp_path, local):
    from ray.cluster_utils import Cluster

    small = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

        def kill(pids):
            cluster.remove_node(second, allow_graceful=False)

        found = finish(tmp_path, lambda: Watched(cluster.address, 6, kill))
        assert found == local[0]
        assert set(counted(tmp_path / "log")) == set(local[1])
    finally:
        cluster.shutdown()
    assert none_is_left() is True


class Elsewhere(RayBackend):
    """Ray, whose workers work while folders are renamed: as on machines without them."""

    folders = ()

    def wait(self, calls, seconds):
        pairs = [(f, f.with_name(f"{f.name}.hidden")) for f in self.folders]
        for folder, hidden in pairs:
            folder.rename(hidden)
        try:
            return super().wait(calls, seconds)
        finally:
            for folder, hidden in pairs:
                hidden.rename(folder)


def test_two_nodes_without_a_shared_folder(tmp_path, local, monkeypatch):
    """A node ends meanwhile; files come through Ray's object store, and nothing of them is left."""
    from ray.cluster_utils import Cluster

    from bench.trials import Suite
    from suites.build import MINI

    corpus = tmp_path / "corpus"
    shutil.copytree(MINI, corpus)
    suite = Suite.load(MANIFEST, root=corpus, name="mini_cross_gender", limit=8)
    received = tmp_path / "received"
    received.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # its sockets need a short path
    monkeypatch.setenv("TMPDIR", str(received))
    monkeypatch.setattr(tempfile, "tempdir", None)
    small = {"include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

        class Both(Elsewhere, Watched):
            folders = (corpus, tmp_path / "run")

        def kill(pids):
            cluster.remove_node(second, allow_graceful=False)

        def connect():
            return Both(cluster.address, 6, kill)

        stage = StageSettings(workers=2, cpus=0.5)
        executor = RayExecutor(RaySettings(convert=stage, judge=stage, files="store"), connect)
        options = {"systems": SYSTEMS, "executor": executor, "isolated": False}
        run = Run(tmp_path / "run", suites=[suite], **options)
        run.convert(judges=judges(tmp_path))
        assert not list(received.glob("vcbench-*"))
        run.score(judges(tmp_path))
        assert tables(tmp_path / "run") == local[0]
        assert set(counted(tmp_path / "log")) == set(local[1])
    finally:
        cluster.shutdown()
    assert none_is_left() is True


def vcbench(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_killed_driver_resumes_and_leaves_no_process(tmp_path):
    command = ["run", "name=a", *CLI, "executor=ray", "executor.convert.workers=2"]
    log = tmp_path / "outputs" / "a" / "conversions" / "slow" / "mini_cross_gender.jsonl"
    driver = vcbench(tmp_path, *command)
    while driver.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    driver.kill()
    _, errors = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, errors
    again = vcbench(tmp_path, *command)
    assert (again.communicate(timeout=300), again.returncode) == ((None, ""), 0)
    scored = counted(tmp_path / "counted.jsonl")
    single = vcbench(tmp_path, "run", "name=b", "cache=b.sqlite", *CLI)
    assert (single.communicate(timeout=300), single.returncode) == ((None, ""), 0)
    outputs = tmp_path / "outputs"
    assert tables(outputs / "a") == tables(outputs / "b")
    # Only what the killed driver had in flight may have been scored before.
    assert len(scored) - len(set(scored)) <= 8
    assert set(counted(tmp_path / "counted.jsonl")) == set(scored)
    # Ray's agents try to report the death of their parent for a while.
    assert none_is_left(180) is True


def test_a_full_disk_ends_the_run_with_one_line(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "vcbench-test", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        command = ["run", "name=a", "outputs=small", *CLI, "executor=ray"]
        full = vcbench(tmp_path, *command)
        _, errors = full.communicate(timeout=300)
        assert full.returncode == 2, errors
        assert errors.startswith("vcbench: the disk is full while writing ")
        assert errors.count("\n") == 1
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        again = vcbench(tmp_path, *command)
        assert (again.communicate(timeout=300), again.returncode) == ((None, ""), 0)
        assert len(pd.read_csv(folder / "a" / "scores.csv")) == 16
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_slow_machine_gets_less_work(tmp_path, monkeypatch):
    monkeypatch.setenv("VCBENCH_TEST_CALLS", str(tmp_path / "calls"))
    settings = {"_target_": "tests.support.fakes.SlowInOneProcess", "seconds": 0.2}
    executor = RayExecutor(RaySettings(convert=StageSettings(workers=3, cpus=0.5)))
    options = {"executor": executor, "isolated": False}
    Run(tmp_path / "run", suites=suites(24), systems={"slow": settings}, **options).convert()
    counts = {path.name: path.stat().st_size for path in (tmp_path / "calls").iterdir()}
    # With two warm-ups in each process. The slow one has two calls of one trial, and hardly more.
    assert sum(counts.values()) == 24 + 2 * len(counts)
    assert counts["slow"] <= 2 + 3


class Gathered(RayBackend):
    """Ray, where nothing is given out before all workers have said hello."""

    pids = None

    def wait(self, calls, seconds):
        if self.pids is None:
            done, _ = self._ray.wait(list(calls), num_returns=len(calls))
            self.pids = {self.answer(call).value["pid"] for call in done}
        return super().wait(calls, seconds)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory):
    """The run of this process in which each conversion takes a quarter of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "now", execute.now)  # restores what the system replaces
        return fixed_run(tmp_path_factory.mktemp("fixed"))


def fixed_run(folder, executor=None):
    systems = {"source": "baselines.anchors.Source", "fixed": {"_target_": FIXED}}
    judges = {"length": DeclaredJudge({"_target_": "tests.support.fakes.Length"})}
    run = Run(folder / "run", suites=suites(32), systems=systems, executor=executor, isolated=False)
    run.convert(judges=judges)
    run.score(judges)
    return run.folder


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_workers_gives_the_bytes_of_this_process(tmp_path, fixed, workers):
    backends = []

    def connect():
        backends.append(Gathered(None))
        return backends[-1]

    stages = [StageSettings(workers=count, cpus=0.1) for count in (workers, min(workers, 2))]
    settings = RaySettings(convert=stages[0], judge=stages[1])
    folder = fixed_run(tmp_path, RayExecutor(settings, connect))
    assert [len(backend.pids) for backend in backends] == [workers + min(workers, 2)]
    for pattern in ("scores.csv", "summary.csv", "trials/*", "wav/*/*/*"):
        names = [path.relative_to(fixed) for path in sorted(fixed.glob(pattern))]
        assert names == [path.relative_to(folder) for path in sorted(folder.glob(pattern))]
        for name in names:
            assert (folder / name).read_bytes() == (fixed / name).read_bytes(), name
    one, other = (json.loads((path / "run.json").read_text()) for path in (folder, fixed))
    for facts in (one, other):
        del facts["created"], facts["sha256"]
    assert one == other
    one, other = (vars(findings_of(read_report(path))) for path in (folder, fixed))
    for name in one.keys() - {"run", "results"}:
        assert repr(one[name]) == repr(other[name]), name


def test_what_is_no_message_is_refused(tmp_path):
    with RayBackend(None) as backend:
        program = Program("bench.stages.remote.ConvertWorker", (str(tmp_path), 0, None))
        worker = backend.start(program, Needs(0.1))
        answers = []
        for method in ("hello", "__class__"):
            call = backend.call(worker, method)
            assert backend.wait([call], 120.0) == [call]
            answers.append(backend.answer(call))
        assert answers[0].value["pid"] != os.getpid()
        assert answers[1].failure == "other"
        assert "a call of '__class__'" in answers[1].message
        # As a worker with other code would answer.
        with pytest.raises(BrokenMessage):
            backend.answer(backend._ray.put({"value": 1}))


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def head(monkeypatch):
    """A cluster as `ray start --head` starts it, which `auto` finds; other clusters are hidden."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have short paths
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--port=0", f"--ray-client-server-port={free_port()}", "--num-cpus=2"),
        *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
        *("--include-dashboard=false", "--disable-usage-stats"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = folder / "ray" / "ray_current_cluster"
        end = time.monotonic() + 120
        while not (address.is_file() and address.read_text().strip()):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_two_runs_on_a_cluster_that_ray_start_has_started(tmp_path, head):
    """The commands of the guide: the cluster outlives a run, and gives the bytes of one process."""
    auto = ("executor=ray", "executor.address=auto")
    for name, settings in (("a", auto), ("b", auto), ("c", ())):
        # Nothing is shared, so that each scores all.
        run = vcbench(tmp_path, "run", f"name={name}", f"cache={name}.sqlite", *CLI, *settings)
        assert (run.communicate(timeout=300), run.returncode) == ((None, ""), 0)
        assert head.poll() is None
    outputs = tmp_path / "outputs"
    assert tables(outputs / "a") == tables(outputs / "b") == tables(outputs / "c")
    scored = counted(tmp_path / "counted.jsonl")
    assert len(scored) == 3 * len(set(scored))
    head.terminate()
    head.wait(60)
    assert none_is_left() is True


def test_no_cluster_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    others = lru_cache(lambda: set())  # as Ray has it; another cluster may run on this machine
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", others)
    with pytest.raises(UserError, match=r"executor.address=auto: no Ray cluster") as error:
        RayBackend("auto").__enter__()
    assert "\n" not in str(error.value)

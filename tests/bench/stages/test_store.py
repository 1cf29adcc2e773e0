"""`executor.files=store`: the same bytes where workers see neither run folder nor corpus."""

import base64
import errno
import hashlib
import json
import os
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.audio import Waveform
from bench.errors import UserError
from bench.run.executors import RayExecutor, RaySettings, StageSettings
from bench.run.judges import DeclaredJudge
from bench.run.run import Run
from bench.stages import convert, pool, store
from bench.stages.store import FileStore, ReceivedFiles, remove_abandoned
from tests.support.backend import Here

ROOT = Path(__file__).parents[3]
SYSTEMS = {
    "source": "baselines.anchors.Source",
    "target": "baselines.anchors.Target",
    "louder": "tests.support.fakes.Louder",
}
JUDGES = {
    "length": DeclaredJudge({"_target_": "tests.support.fakes.Length"}),
    "near": DeclaredJudge({"_target_": "tests.support.fakes.ReadsAll"}),
}


class Elsewhere(Here):
    """A backend whose workers work while folders are renamed: as on a machine without them."""

    def __init__(self, folders, **options):
        super().__init__(**options)
        self.folders = folders
        self.hidden = 0

    @contextmanager
    def away(self):
        pairs = [(f, f.with_name(f"{f.name}.hidden")) for f in self.folders if f.exists()]
        for folder, hidden in pairs:
            folder.rename(hidden)
            self.hidden += 1
        try:
            yield
        finally:
            for folder, hidden in pairs:
                hidden.rename(folder)

    def answer(self, call):
        with self.away():
            return super().answer(call)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(convert, "WARM_UPS", 0)
    monkeypatch.setattr(pool, "MOST_ITEMS", 2)


def run_in(folder, suite, backend=None, files="store", systems=SYSTEMS):
    executor = None
    if backend is not None:
        stage = StageSettings(workers=2)
        settings = RaySettings(convert=stage, judge=stage, files=files)
        executor = RayExecutor(settings, connect=lambda: backend)
    options = {"isolated": False, "executor": executor, "cache": folder / "scores.sqlite"}
    return Run(folder / "run", suites=[suite], systems=systems, **options)


def finish(run):
    run.convert(judges=JUDGES)
    run.score(JUDGES)
    scores = run.scores
    times = [c for c in scores if c == "elapsed_seconds" or c.startswith("stage.")]
    sounds = {p.relative_to(run.folder): p.read_bytes() for p in run.folder.rglob("*.wav")}
    return scores.drop(columns=times).to_csv(index=False), sounds


@pytest.mark.parametrize("ends", [(), (7, 12)])
def test_workers_without_the_folders_give_the_bytes_of_this_process(
    tmp_path, suite, corpus, monkeypatch, ends
):
    received = tmp_path / "received"
    received.mkdir()
    monkeypatch.setattr(store.tempfile, "tempdir", str(received))
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    expected = finish(run_in(tmp_path / "one", suite))
    backend = Elsewhere([tmp_path / "other" / "run", corpus], seed=1, ends=ends)
    assert finish(run_in(tmp_path / "other", suite, backend)) == expected
    assert backend.hidden > 20
    assert len(expected[1]) == 3 * 4
    # Workers that ended by themselves leave nothing; the others may.
    assert ends or not list(received.iterdir())


def test_a_shared_folder_that_is_not_there_names_the_way_out(tmp_path, suite, corpus):
    backend = Elsewhere([tmp_path / "run"])
    with pytest.raises(UserError, match=r"run is not there on .*executor\.files=store") as error:
        run_in(tmp_path, suite, backend, files="shared").convert()
    assert "\n" not in str(error.value)


def test_a_large_recording_is_one_line(tmp_path, suite, corpus, monkeypatch):
    monkeypatch.setattr(store, "MOST_FILE", 20_000)
    with pytest.raises(UserError, match=r"corpus/.*: 0 MiB; executor.files=store carries") as error:
        run_in(tmp_path, suite, Here()).convert()
    assert "\n" not in str(error.value)


def test_a_large_conversion_is_one_line(tmp_path, suite, monkeypatch):
    largest = max(u.path.stat().st_size for u in suite.utterances.values())
    monkeypatch.setattr(store, "MOST_FILE", largest)
    save = Waveform.save

    def longer(self, path):
        save(self, path)
        with path.open("ab") as file:
            file.write(bytes(largest))

    monkeypatch.setattr(Waveform, "save", longer)
    with pytest.raises(UserError, match=r"wav: \d+ MiB; executor.files=store carries"):
        run_in(tmp_path, suite, Here()).convert()


def test_another_way_for_files_is_refused():
    with pytest.raises(UserError, match="files='s3': must be shared or store"):
        RaySettings(files="s3")


def test_audio_in_files_of_this_machine_is_refused(tmp_path, suite):
    systems = {"mine": {"_target_": "bench.systems.Wavs", "folder": str(tmp_path)}}
    with pytest.raises(UserError, match="system mine has its audio in files of this machine"):
        run_in(tmp_path, suite, Here(), systems=systems).convert()


def other(value):
    name = next(iter(value["sounds"]))
    return {**value, "sounds": {**value["sounds"], name: base64.b64encode(b"other").decode()}}


@pytest.mark.parametrize(
    "change",
    [
        lambda value: {k: v for k, v in value.items() if k != "sounds"},
        lambda value: {**value, "sounds": []},
        lambda value: {**value, "sounds": {}},
        lambda value: {**value, "sounds": {**value["sounds"], "0" * 64: ""}},
        lambda value: {**value, "sounds": dict.fromkeys(value["sounds"], "no base64!")},
        lambda value: {**value, "sounds": dict.fromkeys(value["sounds"], 3)},
        other,
    ],
)
def test_sounds_that_are_not_those_of_the_records_are_refused(tmp_path, suite, change):
    class Changed(Here):
        def answer(self, call):
            method = self.calls[call][1]
            answer = super().answer(call)
            if method != "convert":
                return answer
            return replace(answer, value=change(json.loads(json.dumps(answer.value))))

    run = run_in(tmp_path, suite, Changed())
    with pytest.raises(UserError, match="convert: a worker sent ") as error:
        run.convert()
    assert "\n" not in str(error.value)
    assert not list(run.folder.rglob("*.wav"))
    assert not list(run.folder.rglob("*.part"))


def test_a_file_is_put_once_and_the_oldest_are_forgotten(tmp_path, suite, monkeypatch):
    puts = []

    class Counts(Here):
        def put(self, content):
            puts.append(hashlib.sha256(content).hexdigest())
            return super().put(content)

    trials = suite.trials
    files = FileStore(Counts(), tmp_path)
    work = pool.Work("convert", ([],), 1)
    first = files.of_trials(work, trials[:1])
    assert [digest for _, digest in first.arguments[-1]] == puts
    assert files.of_trials(work, trials[:1]) == first
    assert len(puts) == len(set(puts)) == len(first.contents)
    monkeypatch.setattr(store, "MOST_KEPT", 0)
    files.of_trials(work, trials[1:2])
    files.of_trials(work, trials[:1])
    assert len(puts) > len(set(puts))


def test_a_content_with_another_hash_is_refused(tmp_path):
    received = ReceivedFiles()
    good = hashlib.sha256(b"a").hexdigest()
    with received.received([["x/a.wav", good]], [b"a"]) as local:
        assert local["x/a.wav"].read_bytes() == b"a"
        assert local["x/a.wav"].suffix == ".wav"
    assert not list(received.folder.iterdir())
    with (
        pytest.raises(UserError, match=r"x/a\.wav: it was changed"),
        received.received([["x/a.wav", good]], [b"b"]),
    ):
        pass
    received.close()
    received.close()
    assert not received.folder.exists()


WORKER = """
import sys, time
from bench.stages.store import ReceivedFiles
received = ReceivedFiles()
(received.folder / "a.wav").write_bytes(b"a")
print(received.folder, flush=True)
time.sleep(600)
"""


def test_the_folder_of_a_killed_worker_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))
    for name in ("vcbench-other", "another"):
        (tmp_path / name).mkdir()
    (tmp_path / "vcbench-received-link").symlink_to(tmp_path / "another")
    (tmp_path / "vcbench-received-file").write_text("")
    others = set(tmp_path.iterdir())
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WORKER]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as worker,
        closing(ReceivedFiles()) as living,
    ):
        folder = Path(worker.stdout.readline().strip())
        remove_abandoned()
        assert (folder / "a.wav").is_file()
        worker.kill()
        worker.wait()
        assert set(tmp_path.iterdir()) == {*others, folder, living.folder}
        ReceivedFiles().close()
        assert set(tmp_path.iterdir()) == {*others, living.folder}
    remove_abandoned()
    assert set(tmp_path.iterdir()) == others


def test_without_locks_no_folder_is_taken_for_abandoned(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(store.fcntl, "flock", no_locks)
    received = ReceivedFiles()
    remove_abandoned()
    assert received.folder.is_dir()
    received.close()
    assert not list(tmp_path.iterdir())

"""docs/guide/training-callback.md: every block runs, and what it logs is read back."""

import importlib.util
import os
import re
import struct
import sys
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from suites.build import MANIFESTS, MINI

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "training-callback.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
SMALLER = {"limit=16": "limit=1", "every=1000": "every=2", "100_000": "4", "100_001": "5"}
TRAININGS = ("plain", "accelerate", "lightning")
TRACKERS = ("tensorboard", "wandb", "mlflow")
MEASURE = "vcbench/trials/secs/secs"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names that the first block defines, in a folder with the trials that it reads."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "trials.jsonl").write_bytes((MANIFESTS / "mini_cross_gender.v2.jsonl").read_bytes())
    (folder / "corpus").symlink_to(MINI)
    before = Path.cwd()
    os.chdir(folder)
    yield executed(BLOCKS[0], {})
    os.chdir(before)


def executed(block, names):
    for large, small in SMALLER.items():
        block = block.replace(large, small)
    exec(compile(block, PAGE.name, "exec"), names)
    return names


def block_of(name):
    """The block that uses the folder outputs/<name>; skips where its library is missing."""
    package = {"plain": "torch"}.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}")
    [block] = [block for block in BLOCKS if f'"outputs/{name}"' in block]
    return block


def test_every_block_has_a_test():
    assert len(BLOCKS) == 1 + len(TRAININGS) + len(TRACKERS)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_benchmarked(name, names, monkeypatch):
    monkeypatch.setenv("MPLCONFIGDIR", str(Path.cwd()))
    executed(block_of(name), names)
    steps = sorted(path.parent.name for path in Path("outputs", name).glob("*/run.json"))
    assert steps == ["step_00000002", "step_00000004"]


def test_the_commands_of_the_guide_work_on_the_calls(names, capsys):
    commands = re.findall(r"^vcbench (.*)$", TEXT, flags=re.MULTILINE)
    codes = []
    for command in commands:
        arguments = command.replace("00001000", "00000002").replace("00002000", "00000004").split()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        codes.append((arguments[0], ended.value.code))
    assert codes == [("history", 0), ("gate", 3), ("report", 0)]  # one trial cannot decide
    assert "step_00000004" in capsys.readouterr().out
    assert Path("outputs/plain/step_00000004/report.html").is_file()


def test_tensorboard_has_the_scalars(names):
    values = executed(block_of("tensorboard"), names)["benchmark"].last.values
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("tensorboard").Reload()
    assert {*events.Tags()["scalars"]} == {*values}
    [scalar] = events.Scalars(MEASURE)
    assert (scalar.step, scalar.value) == (1000, pytest.approx(values[MEASURE]))


def test_weights_and_biases_has_the_history_offline(names, monkeypatch):
    settings = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_X_SERVICE_WAIT": "200"}
    for name, value in settings.items():  # on a loaded machine its process takes long to start
        monkeypatch.setenv(name, value)
    for name in ("exit", "excepthook"):  # W&B replaces both; they are put back after the test
        monkeypatch.setattr(sys, name, getattr(sys, name))
    values = executed(block_of("wandb"), names)["benchmark"].last.values
    from wandb.proto.wandb_internal_pb2 import Record

    [file] = Path("wandb").glob("offline-run-*/*.wandb")
    records, patience = [], time.monotonic() + 60
    while not any(record.HasField("exit") for record in records):  # its process writes later
        assert time.monotonic() < patience
        time.sleep(0.1)
        records = [Record.FromString(data) for data in leveldb_records(file.read_bytes())]
    [row] = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert float(row[MEASURE]) == pytest.approx(values[MEASURE])
    assert float(row["vcbench/step"]) == 1000
    assert {*values} <= {*row}


def leveldb_records(data):
    """The records of a log in LevelDB's format, after the seven bytes with which W&B begins it."""
    block, position, parts = 32768, 7, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if position + 7 + length > len(data):  # not yet written whole
            return
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_mlflow_has_the_metrics(names, monkeypatch):
    block = block_of("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Path("mlruns").absolute().as_uri())
    values = executed(block, names)["benchmark"].last.values
    client, active = names["mlflow"].MlflowClient(), names["active"]
    assert client.get_run(active.info.run_id).data.metrics == pytest.approx(values)
    [metric] = client.get_metric_history(active.info.run_id, MEASURE)
    assert metric.step == 1000

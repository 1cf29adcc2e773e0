"""Training in several processes, for real: two of them, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_training import write_corpus

HERE = Path(__file__).parent


STAGES = ("conversion", "vocoder")
# So that a shorter training has the same learning rates.
STEADY = [f"{stage}.settings.final_learning_rate=1" for stage in STAGES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder that two processes trained both stages into, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    table = write_corpus(folder / "corpus")
    out = folder / "out"
    return out, train(table, out, *STEADY)


def train(table, out, *overrides):
    """Trains both stages in two processes, and returns what they printed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(HERE / "one_of_two.py")),
            ",".join(STAGES),
            *("recipe=tiny", f"data={table}", f"out={out}", "device=cpu"),
            *("conversion.train_voiceprint=true", *overrides),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_one_model(trained, stage):
    out, printed = trained
    assert printed.count(f"{stage}: ") == 1  # what came of it
    # Codebook and moving averages included: each process had other batches.
    assert (out / f"{stage}.0").read_text() == (out / f"{stage}.1").read_text()
    assert len((out / stage / "log.jsonl").read_text().splitlines()) == 4  # of one of them
    assert json.loads((out / stage / "result.json").read_text())["steps"] == 4


def test_two_processes_resume(trained, tmp_path):
    """Half of the steps, and then the others, give the model of all steps at once."""
    whole = trained[0]
    table = whole.parent / "corpus" / "utterances.csv"
    train(table, tmp_path, *STEADY, *(f"{stage}.settings.steps=2" for stage in STAGES))
    train(table, tmp_path, *STEADY)
    for stage in STAGES:
        assert (tmp_path / f"{stage}.0").read_text() == (tmp_path / f"{stage}.1").read_text()
        assert (tmp_path / f"{stage}.0").read_text() == (whole / f"{stage}.0").read_text()

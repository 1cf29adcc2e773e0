"""Training in several processes, for real: two of them, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_training import write_corpus

HERE = Path(__file__).parent


@pytest.mark.parametrize("stage", ["conversion", "vocoder"])
def test_two_processes_train_one_model(tmp_path, stage):
    table = write_corpus(tmp_path / "corpus")
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(HERE / "one_of_two.py")),
            *("recipe=tiny", f"stage={stage}", f"data={table}", f"out={out}", "device=cpu"),
            "conversion.train_voiceprint=true",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"{stage}: ") == 1  # what came of it
    # Codebook and moving averages among it: each process has heard other batches.
    assert (out / "0").read_text() == (out / "1").read_text()
    assert len((out / stage / "log.jsonl").read_text().splitlines()) == 4  # of one of them
    assert json.loads((out / stage / "result.json").read_text())["steps"] == 4

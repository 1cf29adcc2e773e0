"""The guide's Slurm script: tasks in any order, some twice, some killed, give one process's run."""

import os
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.__main__ import main
from tests.support.slurm import run_array

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guide" / "many-machines.md"
SETTINGS = (
    'SETTINGS=(name=paper "system=[source,tests.support.fakes.Slow]" +system.slow.seconds=0.2'
    ' limit=6 suite=mini_cross_gender "judge=[tests.support.fakes.Length]" "report=[]"'
    " isolated=false)"
)


def test_the_guides_array_gives_the_run_of_one_process(tmp_path, monkeypatch):
    shown = GUIDE.read_text()
    [script] = re.findall(r"```bash\n(#![^`]*SHARDS=[^`]*)```", shown)
    assert re.search(r"--array=1-(\d+)", script)[1] == re.search(r"SHARDS=(\d+)", script)[1]
    script, changed = re.subn(r"SHARDS=\d+", "SHARDS=2", script)
    script, more = re.subn(r"SETTINGS=.*", SETTINGS, script)
    assert (changed, more) == (1, 1)
    (tmp_path / "array.sh").write_text(script)
    program = tmp_path / "bin" / "vcbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    shards = tmp_path / "outputs" / "paper" / "shards"

    def converting(task):
        log = shards / f"{task}-of-2" / "conversions" / "slow" / "mini_cross_gender.jsonl"
        return log.is_file() and log.stat().st_size > 0

    ended = run_array(
        tmp_path / "array.sh",
        [1, 2, 1],
        folder=tmp_path,
        environment=environment,
        kill=converting,
        killed=[2],
        seed=1,
    )
    assert sorted(ended) == [(1, 0), (1, 0), (2, -9), (2, 0)]

    monkeypatch.chdir(tmp_path)
    settings = shlex.split(SETTINGS.removeprefix("SETTINGS=(").removesuffix(")"))
    for arguments in (
        ["merge", "outputs/paper", "out=outputs/paper_whole"],
        ["run", *settings, "name=single"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    whole, merged = (
        pd.read_csv(tmp_path / "outputs" / name / "scores.csv")
        for name in ("single", "paper_whole")
    )
    times = [c for c in whole if c == "elapsed_seconds" or c.startswith("stage.")]
    assert len(whole) == 12
    pd.testing.assert_frame_equal(whole.drop(columns=times), merged.drop(columns=times))
    whole, merged = (
        pd.read_csv(tmp_path / "outputs" / name / "summary.csv")
        for name in ("single", "paper_whole")
    )
    scores = whole["judge"] != "timing"
    pd.testing.assert_frame_equal(whole[scores], merged[scores])

"""compare, gate and history on the command line, over run folders with planted scores."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench.__main__ import main
from tests.support.made_up import facts, run, scores, write

ROOT = Path(__file__).parents[3]
BASE = 0.6 + 0.05 * np.random.default_rng(0).normal(size=72)
NOISE = 0.01 * np.random.default_rng(1).normal(size=72)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """outputs/old, outputs/new (better SECS), outputs/bad (worse), outputs/other (other judge)."""
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "outputs"
    write(run("old", scores("a", BASE), folder=outputs, created="2025-01-01T00:00:00+00:00"))
    better = scores("a", BASE + 0.03 + NOISE)
    write(run("new", better, folder=outputs, created="2025-01-03T00:00:00+00:00"))
    worse = scores("a", BASE - 0.06 + NOISE)
    write(run("bad", worse, folder=outputs, created="2025-01-02T00:00:00+00:00"))
    judges = {**facts()["judges"], "secs_resemblyzer": {"fingerprint": "9" * 64}}
    changes = {"judges": judges, "created": "2024-12-31T00:00:00+00:00"}
    write(run("other", scores("a", BASE), folder=outputs, **changes))
    return outputs


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture
def margins(tmp_path):
    path = tmp_path / "margins.yaml"
    path.write_text("margins: {secs: 0.02}\n")
    return f"margins={path}"


def test_compare_prints_writes_and_knows_runs_by_name_or_folder(runs, capsys, tmp_path):
    vcbench(
        "compare", "old", str(runs / "new"), "bad", "metrics=secs", "csv=c.csv", "markdown=c.md"
    )
    printed = capsys.readouterr().out
    assert "new against old" in printed
    assert "bad against old" in printed
    table = pd.read_csv(tmp_path / "c.csv").query("metric == 'secs'").set_index("candidate")
    assert table["verdict"].to_dict() == {"new": "better", "bad": "worse"}
    text = (tmp_path / "c.md").read_text()
    assert "## new against old" in text
    assert "**better**" in text
    assert f"**{table.loc['new', 'effect']:+.3f}" in text


@pytest.mark.parametrize(
    ("candidate", "code", "message"),
    [("new", 0, "may replace old"), ("bad", 1, "is worse than old"), ("other", 2, "fingerprint")],
)
def test_gate_exits_with_its_decision(candidate, code, message, margins, capsys):
    vcbench("gate", "old", candidate, margins, code=code)
    out, error = capsys.readouterr()
    assert message in out + error


def test_gate_that_cannot_decide_exits_with_3_and_says_why(runs, tmp_path, capsys):
    (tmp_path / "m.yaml").write_text("margins: {secs: 0.00001}\n")
    same = scores("a", BASE + NOISE - NOISE.mean())
    write(run("same", same, folder=runs))
    vcbench("gate", "old", "same", "margins=m.yaml", code=3)
    assert "too small a test" in " ".join(capsys.readouterr().out.split())


def test_gate_writes_what_ci_reads(margins, tmp_path):
    vcbench("gate", "old", "bad", margins, "junit=g.xml", "markdown=g.md", code=1)
    root = ElementTree.parse(tmp_path / "g.xml").getroot()
    assert root.find("testsuite").attrib["failures"] == "1"
    text = (tmp_path / "g.md").read_text()
    assert text.startswith("## ❌ regression: bad is worse than old")
    assert "| s · secs · secs_resemblyzer | ❌ regression |" in text


def test_history_is_in_order_of_time_and_marks_other_scales(capsys, tmp_path):
    vcbench("history", "metrics=secs,wer", "csv=h.csv", "markdown=h.md")
    assert "measured in another way" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / "h.csv").query("metric == 'secs'")
    assert table["run"].tolist() == ["other", "old", "bad", "new"]
    assert table["scale"].tolist() == [1, 0, 0, 0]
    assert (table["low"] < table["value"]).all()
    assert table.set_index("run").loc["old", "value"] == pytest.approx(BASE.mean())
    wer = pd.read_csv(tmp_path / "h.csv").query("metric == 'wer'")
    assert set(wer["scale"]) == {0}  # that judge is the same in all
    line = next(x for x in (tmp_path / "h.md").read_text().splitlines() if "| other |" in x)
    assert "*" in line


def test_history_knows_the_machine_of_conversions_that_were_kept(runs, capsys, tmp_path):
    here, there = (f"0123456789ab on {p}, 2 cores, 2 threads" for p in "AB")
    both = np.where(np.arange(72) < 36, here, there)
    origins = {"kept": there, "mixed": both, "mixed_too": both, "made": here}
    for day, (name, origin) in enumerate(origins.items(), start=4):
        created = f"2025-01-0{day}T00:00:00+00:00"
        table = scores("a", BASE).assign(origin=origin)
        write(run(name, table, folder=runs, created=created))
    vcbench("history", "metrics=secs,rtf", "csv=h.csv")
    table = pd.read_csv(tmp_path / "h.csv").query("run != 'other'")
    assert set(table.query("metric == 'secs'")["scale"]) == {0}
    scale = table.query("metric == 'rtf'").set_index("run")["scale"].to_dict()
    assert scale["made"] == scale["old"] == scale["new"] == 0  # without origin: the run's machine
    others = {scale[name] for name in ("kept", "mixed", "mixed_too")}
    assert len(others) == 3
    assert 0 not in others


def test_history_leaves_out_what_is_not_scored_and_says_so(runs, capsys):
    (runs / "converted").mkdir()
    vcbench("history", "old", "converted", "metrics=secs")
    assert "converted holds no scored run" in " ".join(capsys.readouterr().out.split())


def test_history_of_a_damaged_run_is_refused(runs, capsys):
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text("{")
    vcbench("history", "metrics=secs", code=2)
    assert "run.json is damaged" in capsys.readouterr().err


def test_seeds_are_split(runs, capsys):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        table = scores("a", BASE + 0.05 * rng.normal(size=72))
        write(run(f"s{seed}", table, folder=runs, settings={"seed": seed}))
    vcbench("compare", "s0", "s1", "s2", "split=true", "metrics=secs")
    printed = capsys.readouterr().out
    assert "(3 seeds)" in printed
    assert "sampling" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "name what to compare"),
        (["compare", "old"], "nothing to compare old with"),
        (["compare", "old", "never"], "holds no scored run (run.json is missing)"),
        (["compare", "old", "new", "metric=secs"], "did you mean 'metrics'"),
        (["compare", "old", "new", "metrics=secz"], "did you mean 'secs'"),
        (["compare", "old:b", "new"], "has no system 'b'; known: a"),
        (["compare", "old", "other"], "judges.secs_resemblyzer.fingerprint"),
        (["compare", "old", "new", "split=true"], "are [0, 0]"),
        (["gate", "old"], "gate takes a baseline and a candidate, not 1"),
        (["gate", "old", "new", "margins=none.yaml"], "there are no margins at none.yaml"),
        (["history", "metrics=f0_rmse"], "has what was asked for"),
        (["history", "outputs=nowhere"], "no run in nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, capsys):
    vcbench(*arguments, code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["gate", "compare", "history"])
def test_verbs_over_finished_runs_start_without_torch(verb, runs):
    command = (
        f"import sys; from reports.text.commands import {verb}; {verb}(['old', 'new']); "
        "print('torch' in sys.modules, 'bench.audio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        check=True,
        cwd=runs.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "False False"


def test_history_of_runs_with_one_name_and_of_a_run_named_twice(runs, capsys, tmp_path):
    write(run("old", scores("a", BASE + NOISE), folder=tmp_path / "others"))
    vcbench("history", "old", "outputs/old", "others/old", "csv=h.csv")
    assert "outputs/old" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "h.csv").query("metric == 'secs'")
    assert sorted(table["run"]) == ["others/old", "outputs/old"]


def test_a_reader_that_goes_away_changes_neither_the_decision_nor_the_files(margins, tmp_path):
    code = "import vcbench; vcbench.main()"
    command = [sys.executable, "-c", code, "gate", "old", "bad", margins, "junit=g.xml"]
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
    assert (tmp_path / "g.xml").is_file()

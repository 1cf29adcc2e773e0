"""vcbench agreement on the command line, over a run folder and ratings with planted agreement."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from bench.__main__ import main
from tests.support.listeners import Test
from tests.support.made_up import run, write
from tests.support.simulation import ring

HEAD = "system,trial_id,listener,rating"


@pytest.fixture(autouse=True)
def ratings(tmp_path, monkeypatch):
    """outputs/sim, a run of six systems, and ratings.csv."""
    monkeypatch.chdir(tmp_path)
    results, table = Test(ring(8, 2), listeners=5).simulated(np.random.default_rng(0))
    write(run("sim", results.scores, folder=tmp_path / "outputs"))
    table.to_csv("ratings.csv", index=False)
    return table


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(["agreement", *arguments])
    assert ended.value.code == code


def test_it_prints_counts_and_coefficients_and_writes_both_forms(tmp_path, capsys):
    vcbench("ratings.csv", "run=sim", "out=a.csv", "markdown=a.md")
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "a.csv")
    row = table.query("judge == 'utmos' and level == 'utterance' and coefficient == 'pearson'")
    cell = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**row.iloc[0])
    assert cell in printed
    assert "half against half" in " ".join(printed.split())
    assert "Positive always means agreement" in printed
    text = (tmp_path / "a.md").read_text()
    assert "| UTMOS ↑ | utmos | 96 | " + cell.replace("[", "\\[").replace("]", "\\]") in text
    assert "| s0 | 80 | 5 | 16 | 0 | 0 |" in text
    assert "per system: means" in text


def test_a_run_is_a_folder_too_and_outputs_may_be_elsewhere(tmp_path):
    vcbench("ratings.csv", f"run={tmp_path / 'outputs' / 'sim'}")
    vcbench("ratings.csv", "run=sim", f"outputs={tmp_path / 'outputs'}", "metrics=utmos")


def test_two_calls_give_the_same_bytes(tmp_path):
    vcbench("ratings.csv", "run=sim", "out=a.csv")
    vcbench("ratings.csv", "run=sim", "out=b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_other_columns_are_named_and_questions_are_kept_apart(ratings, capsys):
    both = [ratings.assign(question=q, seconds=3.5) for q in ("nmos", "smos")]
    pd.concat(both).to_csv("both.csv", index=False)
    vcbench("both.csv", "run=sim", "metrics=utmos")
    printed = " ".join(capsys.readouterr().out.split())
    assert "nmos · s · per utterance" in printed
    assert "smos · s · per system" in printed
    assert "Columns of both.csv that are not used: seconds." in printed


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEAD, "s0,t0000,l,3", "x,t0000,l,3"], "r.csv:3: outputs/sim has no system 'x'"),
        ([HEAD, "s0,t0000,l,3", "", "s0,t0001,l,x"], "r.csv:4: the rating 'x' is not a number"),
        ([HEAD, "s0,t0000,l,3", "s0,t0000,l,4"], "r.csv:3: listener 'l' rated trial 't0000'"),
        ([HEAD, "s0,t9999,l,3"], "r.csv:2: outputs/sim has no trial 't9999'"),
        ([HEAD, "s0,t0000,3"], "r.csv:2: 3 values, but 4 columns"),
        ([HEAD, 's0,"t0000,l,3'], "r.csv:2: no CSV"),
        ([HEAD + ",rating", "s0,t0000,l,3,3"], "r.csv:1: the column 'rating' is there twice"),
        ([HEAD.replace(",", ";"), "s0;t0000;l;3"], "r.csv has no column 'system'"),
        ([HEAD], "r.csv has no rating"),
        ([""], "r.csv has no column 'system'"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_and_line(rows, message, tmp_path, capsys):
    (tmp_path / "r.csv").write_text("\n".join(rows) + "\n")
    vcbench("r.csv", "run=sim", code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ratings.csv"], "run=… is missing"),
        (["run=sim"], "agreement takes one file of ratings, not 0"),
        (["none.csv", "run=sim"], "there are no ratings at none.csv"),
        (["ratings.csv", "run=other"], "holds no scored run"),
        (["ratings.csv", "run=sim", "metrics=utmoz"], "did you mean 'utmos'"),
        (["ratings.csv", "run=sim", "metrics=secs"], "has no measured metric"),
        (["ratings.csv", "run=sim", "csv=a.csv"], "agreement has no setting 'csv'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, capsys):
    vcbench(*arguments, code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_it_starts_without_torch(tmp_path):
    code = (
        "import sys; from reports.text.commands import agreement; "
        "agreement(['ratings.csv', 'run=sim']); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "False"

"""Shards and `vcbench merge` on the command line."""

import json

import pandas as pd
import pytest

from tests.bench.cli.test_verbs import QUICK, vcbench


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    """A temporary folder, to which the test's runs are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_shards_on_the_command_line_merge_to_what_a_run_gives(outputs, capsys):
    common = ["limit=3", "system=[source,tests.support.fakes.Louder]", *QUICK]
    vcbench("run", "name=whole", *common)
    for number in (2, 1):
        vcbench("run", "name=parts", f"shard={number}/2", *common, "progress=json")
    written = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    tasks = {(w["stage"], w.get("system") or w.get("judge")) for w in written if "stage" in w}
    assert {("convert", "source"), ("convert", "louder"), ("score", "length")} <= tasks
    vcbench("merge", "outputs/parts", "out=outputs/joined", "progress=none")
    times = ["elapsed_seconds"]
    whole, joined = (pd.read_csv(outputs / n / "scores.csv") for n in ("whole", "joined"))
    pd.testing.assert_frame_equal(whole.drop(columns=times), joined.drop(columns=times))
    vcbench("report", "name=joined", "report=[markdown]")
    assert (outputs / "joined" / "report.md").is_file()


def test_a_wrong_shard_or_form_of_progress_is_named(outputs, capsys):
    for wrong, must in (
        ("shard=3/2", "must be i/n with 1"),
        ("progress=bar", "bars, json or none"),
    ):
        vcbench("run", wrong, code=2)
        assert must in capsys.readouterr().err
    vcbench("merge", "outputs/none", code=2)
    assert "out=… is missing" in capsys.readouterr().err

"""Sweeps: one run a value, named by it; sources and references are processed once."""

import json
from typing import ClassVar

import pandas as pd
import pytest

from bench.__main__ import main
from bench.cli.sweep import points
from bench.errors import UserError
from bench.files import fingerprint
from bench.judges.nn.batches import Once
from tests.support.fakes import Length


class SourceNet(Length):
    """Processes the source and the reference of every trial, each sound once."""

    reads = frozenset({"converted", "source", "reference"})
    processed: ClassVar = []  # of all judges

    def __init__(self):
        super().__init__()
        self._model = Once(self._process)

    @property
    def fingerprint(self):
        return fingerprint("source net")

    def _process(self, sounds):
        SourceNet.processed += [sound.sha256 for sound in sounds]
        return [sound.seconds for sound in sounds]

    def score(self, items):
        for item in items:
            self._model([item.source, item.reference])
        return super().score(items)


def test_the_names_say_the_values():
    given = [
        "-m",
        "system.takin_vc.checkpoint=runs/a/best.pt,runs/b/best.pt",
        "seed=1,2",
        "x=[1,2]",
    ]
    runs = points(given)
    assert [run.suffix for run in runs] == [
        ".checkpoint-a_best.pt.seed-1",
        ".checkpoint-a_best.pt.seed-2",
        ".checkpoint-b_best.pt.seed-1",
        ".checkpoint-b_best.pt.seed-2",
    ]
    assert runs[3].overrides == (
        "system.takin_vc.checkpoint=runs/b/best.pt",
        "seed=2",
        "x=[1,2]",
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-m", "limit=2"], "-m needs a setting with several values"),
        (["-m", "system=source,target"], "-m needs a setting with several values"),
        (["-m", "seed=range(0,2000)"], "2000 runs; at most 1000"),
        (["-m", "seed=1,1"], "two values would both give the run's name"),
    ],
)
def test_what_is_no_sweep_is_refused(arguments, reason):
    with pytest.raises(UserError, match=reason):
        points(arguments)


def test_a_second_run_processes_no_source_and_no_reference_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SourceNet, "processed", [])
    arguments = [
        *("run", "-m", "+system.louder.gain=2,3", "system=tests.support.fakes.Louder", "limit=3"),
        *("judge=[tests.bench.cli.test_sweep.SourceNet]", "report=[]", "suite=mini_cross_gender"),
        *("isolated=false", "name=sweep", "progress=json"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    folders = [tmp_path / "outputs" / f"sweep.gain-{gain}" for gain in (2, 3)]
    for folder, gain in zip(folders, (2, 3), strict=True):
        facts = json.loads((folder / "run.json").read_text())
        assert facts["systems"]["louder"]["settings"]["gain"] == gain
        assert len(pd.read_csv(folder / "scores.csv")) == 3
    assert len(SourceNet.processed) == 6  # 3 sources and 3 references, once for both runs
    assert len(set(SourceNet.processed)) == 6
    with pytest.raises(SystemExit):
        main(arguments)
    assert len(SourceNet.processed) == 6

"""Published demo pages as suites."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.cli.settings import load
from bench.manifest import write_trials
from bench.run.folder import read_report
from reports.tables import summary_table
from suites import demos
from tests.suites import miniatures
from tests.support.fakes import Length

LOUDER = "tests.support.fakes.Louder"
QUICK = ["judge=[tests.support.fakes.Length]", "report=[markdown]"]
ROOT = Path(__file__).parents[2]


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def demo_clone(root, pairs, source, target, outputs):
    """The demo page's layout, with the embedded speech in it."""
    rows = iter(miniatures.SPEECH)
    for name, speaker in pairs:
        for path in (source(name), target(speaker), *outputs(name, speaker)):
            if not (root / path).exists():
                wav = (root / path).with_suffix(".wav")
                miniatures.put(next(rows), wav)
                wav.rename(root / path)
    return root


@pytest.fixture
def takinvc(here):
    """As everest-ai/takinvc: WAV data under .mp3 names."""
    forms = (
        "diffvc_{u}-vctk_{s}",
        "ns2_{u}_auto_vctk_{s}",
        "valle_{u}_vctk_{s}",
        "{u}-vctk_{s}",
        "prompt_vctk_{s}_src_{u}",
    )
    folder = "audios/baseline"
    return demo_clone(
        here / "takinvc",
        demos.TAKIN_VC,
        lambda u: f"{folder}/{u}.mp3",
        lambda s: f"{folder}/vctk_{s}.mp3",
        lambda u, s: [f"{folder}/{form.format(u=u, s=s)}.mp3" for form in forms],
    )


def test_the_demo_page_is_a_suite_with_its_five_systems_and_the_papers_rows(takinvc, here):
    write_trials(demos.takin_vc(takinvc), here / "m.jsonl", takinvc)
    common = [
        "suite=demo_takin_vc",
        f"suite.demo_takin_vc.root={takinvc}",
        f"suite.demo_takin_vc.manifest={here}/m.jsonl",  # the frozen one knows the true sounds
        "suite.demo_takin_vc.sha256=null",
    ]
    vcbench("run", "name=demo", *common, *QUICK)
    results = read_report(here / "outputs" / "demo")
    published = ["diffvc_demo", "ns2vc_demo", "valle_vc_demo", "sefvc_demo", "takin_vc_demo"]
    assert list(dict.fromkeys(results.scores["system"])) == ["source", *published]
    assert set(results.scores["status"]) == {"ok"}
    assert len(results.scores) == 36
    table = summary_table(results, "demo_takin_vc")
    paper = [i for i, c in enumerate(table.columns) if c.group == "paper"]
    assert [table.columns[i].head for i in paper] == ["SECS ↑", "WER ↓ %", "UTMOS ↑"]
    printed = {row.system: [row.cells[i].value for i in paper] for row in table.rows}
    assert printed["takin_vc_demo"] == ["0.71", "2.4", "4.08"]  # 2.35 in the paper
    assert printed["ns2vc_demo"][0] == "0.53"
    assert printed["source"] == ["–"] * 3
    assert any("ACL 2025" in note for note in table.notes)
    assert any("SECS compares with the same reference" in note for note in table.notes)


class FakeSECS(Length):
    """A judge of similarity that says it is Resemblyzer."""

    metrics = ("secs",)
    networks = ("ge2e-resemblyzer",)

    def score(self, items):
        return [{"secs": 0.7} for _ in items]


class FakeWavLM(FakeSECS):
    """The same, the paper's judge."""

    networks = ("wavlm-large-finetune",)


def test_the_demo_table_has_its_daggers(takinvc, here):
    """DiffVC by Resemblyzer, whose very file it is conditioned on; Takin-VC by WavLM."""
    write_trials(demos.takin_vc(takinvc), here / "m.jsonl", takinvc)
    vcbench(
        *("run", "name=demo", "suite=demo_takin_vc", f"suite.demo_takin_vc.root={takinvc}"),
        *(f"suite.demo_takin_vc.manifest={here}/m.jsonl", "suite.demo_takin_vc.sha256=null"),
        *("judge=[tests.suites.test_demos.FakeSECS,tests.suites.test_demos.FakeWavLM]",),
        "report=[markdown]",
    )
    results = read_report(here / "outputs" / "demo")
    table = summary_table(results, "demo_takin_vc")
    daggers = {
        (row.system, column.group)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.kin
    }
    assert daggers == {("diffvc_demo", "fake_secs"), ("takin_vc_demo", "fake_wav_lm")}
    [note] = [note for note in table.notes if note.startswith("†")]
    assert "diffvc_demo is conditioned on ge2e-resemblyzer, the network of fake_secs" in note
    assert "takin_vc_demo takes its content from wavlm, of one family with" in note
    assert "unknown for valle_vc_demo" in note


def test_a_clone_with_other_sounds_is_refused(takinvc, capsys):
    vcbench("run", "suite=demo_takin_vc", f"suite.demo_takin_vc.root={takinvc}", *QUICK, code=2)
    assert "is not the recording that the manifest" in capsys.readouterr().err


def test_systems_named_on_the_command_line_replace_those_that_a_demo_brings():
    config = load(["suite=demo_stablevc", "suite.demo_stablevc.root=x", "system=[world]"])
    assert "world" in config.system
    assert "source" not in config.system
    assert len([s for s in config.system if s.endswith("_stabledemo")]) == 7


def test_the_frozen_demo_manifests_name_the_pages_pairs():
    for name, pairs in (("demo_takin_vc", demos.TAKIN_VC), ("demo_stablevc", demos.STABLEVC)):
        lines = (ROOT / f"suites/manifests/{name}.v1.jsonl").read_text().splitlines()
        ids = [json.loads(line)["trial_id"] for line in lines]
        assert ids == [f"{utterance}-vctk_{speaker}" for utterance, speaker in pairs]

"""`bench.Run`: a run as an object, its folder on another machine, systems that are not loaded."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bench
from bench.__main__ import main
from bench.errors import UserError
from bench.metrics import registry_restored
from bench.results import COLUMNS, SUMMARY_COLUMNS
from bench.run.folder import CONTENTS, LAYOUT, read_report, sealed
from bench.run.judges import DeclaredJudge
from bench.systems import declared_facts
from bench.weights.find import WeightsMissing
from reports.html.page import HtmlReport
from suites.build import MANIFESTS, MINI
from tests.support.fakes import Length, Louder, MosNet

LIST = MANIFESTS / "mini_cross_gender.v2.jsonl"
LOUDER = {"_target_": "tests.support.fakes.Louder"}


class Unavailable(Length):
    """A judge without weights."""

    def __init__(self):
        raise WeightsMissing("no weights; get them")


def run_in(folder, systems=None, limit=8, **settings):
    suites = [bench.Suite.load(LIST, root=MINI, limit=limit)]
    systems = (
        {"mine": Louder(), "source": "baselines.anchors.Source"} if systems is None else systems
    )
    return bench.Run(folder, suites=suites, systems=systems, **settings)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("runs") / "mine")
    run.convert()
    with registry_restored():
        run.score({"length": Length(), "mos": MosNet()})
        yield run


def test_the_tables_of_a_run_are_data_frames(scored):
    assert len(scored.scores) == 16
    assert set(scored.summary["system"]) == {"mine", "source"}
    rows = scored.summary.set_index(["system", "judge", "metric"])
    assert rows.loc[("mine", "mos", "mos_net"), "value"] == pytest.approx(3.5)


def described(names, patterns):
    """The names that no pattern has; <name> in a pattern stands for anything but a slash."""
    known = [re.sub(r"<[^>]+>", "[^/]+", re.escape(p).replace(r"\-", "-")) for p in patterns]
    return [n for n in names if not any(re.fullmatch(k, n) for k in known)]


def test_the_folder_and_its_tables_have_a_description(scored):
    scored.report()
    files = [p for p in scored.folder.rglob("*") if p.is_file()]
    assert len(files) > 20
    assert described([p.relative_to(scored.folder).as_posix() for p in files], LAYOUT) == []
    assert described(scored.scores.columns, COLUMNS) == []
    assert list(scored.summary.columns) == list(SUMMARY_COLUMNS)
    assert set(scored.results.facts) == set(CONTENTS) - {"shard"}


def test_two_systems_are_compared(scored):
    table = scored.compare("source", "mine", by="gender_pair")
    assert set(table["slice"]) == {"", *(f"gender_pair={p}" for p in ("F2F", "F2M", "M2F", "M2M"))}
    with pytest.raises(UserError, match="no system 'mien' in mine; did you mean 'mine'"):
        scored.compare("source", "mien")


def test_a_report_is_a_path(scored):
    path = scored.report()
    assert path.name == "report.html"
    assert "mos_net" not in path.name
    assert "MOS net" in path.read_text()


def test_a_second_call_converts_and_scores_nothing(scored):
    system, judge = Louder(), Length()
    again = run_in(scored.folder, {"mine": system, "source": "baselines.anchors.Source"})
    again.convert()
    again.score({"length": judge, "mos": MosNet()})
    assert system.calls == []
    assert judge.items == []


def test_an_object_with_other_settings_is_another_system(scored):
    other = run_in(scored.folder, {"mine": Louder(gain=1.0)})
    with pytest.raises(UserError, match="made with other settings or code"):
        other.convert()


def test_a_judge_without_weights_is_a_note(tmp_path):
    run = run_in(tmp_path / "run", limit=1)
    run.convert()
    run.score({"none": DeclaredJudge({"_target_": f"{__name__}.Unavailable"})})
    [row] = run.summary[run.summary["judge"] == "none"].query("system == 'mine'").to_dict("records")
    assert row["note"] == "no weights: no weights; get them"


@pytest.mark.parametrize("name", ["timing", "factor", "stage", "trained_on", "conversion"])
def test_a_judge_may_not_have_a_name_that_the_tables_use(scored, name):
    with pytest.raises(UserError, match=f"judge '{name}': the tables use this name themselves"):
        scored.score({name: Length()})


def test_a_run_without_systems_or_suites_is_refused(tmp_path):
    with pytest.raises(UserError, match="no system to run"):
        run_in(tmp_path / "a", {}).convert()
    with pytest.raises(UserError, match="no suite to run"):
        bench.Run(tmp_path / "b", systems={"mine": Louder()}).convert()


def test_scoring_loads_no_system(tmp_path, monkeypatch):
    run = run_in(tmp_path / "run", {"mine": LOUDER}, limit=2, isolated=False)
    run.convert()

    def refuse(self, gain=2.0):
        raise AssertionError("built")

    monkeypatch.setattr(Louder, "__init__", refuse)
    again = run_in(tmp_path / "run", {"mine": LOUDER}, limit=2)
    again.score({"length": Length()})
    assert (again.scores["length.duration_ratio"] > 0).all()


@pytest.mark.parametrize("verb", ["score", "report", "compare", "gate", "check"])
def test_verbs_that_do_not_convert_load_no_system(verb, tmp_path, monkeypatch, capsys):
    settings = [
        *(f"outputs={tmp_path}", f"cache={tmp_path}/scores.sqlite", "name=run", "limit=8"),
        *("suite=mini_cross_gender", "system=[source,tests.support.fakes.Louder]"),
        *("judge=[tests.support.fakes.Length]", "report=[terminal]", "isolated=false"),
    ]
    assert vcbench("run", *settings) == 0

    def refuse(self, gain=2.0):
        raise AssertionError("built")

    monkeypatch.setattr(Louder, "__init__", refuse)
    margins = tmp_path / "margins.yaml"
    margins.write_text("margins: {}\n")
    run = f"{tmp_path}/run"
    arguments = {
        "score": ["score", *settings],
        "report": ["report", *settings],
        "compare": ["compare", f"{run}:source", f"{run}:louder"],
        "gate": ["gate", f"{run}:source", f"{run}:louder", f"margins={margins}"],
        "check": ["suite", "check", "mini_cross_gender", "system=tests.support.fakes.Louder"],
    }[verb]
    capsys.readouterr()
    undecided = 3 if verb == "gate" else 0  # too few trials
    assert vcbench(*arguments) == undecided, capsys.readouterr()


def test_facts_come_from_settings_then_from_the_class():
    name = "tests.support.fakes.Louder"
    assert declared_facts({"_target_": name}, "x").trained_on == frozenset()
    declared = {"_target_": name, "_trained_on_": ["VCTK"]}
    assert declared_facts(declared, "x").trained_on == {"VCTK"}
    mini = declared_facts(
        {
            "_target_": "takin_vc.system.TakinVCSystem",
            "checkpoint": str(Path("takin_vc/weights/mini")),
        },
        "takin_vc",
    )
    assert any(item.startswith("LibriSpeech") or "/" in item for item in mini.trained_on)


def test_training_data_of_the_settings_is_recorded(tmp_path):
    run = run_in(tmp_path / "run", {"mine": {**LOUDER, "_trained_on_": ["LibriSpeech"]}}, limit=1)
    run.isolated = False
    run.convert()
    run.score({"length": Length()})
    assert run.scored.facts["systems"]["mine"]["trained_on"] == ["LibriSpeech"]
    assert run.scores["trained_on.unseen"].tolist() == [0]


WHISPER = [{"name": "whisper-base", "use": "content"}]


def test_declarations_are_made_again_at_every_score_and_convert_nothing_anew(tmp_path):
    folder = tmp_path / "run"

    def recorded(systems, convert=False):
        run = run_in(folder, systems, limit=1, isolated=False)
        if convert:
            run.convert()
        run.score({"length": Length()})
        facts = run.scored.facts["systems"]["mine"]
        return facts["trained_on"], facts["networks"], run.scores["trained_on.unseen"].tolist()

    assert recorded({"mine": LOUDER}, convert=True) == ([], None, [1])
    wav = next((folder / "wav").rglob("*.wav"))
    before = wav.stat().st_mtime_ns
    more = {**LOUDER, "_trained_on_": ["LibriSpeech"], "_networks_": WHISPER}
    assert recorded({"mine": more}) == (["LibriSpeech"], WHISPER, [0])
    assert recorded({"mine": {**LOUDER, "_networks_": []}}) == ([], [], [1])
    assert recorded({"mine": more}, convert=True) == (["LibriSpeech"], WHISPER, [0])
    assert recorded({"mine": LOUDER}) == ([], None, [1])  # the class's again
    assert wav.stat().st_mtime_ns == before


def test_an_isolated_systems_declarations_are_those_of_its_settings(tmp_path):
    more = {**LOUDER, "_networks_": WHISPER}
    run = run_in(tmp_path / "run", {"mine": more}, limit=1)
    run.convert()
    run.score({"length": Length()})
    assert run.scored.facts["systems"]["mine"]["networks"] == WHISPER
    record = json.loads((run.folder / "conversions" / "mine" / "system.json").read_text())
    assert record["networks"] is None  # what the class says


def test_an_objects_networks_are_recorded(tmp_path):
    louder = Louder()
    louder.networks = WHISPER
    run = run_in(tmp_path / "run", {"mine": louder}, limit=1)
    run.convert()
    run.score({"length": Length()})
    assert run.scored.facts["systems"]["mine"]["networks"] == WHISPER
    assert run.scored.facts["judges"]["length"]["networks"] is None


def test_a_mistaken_declaration_stops_a_run_before_it_converts(tmp_path):
    wrong = {**LOUDER, "_networks_": [{"name": "whisper-base", "use": "contents"}]}
    run = run_in(tmp_path / "run", {"first": LOUDER, "mine": wrong}, limit=1)
    with pytest.raises(UserError, match=r"mine: _networks_\[0\]: use is 'contents'; did you mean"):
        run.convert()
    assert not (tmp_path / "run" / "wav").exists()


def test_a_judge_that_names_its_networks_wrongly_is_refused(tmp_path):
    class Wrong(Length):
        networks = "whisper-base"

    run = run_in(tmp_path / "run", {"mine": Louder()}, limit=1)
    run.convert()
    with pytest.raises(UserError, match="judge length: networks is 'whisper-base'; it must be a"):
        run.score({"length": Wrong()})


def test_a_run_folder_renders_on_a_machine_without_the_corpus(tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(MINI, corpus)
    shutil.copy(LIST, tmp_path / "trials.jsonl")
    suite = bench.Suite.load(tmp_path / "trials.jsonl", root=corpus, limit=4)
    run = bench.Run(tmp_path / "runs" / "mine", suites=[suite], systems={"mine": Louder()})
    run.convert()
    run.score({"length": Length()})
    here = run.report().read_text()
    moved = tmp_path / "elsewhere" / "mine"
    moved.parent.mkdir()
    shutil.move(run.folder, moved)
    shutil.rmtree(corpus)
    (tmp_path / "trials.jsonl").unlink()
    (moved / "report.html").unlink()
    there = bench.Run(moved).report().read_text()
    assert there.count("data:audio") == here.count("data:audio") > 4
    assert there == here


def test_a_changed_list_of_trials_is_refused(scored, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(scored.folder, folder)
    path = folder / "trials" / "mini_cross_gender.jsonl"
    path.write_text(path.read_text().replace("F2M", "M2F"))
    with pytest.raises(UserError, match="was changed since the run was scored"):
        read_report(folder)
    path.unlink()
    with pytest.raises(UserError, match="list of trials is missing"):
        read_report(folder)


def test_a_run_with_a_third_partys_judge_is_read_without_the_judge(scored):
    code = (
        "import sys, bench; run = bench.Run(sys.argv[1]); "
        "print(run.summary.query(\"metric == 'mos_net'\")['value'].tolist()); "
        "print('tests.support.fakes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(scored.folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[3.5, 3.5]", "False"]


def test_a_run_folder_names_no_class_that_is_called(scored, tmp_path):
    """The settings in run.json are a record; nothing of them is imported when a run is read."""
    folder = tmp_path / "copy"
    shutil.copytree(scored.folder, folder)
    facts = json.loads((folder / "run.json").read_text())
    facts["settings"] = {"suite": {"mini_cross_gender": {"_target_": "os.system"}}}
    facts["systems"]["mine"]["settings"] = {"_target_": "os.system"}

    (folder / "run.json").write_text(json.dumps(sealed(facts)))
    assert HtmlReport().render(read_report(folder)).is_file()


def vcbench(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code

"""Every reader of a run folder refuses a damaged one, with one line."""

import json
import shutil

import pandas as pd
import pytest
import soundfile

from bench.__main__ import main
from bench.errors import UserError
from bench.run.folder import NotScored, check_sounds, read_report, read_run, sealed

QUICK = [
    *("limit=4", "judge=[tests.support.fakes.Length]", "report=[]", "suite=mini_cross_gender"),
    *("isolated=false", "system=[source,tests.support.fakes.Louder]"),
]


def vcbench(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A scored run and its twin of other settings."""
    folder = tmp_path_factory.mktemp("made")
    common = [f"outputs={folder}", f"cache={folder}/scores.sqlite", *QUICK]
    assert vcbench("run", "name=a", *common) == 0
    assert vcbench("run", "name=b", "+system.louder.gain=1.0", *common) == 0
    return folder


@pytest.fixture
def runs(written, tmp_path, monkeypatch):
    """A copy of both that a test may damage; the margins that the gate asks for."""
    shutil.copytree(written, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    margins = "margins: {}\n"  # failures alone
    (tmp_path / "margins.yaml").write_text(margins)
    return tmp_path / "outputs"


def lines(path, change):
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(text)))


def facts(path, **changes):
    path.write_text(json.dumps(sealed({**json.loads(path.read_text()), **changes})))


def without(path, key):
    contents = json.loads(path.read_text())
    del contents[key]
    path.write_text(json.dumps(sealed(contents)))


def cell(path, column, value):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(path, index=False)


def proven(folder):
    """Damage to a table, with a run.json whose hashes fit the damaged table."""
    from bench.files import sha256_of

    names = ("scores.csv", "summary.csv")
    facts(folder / "run.json", tables={name: sha256_of(folder / name) for name in names})


def swap(run):
    shutil.copyfile(run.with_name("b") / "scores.csv", run / "scores.csv")


def old(run):
    contents = json.loads((run / "run.json").read_text())
    for key in ("format", "sha256", "tables"):
        del contents[key]
    (run / "run.json").write_text(json.dumps(contents))


TABLE_DAMAGE = {
    "rows cut": lambda run: lines(run / "scores.csv", lambda t: t[:-2]),
    "a row twice": lambda run: lines(run / "scores.csv", lambda t: [*t, t[-1]]),
    "a row torn": lambda run: lines(run / "scores.csv", lambda t: [*t[:-1], t[-1][:9]]),
    "no header": lambda run: lines(run / "scores.csv", lambda t: t[1:]),
    "rows in another order": lambda run: lines(run / "scores.csv", lambda t: [t[0], *t[:0:-1]]),
    "empty": lambda run: (run / "scores.csv").write_text(""),
    "zeros": lambda run: (run / "scores.csv").write_bytes(b"\0" * 4096),
    "UTF-16": lambda run: (run / "scores.csv").write_text(
        (run / "scores.csv").read_text(), encoding="utf-16"
    ),
    "a score changed": lambda run: cell(run / "scores.csv", "length.duration_ratio", "9.0"),
    "a text for a score": lambda run: cell(run / "scores.csv", "length.duration_ratio", "high"),
    "a failure made ok": lambda run: cell(run / "scores.csv", "status", "failed"),
    "another run's scores": swap,
    "scores gone": lambda run: (run / "scores.csv").unlink(),
    "a folder for scores": lambda run: (
        (run / "scores.csv").unlink(),
        (run / "scores.csv").mkdir(),
    ),
    "summary cut": lambda run: lines(run / "summary.csv", lambda t: t[:-1]),
    "summary gone": lambda run: (run / "summary.csv").unlink(),
    "summary changed": lambda run: cell(run / "summary.csv", "value", "0.99"),
}
FACTS_DAMAGE = {
    "torn": lambda run: lines(run / "run.json", lambda t: t[:-5]),
    "empty": lambda run: (run / "run.json").write_text(""),
    "zeros": lambda run: (run / "run.json").write_bytes(b"\0" * 100),
    "a list": lambda run: (run / "run.json").write_text("[]"),
    "a number": lambda run: (run / "run.json").write_text("3"),
    "deep": lambda run: (run / "run.json").write_text("[" * 100_000),
    "not UTF-8": lambda run: (run / "run.json").write_bytes(b'{"name": "\xff"}'),
    "a setting changed": lambda run: lines(
        run / "run.json", lambda t: [line.replace('"seed": 0', '"seed": 1') for line in t]
    ),
    "NaN": lambda run: lines(
        run / "run.json", lambda t: [line.replace('"seed": 0', '"seed": NaN') for line in t]
    ),
    "another format": lambda run: facts(run / "run.json", format=99),
    "an old format": old,
}
FORGED_DAMAGE = {
    "no systems": lambda run: without(run / "run.json", "systems"),
    "no suites": lambda run: without(run / "run.json", "suites"),
    "no judges": lambda run: without(run / "run.json", "judges"),
    "anchors as a list": lambda run: facts(run / "run.json", anchors=["source"]),
    "settings as a text": lambda run: facts(run / "run.json", settings="seed: 0"),
    "suites of numbers": lambda run: facts(run / "run.json", suites={"mini_cross_gender": 4}),
    "more trials": lambda run: facts(
        run / "run.json", suites={"mini_cross_gender": {"sha256": "0" * 64, "trials": 5}}
    ),
    "a system without rows": lambda run: facts(
        run / "run.json", systems={"source": {}, "louder": {}, "third": {}}
    ),
    "rows without a system": lambda run: facts(run / "run.json", systems={"source": {}}),
    "rows cut": lambda run: (TABLE_DAMAGE["rows cut"](run), proven(run)),
    "a row twice": lambda run: (TABLE_DAMAGE["a row twice"](run), proven(run)),
    "a status of no kind": lambda run: (
        cell(run / "scores.csv", "status", "fine"),
        proven(run),
    ),
    "no header": lambda run: (TABLE_DAMAGE["no header"](run), proven(run)),
    "zeros": lambda run: (TABLE_DAMAGE["zeros"](run), proven(run)),
}
DAMAGE = [
    *((f"table: {name}", damage) for name, damage in TABLE_DAMAGE.items()),
    *((f"run.json: {name}", damage) for name, damage in FACTS_DAMAGE.items()),
    *((f"forged: {name}", damage) for name, damage in FORGED_DAMAGE.items()),
]
WITH_REPORT = ("table: rows cut", "table: summary gone", "run.json: torn", "run.json: old format")
READERS = {
    "report": ("report", "name=a"),
    "compare": ("compare", "b", "a", "margins=margins.yaml"),
    "gate": ("gate", "b", "a", "margins=margins.yaml"),
    "history": ("history", "b", "a", "metrics=duration_ratio"),
}
WHOLE = {"report": 0, "compare": 0, "gate": 3, "history": 0}  # few trials decide nothing


@pytest.mark.parametrize("verb", READERS)
def test_a_whole_run_is_read(verb, runs):
    assert vcbench(*READERS[verb]) == WHOLE[verb]


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=[name for name, _ in DAMAGE])
def test_a_damaged_run_is_refused_in_one_line_that_names_the_way_out(name, damage, runs, capsys):
    damage(runs / "a")
    with pytest.raises(UserError):
        read_report(runs / "a")  # what `report` begins with
    readers = dict(READERS) if name in WITH_REPORT else {**READERS, "report": None}
    for verb, arguments in readers.items():
        if arguments is None:
            continue
        capsys.readouterr()
        code = vcbench(*arguments)
        printed = capsys.readouterr()
        if verb == "history" and name.endswith("an old format"):
            assert "has format 1" in " ".join(printed.out.split())
            continue
        assert code == 2, verb
        assert printed.err.startswith("vcbench: ")
        assert printed.err.count("\n") == 1
        assert "Traceback" not in printed.err
        assert str(runs / "a") in printed.err or "outputs/a" in printed.err
        assert any(way in printed.err for way in ("vcbench score", "run the command")), printed.err


@pytest.mark.parametrize("stage", ["scores.csv", "summary.csv", "run.json"])
def test_a_kill_between_two_files_is_noticed_by_every_reader(stage, runs, monkeypatch, capsys):
    from bench.run import folder

    class Killed(BaseException):
        pass

    write_table, write_json = folder.write_table, folder.write_json

    def stop(path):
        if path.name == stage:
            raise Killed

    monkeypatch.setattr(folder, "write_table", lambda t, p: (stop(p), write_table(t, p)))
    monkeypatch.setattr(folder, "write_json", lambda p, v: (stop(p), write_json(p, v)))
    common = [f"cache={runs}/scores.sqlite", *QUICK, "+system.louder.gain=0.1", "overwrite=true"]
    with pytest.raises(Killed):
        main(["run", "name=a", *common])
    for verb, arguments in READERS.items():
        # Killed before scores.csv, the old tables are whole; their sounds are not those scored.
        refused = stage != "scores.csv" or verb == "report"
        assert vcbench(*arguments) == (2 if refused else WHOLE[verb]), verb
    monkeypatch.undo()


def test_a_missing_sound_changes_no_number_and_another_sound_is_refused(runs):
    run = read_run(runs / "a")
    check_sounds(runs / "a", run.scores)
    first, second = run.scores.query("system == 'louder'")["wav"][:2]
    (runs / "a" / first).unlink()
    check_sounds(runs / "a", run.scores)
    for verb, arguments in READERS.items():
        assert vcbench(*arguments) == WHOLE[verb]
    soundfile.write(runs / "a" / second, [0.1, -0.1] * 8000, 16000)
    with pytest.raises(UserError, match="is not the sound that was scored"):
        check_sounds(runs / "a", run.scores)


def test_a_folder_without_a_run_is_distinguished_from_a_damaged_one(runs):
    (runs / "none").mkdir()
    with pytest.raises(NotScored, match=r"run\.json is missing"):
        read_run(runs / "none")

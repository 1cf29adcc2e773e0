"""`vcbench site` on the command line."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from bench.__main__ import main
from tests.reports.html.test_page import EVIL, Page
from tests.reports.site.conftest import SUITE
from tests.support.made_up import facts, run, scores, write


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


def page_of(out):
    return Page((out / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """outputs/a and outputs/b: tables alone."""
    monkeypatch.chdir(tmp_path)
    level = scores("world", [0.6 + 0.001 * i for i in range(72)])
    write(run("a", level, created="2025-01-01T00:00:00+00:00"))
    write(run("b", level, created="2025-01-02T00:00:00+00:00"))
    return tmp_path


def test_runs_are_named_as_for_the_other_verbs(plain, capsys):
    vcbench("site", "a", "runs=[outputs/b]", "out=public/site", "title=Ours")
    assert "public/site/index.html: 2 runs, 0.0 MB of sounds" in capsys.readouterr().out
    page = page_of(plain / "public" / "site")
    assert "Ours" in page.text
    assert "s: 72 trials, 2 runs" in page.text
    vcbench("site", "out=public/site")  # all of outputs, over the first
    assert "s: 72 trials, 2 runs" in page_of(plain / "public" / "site").text


def test_a_run_of_tables_alone_has_a_page_without_players(plain):
    vcbench("site", "a", "out=site")
    text = (plain / "site" / "runs" / "a" / "index.html").read_text(encoding="utf-8")
    assert "holds its tables alone" in text
    assert "<audio" not in text


def test_a_damaged_run_stops_the_verb_or_is_left_out_by_name(plain, capsys):
    (plain / "outputs" / "a" / "summary.csv").write_text("")
    vcbench("site", "a", "b", "out=site", code=2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "outputs/a/summary.csv" in error
    assert "skip_damaged=true" in error
    assert not (plain / "site").exists()
    vcbench("site", "a", "b", "out=site", "skip_damaged=true")
    lines = [line for line in capsys.readouterr().err.splitlines() if "Left out" in line]
    assert len(lines) == 1
    assert "outputs/a/summary.csv" in lines[0]
    page = page_of(plain / "site")
    assert "Left out, since the folder is damaged or holds no scored run: a." in page.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "out=… is missing"),
        (["a", "out=outputs/b"], "did not write"),
        (["no_such", "out=site"], "holds no scored run"),
        (["a", "out=site", "megabytes=-1"], "must be 0 or more"),
        (["a", "out=site", "skip_damage=true"], "did you mean 'skip_damaged'"),
    ],
)
def test_mistakes_are_named(plain, capsys, arguments, message):
    vcbench("site", *arguments, code=2)
    assert message in " ".join(capsys.readouterr().err.split())


def test_runs_of_one_name_are_told_apart(plain):
    shutil.copytree("outputs/a", "elsewhere/a")
    vcbench("site", "outputs/a", "elsewhere/a", "out=site")
    page = page_of(plain / "site")
    assert "outputs/a" in page.text
    assert "elsewhere/a" in page.text
    assert sorted(p.name for p in (plain / "site" / "runs").iterdir()) == [
        "elsewhere-a",
        "outputs-a",
    ]


def test_every_link_is_relative_and_leads_to_a_file(written):
    pages = [written / "index.html", *written.glob("runs/*/index.html")]
    assert len(pages) == 6
    for path in pages:
        for tag, attributes in Page(path.read_text(encoding="utf-8")).elements:
            for name in ("src", "href"):
                link = attributes.get(name)
                if link is None or link.startswith(("#", "data:")):
                    continue
                assert not re.match(r"[a-z]+:|/", link), link
                assert (path.parent / link).is_file(), f"{tag} of {path}: {link}"


def test_players_are_bounded_and_shared(written, outputs):
    """The runs have the same sounds: each is stored once."""
    pages = [Page(p.read_text(encoding="utf-8")) for p in written.glob("runs/*/index.html")]
    assert all(len(page.all("audio")) >= 3 for page in pages)
    stored = list((written / "sounds").iterdir())
    assert len(stored) < sum(len(page.all("audio")) for page in pages)
    vcbench("site", "v3", f"outputs={outputs}", f"out={outputs.parent / 'silent'}", "megabytes=0")
    silent = outputs.parent / "silent"
    assert not (silent / "sounds").exists()
    page = Page((silent / "runs" / "v3" / "index.html").read_text(encoding="utf-8"))
    assert page.all("audio") == []
    assert "the site's limit of sounds was reached" in page.text


def test_all_numbers_are_there_as_csv(written):
    with (written / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["run"] for row in rows} == {"v1", "v2", "v3", "short", "other_judge"}
    assert {row["suite"] for row in rows} == {SUITE}
    marker = json.loads((written / "site.json").read_text())
    assert "numbers.csv" in marker["files"]


def test_names_are_untrusted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = scores(EVIL, [0.6 + 0.001 * i for i in range(72)]).assign(suite=EVIL)
    suites = {EVIL: {"sha256": "1" * 64, "trials": 72}}
    machine = {**facts()["machine"], "processor": EVIL}
    changes = {"commit": EVIL, "suites": suites, "machine": machine}
    for name, day in (("one", 1), ("two", 2)):
        write(run(name, table, folder=Path("outputs"), created=f"2025-01-0{day}", **changes))
    vcbench("site", "out=site", f"title={EVIL}")
    for path in (tmp_path / "site").rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        page = Page(html)
        assert "<script>alert" not in html
        assert not page.all("img")
        assert html.count("<script") == 1
        assert all("onerror" not in attributes for _, attributes in page.elements)
    assert EVIL.partition("'")[2] in page_of(tmp_path / "site").text  # {{7*7}}, as text

"""From answers to report, checklist, paper table and agreement on the command line."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.__main__ import main
from bench.errors import UserError
from reports.html.page import HtmlReport
from reports.papers.listeners import opinions_of
from reports.papers.published import Published
from reports.papers.report import PaperReport
from reports.papers.table import paper_table
from tests.support.made_up import make_results, run, scores, write
from tests.support.raters import TEST_ID, Panel, small_test, written
from tests.support.simulation import ring

PANEL = Panel(ring(18, 4), listeners=16, cheaters=4, quality=(2.4, 3.0, 3.3, 3.9))


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """A test of 20 listeners whose systems are called s0 to s3."""
    monkeypatch.chdir(tmp_path)
    public, key, table = PANEL.answers(np.random.default_rng(3))
    written(tmp_path / "test", public, key)
    (tmp_path / "answers").mkdir()
    for listener, rows in table.groupby("listener"):
        rows.to_csv(tmp_path / "answers" / f"{listener}.csv", index=False)
    return tmp_path


def imported():
    vcbench("ratings", "import", "test=test", "from=answers", "out=ratings.csv")


def test_import_and_report(answered, capsys):
    imported()
    assert "660 answers of 20 listeners" in capsys.readouterr().out
    vcbench("ratings", "report", "test=test", "ratings=ratings.csv")
    printed = capsys.readouterr().out
    assert "20 listeners gave 480 answers; 16 listeners and 384 answers are kept" in printed
    folder = answered / "test" / "results"
    table = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    of_all = table[table["slice"] == ""].set_index("system")
    planted = PANEL.planted(10)
    for k, value in enumerate(planted):
        assert float(of_all.loc[f"s{k}", "low"]) <= value <= float(of_all.loc[f"s{k}", "high"])
    text = (folder / "report.md").read_text()
    assert "| c000 | all | traps |" in text
    assert "| all | s3 |" in text
    verdicts = pd.read_csv(folder / "differences.csv", keep_default_na=False)
    best = verdicts[(verdicts["baseline"] == "s0") & (verdicts["candidate"] == "s3")]
    assert best["verdict"].iloc[0] == "better"
    listeners = pd.read_csv(folder / "listeners.csv")
    assert len(listeners) == 20


def test_the_checklist_has_what_is_known_and_leaves_the_rest_blank(answered):
    imported()
    vcbench("ratings", "report", "test=test", "ratings=ratings.csv", "out=out")
    text = Path("out/checklist.md").read_text()
    lines = {line.partition("?")[0]: line for line in text.splitlines() if line.startswith("- [")}
    for known, value in (
        ("- [x] How many listeners took part, and how many count", "20; 16 count."),
        ("- [x] Are the levels equal", "matched to -23 LUFS"),
        ("- [x] Which checks did the test have", "2 trap screens, 4 gold screens, 3 repeats"),
        (
            "- [x] How many stimuli did a listener rate, and how often was each rated",
            "24 a listener",
        ),
    ):
        assert value in lines[known]
    for blank in ("How were they paid (per hour)", "Did they consent; is there approval of an "
                  "ethics board", "How were they recruited, on which platform"):  # fmt: skip
        assert "**to fill in**" in lines[f"- [ ] {blank}"]
    paragraph = text.split("## Paragraph for the methods section")[1]
    assert "4 listeners were excluded" in paragraph
    assert "18 source and 18 target speakers" in paragraph


def test_mistakes_end_with_2_and_one_line(answered, capsys):
    for arguments, message in (
        (("imprt",), "did you mean 'import'"),
        (("import", "test=test", "from=answers"), "out=… is missing"),
        (("import", "test=test", "from=answers", "out=r.csv", "format=xls"), "must be page or"),
        (("report", "test=test", "ratings=none.csv"), "there are no ratings at none.csv"),
        (("report", "test=nowhere", "ratings=none.csv"), "there is no nowhere"),
        (("report", "test=test", "ratings=r.csv", "without=trap"), "did you mean 'traps'"),
    ):
        vcbench("ratings", *arguments, code=2)
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    vcbench("ratings", code=2)
    assert "vcbench ratings import" in capsys.readouterr().out


def test_pairs_are_reported_with_win_rates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    test = written(tmp_path / "test", *small_test("ab"))
    rng = np.random.default_rng(0)
    rows = ["listener,screen,stimulus,other,rating"]
    for k in range(8):
        for name, (first, second) in test.screens.items():
            sign = 1 if first.endswith("b") else -1
            value = sign if rng.random() < 0.8 else 0
            rows.append(f"L{k},{name},{first},{second},{value}")
    Path("a.csv").write_text("\n".join(rows) + "\n")
    vcbench("ratings", "import", "test=test", "from=a.csv", "out=r.csv")
    vcbench("ratings", "report", "test=test", "ratings=r.csv", "by=source_speaker")
    assert "a against b" in capsys.readouterr().out
    table = pd.read_csv("test/results/scores.csv", keep_default_na=False)
    row = table[table["slice"] == ""].iloc[0]
    assert row["wins"] == 0
    assert float(row["win_rate"]) == 0
    assert row["verdict"] == "worse"
    assert not Path("test/results/differences.csv").exists()


def test_agreement_reads_an_imported_file_through_the_key(answered, capsys):
    """The planted order of the systems is that of their SECS: agreement per system is perfect."""
    imported()
    tables = [scores(f"s{k}", np.full(72, 0.5 + 0.1 * k)) for k in range(4)]
    write(run("mini", *tables, folder=answered / "outputs"))
    arguments = ("agreement", "ratings.csv", "test=test", "run=mini", "metrics=secs", "out=a.csv")
    vcbench(*arguments, f"outputs={answered / 'outputs'}")
    printed = capsys.readouterr().out
    assert "Listeners excluded by screening: c000, c001, c002, c003." in " ".join(printed.split())
    table = pd.read_csv("a.csv")
    of_system = table[(table["level"] == "system") & (table["metric"] == "secs")]
    assert of_system.set_index("coefficient").loc["spearman", "value"] == 1
    assert set(table["question"]) == {"nmos"}


@pytest.fixture
def rated_run(tmp_path):
    """A run with takin_vc and other, and a listening test of both and the source recordings."""
    systems = {"takin_vc": "world", "other": "world"}
    results = make_results(tmp_path, 16, systems, suites=["mini_cross_gender"])
    public, key = small_test("nmos", screens=16, systems=3)
    trials = results.suites["mini_cross_gender"].trials
    names = {"a": "takin_vc", "b": "other", "c": "source"}
    for name, facts in key["stimuli"].items():
        trial = trials[int(name[1:-1])]
        facts["system"], facts["suite"] = names[facts["system"]], "mini_cross_gender"
        facts |= {"trial_id": trial.trial_id, "gender_pair": trial.factors["gender_pair"]}
        facts["what"] = "source" if facts["system"] == "source" else "converted"
    written(tmp_path / "test", public, key)
    rng = np.random.default_rng(0)
    level = {"takin_vc": 4, "other": 3, "source": 4.4}
    rows = ["test_id,listener,screen,stimulus,rating"]
    for k in range(8):
        for s, facts in key["stimuli"].items():
            value = int(np.clip(np.round(level[facts["system"]] + rng.normal(0, 0.6)), 1, 5))
            rows.append(f"{TEST_ID},L{k},q{s[1:]},{s},{value}")
    (tmp_path / "ratings.csv").write_text("\n".join(rows) + "\n")
    return results, tmp_path


def test_listeners_fill_nmos_of_a_published_table_beside_the_printed_value(rated_run):
    results, folder = rated_run
    report = PaperReport(
        "takin_table1", ratings=str(folder / "ratings.csv"), test=str(folder / "test")
    )
    path = report.render(results)
    table = pd.read_csv(path.with_suffix(".csv"), keep_default_na=False).set_index("row")
    assert table.loc["Takin-VC", "NMOS"] == "3.98±0.04"
    measured = table.loc["takin_vc"]
    assert float(measured["NMOS low"]) < float(measured["NMOS"]) < float(measured["NMOS high"])
    ratings = pd.read_csv(folder / "ratings.csv")
    of_system = ratings[ratings["stimulus"].str.endswith("a")]["rating"]
    assert float(measured["NMOS"]) == pytest.approx(of_system.mean(), abs=0.005)
    assert measured["NMOS judge"] == "listeners"
    assert measured["SMOS"] == ""
    assert float(table.loc["source", "NMOS"]) > 4  # the paper prints NMOS of recordings too
    assert float(table.loc["other", "NMOS"]) < 3.5
    text = path.read_text()
    assert "NMOS by 8 listeners" in text
    assert f"here 8 listeners, 384 ratings, test {TEST_ID}" in text


def test_the_page_has_a_section_on_the_listening_test(rated_run):
    results, folder = rated_run
    report = HtmlReport(0, ratings=str(folder / "ratings.csv"), test=str(folder / "test"))
    text = report.render(results).read_text(encoding="utf-8")
    section = text.partition('<section id="listening"')[2].partition("</section>")[0]
    assert f"NMOS, listening test {TEST_ID}" in section
    assert "8 listeners gave 384 answers" in section
    assert "takin_vc against other" in section
    assert section.count("data:image/svg+xml") == 1
    assert section.count(".wav is missing in the folder of the test") == 9  # three of each system
    assert (results.folder / "figures" / "nmos-listeners.svg").is_file()
    assert 'id="listening"' not in HtmlReport(0).render(results).read_text(encoding="utf-8")


def test_a_table_by_gender_takes_the_trials_of_each_pair(rated_run):
    results, folder = rated_run
    report = PaperReport("takin_table2", ratings=[str(folder / "ratings.csv")],
                         test=[str(folder / "test")])  # fmt: skip
    trials = results.suites["mini_cross_gender"].trials
    table = Published.load("takin_table2")
    pairs = {trial.factors["gender_pair"] for trial in trials}
    rows = dataclasses.replace(table, rows=tuple(r for r in table.rows if r.value in ("", *pairs)))
    rated = report.rated.read()
    filled = paper_table(rows, results, rated=rated)
    of_pair = opinions_of(rows, results, "mini_cross_gender", rated)["nmos"]
    for pair in pairs:
        row = next(r for r in filled.rows if r.name == f"takin_vc, {pair}")
        mean = of_pair[(of_pair["slice"] == f"factor={pair}") & (of_pair["system"] == "takin_vc")]
        assert row.cells[0].value == f"{mean['mean'].iloc[0]:.2f}"


def test_ratings_without_their_test_or_of_another_run_are_refused(rated_run):
    results, folder = rated_run
    with pytest.raises(UserError, match=r"names 1 files and test= 0 folders"):
        PaperReport("takin_table1", ratings="r.csv")
    report = PaperReport("knn_vc", ratings=str(folder / "ratings.csv"), test=str(folder / "test"))
    other = dataclasses.replace(results, scores=results.scores.assign(system="x"))
    with pytest.raises(UserError, match=r"is a test of kind nmos|rated nothing"):
        report.render(other)

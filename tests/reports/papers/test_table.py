"""Published tables with measured numbers in them."""

import dataclasses
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from bench.cli.settings import options
from bench.errors import UserError
from bench.metrics import METRICS
from bench.stats.pooling import Measured, summarise
from reports.papers.formats import csv, html, latex, markdown, tex
from reports.papers.published import Published, published
from reports.papers.report import PaperReport
from reports.papers.table import NO_WEIGHTS, NOT_RUN, PRINTED, paper_table
from tests.support.made_up import RECORDINGS, make_results

NASTY = "a&b_%#$^~\\{}<x>"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run with a system for Takin-VC's row and one that no table has."""
    folder = tmp_path_factory.mktemp("paper")
    systems = {"takin_vc": "world", "other": "world"}
    results = make_results(folder, 16, systems, suites=["mini_cross_gender"])
    settings = {"steps": 10, "checkpoint": "/somewhere/weights/mini"}
    facts = {"takin_vc": {"settings": settings, "trained_on": ["LibriTTS/train-clean-100"]}}
    return dataclasses.replace(results, facts={**results.facts, "systems": facts})


def test_the_numbers_are_those_of_the_papers():
    """Some numbers, read again from ACL Table 1 (last row), ICLR Table 3, seed-vc's EVAL.md."""
    takin = Published.load("takin_table1")
    assert [row.name for row in takin.rows] == (
        ["GT", "DiffVC", "NS2VC", "VALLE-VC", "SEFVC", "StableVC", "SeedVC", "Takin-VC"]
    )
    assert [c.head for c in takin.columns] == ["NMOS", "SMOS", "WER (%)", "UTMOS", "SECS", "RTF"]
    printed = dict(takin.rows[-1].printed)
    assert printed == {
        "nmos": "3.98±0.04",
        "smos": "4.11±0.05",
        "wer": "2.35",
        "utmos": "4.08",
        "secs": "0.71",
        "rtf": "0.154",
    }
    assert Published.load("takin_iclr_table3").rows[1].printed["smos"] == "4.01±0.04"
    assert Published.load("seed_vc").rows[2].printed["secs"] == "0.8440"  # with its last zero


def test_takins_first_row_is_the_same_in_all_tables_that_print_it():
    rows = [
        next(row for row in Published.load(name).rows if row.name == "Takin-VC")
        for name in ("takin_table3", "takin_table4", "takin_iclr_table3")
    ]
    first = Published.load("takin_table1").rows[-1].printed
    for row in rows:
        assert row.printed == {k: v for k, v in first.items() if k != "rtf"}


@pytest.mark.parametrize("name", published())
def test_every_published_table_has_its_source_and_directions_that_agree(name):
    table = Published.load(name)
    assert {"paper", "venue", "place"} <= set(table.source)
    assert len(published()[name]) > 20
    for column in table.columns:
        for metric in column.metrics:
            assert column.higher == METRICS[metric].higher_is_better
        assert not column.judge or column.judge in options("judge")
    for row in table.rows:
        for text in row.printed.values():
            assert re.fullmatch(r"\d+(\.\d+)?(±0\.\d+)?|\d+M", text), text


def row_of(filled, name):
    """The line of this name, and the next one."""
    position = next(i for i, line in enumerate(filled.rows) if line.name == name)
    return filled.rows[position], (*filled.rows, None)[position + 1]


REMARK = "this run, checkpoint mini; WER by wer_whisper_base; SECS by secs_resemblyzer"


def test_a_measured_row_stands_beneath_the_printed_one_and_is_never_merged_with_it(scored):
    filled = paper_table(Published.load("takin_table1"), scored)
    assert [line.name for line in filled.rows if not line.measured] == (
        [row.name for row in Published.load("takin_table1").rows]
    )
    printed, measured = row_of(filled, "Takin-VC")
    assert [cell.value for cell in printed.cells] == (
        ["3.98±0.04", "4.11±0.05", "2.35", "4.08", "0.71", "0.154"]
    )
    assert printed.remark == NO_WEIGHTS
    secs = scored.summary.query("system == 'takin_vc' and metric == 'secs'")["value"].iloc[0]
    assert measured.name == "takin_vc"
    assert measured.cells[4].value == f"{secs:.2f}"
    assert measured.cells[4].interval.startswith("[")
    assert measured.cells[0].value == ""  # nobody listened
    assert measured.remark == REMARK


@pytest.mark.parametrize("form", [markdown, latex, csv, html])
def test_every_form_says_in_the_row_which_checkpoint_and_judges_it_is_of(scored, form):
    text = form(paper_table(Published.load("takin_table1"), scored))
    name, inert = ("takin\\_vc", tex) if form is latex else ("takin_vc", str)
    start = text.index(f"{name}<" if form in (markdown, html) else name)
    row = text[start : text.index("</tr>" if form is html else "\n", start)]
    for part in REMARK.split("; "):
        assert inert(part) in row
    assert "0.71" not in row


def test_systems_without_weights_are_printed_rows_and_marked(scored):
    filled = paper_table(Published.load("takin_table1"), scored)
    assert row_of(filled, "NS2VC")[0].remark.startswith(f"{NO_WEIGHTS}: code alone is published")
    assert row_of(filled, "SeedVC")[0].remark == NOT_RUN  # it has public weights
    assert row_of(filled, "GT")[0].remark == PRINTED
    assert filled.rows[-1].name == "other"
    assert filled.rows[-1].remark.startswith("this run, no checkpoint named; WER by")


def test_the_ground_truth_row_is_the_source_where_that_means_something(scored):
    _, ground = row_of(paper_table(Published.load("takin_table1"), scored), "GT")
    wer = scored.summary.query("system == 'source' and metric == 'wer'")["value"].iloc[0]
    assert ground.cells[2].value == f"{wer:.1f}"
    assert ground.cells[4].value == ""  # SECS of the source is no ground truth
    assert ground.remark == "this run, recordings; WER by wer_whisper_base"


def test_a_table_by_gender_measures_each_cell_apart(scored):
    filled = paper_table(Published.load("takin_table2"), scored)
    scores = scored.scores.query("system == 'takin_vc'")
    values = set()
    for pair in ("F2F", "F2M", "M2M", "M2F"):
        measured = row_of(filled, pair)[1]
        assert measured.name == f"takin_vc, {pair}"
        of_pair = scores[scores["factor.gender_pair"] == pair]
        assert measured.cells[4].value == f"{of_pair['secs_resemblyzer.secs'].mean():.2f}"
        values.add(measured.cells[4].value)
    assert len(values) > 1


def test_a_sweep_finds_the_system_by_its_setting(scored):
    filled = paper_table(Published.load("stablevc_steps"), scored)
    assert row_of(filled, "10 steps")[1].name == "takin_vc, 10 steps"
    assert row_of(filled, "10 steps")[1].cells[2].value
    assert not row_of(filled, "5 steps")[1].measured


def test_the_papers_judge_and_metric_are_taken_where_the_run_has_them(scored):
    """Seed-VC's table is against the reference, by Resemblyzer."""
    scores = scored.scores.copy()
    scores["secs_ecapa.secs"] = scores["secs_resemblyzer.secs"] - 0.2
    scores["secs_resemblyzer.secs_reference"] = scores["secs_resemblyzer.secs"] + 0.1
    judges = {
        "secs_ecapa": Measured(("secs",)),
        "secs_resemblyzer": Measured(("secs", "secs_reference")),
    }
    both = dataclasses.replace(scored, scores=scores, summary=summarise(scores, judges, RECORDINGS))
    other = paper_table(Published.load("seed_vc"), both).rows[-1]
    assert other.remark.endswith("SECS to reference by secs_resemblyzer")
    other = paper_table(Published.load("takin_table1"), both).rows[-1]
    assert other.remark.endswith("SECS by secs_ecapa")  # the paper's was not run: the first


def test_every_deviation_is_listed(scored):
    deviations = {what: (there, here) for what, there, here in
                  paper_table(Published.load("takin_table1"), scored).deviations}  # fmt: skip
    assert deviations["SECS"][1] == "secs_resemblyzer"
    assert "WavLM-TDCNN" in deviations["SECS"][0]
    assert deviations["WER"][1] == "wer_whisper_base"
    assert deviations["trials"][1] == "mini_cross_gender, 16 trials"
    assert deviations["steps"][1] == "takin_vc: 10"
    assert "LibriTTS/train-clean-100" in deviations["training data"][1]
    assert deviations["NMOS"][1] == "not measured"
    assert deviations["UTMOS"][1] == "no judge of this run measured it"
    assert "vocoder" in deviations


def nasty(filled):
    lines = [dataclasses.replace(line, name=NASTY) for line in filled.rows]
    return dataclasses.replace(filled, rows=tuple(lines), deviations=((NASTY, NASTY, NASTY),))


@pytest.mark.parametrize("name", published())
def test_latex_is_balanced_and_holds_what_latex_can_read(name, scored):
    text = latex(nasty(paper_table(Published.load(name), scored)))
    assert text.isascii()
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert text.count(r"\begin{") == text.count(r"\end{")
    table = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    columns = len(re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", text)[1])
    for line in re.findall(r"^  (.*) \\\\$", table, flags=re.M):
        row = re.sub(r"\\&", "", line)
        spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d)\}", row))
        assert row.count("&") + 1 + spans == columns
    for rule in ("toprule", "midrule", "bottomrule"):
        assert rf"\{rule}" in text


def test_latex_makes_every_special_character_inert():
    assert tex("50% of a_b & c#d") == r"50\% of a\_b \& c\#d"
    assert tex("3.98±0.04") == r"3.98$\pm$0.04"
    assert tex("\\input{x}") == r"\textbackslash{}input\{x\}"


def test_html_is_inert_and_asks_nothing_of_the_network(scored):
    evil = "<script>alert(1)</script>"
    filled = paper_table(Published.load("takin_table1"), scored)
    lines = [dataclasses.replace(line, name=evil) for line in filled.rows]
    page = html(dataclasses.replace(filled, rows=tuple(lines)))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    assert "script" not in {tag for tag, _ in tags}
    assert not any(key in attributes for _, attributes in tags for key in ("src", "onclick"))
    assert {a["href"] for tag, a in tags if tag == "link"} == {"data:,"}


def test_markdown_keeps_its_columns(scored):
    text = markdown(nasty(paper_table(Published.load("takin_table1"), scored)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({re.sub(r"\\\|", "", row).count("|") for row in rows}) == 1


def test_csv_is_read_back_with_a_row_a_line(scored):
    filled = paper_table(Published.load("takin_table1"), scored)
    table = pd.read_csv(io.StringIO(csv(nasty(filled))), dtype=str, keep_default_na=False)
    assert len(table) == len(filled.rows)
    assert set(table["row"]) == {NASTY}
    measured = table[table["measured"] == "true"].iloc[1]
    assert (measured["system"], measured["checkpoint"]) == ("takin_vc", "mini")
    assert measured["SECS judge"] == "secs_resemblyzer"
    assert measured["SECS low"] < measured["SECS"] < measured["SECS high"]


def test_the_four_files_are_written(scored):
    path = PaperReport("takin_table1").render(scored)
    names = {p.name for p in path.parent.iterdir()}
    assert names == {"takin_table1.md", "takin_table1.tex", "takin_table1.html", "takin_table1.csv"}


def test_mistakes_are_named(scored, tmp_path):
    with pytest.raises(UserError, match="did you mean 'takin_table1'"):
        Published.load("takin_tabel1")
    with pytest.raises(UserError, match="the run has no suite 'x'"):
        paper_table(Published.load("takin_table1"), scored, "x")
    few = dataclasses.replace(
        scored,
        suites={n: dataclasses.replace(s, trials=s.trials[:1]) for n, s in scored.suites.items()},
    )
    with pytest.raises(UserError, match="has a row for each gender_pair"):
        paper_table(Published.load("takin_table2"), few)
    (tmp_path / "broken.yaml").write_text("# broken\ntitle: x\n")
    with pytest.raises(UserError, match="is not a published table"):
        Published.load("broken", tmp_path)

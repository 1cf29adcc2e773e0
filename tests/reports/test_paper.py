"""Published tables with measured numbers beside them."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from bench.errors import UserError
from bench.metrics import METRICS
from reports.paper import (
    NO_WEIGHTS,
    PaperReport,
    Published,
    html,
    latex,
    lay,
    markdown,
    published,
    tex,
)
from tests.reports.conftest import PROVENANCE, make_results

NASTY = "a&b_%#$^~\\{}<x>"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a system for Takin-VC's row and one that no table has."""
    folder = tmp_path_factory.mktemp("paper")
    systems = {"takin_vc": "world", "other": "world"}
    results = make_results(folder, 16, systems, suites=["mini_cross_gender"])
    facts = {"takin_vc": {"settings": {"steps": 10}, "trained_on": ["LibriTTS/train-clean-100"]}}
    return dataclasses.replace(results, provenance={**PROVENANCE, "systems": facts})


def test_the_numbers_are_those_of_the_papers():
    """A few, looked up again: ACL Table 1 (last row), ICLR Table 3, seed-vc's EVAL.md."""
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
        if column.metric:
            assert column.higher == METRICS[column.metric].higher_is_better
    for row in table.rows:
        for text in row.printed.values():
            assert re.fullmatch(r"\d+(\.\d+)?(±0\.\d+)?|\d+M", text), text


def test_measured_stands_beside_printed_in_the_papers_order(made):
    laid = lay(Published.load("takin_table1"), made)
    assert [line.name for line in laid.lines][:8] == (
        [row.name for row in Published.load("takin_table1").rows]
    )
    takin = laid.lines[7]
    secs = made.summary.query("system == 'takin_vc' and metric == 'secs'")["value"].iloc[0]
    assert (takin.cells[4].printed, takin.cells[4].measured) == ("0.71", f"{secs:.2f}")
    assert takin.cells[4].interval.startswith("[")
    assert takin.remark == "here: takin_vc"
    assert takin.cells[0].printed == "3.98±0.04"
    assert takin.cells[0].measured == ""  # nobody listened


def test_systems_without_weights_are_printed_rows_and_marked(made):
    laid = lay(Published.load("takin_table1"), made)
    ns2vc = laid.lines[2]
    assert ns2vc.remark == NO_WEIGHTS
    assert all(cell.measured == "" for cell in ns2vc.cells)
    assert laid.lines[6].remark == "not in this run: printed only"  # SeedVC has public weights
    assert laid.lines[-1].name == "other"
    assert laid.lines[-1].remark == "measured here only"


def test_the_ground_truth_row_is_the_source_where_that_means_something(made):
    ground = lay(Published.load("takin_table1"), made).lines[0]
    wer = made.summary.query("system == 'source' and metric == 'wer'")["value"].iloc[0]
    assert ground.cells[2].measured == f"{wer:.1f}"
    assert ground.cells[4].measured == ""  # SECS of the source is no ground truth


def test_a_table_by_gender_measures_each_cell_apart(made):
    laid = lay(Published.load("takin_table2"), made)
    scores = made.scores.query("system == 'takin_vc'")
    for line in laid.lines[1:]:
        own = scores[scores["factor.gender_pair"] == line.name]
        expected = own["secs_resemblyzer.secs"].mean()
        assert line.cells[4].measured == f"{expected:.2f}"
    assert len({line.cells[4].measured for line in laid.lines[1:]}) > 1


def test_a_sweep_finds_the_system_by_its_setting(made):
    laid = lay(Published.load("stablevc_steps"), made)
    by_name = {line.name: line for line in laid.lines}
    assert by_name["10 steps"].remark == "here: takin_vc"
    assert by_name["10 steps"].cells[2].measured
    assert not by_name["5 steps"].cells[2].measured


def test_every_deviation_is_listed(made):
    deviations = {what: (there, here) for what, there, here in
                  lay(Published.load("takin_table1"), made).deviations}  # fmt: skip
    assert deviations["SECS"][1] == "secs_resemblyzer"
    assert "WavLM-TDCNN" in deviations["SECS"][0]
    assert deviations["WER"][1] == "wer_whisper_base"
    assert deviations["trials"][1] == "mini_cross_gender, 16 trials"
    assert deviations["steps"][1] == "takin_vc: 10"
    assert "LibriTTS/train-clean-100" in deviations["training data"][1]
    assert deviations["NMOS"][1] == "not measured"
    assert deviations["UTMOS"][1] == "no judge of this run measured it"
    assert "vocoder" in deviations


def nasty(laid):
    lines = [dataclasses.replace(line, name=NASTY) for line in laid.lines]
    return dataclasses.replace(laid, lines=tuple(lines), deviations=((NASTY, NASTY, NASTY),))


@pytest.mark.parametrize("name", published())
def test_latex_is_balanced_and_holds_what_latex_can_read(name, made):
    text = latex(nasty(lay(Published.load(name), made)))
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
    for rule in ("toprule", "midrule", "bottomrule", "cmidrule"):
        assert rf"\{rule}" in text


def test_latex_makes_every_special_character_inert():
    assert tex("50% of a_b & c#d") == r"50\% of a\_b \& c\#d"
    assert tex("3.98±0.04") == r"3.98$\pm$0.04"
    assert tex("\\input{x}") == r"\textbackslash{}input\{x\}"


def test_html_is_inert_and_asks_nothing_of_the_network(made):
    evil = "<script>alert(1)</script>"
    laid = lay(Published.load("takin_table1"), made)
    lines = [dataclasses.replace(line, name=evil) for line in laid.lines]
    page = html(dataclasses.replace(laid, lines=tuple(lines)))
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    assert "script" not in {tag for tag, _ in tags}
    assert not any(key in attributes for _, attributes in tags for key in ("src", "onclick"))
    assert {a["href"] for tag, a in tags if tag == "link"} == {"data:,"}


def test_markdown_keeps_its_columns(made):
    text = markdown(nasty(lay(Published.load("takin_table1"), made)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({re.sub(r"\\\|", "", row).count("|") for row in rows}) == 1


def test_the_three_files_are_written(made):
    path = PaperReport("takin_table1").render(made)
    names = {p.name for p in path.parent.iterdir()}
    assert names == {"takin_table1.md", "takin_table1.tex", "takin_table1.html"}


def test_mistakes_are_named(made, tmp_path):
    with pytest.raises(UserError, match="did you mean 'takin_table1'"):
        Published.load("takin_tabel1")
    with pytest.raises(UserError, match="the run has no suite 'x'"):
        lay(Published.load("takin_table1"), made, "x")
    few = dataclasses.replace(
        made,
        suites={n: dataclasses.replace(s, trials=s.trials[:1]) for n, s in made.suites.items()},
    )
    with pytest.raises(UserError, match="has a row for each gender_pair"):
        lay(Published.load("takin_table2"), few)
    (tmp_path / "broken.yaml").write_text("# broken\ntitle: x\n")
    with pytest.raises(UserError, match="is not a published table"):
        Published.load("broken", tmp_path)

"""Daggers: which numbers are marked, which are never bold, and what a headline prefers."""

import dataclasses
import json

import numpy as np
import pytest

from bench.run.folder import read_run
from bench.stats.pooling import Measured
from bench.systems import UsedNetwork
from bench.validity.kinship import Kinship, kinships
from reports.findings import findings_of
from reports.headline import headline
from reports.html.page import HtmlReport
from reports.kinship import cases
from reports.papers import formats
from reports.papers.published import Published
from reports.papers.table import paper_table
from reports.slices import slice_tables, slices
from reports.tables import DASH, summary_table
from reports.text.commands import compare
from reports.text.comparison import cells_of
from reports.text.markdown import MarkdownReport
from reports.text.terminal import TerminalReport
from tests.support.made_up import (
    JUDGES,
    SECS,
    WER,
    failing,
    make_results,
    rescored,
    write_folder,
)

SUITE = "mini_cross_gender"
GE2E, OTHER_GE2E = "ge2e-resemblyzer", "ge2e-ppg-vc"


def declaring(results, judges=None, **networks):
    """The run with these networks of its systems: name → [(network, use), …]."""
    systems = {
        system: {
            **about,
            "networks": [{"name": n, "use": use} for n, use in networks[system]]
            if system in networks
            else None,
        }
        for system, about in results.facts["systems"].items()
    }
    named = {SECS: [GE2E], WER: ["whisper-base"], **(judges or {})}
    about = {
        name: {**results.facts["judges"].get(name, {}), "networks": n} for name, n in named.items()
    }
    facts = {**results.facts, "systems": systems, "judges": {**results.facts["judges"], **about}}
    return dataclasses.replace(results, facts=json.loads(json.dumps(facts)))


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """16 trials by two systems, a and b, with equal scores."""
    folder = tmp_path_factory.mktemp("two")
    return make_results(folder, 16, {"a": "world", "b": "world"}, suites=[SUITE])


@pytest.fixture(scope="module")
def better(equal):
    """The same, b's SECS 0.05 above a's."""
    scores = equal.scores.copy()
    noise = 0.002 * np.random.default_rng(0).normal(size=16)
    base = scores.loc[scores["system"] == "a", f"{SECS}.secs"].to_numpy()
    scores.loc[scores["system"] == "b", f"{SECS}.secs"] = base + 0.05 + noise
    return rescored(equal, scores)


def marked(table):
    """(system, judge) of the cells with a dagger."""
    return {
        (row.system, column.group)
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.kin
    }


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("optimised", "b was optimised on ge2e-resemblyzer, the network of secs_resemblyzer"),
        ("selected", "b was selected by ge2e-resemblyzer, the network of secs_resemblyzer"),
        ("conditioned", "b is conditioned on ge2e-resemblyzer, the network of secs_resemblyzer"),
    ],
)
def test_each_grade_is_marked_and_said_in_one_sentence(better, use, words):
    table = summary_table(declaring(better, a=[], b=[(GE2E, use)]), SUITE)
    assert marked(table) == {("b", SECS)}
    assert [note for note in table.notes if note.startswith("†")] == [
        f"† the judge is kin to the system and may favour it: {words}."
    ]
    assert any(line.startswith("†: the system was made with") for line in table.legend)


def test_the_same_family_is_marked_in_other_words(better):
    table = summary_table(declaring(better, a=[], b=[(OTHER_GE2E, "conditioned")]), SUITE)
    assert marked(table) == {("b", SECS)}
    assert any("of one family with ge2e-resemblyzer of secs_resemblyzer." in n for n in table.notes)


def test_systems_that_declare_nothing_are_called_unknown(better):
    [note] = [
        n
        for n in summary_table(declaring(better, b=[(GE2E, "selected")]), SUITE).notes
        if n.startswith("†")
    ]
    assert note.endswith("; unknown for a (no networks declared).")


def test_a_run_without_networks_has_no_daggers(better):
    old = dataclasses.replace(
        better, facts={k: v for k, v in better.facts.items() if k not in ("systems", "judges")}
    )
    for results in (
        better,
        old,
        declaring(better),
        declaring(better, {SECS: None}, b=[(GE2E, "built")]),
    ):
        assert kinships(results.facts) == {}
        assert "†" not in MarkdownReport().text(results)
        assert headline(results).kinship == ""


def test_what_was_not_measured_has_no_dagger(better):
    judges = {"utmos": ["utmos22-strong"]}
    table = summary_table(declaring(better, judges, b=[("utmos22-strong", "optimised")]), SUITE)
    assert marked(table) == set()
    assert not any(note.startswith("†") for note in table.notes)
    assert all(
        cell.marked == DASH for row in table.rows for cell in row.cells if cell.value == DASH
    )


@pytest.mark.parametrize("use", ["optimised", "selected", "conditioned", "content", "built"])
def test_a_number_by_the_systems_own_network_is_never_bold(better, use):
    assert (SUITE, SECS, "secs", "b") in findings_of(declaring(better)).best
    kin = declaring(better, a=[], b=[(GE2E, use)])
    best = findings_of(kin).best
    assert not any(judge == SECS and system == "b" for _, judge, _, system in best)
    assert not any(
        c.best and c.kin for r in summary_table(kin, SUITE, best=best).rows for c in r.cells
    )


def test_a_number_by_another_network_of_the_family_may_be_bold(better):
    kin = declaring(better, a=[], b=[(OTHER_GE2E, "conditioned")])
    assert (SUITE, SECS, "secs", "b") in findings_of(kin).best
    table = summary_table(kin, SUITE, best=findings_of(kin).best)
    assert any(cell.best and cell.kin for row in table.rows for cell in row.cells)


def differences(results):
    """(judge cell, whether the verdict is bold) of the rows of SECS."""
    rows = findings_of(results).differences
    rows = rows[(rows["judge"] == SECS) & (rows["metric"] == "secs")]
    return [(cells_of(row)[2][0], cells_of(row)[-1][1]) for row in rows.to_dict("records")]


def test_a_win_by_ones_own_network_is_not_bold_in_a_comparison(better):
    assert differences(declaring(better)) == [(SECS, True)]
    assert differences(declaring(better, b=[(GE2E, "conditioned")])) == [(f"{SECS}†", False)]
    assert differences(declaring(better, a=[(GE2E, "conditioned")])) == [(f"{SECS}†", True)]
    both = {"a": [(GE2E, "conditioned")], "b": [(GE2E, "selected")]}
    assert differences(declaring(better, **both)) == [(f"{SECS}†", True)]  # as near to both
    assert differences(declaring(better, b=[(OTHER_GE2E, "built")])) == [(f"{SECS}†", True)]


def test_every_form_of_the_report_shows_daggers_and_the_sentence(better, capsys):
    kin = declaring(better, a=[], b=[(GE2E, "conditioned")])
    sentence = "b is conditioned on ge2e-resemblyzer, the network of secs_resemblyzer"
    value = summary_table(kin, SUITE).rows[2].cells[0].value
    TerminalReport().render(kin)
    forms = {
        "terminal": " ".join(capsys.readouterr().out.split()),
        "markdown": MarkdownReport().text(kin).replace("\\", ""),
        "html": HtmlReport(embed_trials=0).render(kin).read_text(),
    }
    for form, text in forms.items():
        assert f"{value}†" in text, form
        assert sentence in text, form


def test_slices_are_marked_too(better):
    kin = declaring(better, a=[], b=[(GE2E, "conditioned")])
    [table] = [t for t in slice_tables(kin, slices(kin)) if "gender_pair" in t.caption]
    assert {system for system, _ in marked(table)} == {"b"}
    assert {group for _, group in marked(table)} == {f"SECS ↑ · {SECS}"}
    assert len(table.notes) == 1


@pytest.fixture(scope="module")
def two_judges(better):
    """The run with a second judge of similarity."""
    scores = better.scores.copy()
    scores["secs_ecapa.secs"] = scores[f"{SECS}.secs"] - 0.2
    judges = {**JUDGES, "secs_ecapa": Measured(("secs",))}
    return rescored(better, scores, judges)


ECAPA = {"secs_ecapa": ["spkrec-ecapa-voxceleb"]}


def test_the_headline_prefers_a_judge_without_kin(two_judges):
    kin = headline(declaring(two_judges, ECAPA, a=[], b=[(GE2E, "conditioned")]))
    assert len(kin.reached) == 2
    for sentence in kin.reached:
        assert "by secs_ecapa" in sentence
        assert SECS not in sentence
        assert f"by {WER}" in sentence  # the only judge of words
    assert kin.kinship == (
        "Left out above is a judge that is kin to a system: b is conditioned on ge2e-resemblyzer, "
        "the network of secs_resemblyzer."
    )
    assert kin.sentences[-1] == kin.kinship


def test_the_headline_names_all_judges_where_none_or_all_are_kin(two_judges):
    nothing = headline(declaring(two_judges, ECAPA, a=[], b=[]))
    both = [(GE2E, "conditioned"), ("ecapa", "conditioned")]
    every = headline(declaring(two_judges, ECAPA, a=[], b=both))
    for of_run in (nothing, every):
        assert all(f"by {SECS}" in s and "by secs_ecapa" in s for s in of_run.reached)
    assert "†" not in " ".join(nothing.sentences)
    of_a, of_b = every.reached
    assert of_b.count("†") == 2
    assert "†" not in of_a
    assert every.kinship.startswith("† the judge is kin to the system and may favour it: b is")


def test_a_headline_over_many_systems_marks_the_ends_of_the_range(tmp_path):
    systems = {f"s{i}": "world" for i in range(7)}
    results = make_results(tmp_path, 2, systems, [SUITE])
    summary = results.summary.copy()
    for system, value in (("s3", 0.1), ("s5", 0.95)):
        row = (summary["metric"] == "secs") & (summary["system"] == system)
        summary.loc[row, "value"] = value
    kin = declaring(dataclasses.replace(results, summary=summary), s5=[(GE2E, "selected")])
    [sentence] = headline(kin).reached
    assert "SECS from 0.10 (s3) to 0.95† (s5) by secs_resemblyzer" in sentence


def test_a_published_table_marks_measured_numbers_in_every_form(better):
    kin = declaring(better, a=[], b=[(GE2E, "conditioned")])
    filled = paper_table(Published.load("takin_table1"), kin)
    row = next(row for row in filled.rows if row.system == "b")
    assert [cell.kinship for cell in row.cells].count("conditioned on") == 1
    [note] = filled.notes
    assert "b is conditioned on ge2e-resemblyzer" in note
    value = row.cells[4].value
    assert f"{value}† [" in formats.markdown(filled).replace("\\", "")
    assert rf"{value}$\dagger$" in formats.latex(filled)
    assert f"{value}†" in formats.html(filled)
    assert f",{value},{','.join(row.cells[4].bounds)},{SECS},conditioned on" in formats.csv(filled)
    for text in (formats.markdown(filled), formats.html(filled)):
        assert "may favour it" in text
    assert paper_table(Published.load("takin_table1"), better).notes == ()


def test_vcbench_compare_marks_kin(better, tmp_path, capsys):
    kin = declaring(better, a=[], b=[(GE2E, "conditioned")])
    folder = tmp_path / "kin"
    write_folder(folder, kin.facts, kin.scores, lambda table: kin.summary)
    assert kinships(read_run(folder).facts)
    assert compare([f"{folder}:a", f"{folder}:b", f"markdown={tmp_path}/c.md"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "† the judge is kin to the system: b is conditioned on ge2e-resemblyzer" in shown
    text = (tmp_path / "c.md").read_text().replace("\\", "")
    assert f"| {SECS}† |" in text


def test_a_failed_system_keeps_its_marks(better):
    trial = better.suites[SUITE].trials[0].trial_id
    failed = failing(better, "b", SUITE, trial, "RuntimeError: no")
    table = summary_table(declaring(failed, a=[], b=[(GE2E, "content")]), SUITE)
    assert marked(table) == {("b", SECS)}


def test_systems_of_one_kinship_are_named_together():
    conditioned = Kinship("conditioned on", UsedNetwork("x", "conditioned"), "x")
    selected = Kinship("selected on", UsedNetwork("x", "selected"), "x")
    content = Kinship("same family", UsedNetwork("y", "content"), "x")
    kin = {("a", "j"): conditioned, ("b", "j"): selected, ("c", "j"): selected}
    kin |= {("d", "j"): selected, ("a", "k"): content, ("b", "k"): content}
    assert cases(kin, kin) == (
        "a is conditioned on x, the network of j; b, c and d were selected by x, the network of j; "
        "a and b take their content from y, of one family with x of k"
    )

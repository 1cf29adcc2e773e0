"""Significant winners, systems at the ceiling, suspicious systems: against planted scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import reports.findings
from bench.validity import flags
from reports.findings import findings_of
from reports.html.page import HtmlReport
from reports.tables import summary_table
from reports.text.markdown import MarkdownReport
from reports.text.terminal import TerminalReport
from tests.support.made_up import judged, make_results, rescored

SUITE, JUDGE = "mini_cross_gender", "secs_resemblyzer"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """16 trials by two systems with equal scores."""
    folder = tmp_path_factory.mktemp("two")
    return make_results(folder, 16, {"a": "world", "b": "world"}, suites=[SUITE])


def with_scores(results, change):
    scores = results.scores.copy()
    change(scores)
    return rescored(results, scores)


def shifted(results, by, system="b", column=f"{JUDGE}.secs"):
    """`system` with `column` exactly a's, more by `by` and a little noise."""

    def change(scores):
        noise = 0.002 * np.random.default_rng(0).normal(size=16)
        base = scores.loc[scores["system"] == "a", column].to_numpy()
        scores.loc[scores["system"] == system, column] = base + by + noise

    return with_scores(results, change)


def test_what_is_better_beyond_chance_is_bold_and_nothing_else_is(two):
    better = shifted(two, 0.05)
    assert (SUITE, JUDGE, "secs", "b") in findings_of(better).best
    table = summary_table(better, SUITE, best=findings_of(better).best)
    heads = [column.head for column in table.columns]
    bold = {
        (row.system, head)
        for row in table.rows
        for head, cell in zip(heads, row.cells, strict=True)
        if cell.best
    }
    assert ("b", "SECS ↑") in bold
    assert not any(system in ("a", "source", "target") for system, _ in bold)
    assert any(line.startswith("Bold:") for line in table.legend)


def test_what_a_conversion_adds_is_bold_where_wer_is():
    """The systems are compared by WER alone; the differences are the same."""
    row = {"suite": SUITE, "judge": "w", "baseline": "a", "candidate": "b", "verdict": "better"}
    table = pd.DataFrame([row | {"metric": "wer"}, row | {"metric": "cer", "verdict": "worse"}])
    best = reports.findings._best(table, ["a", "b"])
    assert best == {
        (SUITE, "w", "wer", "b"),
        (SUITE, "w", "cer", "a"),
        (SUITE, "w", "wer_added", "b"),
    }


def test_a_higher_mean_within_chance_is_not_bold(two):
    means = two.scores.groupby("system")[f"{JUDGE}.secs"].mean()
    assert means["a"] != means["b"]
    assert not any(metric == "secs" for _, _, metric, _ in findings_of(two).best)


def test_failing_on_the_hard_half_earns_no_bold(two):
    same = shifted(two, 0.0)
    of_b = same.scores[same.scores["system"] == "b"]
    hard = of_b.nsmallest(8, f"{JUDGE}.secs").index

    def fail(scores):
        scores.loc[hard, "status"] = "failed"
        scores.loc[hard, judged(scores)] = np.nan

    lucky = with_scores(same, fail)
    means = lucky.scores.groupby("system")[f"{JUDGE}.secs"].mean()
    assert means["b"] > means["a"] + 0.01  # what is left looks better
    assert not any(system == "b" for *_, system in findings_of(lucky).best)
    notes = summary_table(lucky, SUITE).notes
    assert any("cover different trials" in note for note in notes)


def test_a_system_at_the_ceiling_is_named(two):
    def lift(scores):
        target = scores.loc[scores["system"] == "target", f"{JUDGE}.secs"].to_numpy()
        scores.loc[scores["system"] == "b", f"{JUDGE}.secs"] = target + 0.01

    known = findings_of(with_scores(two, lift))
    assert (SUITE, JUDGE, "secs", "b") in known.at_ceiling
    assert (SUITE, JUDGE, "secs", "a") not in known.at_ceiling
    assert any("b is at the ceiling of SECS" in note for note in known.notes(SUITE))


def test_a_suspicious_system_is_named_and_never_bold(two):
    better = shifted(two, 0.05)

    def copy(scores):
        for name, value in (("source_match", 0.0), ("bandwidth_hz", 8000.0)):
            scores[f"integrity.{name}"] = value
        scores.loc[scores["system"] == "b", "integrity.source_match"] = 0.9

    gamed = with_scores(better, copy)
    known = findings_of(gamed)
    assert not any(system == "b" for *_, system in known.best)
    notes = known.notes(SUITE)
    assert any(note.startswith("b is suspicious") and "(16 of 16)" in note for note in notes)
    row = known.differences.query("metric == 'secs'").iloc[0]
    assert row["verdict"] == "b is better, and suspicious"
    text = MarkdownReport().text(gamed)
    assert "b is suspicious" in text
    trial = gamed.suites[SUITE].trials[0].trial_id
    assert [s for s, _ in known.flags_by_trial()[SUITE][trial]] == ["b"]


def test_a_run_of_one_system_has_nothing_to_be_better_than(results):
    known = findings_of(results)
    assert known.best == frozenset()
    assert known.differences.empty


def test_a_time_of_another_machine_is_not_bold(two):
    def faster(scores):
        of_b = scores["system"] == "b"
        scores.loc[of_b, "elapsed_seconds"] *= 0.5

    def kept(scores):
        faster(scores)
        of_b = scores["system"] == "b"
        scores["origin"] = np.where(of_b, "0123456789ab on a Cray-1", "")

    best = (SUITE, "timing", "rtf", "b")
    assert best in findings_of(with_scores(two, faster)).best
    assert best not in findings_of(with_scores(two, kept)).best


def test_findings_are_computed_once_for_three_reports(two, tmp_path, monkeypatch):
    calls = []

    def counted(module, name):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: calls.append(name) or original(*given))

    counted(reports.findings, "compute")
    counted(reports.findings, "slices")
    counted(flags, "raised")
    run = dataclasses.replace(two, folder=tmp_path)
    for report in (TerminalReport(), MarkdownReport(), HtmlReport(0, 0, 0)):
        report.render(run)
    assert sorted(calls) == ["compute", "raised", "slices"]
    findings_of(dataclasses.replace(run))  # another run has findings of its own
    assert calls.count("compute") == 2

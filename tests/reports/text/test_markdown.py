"""report.md as GitHub would read it."""

import dataclasses
import re

import pytest

from reports.text.markdown import MarkdownReport, escape
from tests.support.made_up import failing


@pytest.fixture(scope="module")
def text(failed) -> str:
    return MarkdownReport().render(failed).read_text(encoding="utf-8")


def cells(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(text):
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) == 2 * 2 + 3 + 1  # two a suite, three slicings, the failures
    for table in tables:
        assert len({len(cells(line)) for line in table.splitlines()}) == 1


def test_the_judge_stands_in_every_head(text):
    assert "SECS ↑<br>secs_resemblyzer" in text
    assert "WER ↓ %<br>wer_whisper_base" in text


def test_floor_ceiling_and_failures_are_there(text, failed):
    trial = failed.suites["mini_cross_gender"].trials[0].trial_id
    assert "| source (floor) | 8 | 0 |" in text
    assert "| target (ceiling) | 8 | 0 |" in text
    assert "| world | 7/8 | 1 |" in text
    assert f"| world | mini_cross_gender | {trial} | RuntimeError: out of memory |" in text


def test_no_more_failures_than_asked_for(failed):
    second = failed.suites["mini_cross_gender"].trials[1].trial_id
    twice = failing(failed, "world", "mini_cross_gender", second, "ValueError: silent")
    text = MarkdownReport(max_failures=1).render(twice).read_text(encoding="utf-8")
    assert "Failed conversions (2)" in text
    assert "… and 1 more" in text
    assert "ValueError: silent" not in text


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x>"),
        ("[x](http://evil)", r"\[x\](http://evil)"),
        ("two\nlines", "two lines"),
        ("mini_cross_gender", "mini_cross_gender"),
        ("_emphasis_", r"\_emphasis\_"),
        ("**bold** `code`", r"\*\*bold\*\* \`code\`"),
    ],
)
def test_text_of_others_is_inert(raw, safe):
    assert escape(raw) == safe


def test_without_failures_there_is_no_such_section(results, tmp_path):
    text = MarkdownReport().render(dataclasses.replace(results, folder=tmp_path)).read_text()
    assert "Failed conversions" not in text


def test_predictors_of_naturalness_are_explained_where_they_are_shown(text, failed):
    sentence = "predictors tell artefacts from clean speech and hardly order two clean systems"
    assert sentence in text
    assert "docs/methods/naturalness.md" in text
    rest = failed.summary[~failed.summary["metric"].str.contains("dnsmos|utmos")]
    assert sentence not in MarkdownReport().text(dataclasses.replace(failed, summary=rest))

"""Which reports of a run are up to date."""

import json

import pytest

from bench.cli.rendered import RECORD, Rendered
from bench.results import ScoredRun

MARKDOWN = {"_target_": "reports.text.markdown.MarkdownReport", "max_failures": 50}


@pytest.fixture
def results(tmp_path):
    return ScoredRun("r", tmp_path, {"sha256": "a" * 64}, None, None)


@pytest.fixture
def report(results):
    path = results.folder / "report.md"
    path.write_text("a report")
    Rendered(results).add("markdown", MARKDOWN, path)
    return path


def test_a_report_is_up_to_date_until_something_changes(results, report):
    assert Rendered(results).path("markdown", MARKDOWN) == report
    assert Rendered(results).path("other", MARKDOWN) is None
    assert Rendered(results).path("markdown", {**MARKDOWN, "max_failures": 1}) is None
    newer = ScoredRun("r", results.folder, {"sha256": "b" * 64}, None, None)
    assert Rendered(newer).path("markdown", MARKDOWN) is None


def test_a_changed_or_missing_file_is_not_up_to_date(results, report):
    report.write_text("edited")
    assert Rendered(results).path("markdown", MARKDOWN) is None
    report.unlink()
    assert Rendered(results).path("markdown", MARKDOWN) is None


def test_a_third_partys_report_is_always_rendered(results, report):
    settings = {"_target_": "my_package.Report"}
    Rendered(results).add("mine", settings, report)
    assert Rendered(results).path("mine", settings) is None


@pytest.mark.parametrize("record", ["", "[]", '{"markdown": 3}', '{"markdown": {"key": 1}}'])
def test_a_damaged_record_is_as_none(results, report, record):
    (results.folder / RECORD).write_text(record)
    assert Rendered(results).path("markdown", MARKDOWN) is None


def test_a_record_names_no_file_outside_of_the_folder(results, report):
    record = json.loads((results.folder / RECORD).read_text())
    record["markdown"]["file"] = "../secret"
    (results.folder / RECORD).write_text(json.dumps(record))
    (results.folder.parent / "secret").write_text("a report")
    assert Rendered(results).path("markdown", MARKDOWN) is None

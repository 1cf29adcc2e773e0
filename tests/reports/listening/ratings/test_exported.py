"""The files of an exported test: what is wrong with them is named."""

import pytest

from bench.errors import UserError
from reports.listening.ratings.exported import ExportedTest
from tests.support.raters import small_test, written


def test_a_test_of_each_kind_is_read(tmp_path):
    for kind in ("nmos", "smos", "ab", "abx", "cmos", "mushra"):
        test = written(tmp_path / kind, *small_test(kind))
        assert test.kind == kind
        assert test.paired == (kind in ("ab", "abx", "cmos"))
    assert test.hidden_reference("m3") == "hid3"
    assert test.facts("low2", "m2")["trial_id"] == "t2"
    assert test.facts("low2", "m2")["system"] == "anchor_low"


def test_a_missing_damaged_or_foreign_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*test.json"):
        ExportedTest.load(tmp_path)
    public, key = small_test()
    for changed, message in (
        (({**public, "kind": "mos"}, key), "unknown kind 'mos'"),
        (({**public, "format": 2}, key), "format 2"),
        ((public, {**key, "test_id": "b"}), "is the key of test 'b'"),
        ((public, {**key, "screens": {}}), "are no exported test"),
        ((public, {**key, "stimuli": {}}), "does not describe 'x0a'"),
        (({**public, "groups": [["q77"]]}, key), "does not describe 'q77'"),
    ):
        with pytest.raises(UserError, match=message):
            written(tmp_path / "t", *changed)
    (tmp_path / "t" / "key.json").write_text("{")
    with pytest.raises(UserError, match="is no JSON"):
        ExportedTest.load(tmp_path / "t")

"""Where a conversion comes from."""

import re

from bench import provenance


def line(monkeypatch, commit, dirty, changes=""):
    monkeypatch.setattr(provenance, "_commit", lambda: (commit, dirty))
    monkeypatch.setattr(provenance, "_git", lambda *arguments: changes)
    return provenance.origin.__wrapped__()


def test_an_origin_tells_commits_and_changes_apart(monkeypatch):
    clean = line(monkeypatch, "0123456789abcdef", False)
    one, two = (line(monkeypatch, "0123456789abcdef", True, diff) for diff in ("+a", "+b"))
    new_files = line(monkeypatch, "0123456789abcdef", True)
    assert re.fullmatch(r"0123456789ab on .+, \d+ cores, \d+ threads.*", clean)
    assert re.match(r"0123456789ab\+[0-9a-f]{8} on ", one)
    assert new_files.startswith("0123456789ab+ on ")
    assert len({clean, one, two, new_files}) == 4
    assert line(monkeypatch, None, None).startswith("no commit on ")


def test_a_run_and_its_conversions_say_the_same_of_this_process():
    assert provenance.describe()["origin"] == provenance.origin()

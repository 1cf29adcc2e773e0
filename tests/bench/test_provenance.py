"""The recorded code and machine of a conversion."""

import re

from bench import provenance


def line(monkeypatch, commit, dirty, changes=""):
    monkeypatch.setattr(provenance, "_commit", lambda: (commit, dirty))
    monkeypatch.setattr(provenance, "_git", lambda *arguments: changes)
    provenance._code_in_short.cache_clear()
    written = provenance.origin()
    provenance._code_in_short.cache_clear()
    return written


def test_an_origin_tells_commits_and_changes_apart(monkeypatch):
    clean = line(monkeypatch, "0123456789abcdef", False)
    one, two = (line(monkeypatch, "0123456789abcdef", True, diff) for diff in ("+a", "+b"))
    new_files = line(monkeypatch, "0123456789abcdef", True)
    assert re.fullmatch(r"0123456789ab on .+, \d+ cores, \d+ threads.*", clean)
    assert re.match(r"0123456789ab\+[0-9a-f]{8} on ", one)
    assert new_files.startswith("0123456789ab+ on ")
    assert len({clean, one, two, new_files}) == 4
    assert line(monkeypatch, None, None).startswith("no commit on ")


def test_a_machine_line_has_what_times_depend_on():
    machine = {"python": "3.11", "processor": "A", "cores": 2, "torch_threads": 1}
    assert provenance.machine_line(machine | {"gpus": [], "cuda": None}) == "A, 2 cores, 1 threads"
    gpus = {"gpus": ["G", "G"], "cuda": "12.8"}
    assert provenance.machine_line(machine | gpus) == "A, 2 cores, 1 threads, G, G, CUDA 12.8"
    assert provenance.machine_line({}) == "?, ? cores, ? threads"
    assert provenance.machine_of(provenance.origin()) == provenance.machine_line(
        provenance.machine()
    )
    assert provenance.machine_of("no commit on A on B") == "A on B"
    assert provenance.machine_of("") == ""


def test_a_run_and_its_conversions_say_the_same_of_this_process():
    assert provenance.describe()["origin"] == provenance.origin()


def test_an_origin_is_compared_without_the_versions_of_another_environment():
    here = provenance.origin()
    assert provenance.without_versions(here) == here
    assert provenance.without_versions(provenance.origin("python 3.8.18, torch 2.6.0")) == here
    assert provenance.machine_of(
        provenance.origin("python 3.8.18, torch 2.6.0")
    ) == provenance.machine_of(here)
    assert provenance.without_versions("") == ""

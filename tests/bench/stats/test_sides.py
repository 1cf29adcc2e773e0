"""Which systems are compared, and which comparisons are refused."""

from pathlib import Path

import numpy as np
import pytest

from bench.errors import UserError
from bench.stats.compare import compare
from bench.stats.sides import check_comparable, other_machines, sides, without_partner
from tests.support.made_up import facts, run, scores, side

RNG = np.random.default_rng(0)
BASE = 0.6 + 0.05 * RNG.normal(size=72)
NOISE = 0.01 * RNG.normal(size=72)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"judges": {"secs_resemblyzer": {"fingerprint": "9" * 64}}},
            "judges.secs_resemblyzer.fingerprint",
        ),
        ({"suites": {"s": {"sha256": "9" * 64, "trials": 72}}}, "suites.s.sha256"),
        ({"suites": {"s": {"sha256": "1" * 64, "trials": 16}}}, "suites.s.trials"),
        ({"pooling": {"wer": "mean of rates"}}, "pooling.wer"),
    ],
)
def test_different_judges_suites_and_poolings_are_refused_by_name(changed, named):
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE), **changed)
    with pytest.raises(UserError, match=named.replace(".", r"\.")) as refused:
        compare([(a, b)])
    assert "old" in str(refused.value)
    assert "against" in str(refused.value)


def test_nothing_in_common_is_refused():
    a = run("old", scores("a", BASE))
    b = run("new", scores("a", BASE), suites={"other": {"sha256": "1", "trials": 72}})
    with pytest.raises(UserError, match="no suites in common"):
        check_comparable(a, b)


def test_a_judge_of_one_run_alone_is_left_out_aloud():
    judges = {**facts()["judges"], "dnsmos": {"fingerprint": "5"}}
    a, b = run("old", scores("a", BASE)), run("new", scores("a", BASE), judges=judges)
    assert check_comparable(a, b) == ["dnsmos is in only one of the runs and is left out."]


def test_times_of_other_machines_are_not_compared():
    machine = {**facts()["machine"], "processor": "B"}
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE), machine=machine)
    machines = "A, 2 cores, 2 threads against B, 2 cores, 2 threads"
    assert other_machines(a, b, "s") == machines
    comparison = compare([(a, b)])
    assert "rtf" not in set(comparison.table["metric"])
    assert any("times over s are left out" in note for note in comparison.notes)
    assert not compare([(a, b)], metrics=["secs"]).notes  # nobody asked
    again = compare([(a, side("new", scores("a", BASE)))])
    assert "rtf" in set(again.table["metric"])


def test_conversions_kept_from_an_earlier_run_keep_the_machine_of_their_times():
    machine = {**facts()["machine"], "processor": "B"}  # of both runs, that converted nothing
    of_a, of_b = "0123456789ab on A, 2 cores, 2 threads", "no commit on B, 2 cores, 2 threads"

    def kept(name, origin, **changes):
        return side(name, scores("a", BASE).assign(origin=origin), machine=machine, **changes)

    old, new = kept("old", of_a), kept("new", of_b)
    assert other_machines(old, new, "s") == ("A, 2 cores, 2 threads against B, 2 cores, 2 threads")
    comparison = compare([(old, new)])
    assert "rtf" not in set(comparison.table["metric"])
    assert [note for note in comparison.notes if "times over s are left out" in note]
    other_code = kept("other", of_a.replace("0123", "ffff"))
    assert not other_machines(old, other_code, "s")
    assert not other_machines(new, kept("earlier", ""), "s")  # no origin: the run's machine
    # Trial by trial: a run that was finished elsewhere, and one that has only its first half.
    halves = np.where(np.arange(72) < 36, of_a, of_b)
    moved, first = kept("moved", halves), kept("first", of_a)
    assert not other_machines(moved, kept("too", halves), "s")
    assert other_machines(moved, first, "s")
    first.run.scores.loc[36:, ["status", "elapsed_seconds", "audio_seconds"]] = [
        "failed",
        np.nan,
        np.nan,
    ]
    assert not other_machines(moved, first, "s")
    assert "rtf" in set(compare([(moved, first)]).table["metric"])


def test_systems_of_one_run_may_be_of_two_machines():
    tables = [
        scores(name, BASE).assign(origin=f"0123456789ab on {host}")
        for name, host in (("a", "A"), ("b", "B"))
    ]
    pairs = sides([(run("old", *tables), None)])
    comparison = compare(pairs)
    assert "rtf" not in set(comparison.table["metric"])
    assert comparison.notes == (
        "times over s are left out: they were measured on other machines (A against B).",
    )


def test_systems_find_their_partners():
    old, new = run("old", scores("a", BASE), scores("b", BASE)), run("new", scores("b", BASE))
    assert [(x.label, y.label) for x, y in sides([(old, None), (new, None)])] == [("old", "new")]
    pair = sides([(old, "a"), (new, "b")])[0]
    assert (pair[0].label, pair[1].label) == ("old:a", "new:b")
    assert [(x.system, y.system) for x, y in sides([(old, None)])] == [("a", "b")]
    other = run("other", scores("c", BASE), scores("d", BASE))
    with pytest.raises(UserError, match="say which are meant"):
        sides([(new, None), (other, None)])
    with pytest.raises(UserError, match="no system 'z'; known: a, b"):
        sides([(old, "z"), (new, None)])
    with pytest.raises(UserError, match="nothing to compare"):
        sides([(new, None)])
    with pytest.raises(UserError, match="named twice"):
        sides([(old, None), (old, None)])
    with pytest.raises(UserError, match="new:b is named twice"):
        sides([(old, None), (new, None), (new, "b")])


def test_runs_of_one_name_are_told_apart_by_their_folders():
    here = [run("v", scores("a", BASE), folder=Path(f) / "outputs") for f in ("one", "two")]
    old = run("old", scores("a", BASE))
    pairs = sides([(old, None), (here[0], None), (here[1], None)])
    assert [p.label for _, p in pairs] == ["one/outputs/v", "two/outputs/v"]
    assert pairs[0][0].label == "old"


def test_systems_without_a_partner_are_named():
    old, new = run("old", scores("a", BASE), scores("b", BASE)), run("new", scores("b", BASE))
    assert without_partner([(old, None), (new, None)]) == [
        "a of outputs/old left out: outputs/new has none."
    ]
    assert without_partner([(new, None), (old, None)]) == [
        "a of outputs/old left out: outputs/new has none."
    ]
    assert without_partner([(old, "b"), (new, None)]) == []  # it was chosen
    assert without_partner([(old, None)]) == []


def test_one_manifest_with_other_recordings_is_noted():
    suites = [{"s": {"sha256": "1" * 64, "trials": 72, "list": c * 64}} for c in "23"]
    one, other = (run(n, scores("a", BASE), suites=s) for n, s in zip("ab", suites, strict=True))
    (note,) = check_comparable(one, other)
    assert note.startswith("s: the stored lists of trials differ")
    assert check_comparable(one, one) == []

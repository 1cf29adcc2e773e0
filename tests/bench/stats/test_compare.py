"""Comparisons whose answer is known: by hand, from a closed form, or planted."""

import numpy as np
import pytest

from bench.errors import UserError
from bench.metrics import METRICS
from bench.run.folder import read_run
from bench.stats.compare import benjamini_hochberg, compare, detectable, margin_of
from bench.stats.crossed import Crossed
from bench.stats.sides import Side, check_comparable, other_machines, sides
from bench.stats.variance import split_variance
from tests.support.made_up import facts, run, scores, side, write
from tests.support.simulation import ring

RNG = np.random.default_rng(0)
BASE = 0.6 + 0.05 * RNG.normal(size=72)
NOISE = 0.01 * RNG.normal(size=72)


def only(found, metric, slice_=""):
    table = found.table
    rows = table[(table["metric"] == metric) & (table["slice"] == slice_)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_planted_effect_is_found_with_its_sign_and_size():
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + 0.03 + NOISE))
    row = only(compare([(a, b)]), "secs")
    assert row["effect"] == pytest.approx(0.03 + NOISE.mean())
    assert row["low"] < 0.03 < row["high"]
    assert row["verdict"] == "better"
    assert (row["baseline"], row["candidate"], row["n"]) == ("old", "new", 72)
    row = only(compare([(b, a)]), "secs")
    assert row["verdict"] == "worse"


def test_more_errors_are_worse():
    errors = np.random.default_rng(1).integers(0, 3, 72)
    a, b = side("old", scores("a", BASE, errors)), side("new", scores("a", BASE, errors + 1))
    row = only(compare([(a, b)]), "wer")
    assert row["effect"] == pytest.approx(10.0)  # one word of ten
    assert row["verdict"] == "worse"


def test_pairing_sees_what_two_separate_intervals_do_not():
    """The same trials: what makes a trial hard cancels."""
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + 0.004 + 0.2 * NOISE))
    row = only(compare([(a, b)]), "secs")
    assert row["verdict"] == "better"
    alone = Crossed(*ring()).ratios(BASE[:, None], np.ones((72, 1)))[0]
    assert row["effect"] < alone.interval()[1] - alone.value


def test_a_system_that_fails_on_the_hard_half_looks_no_better_for_it():
    hard = np.argsort(BASE)[:36]
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE, failed=hard))
    alone = np.delete(BASE, hard).mean()
    assert alone > BASE.mean() + 0.03  # what a mean over what is left would have shown
    found = compare([(a, b)])
    row = only(found, "secs")
    assert row["effect"] == 0
    assert row["verdict"] == "the same in every trial"
    assert (row["n"], row["baseline_failed"], row["candidate_failed"]) == (36, 0, 36)
    assert only(found, "failed")["effect"] == pytest.approx(50.0)
    assert only(found, "failed")["verdict"] == "worse"


def test_better_on_the_easy_half_alone_is_said_to_be_so():
    hard = np.argsort(BASE)[:30]
    a = side("old", scores("a", BASE))
    b = side("new", scores("a", BASE + 0.03 + NOISE, failed=hard))
    assert only(compare([(a, b)]), "secs")["verdict"] == "better where both converted"


def test_no_difference_and_too_small_a_test_are_told_apart():
    margins = {"secs": 0.02}
    a = side("old", scores("a", BASE))
    small = 0.002 * np.random.default_rng(2).normal(size=72)
    row = only(compare([(a, side("new", scores("a", BASE + small)))], margins=margins), "secs")
    assert row["verdict"] == "no difference that matters"
    wild = 0.3 * np.random.default_rng(3).normal(size=72)
    row = only(compare([(a, side("new", scores("a", BASE + wild)))], margins=margins), "secs")
    assert row["verdict"] == "too small a test"
    assert row["detectable"] > 0.02


def test_the_detectable_effect_is_found_four_times_of_five():
    rng = np.random.default_rng(4)
    source, target = ring()
    design = Crossed(source, target, 2000)
    noise = 0.1 * rng.normal(size=(72, 600)) + 0.03 * rng.normal(size=(18, 600))[source]
    estimates = design.ratios(noise, np.ones_like(noise))
    effect = np.mean([detectable(e) for e in estimates])
    shifted = design.ratios(noise + effect, np.ones_like(noise))
    assert np.mean([e.p_of_no_difference() < 0.05 for e in shifted]) == pytest.approx(0.8, abs=0.06)


def test_slices_stand_beside_the_whole():
    source, _ = ring()
    effect = np.where(source % 2 == 0, 0.05, 0.0)  # on F2M alone
    a, b = side("old", scores("a", BASE)), side("new", scores("a", BASE + effect + 0.1 * NOISE))
    found = compare([(a, b)], metrics=["secs"], by=["gender_pair"])
    assert only(found, "secs")["effect"] == pytest.approx(0.025, abs=0.001)
    assert only(found, "secs", "gender_pair=F2M")["verdict"] == "better"
    assert only(found, "secs", "gender_pair=M2F")["effect"] == pytest.approx(0, abs=0.001)
    assert only(found, "secs", "gender_pair=M2F")["n"] == 36


def test_duration_is_a_slice_of_every_suite():
    table = scores("a", BASE)
    table["audio_seconds"] = np.repeat([3.9, 4.0, 8.0], 24)
    a, b = side("old", table), side("new", table.assign(audio_seconds=1.0))
    found = compare([(a, b)], metrics=["secs"], by=["duration"]).table.query("metric == 'secs'")
    sizes = found.set_index("slice")["n"].to_dict()
    assert sizes == {
        "": 72,
        "duration=under 4 s": 24,
        "duration=4 to 8 s": 24,
        "duration=8 s and more": 24,
    }
    with pytest.raises(UserError, match="no factor 'gender' to slice by"):
        compare([(a, b)], by=["gender"])


def test_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    # ranked: .005·4/1, .01·4/2, .03·4/3, .04·4/4
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, np.nan, 0.04, 0.02], nan_ok=True)


def test_benjamini_hochberg_agrees_with_scipy():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(5).random(200)
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))


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
    said = "A, 2 cores, 2 threads against B, 2 cores, 2 threads"
    assert other_machines(a, b, "s") == said
    found = compare([(a, b)])
    assert "rtf" not in set(found.table["metric"])
    assert any("RTF over s is left out" in note for note in found.notes)
    assert not compare([(a, b)], metrics=["secs"]).notes  # nobody asked
    again = compare([(a, side("new", scores("a", BASE)))])
    assert "rtf" in set(again.table["metric"])


def test_conversions_kept_from_an_earlier_run_were_timed_where_they_were_made():
    machine = {**facts()["machine"], "processor": "B"}  # of both runs, that converted nothing
    of_a, of_b = "0123456789ab on A, 2 cores, 2 threads", "no commit on B, 2 cores, 2 threads"

    def kept(name, origin, **changes):
        return side(name, scores("a", BASE).assign(origin=origin), machine=machine, **changes)

    old, new = kept("old", of_a), kept("new", of_b)
    assert other_machines(old, new, "s") == ("A, 2 cores, 2 threads against B, 2 cores, 2 threads")
    found = compare([(old, new)])
    assert "rtf" not in set(found.table["metric"])
    assert [note for note in found.notes if "RTF over s is left out" in note]
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
        scores(name, BASE).assign(origin=f"0123456789ab on {place}")
        for name, place in (("a", "A"), ("b", "B"))
    ]
    pairs = sides([(run("old", *tables), None)])
    found = compare(pairs)
    assert "rtf" not in set(found.table["metric"])
    assert found.notes == (
        "RTF over s is left out: it was measured on other machines (A against B).",
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


def test_margins_are_numbers_or_shares():
    assert margin_of(0.5, 20.0, METRICS["wer"]) == 0.5
    assert margin_of("10%", 20.0, METRICS["wer"]) == pytest.approx(2.0)
    assert np.isnan(margin_of(None, 20.0, METRICS["wer"]))
    for wrong in (0, -1, "ten", True, "nan"):
        with pytest.raises(UserError, match="the margin of WER"):
            margin_of(wrong, 20.0, METRICS["wer"])


def repeats(seeds, sampling, rng, speaker=0.05, trial=0.03):
    """The same system under several seeds, with planted standard deviations."""
    source, target = ring(30, 6)
    truth = speaker * rng.normal(size=30)[source] + speaker * rng.normal(size=30)[target]
    truth += trial * rng.normal(size=len(source))
    made = []
    for seed in range(seeds):
        values = 0.7 + truth + sampling * rng.normal(size=len(source))
        table = scores("a", values, design=(source, target))
        made.append(side(f"s{seed}", table, settings={"seed": seed}))
    return made


def test_the_variance_over_seeds_is_split_as_it_was_planted():
    rng = np.random.default_rng(6)
    splits = [split_variance(repeats(3, 0.02, rng), ["secs"])[0] for _ in range(60)]
    assert np.mean([s.sampling for s in splits]) == pytest.approx(0.02**2, rel=0.05)
    assert np.mean([s.speakers.trial for s in splits]) == pytest.approx(0.03**2, rel=0.1)
    assert np.mean([s.speakers.source for s in splits]) == pytest.approx(0.05**2, rel=0.15)
    assert np.mean([s.speakers.target for s in splits]) == pytest.approx(0.05**2, rel=0.15)
    assert sum(splits[0].shares.values()) == pytest.approx(1)
    assert (splits[0].n, splits[0].seeds) == (180, 3)


def test_a_deterministic_system_has_no_sampling_noise():
    split = split_variance(repeats(2, 0.0, np.random.default_rng(7)), ["secs"])[0]
    assert split.sampling == pytest.approx(0, abs=1e-20)


def test_repeats_must_differ_in_their_seed_alone():
    one = side("s0", scores("a", BASE))
    with pytest.raises(UserError, match=r"are \[0, 0\]"):
        split_variance([one, side("s1", scores("a", BASE))])
    systems = {"a": {"settings": {"_target_": "x.A", "steps": 5}}}
    other = side("s1", scores("a", BASE), settings={"seed": 1}, systems=systems)
    with pytest.raises(UserError, match=r"differ in steps \(10 against 5\)"):
        split_variance([one, other])


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    made = run("one", scores("a", BASE), folder=tmp_path)
    read = read_run(write(made))
    assert read.systems == ["a"]
    found = compare([(Side("x", made, "a"), Side("y", read, "a"))])
    assert only(found, "secs")["effect"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match=r"holds no scored run \(run\.json is missing\)"):
        read_run(tmp_path / "nowhere")

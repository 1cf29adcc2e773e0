"""The gate's decisions on data whose degradation is known."""

from xml.etree import ElementTree

import numpy as np
import pytest

from bench.errors import UserError
from bench.stats.gate import DEFAULT, EXIT, PASS, REGRESSION, UNDECIDED, Rules, decide, junit
from tests.support.made_up import facts, scores, side
from tests.support.simulation import ring

MARGIN = 0.02
RULES = Rules({"secs": MARGIN})
SOURCE, TARGET = ring()


def candidate(rng, shift):
    """Baseline and candidate, worse by `shift` on average, with noise of trials and speakers."""
    base = 0.6 + 0.05 * rng.normal(size=72) + 0.05 * rng.normal(size=18)[TARGET]
    changes = 0.015 * rng.normal(size=72) + 0.003 * rng.normal(size=18)[SOURCE]
    return side("old", scores("a", base)), side("new", scores("a", base - shift + changes))


@pytest.mark.parametrize(("share", "expected"), [(0.5, PASS), (2.0, REGRESSION), (-1.0, PASS)])
def test_half_the_margin_passes_and_twice_the_margin_fails(share, expected):
    rng = np.random.default_rng(0)
    outcomes = [decide(*candidate(rng, share * MARGIN), RULES).outcome for _ in range(60)]
    assert np.mean([o == expected for o in outcomes]) >= 0.95


def test_a_small_suite_cannot_decide():
    rng = np.random.default_rng(1)
    base = 0.6 + 0.05 * rng.normal(size=16)
    design = ring(8, 2)
    a = side("old", scores("a", base, design=design))
    b = side("new", scores("a", base + 0.05 * rng.normal(size=16), design=design))
    decision = decide(a, b, RULES)
    assert decision.outcome == UNDECIDED
    check = decision.checks[-1]
    assert "too small a test" in check.reason
    assert "trials" in check.reason


def test_few_trials_decide_nothing_however_clear_they_look():
    base = np.full(6, 0.6)
    design = ring(6, 1)
    a = side("old", scores("a", base, design=design))
    b = side("new", scores("a", base + 0.2, design=design))
    decision = decide(a, b, RULES)
    assert decision.outcome == UNDECIDED
    assert "fewer than 8 trials" in decision.checks[-1].reason


def test_new_failures_are_undecided_and_a_regression_decides():
    rng = np.random.default_rng(2)
    a, b = candidate(rng, 0.0)
    lost = b.run.scores.index[:3]
    b.run.scores.loc[lost, "status"] = "failed"
    b.run.scores.loc[lost, ["secs_resemblyzer.secs"]] = np.nan
    decision = decide(a, b, RULES)
    assert decision.outcome == UNDECIDED
    failures = decision.checks[0]
    assert failures.outcome == UNDECIDED
    assert "3 that old converted, 0 allowed, first t0000" in failures.reason
    assert decide(a, b, Rules({"secs": MARGIN}, failures=3)).outcome == PASS
    b.run.scores["secs_resemblyzer.secs"] -= 0.1
    assert decide(a, b, RULES).outcome == REGRESSION


def test_failing_on_the_hard_half_never_passes_for_better():
    rng = np.random.default_rng(3)
    a, b = candidate(rng, 0.0)
    hard = a.run.scores["secs_resemblyzer.secs"].nsmallest(36).index
    b.run.scores.loc[hard, "status"] = "failed"
    b.run.scores.loc[
        hard, ["secs_resemblyzer.secs", "wer_whisper_base.word_errors", "wer_whisper_base.words"]
    ] = np.nan
    assert decide(a, b, RULES).outcome == UNDECIDED


def test_what_was_not_measured_leaves_it_open():
    a, b = candidate(np.random.default_rng(4), 0.0)
    decision = decide(a, b, Rules({"secs": MARGIN, "utmos": 0.1}))
    assert decision.outcome == UNDECIDED
    assert "in neither" in decision.checks[-1].reason


def judged(judge, table, metric, shift=0.0):
    """The table with one more judge, whose scores are the first one's, worse by `shift`."""
    return table.assign(**{f"{judge}.{metric}": table["secs_resemblyzer.secs"] - shift})


def outcomes(decision):
    return {check.name: check.outcome for check in decision.checks}


FAMILY = Rules({"similarity": MARGIN})


def test_every_judge_of_a_family_must_pass():
    a, b = candidate(np.random.default_rng(9), 0.0)
    before, after = a.run.scores, b.run.scores
    old = side("old", judged("secs_b", before, "secs_reference"))
    same = side("new", judged("secs_b", after, "secs_reference"))
    worse = side("new", judged("secs_b", after, "secs_reference", 2 * MARGIN))
    passed = {"s · failed": PASS, "s · secs · secs_resemblyzer": PASS}
    name = "s · secs_reference · secs_b"
    assert outcomes(decide(old, same, FAMILY)) == {**passed, name: PASS}
    assert outcomes(decide(old, worse, FAMILY)) == {**passed, name: REGRESSION}
    # a margin of the very metric goes before the family's
    both = Rules({"similarity": MARGIN, "secs_reference": 3 * MARGIN})
    assert outcomes(decide(old, worse, both)) == {**passed, name: PASS}


def test_a_judge_that_the_candidate_lacks_leaves_the_family_open_and_a_new_one_does_not():
    a, b = candidate(np.random.default_rng(10), 0.0)
    more = side("more", judged("secs_b", a.run.scores, "secs"))
    decided = outcomes(decide(more, b, FAMILY))
    assert decided["s · secs · secs_resemblyzer"] == PASS
    assert decided["s · secs · secs_b"] == UNDECIDED
    assert decide(b, more, FAMILY).outcome == PASS


def test_a_family_that_no_judge_measures_is_noted_and_not_asked_for():
    a, b = candidate(np.random.default_rng(11), 0.0)
    decision = decide(a, b, Rules({"similarity": MARGIN, "naturalness": 0.1}))
    assert decision.outcome == PASS
    assert decision.notes == ("naturalness over s: no judge of either run measures it.",)
    # but where nothing at all was asked for, nothing was shown
    decision = decide(a, b, Rules({"naturalness": 0.1}))
    assert decision.outcome == UNDECIDED
    assert "nothing that has a margin was measured (naturalness)" in decision.checks[-1].reason


def test_a_family_whose_judge_could_not_measure_is_open():
    judges = {**facts()["judges"], "utmos": {"metrics": ["utmos"], "unavailable": "no weights"}}
    a, b = candidate(np.random.default_rng(12), 0.0)
    old, new = (side(s.label, s.run.scores, judges=judges) for s in (a, b))
    decision = decide(old, new, Rules({"similarity": MARGIN, "naturalness": 0.1}))
    assert outcomes(decision)["s · naturalness"] == UNDECIDED


def test_the_metric_that_a_judge_was_set_to_leads_whatever_counts_it_keeps():
    judges = {
        **facts()["judges"],
        "wer_whisper_base": {"fingerprint": "3", "metrics": ["wer_raw_mean"]},
    }

    def raw(given):
        errors = given.run.scores["wer_whisper_base.word_errors"]
        table = given.run.scores.assign(
            **{
                "wer_whisper_base.raw_word_errors": errors,
                "wer_whisper_base.raw_words": given.run.scores["wer_whisper_base.words"],
            }
        )
        return side(given.label, table, judges=judges)

    a, b = candidate(np.random.default_rng(13), 0.0)
    decided = outcomes(decide(raw(a), raw(b), Rules({"intelligibility": 2.0})))
    assert set(decided) == {"s · failed", "s · wer_raw_mean · wer_whisper_base"}


def test_a_suite_that_the_candidate_was_not_run_over_leaves_it_open():
    a, b = candidate(np.random.default_rng(8), 0.0)
    suites = {**facts()["suites"], "hard": {"sha256": "4" * 64, "trials": 72}}
    more = side("old", a.run.scores, suites=suites)
    decision = decide(more, b, RULES)
    assert decision.outcome == UNDECIDED
    assert decision.checks[-1].reason == "new was not run over it, old was"
    assert decide(b, more, RULES).outcome == PASS  # the other way round nothing is missing


def test_worse_by_less_than_the_margin_passes_with_a_note():
    base = np.linspace(0.5, 0.7, 72)
    a, b = side("old", scores("a", base)), side("new", scores("a", base - 0.005))
    decision = decide(a, b, RULES)
    assert decision.outcome == PASS
    assert "worse, but by less than the margin" in decision.checks[-1].reason


def test_every_slice_must_pass():
    base = np.linspace(0.5, 0.7, 72)
    a = side("old", scores("a", base))
    b = side("new", scores("a", base + np.where(SOURCE % 2 == 0, -0.03, 0.03)))
    assert decide(a, b, RULES).outcome in (PASS, UNDECIDED)
    decision = decide(a, b, Rules({"secs": MARGIN}, by=("gender_pair",)))
    assert decision.outcome == REGRESSION
    failed = [c.name for c in decision.checks if c.outcome == REGRESSION]
    assert failed == ["s · gender_pair=F2M · secs · secs_resemblyzer"]


def test_a_share_of_the_baseline_is_a_margin_too():
    errors = np.full(72, 2.0)  # WER 20%
    a, b = side("old", scores("a", 0.6, errors)), side("new", scores("a", 0.6, errors + 0.1))
    assert decide(a, b, Rules({"wer": "10%"})).outcome == PASS  # 1 point worse, 2 allowed
    assert decide(a, b, Rules({"wer": "4%"})).outcome == REGRESSION


def test_runs_of_other_judges_are_refused():
    a, b = candidate(np.random.default_rng(5), 0.0)
    judges = {**facts()["judges"], "secs_resemblyzer": {"fingerprint": "x"}}
    other = side("new", b.run.scores, judges=judges)
    with pytest.raises(UserError, match=r"judges\.secs_resemblyzer\.fingerprint"):
        decide(a, other, RULES)


def test_junit_has_a_case_for_every_check():
    rng = np.random.default_rng(6)
    decision = decide(*candidate(rng, 2 * MARGIN), Rules({"secs": MARGIN, "utmos": 0.1}))
    root = ElementTree.fromstring(junit([decision]))
    suite = root.find("testsuite")
    assert suite.attrib["tests"] == "3"
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "1")
    cases = {case.attrib["name"]: case for case in suite}
    assert "margin 0.02" in cases["s · secs · secs_resemblyzer"].find("failure").attrib["message"]
    assert cases["s · utmos"].find("error").attrib["type"] == UNDECIDED
    assert len(cases["s · failed"]) == 1


def test_the_exit_codes_are_those_of_the_documentation():
    assert EXIT == {"pass": 0, "regression": 1, "undecided": 3}


def test_the_shipped_margins_are_readable():
    rules = Rules.load(DEFAULT)
    assert rules.margins == {"similarity": 0.02, "intelligibility": 2.0, "naturalness": 0.10}
    assert rules.level == 0.95


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("secs: 0.02", "has no margins"),
        ("margins: {secz: 0.1}", "'secz' has no margin; did you mean 'secs'"),
        ("margins: {similarly: 0.1}", "'similarly' has no margin; did you mean 'similarity'"),
        ("margins: {exposure: 0.1}", "'exposure' has no margin"),  # of no direction
        ("margins: {duration_ratio: 0.1}", "has no margin"),
        ("margins: {secs: 0.1}\nfailure: 3", "unknown key 'failure'; did you mean 'failures'"),
        ("margins: {secs: 0.1}\nlevel: 95", "level is 95; it must be at least 0.5 and below 1"),
        ("margins: {secs: 0.1}\nfailures: many", "failures is 'many'"),
        ("margins: {secs: }", "the margin of secs has no value"),
        ("margins: {secs: 0.1}\nby: 3", "by is 3; it must be a list of factors"),
        ("margins: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_mistake_in_the_margins_is_named(tmp_path, text, message):
    path = tmp_path / "margins.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"margins\.yaml") as error:
        Rules.load(path)
    assert message in " ".join(str(error.value).split())


def test_one_factor_needs_no_brackets(tmp_path):
    path = tmp_path / "margins.yaml"
    path.write_text("margins: {secs: 0.1}\nby: gender_pair\n")
    assert Rules.load(path).by == ("gender_pair",)

"""A report, a history and a gate use the metrics of every preset and of third-party judges."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hydra.utils import get_class

from bench.cli.settings import load, options
from bench.metrics import (
    ERROR_RATES,
    INTELLIGIBILITY,
    LEAKAGE,
    METRICS,
    NATURALNESS,
    SIMILARITY,
    Metric,
    leading,
)
from bench.run.folder import read_run
from bench.stats.gate import DEFAULT, PASS, Rules, decide
from bench.stats.history import history
from bench.stats.pooling import Measured, measures_of, summarise
from bench.stats.sides import Side
from reports.figures import draw
from reports.findings import findings_of
from reports.headline import headline
from reports.html.cards import listing
from reports.html.page import HtmlReport
from reports.html.ranking import rankings
from reports.tables import HEADLINE, summary_table
from reports.text.markdown import MarkdownReport
from tests.support.made_up import RECORDINGS, make_results, write_folder

SUITE = "mini_cross_gender"
TRIALS = 8
SYSTEMS = {"good": "world", "copy": "world", "perfect": "world"}
OTHERS = "judges of others"  # a run whose metrics come with its judges

# What each system reaches, by family: `copy` is the source, `perfect` another recording of it.
LEVELS = {
    SIMILARITY: {"source": 0.5, "copy": 0.5, "good": 0.75, "perfect": 0.9, "target": 0.9},
    LEAKAGE: {"source": 0.9, "copy": 0.9, "good": 0.6, "perfect": 0.5, "target": 0.5},
    INTELLIGIBILITY: {"source": 0.1, "copy": 0.1, "good": 0.3, "perfect": 0.1, "target": np.nan},
    NATURALNESS: {"source": 3.0, "copy": 3.0, "good": 2.5, "perfect": 3.0, "target": 3.1},
}


@pytest.fixture(scope="module")
def others():
    """Metrics that no file of the project names, as third-party judges bring them."""
    metrics = {
        "their_likeness": Metric("likeness", True, "likeness", family=SIMILARITY, near=0.02),
        "their_errors": Metric(
            "errors", False, "wrong", "asked", "%", 100, family=INTELLIGIBILITY, near=1.0
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, metric in metrics.items():
            patch.setitem(METRICS, name, metric)
        yield {
            "their_encoder": Measured(("their_likeness",)),
            "their_recogniser": Measured(("their_errors",), needs_source_words=True),
        }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("presets"), TRIALS, SYSTEMS, [SUITE])


def judges_of(preset):
    """The metrics of a preset's judges."""
    judges = {}
    for name, node in load([f"preset={preset}"]).judge.items():
        judge = get_class(node["_target_"])
        metrics = judge.metrics_for(node) if hasattr(judge, "metrics_for") else judge.metrics
        judges[str(name)] = Measured(tuple(metrics), judge.needs_source_words)
    return judges


def scored_by(base, judges):
    """The run as scored by these judges: the columns that their metrics need, and no others."""
    rng = np.random.default_rng(0)
    scores = base.scores[[c for c in base.scores if "." not in c or c.startswith("factor.")]].copy()
    noise = pd.Series(0.05 * rng.normal(size=TRIALS), scores["trial_id"].unique())
    for judge, measured in judges.items():
        names = set(measured.metrics)
        if names & set(ERROR_RATES):  # counts of all normalisations are kept
            names |= {name for name in ERROR_RATES if ("_asr" in name) == ("asr" in str(names))}
        for metric in (METRICS[name] for name in METRICS if name in names):
            level = LEVELS.get(metric.family, dict.fromkeys(base.anchors, 1.0))
            value = (
                scores["system"].map(level).fillna(1.0 if metric.family not in LEVELS else np.nan)
            )
            value = value * (1 + scores["trial_id"].map(noise))
            total = 10.0 if metric.denominator else 1.0
            scores[f"{judge}.{metric.numerator}"] = value * total
            if metric.denominator:
                scores[f"{judge}.{metric.denominator}"] = total
    facts = {
        **base.facts,
        "anchors": dict(base.anchors),
        "suites": {SUITE: {"sha256": "1" * 64, "trials": TRIALS}},
        "judges": {name: {"metrics": list(j.metrics)} for name, j in judges.items()},
    }
    summary = summarise(scores, judges, RECORDINGS)
    return dataclasses.replace(base, scores=scores, summary=summary, facts=facts)


@pytest.fixture(scope="module", params=[*options("preset"), OTHERS])
def run(request, base, others):
    return scored_by(base, others if request.param == OTHERS else judges_of(request.param))


@pytest.fixture(scope="module")
def known(run):
    return findings_of(run)


@pytest.fixture
def led(run):
    """(judge, metric) of similarity and of intelligibility that lead in the run."""
    leaders = leading(measures_of(run.summary), [SIMILARITY, INTELLIGIBILITY])
    assert {METRICS[metric].family for _, metric in leaders} == {SIMILARITY, INTELLIGIBILITY}
    return leaders


def test_the_headline_has_a_number_of_each(run, led):
    sentence = next(s for s in headline(run).reached if s.startswith(f"{SUITE}, good"))
    for judge, metric in led:
        value = run.summary.query("system == 'good' and judge == @judge and metric == @metric")
        number = f"{value['value'].iloc[0]:.{METRICS[metric].decimals}f}"
        assert f"{METRICS[metric].label} {number}" in sentence
        assert f"by {judge}" in sentence


def test_the_tables_show_each_in_their_head(run, led):
    table = summary_table(run, SUITE, HEADLINE)
    shown = [(column.group, column.head.partition(" ↑")[0]) for column in table.columns]
    for judge, metric in led:
        label = METRICS[metric].label
        assert any(group == judge and head.startswith(label) for group, head in shown)


def test_trials_are_ranked_worst_first_by_the_first_judge_of_each(run, led):
    ranked = rankings(run, SUITE)
    similar, understood = (leading(led, [family])[0] for family in (SIMILARITY, INTELLIGIBILITY))
    for judge, _ in (similar, understood):
        assert any(judge in ranking.title for ranking in ranked)
    judge, metric = understood
    worst = next(r for r in ranked if r.title.endswith(f"by {judge}: good"))
    rows = run.scores[run.scores["system"] == "good"].set_index("trial_id")
    rate = rows[f"{judge}.{METRICS[metric].numerator}"]
    assert worst.trial_ids[0] == rate.idxmax()
    cards = listing(run, SUITE, embed_trials=0, max_bytes=0).cards
    assert cards[0].reason
    assert {METRICS[metric].label for _, metric in led} <= {
        name.partition(" (")[0] for name, _ in cards[0].sounds[1].measures
    }


def test_each_has_its_figure(run, led):
    names = {figure.name for figure in draw(run, {})}
    for judge, metric in led:
        assert f"{metric}-{judge}-{SUITE}" in names
    assert any(name.startswith("tradeoff") for name in names)


def test_a_system_at_the_ceiling_of_each_is_named(run, known, led):
    for judge, metric in led:
        assert (SUITE, judge, metric, "perfect") in known.at_ceiling
        assert (SUITE, judge, metric, "good") not in known.at_ceiling
    notes = " ".join(known.notes(SUITE))
    assert f"perfect is at the ceiling of {METRICS[led[0][1]].label}" in notes


def test_a_copy_of_the_source_is_flagged_as_unconverted(known):
    flags = known.flags.query("flag == 'unconverted'")
    assert set(flags["system"]) == {"source", "copy"}
    assert len(flags.query("system == 'copy'")) == TRIALS


def test_similarity_is_held_against_its_confounds(known, led):
    held = {(c.judge, c.metric) for c in known.confounds}
    assert held == {pair for pair in led if METRICS[pair[1]].family == SIMILARITY}


def test_the_history_shows_each_without_being_asked(run, led, tmp_path):
    write_folder(tmp_path, run.facts, run.scores, lambda _: run.summary)
    table = history([read_run(tmp_path)]).table
    assert set(led) <= set(table[["judge", "metric"]].itertuples(index=False, name=None))


def test_the_default_gate_checks_the_leading_metric_of_every_judge(run):
    baseline, candidate = (Side(n, dataclasses.replace(run, name=n), "good") for n in "ab")
    decision = decide(baseline, candidate, Rules.load(DEFAULT))
    assert decision.outcome == PASS
    families = [SIMILARITY, INTELLIGIBILITY, NATURALNESS]
    checked = {check.name for check in decision.checks}
    expected = leading(measures_of(run.summary), families)
    assert checked == {f"{SUITE} · failed", *(f"{SUITE} · {m} · {j}" for j, m in expected)}


def test_no_wrong_sentence_is_an_alarm(base, tmp_path):
    """The sentence of the preset stands between the run's and the failures'."""
    run = scored_by(base, judges_of("seed_vc"))
    preset = {"name": "seed_vc", "publication": "Seed-VC", "deviations": ["Pairs."]}
    facts = {**run.facts, "settings": {"preset": preset}}
    scores = run.scores.copy()
    scores.loc[scores.index[TRIALS], ["status", "error", "wav"]] = ["failed", "E: no", ""]
    failed = dataclasses.replace(run, folder=tmp_path, scores=scores, facts=facts)
    html = HtmlReport(embed_trials=0, beside_trials=0).render(failed).read_text()
    summary = html[html.index('id="summary-title"') : html.index('id="suite-1"')]
    alarm = summary[summary.index('<p class="alarm">') :].partition("</p>")[0]
    assert "Conversions that failed: good: 1 of 8." in alarm
    assert "See each one." in alarm
    assert "<p>Preset seed_vc, after Seed-VC. It deviates: (1) Pairs.</p>" in summary
    assert "Preset" not in alarm
    text = MarkdownReport().render(failed).read_text()
    assert text.index("Preset seed_vc") < text.index("Conversions that failed")

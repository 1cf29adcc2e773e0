"""A third party's judge fills headline, ranking, figures, gate and history."""

from typing import ClassVar

import pytest

import bench
from bench.files import fingerprint
from bench.judges import SelfTest
from bench.metrics import COSINE, SIMILARITY, Metric, registry_restored
from bench.run.folder import read_run
from bench.stats.gate import DEFAULT, Rules, decide
from bench.stats.history import history
from bench.stats.sides import Side
from reports.figures import draw
from reports.headline import headline
from reports.html.ranking import rankings
from suites.build import MANIFESTS, MINI
from tests.support.fakes import Louder

SUITE = "mini_cross_gender"


class Likeness:
    """Measures a similarity that this project does not know: by the length of the audio."""

    reads = frozenset({"converted"})
    metrics = ("likeness",)
    defines: ClassVar = {
        "likeness": Metric(
            "likeness", True, "likeness", limits=COSINE, family=SIMILARITY, near=0.02
        )
    }
    needs_source_words = False
    weights = ()
    fingerprint = fingerprint("likeness")

    def score(self, items):
        return [{"likeness": min(item.converted.seconds / 20, 1.0)} for item in items]

    def self_test(self, recordings):
        return SelfTest(passed=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with registry_restored():
        scored_run = bench.Run(
            tmp_path_factory.mktemp("runs") / "mine",
            suites=[bench.Suite.load(MANIFESTS / f"{SUITE}.v2.jsonl", root=MINI, limit=16)],
            systems={"source": "baselines.anchors.Source", "loud": Louder(), "quiet": Louder(0.5)},
        )
        scored_run.convert()
        scored_run.score({"ears": Likeness()})
        yield scored_run


def test_it_is_in_the_headline(run):
    assert any("likeness 0." in s and "by ears" in s for s in headline(run.results).reached)


def test_trials_are_ranked_by_it(run):
    ranking = next(r for r in rankings(run.results, SUITE) if r.title.endswith("by ears: loud"))
    rows = run.scores.query("system == 'loud'").set_index("trial_id")
    assert ranking.trial_ids[0] == rows["ears.likeness"].idxmin()


def test_it_has_a_figure(run):
    assert f"likeness-ears-{SUITE}" in {figure.name for figure in draw(run.results, {})}


def test_the_default_gate_checks_it(run):
    sides = (Side(name, run.scored, name) for name in ("loud", "quiet"))
    checks = {check.name for check in decide(*sides, Rules.load(DEFAULT)).checks}
    assert any("likeness" in name and "ears" in name for name in checks)


def test_it_is_in_the_history(run):
    table = history([read_run(run.folder)]).table
    assert set(table["metric"]) >= {"likeness"}


def test_the_report_shows_it(run):
    text = run.report().read_text(encoding="utf-8")
    assert text.count("likeness") > 5

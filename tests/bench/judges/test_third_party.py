"""A third party's judge that brings a new metric: nothing of this project is edited for it."""

from dataclasses import replace
from typing import ClassVar

import pytest

from bench.errors import UserError
from bench.judges import register_metrics_of
from bench.metrics import (
    METRICS,
    NATURALNESS,
    Metric,
    definitions,
    held_to,
    leading,
    registry_restored,
    restore,
)
from bench.stages.cache import ScoreCache
from bench.stages.convert import Entry, convert_suite
from bench.stages.judging import JudgeError
from bench.stages.score import rows_of, score_rows, score_table, wav_hashes
from bench.stats.pooling import Measured, measures_in, measures_of, summarise
from tests.support.fakes import Length, Louder, MosNet


@pytest.fixture
def rows(suite, tmp_path):
    entry = Entry("louder", Louder())
    done = convert_suite(entry, suite, tmp_path)
    return rows_of([entry], [suite], {("louder", suite.name): done})


def scored(rows, judge, folder):
    """The score table of these rows by this judge, called mos."""
    cache = ScoreCache(folder / "scores.sqlite")
    scores = score_rows(rows, "mos", judge, folder, cache)
    cache.close()
    return score_table(rows, folder, wav_hashes(rows, folder), {"mos": scores})


def test_its_metric_is_scored_pooled_and_chosen_by_family(rows, tmp_path):
    judge = MosNet()
    register_metrics_of(judge, "mos")
    table = scored(rows, judge, tmp_path)
    summary = summarise(table, {"mos": Measured(judge.metrics)}, {})
    [row] = summary[summary["metric"] == "mos_net"].to_dict("records")
    assert (row["judge"], row["n"], row["value"]) == ("mos", 4, pytest.approx(3.5))
    measures = [*measures_of(summary), ("dnsmos", "dnsmos_ovrl")]
    assert ("mos", "mos_net") in measures_in(table.columns)
    assert leading(measures, [NATURALNESS]) == [("dnsmos", "dnsmos_ovrl"), ("mos", "mos_net")]
    assert held_to([NATURALNESS], measures)["mos", "mos_net"] == NATURALNESS
    assert held_to(["mos_net"], measures) == {("mos", "mos_net"): "mos_net"}


def test_its_limits_hold(rows, tmp_path):
    register_metrics_of(MosNet, "mos")
    with pytest.raises(JudgeError, match="gave mos_net = 9, which lies between 1 and 5"):
        scored(rows, MosNet(mos=9.0), tmp_path)


def test_its_scores_are_pooled_on_a_machine_that_lacks_it(rows, tmp_path):
    with registry_restored():
        register_metrics_of(MosNet, "mos")
        table, stored = scored(rows, MosNet(), tmp_path), definitions(MosNet.metrics)
    assert "mos_net" not in METRICS
    restore(stored, "run.json")
    summary = summarise(table, {"mos": Measured(("mos_net",))}, {})
    assert summary.set_index("metric").loc["mos_net", "value"] == pytest.approx(3.5)


def test_a_metric_that_nobody_defines_is_one_line():
    class Undefined(MosNet):
        defines: ClassVar[dict[str, Metric]] = {}

    with pytest.raises(UserError, match="judge mos measures 'mos_net', which is no metric; "):
        register_metrics_of(Undefined(), "mos")


def test_a_class_that_cannot_be_built_has_its_metrics_by_its_settings():
    register_metrics_of(MosNet, "mos", ("mos_net", "secs"))
    with pytest.raises(UserError, match="measures 'sesc', which is no metric; did you mean 'secs'"):
        register_metrics_of(MosNet, "mos", ("sesc",))


def test_two_judges_that_define_one_name_otherwise_are_one_line():
    class Other(MosNet):
        defines: ClassVar = {"mos_net": replace(MosNet.defines["mos_net"], unit="%")}

    register_metrics_of(MosNet(), "mos")
    register_metrics_of(MosNet(), "mos_again")
    with pytest.raises(UserError, match="judge other defines the metric 'mos_net' with unit = '%'"):
        register_metrics_of(Other(), "other")


def test_definitions_must_be_a_mapping():
    class Listed(MosNet):
        defines = ("mos_net",)

    with pytest.raises(UserError, match=r"judge mos: defines = \('mos_net',\): must be a mapping"):
        register_metrics_of(Listed(), "mos")


def test_a_judge_of_built_in_metrics_defines_nothing():
    before = dict(METRICS)
    register_metrics_of(Length(), "length")
    assert before == METRICS

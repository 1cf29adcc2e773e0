"""Metrics that judges and run folders add."""

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.metrics import (
    BUILT_IN,
    METRICS,
    NATURALNESS,
    Metric,
    definitions,
    leading,
    register,
    registry_restored,
    restore,
)

MOS = Metric("MOS net", True, "mos_net", limits=(1.0, 5.0), family=NATURALNESS)


def test_a_registered_metric_is_known_and_an_equal_one_changes_nothing():
    register("mos_net", MOS, "judge mos")
    before = dict(METRICS)
    register("mos_net", replace(MOS), "judge other")
    assert METRICS["mos_net"] == MOS
    assert before == METRICS


def test_another_definition_of_a_known_name_is_one_line_with_both():
    register("mos_net", MOS, "judge mos")
    with pytest.raises(UserError) as caught:
        register("mos_net", replace(MOS, scale=100.0), "judge other")
    assert str(caught.value) == (
        "judge other defines the metric 'mos_net' with scale = 100.0, but it is known with "
        "scale = 1.0; give it another name"
    )
    with pytest.raises(UserError, match="defines the metric 'secs' with label = 'MOS net'"):
        register("secs", MOS, "judge mos")
    assert METRICS["secs"] == BUILT_IN["secs"]


def test_a_fault_is_detected_before_anything_is_added():
    with pytest.raises(UserError, match="no family 'naturalnes'; did you mean 'naturalness'"):
        register("mos_net", replace(MOS, family="naturalnes"), "judge mos")
    assert "mos_net" not in METRICS


def test_the_order_does_not_depend_on_what_was_registered_first():
    orders = set()
    for names in itertools.permutations(["mos_c", "mos_a", "mos_b"]):
        with registry_restored():
            for name in names:
                register(name, MOS, "judge mos")
            orders.add(tuple(METRICS))
            assert leading([("j", n) for n in names], [NATURALNESS]) == [("j", "mos_a")]
    assert orders == {(*BUILT_IN, "mos_a", "mos_b", "mos_c")}


def test_a_run_folders_definitions_are_restored_where_the_judge_is_not_installed():
    with registry_restored():
        register("mos_net", MOS, "judge mos")
        stored = definitions(["secs", "mos_net", "secs"])
    assert "mos_net" not in METRICS
    restore(stored, "run.json")
    assert METRICS == {**BUILT_IN, "mos_net": MOS}
    restore(stored, "run.json")


def test_two_runs_whose_values_are_computed_otherwise_are_never_mixed():
    restore({"mos_net": MOS.to_json()}, "a/run.json")
    for other in (replace(MOS, mean=True), replace(MOS, higher_is_better=False)):
        with pytest.raises(UserError, match=r"b/run\.json defines the metric 'mos_net' with"):
            restore({"other": MOS.to_json(), "mos_net": other.to_json()}, "b/run.json")
    assert METRICS == {**BUILT_IN, "mos_net": MOS}  # nothing of the second run


def test_a_built_in_metric_of_other_words_is_read_and_of_other_values_is_refused():
    secs = BUILT_IN["secs"]
    restore({"secs": replace(secs, label="similarity", decimals=3).to_json()}, "run.json")
    assert METRICS["secs"] == secs
    with pytest.raises(UserError, match="numerator = 'secs_reference', but it is known with"):
        restore({"secs": replace(secs, numerator="secs_reference").to_json()}, "run.json")


@pytest.mark.parametrize("stored", [None, [], "mos", 3])
def test_what_is_no_mapping_is_one_line(stored):
    with pytest.raises(UserError, match=r"run\.json: the metrics are .*, not a mapping"):
        restore(stored, "run.json")


def test_the_metrics_are_known_without_torch():
    """`vcbench ls metrics` and `vcbench gate` take under a second."""
    code = "import sys; import bench.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

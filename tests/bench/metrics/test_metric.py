"""A metric's definition: its limits, and its form as JSON."""

import json
import math
from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.metrics import BUILT_IN, Metric
from bench.metrics.metric import check_definition

MOS = Metric("MOS net", True, "mos_net", about="predicted", limits=(1.0, 5.0), family="naturalness")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_metric_holds_and_comes_back_from_json(name):
    check_definition(name, BUILT_IN[name], "table")
    text = json.dumps(BUILT_IN[name].to_json(), allow_nan=False)
    assert Metric.from_json(name, json.loads(text), "run.json") == BUILT_IN[name]


def test_an_infinite_limit_is_null_in_json():
    assert replace(MOS, limits=(0.0, math.inf)).to_json()["limits"] == [0.0, None]


def test_fields_with_a_default_may_be_left_out():
    short = {"label": "MOS net", "higher_is_better": True, "numerator": "mos_net"}
    assert Metric.from_json("mos_net", short, "run.json") == Metric("MOS net", True, "mos_net")


WRONG = {
    "label": ["", "a\nb", "x" * 41, 3, None, "\u202ecod"],
    "higher_is_better": ["yes", 1, [], 0.0],
    "numerator": ["", "a b", "judge.column", "../x", None, ["x"], "é", "x\n"],
    "denominator": ["", 1, "a.b"],
    "unit": ["x" * 13, None, "\t"],
    "scale": [0, -1, math.nan, math.inf, True, "1", 10**400],
    "decimals": [-1, 10, 1.5, True, "2"],
    "about": [None, "x" * 301, "a\r"],
    "limits": [None, [], [1], [5, 1], [1, 1], ["a", "b"], [math.nan, 1], {"low": 1}, [True, 2]],
    "mean": [0, None, "false"],
    "family": ["naturalnes", None, ["naturalness"]],
    "rank": [-1, 1.0, True, 100],
    "near": [-0.1, math.nan, "0.1", math.inf],
    "shortest": [0, -4.0, "4", math.inf],
    "differs_as": [None, 1, "a b", True],
}


def test_every_field_has_wrong_values_here():
    assert WRONG.keys() == MOS.to_json().keys()


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_definition_that_no_report_can_show_is_one_line(field, value):
    with pytest.raises(UserError) as caught:
        Metric.from_json("mos_net", {**MOS.to_json(), field: value}, "run.json")
    message = str(caught.value)
    assert message.startswith("run.json: metric 'mos_net': ")
    assert field in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is None, not a mapping"),
        ([], r"is \[\], not a mapping"),
        ({"label": "x", "higher_is_better": None}, "has no field 'numerator'"),
        ({**MOS.to_json(), "lable": "x"}, "unknown field 'lable'; did you mean 'label'"),
    ],
)
def test_what_is_no_definition_is_one_line(value, reason):
    with pytest.raises(UserError, match=reason):
        Metric.from_json("mos_net", value, "run.json")


@pytest.mark.parametrize(
    "name", ["", "a b", "judge.mos", "../mos", "<b>", "1mos", "x" * 65, 3, "a\n"]
)
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name):
    with pytest.raises(UserError, match="has letters, digits and _ only"):
        check_definition(name, MOS, "judge mos")


def test_a_metric_is_not_called_as_a_family():
    with pytest.raises(UserError, match="judge mos: metric 'naturalness': a family is called so"):
        check_definition("naturalness", MOS, "judge mos")


def test_what_is_no_metric_is_refused():
    with pytest.raises(UserError, match=r"metric 'mos' is \{'label': 'MOS'\}, not a bench.Metric"):
        check_definition("mos", {"label": "MOS"}, "judge mos")

"""`benchmarks.programs.variants`: trained, judged, resumed and tabulated, in small."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.errors import UserError
from benchmarks.programs import variants
from benchmarks.programs.variants import Plan, markdown, planned, read_plan, rows_of
from suites.build import MANIFESTS, MINI
from takin_vc.checkpoint import load_checkpoint
from takin_vc.config import load
from tests.support.tiny_training import write_corpus

SECS = ("secs_resemblyzer", "secs")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The folder of a comparison of three variants, one of which fails, and its exit code."""
    folder = tmp_path_factory.mktemp("variants")
    table = write_corpus(folder / "corpus")
    lines = (MANIFESTS / "mini_cross_gender.v2.jsonl").read_text().splitlines()[:2]
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n")
    common = ["recipe=tiny", "device=cpu", f"data={table}", "conversion.train_voiceprint=true"]
    common += ["features.stored=false", "features.noise=0"]  # here each seed has other front ends
    plan = {
        "common": common,
        "seeds": [2],
        "variants": {
            "all": [],
            "two": ["conversion.speakers=2"],
            "none": ["conversion.speakers=99"],
        },
    }
    (folder / "plan.yaml").write_text(json.dumps(plan))  # JSON is YAML
    return folder, call(folder)


def call(folder, *more):
    where = ["--trials", str(folder / "trials.jsonl"), "--root", str(MINI)]
    judges = ["--judges", SECS[0], "--json", str(folder / "result.json")]
    return variants.main(
        [str(folder / "plan.yaml"), str(folder / "out"), *where, *judges, "--at-once", "2", *more]
    )


def test_variants_are_trained_and_judged_and_a_failed_one_stops_no_other(compared):
    folder, code = compared
    assert code == 1
    first, second = json.loads((folder / "result.json").read_text())["secs_resemblyzer.secs"]
    assert [first["variant"], second["variant"]] == ["all", "two"]
    assert first["n"] == second["n"] == 2
    assert first["seeds"] == pytest.approx([first["value"]])
    assert second["seeds"] == pytest.approx([second["value"]])
    assert second["difference"] == pytest.approx(second["value"] - first["value"])
    assert second["value"] != first["value"]
    assert "difference" not in first


def test_a_second_call_trains_only_what_has_failed(compared, capfd):
    folder, _ = compared
    trainings = planned(read_plan(folder / "plan.yaml"), folder / "out")
    assert [training.finished for training in trainings] == [True, True, False]
    before = [(t.checkpoint / "config.yaml").stat().st_mtime_ns for t in trainings[:2]]
    assert variants.train(trainings, at_once=2) == ["none-2"]
    printed = capfd.readouterr()
    assert "none-2: failed" in printed.out
    assert "speakers=99: it must be from 1 to 4" in printed.err
    assert [(t.checkpoint / "config.yaml").stat().st_mtime_ns for t in trainings[:2]] == before


def test_a_changed_plan_is_refused_instead_of_taking_another_trainings_result(compared, capfd):
    folder, _ = compared
    plan = folder / "plan.yaml"
    written = plan.read_text()
    plan.write_text(written.replace("conversion.speakers=2", "conversion.speakers=3"))
    try:
        assert call(folder) == 1
    finally:
        plan.write_text(written)
    assert "two-2 was trained with other settings" in capfd.readouterr().err


def test_the_table_is_printed_again(compared, capfd):
    folder, _ = compared
    assert call(folder, "--table") == 0
    assert "| two | " in capfd.readouterr().out


def test_a_run_without_the_plans_variants_is_named(compared, capfd):
    folder, _ = compared
    (folder / "other.yaml").write_text("variants: {other: []}")
    assert variants.main([str(folder / "other.yaml"), str(folder / "out"), "--table"]) == 1
    assert "has none of the plan's variants" in capfd.readouterr().err


def test_seeds_are_averaged_and_differences_are_paired_by_trial():
    values = {"a-0": [0.5, 0.7, 0.6], "a-1": [0.7, 0.9, 0.8], "b-0": [0.6, 0.8, np.nan]}
    scores = pd.concat(
        pd.DataFrame(
            {
                "system": system,
                "trial_id": ["t0", "t1", "t2"],
                "source_speaker": ["s0", "s1", "s2"],
                "target_speaker": ["t0", "t1", "t2"],
                "secs_resemblyzer.secs": of_system,
            }
        ).sample(frac=1, random_state=len(system))
        for system, of_system in values.items()
    )
    plan = Plan((), "", (0, 1), {"a": (), "b": (), "missing": ()})
    first, second = rows_of(scores, plan, SECS)
    assert first["n"] == second["n"] == 2  # the third trial has no value of b
    assert first["value"] == pytest.approx(0.7)
    assert first["seeds"] == pytest.approx([0.6, 0.8])
    assert second["difference"] == pytest.approx(0.0)
    assert "| b | 2 | 0.70" in markdown(SECS, [first, second])


def test_the_first_seed_of_every_variant_comes_first(tmp_path):
    plan = Plan(("x=1",), "", (3, 4), {"a": ("y=2",), "b": ()})
    trainings = planned(plan, tmp_path)
    assert [t.name for t in trainings] == ["a-3", "b-3", "a-4", "b-4"]
    assert trainings[2].arguments[:3] == ("x=1", "y=2", "stage=conversion")
    assert trainings[2].arguments[-1] == "seed=4"


def test_the_plan_of_the_documents_is_one(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "model" / "training.md").read_text()
    [block] = re.findall(r"```yaml\n(common: .*?)```", page, flags=re.DOTALL)
    (tmp_path / "plan.yaml").write_text(block)
    plan = read_plan(tmp_path / "plan.yaml")
    assert plan.seeds == (0, 1, 2)
    assert [*plan.variants] == ["all", "speakers_1000", "speakers_365", "no_memory"]
    assert load_checkpoint(plan.parts).trained_on
    for training in planned(plan, tmp_path):
        settings = load(training.arguments, "train")
        assert settings["stage"] == "conversion"
        assert settings["conversion"]["settings"]["steps"] == 2500
        assert (settings["model"]["memory"] is None) == training.name.startswith("no_memory")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "it must have variants"),
        ("variants: {}", "it must have variants"),
        ("variants: {a: []}\nsteps: 3", "it must have variants, and may have common"),
        ("variants: {a b: []}", "variants are names, of letters"),
        ("variants: {a.b: []}", "variants are names, of letters"),
        ("variants: {a: x=1}", "a: settings are a list of name=value"),
        ("variants: {a: []}\nseeds: 3", "seeds must be a list of whole numbers"),
        ("variants: {a: [}", "cannot be read"),
        ("variants: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_wrong_plan_is_one_line(tmp_path, text, message):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_plan(tmp_path / "plan.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_of_the_parts_is_one_line(tmp_path):
    with pytest.raises(UserError, match="parts: "):
        variants.write_parts(str(tmp_path / "nothing"), tmp_path / "parts")

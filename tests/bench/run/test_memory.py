"""Which workers share a GPU: by the memory that each needs."""

import itertools
import json
import random
from fractions import Fraction

import pytest

from bench.errors import UserError
from bench.run.executors import RayExecutor, RaySettings, StageSettings, gpu_plan, planned
from bench.run.judges import DeclaredJudge
from bench.run.memory import GPU_STEPS, MeasuredMemory, declared_gib, share_cards
from bench.stages.pool import Needs

CASES = 300
HERE = "tests.bench.run.test_memory"


def cases():
    """Random needs: (needs, budget, cards, fixed shares); some kinds need a whole card."""
    generator = random.Random(0)
    for _ in range(CASES):
        budget = generator.choice([8.0, 22.5, 126.4])
        judges = [f"j{n}" for n in range(generator.randrange(0, 9))]
        kinds = ["convert", *judges] if generator.random() < 0.9 else judges
        if not kinds:
            continue
        most = generator.choice([0.1, 0.4, 1.0])
        needs = {kind: budget * max(1e-4, most * generator.random()) for kind in kinds}
        chosen = [kind for kind in kinds if generator.random() < 0.1]
        fixed = {kind: round(generator.uniform(0.01, 0.99), 4) for kind in chosen}
        yield needs, budget, generator.randrange(1, 9), fixed


def used(plan, card):
    return sum(Fraction(round(plan.shares[kind] * GPU_STEPS), GPU_STEPS) for kind in card)


@pytest.mark.parametrize("case", list(cases()), ids=itertools.count())
def test_no_card_is_over_budget_and_all_are_placed_or_named(case):
    needs, budget, cards, fixed = case
    plan = share_cards(needs, budget, cards, fixed)
    assert len(plan.cards) == cards
    for card in plan.cards:
        assert len(set(card)) == len(card)
        assert used(plan, card) <= 1
        memory = sum(needs[k] for k in card if k not in fixed)
        memory += sum(fixed[k] * budget for k in card if k in fixed)
        assert memory <= budget * (1 + 1e-6)
    placed = set(itertools.chain(*plan.cards))
    assert placed | set(plan.waiting) == set(needs)
    assert not placed & set(plan.waiting)
    for kind in needs:
        assert plan.shares[kind] * budget >= needs[kind] * (1 - 1e-6) or kind in fixed
        assert plan.shares[kind] == fixed.get(kind, plan.shares[kind])
        assert plan.workers(kind) >= 1
    if "convert" in needs:
        assert "convert" in plan.cards[0]
    # What waits has room on no card, but for those that convert, where another could be left out.
    for kind in plan.waiting:
        assert all(used(plan, card) + Fraction(plan.shares[kind]) > 1 for card in plan.cards)


@pytest.mark.parametrize("case", list(cases())[:50], ids=itertools.count())
def test_a_plan_does_not_depend_on_the_order_of_the_judges(case):
    needs, budget, cards, fixed = case
    names = list(needs)
    random.Random(1).shuffle(names)
    again = share_cards({name: needs[name] for name in names}, budget, cards, fixed)
    assert again == share_cards(needs, budget, cards, fixed)


def test_every_card_gets_all_where_all_fit_and_the_conversion_gets_the_rest():
    plan = share_cards({"convert": 30.0, "b": 20.0, "a": 10.0}, 100.0, 2)
    assert plan.cards == (("convert", "b", "a"),) * 2
    assert plan.shares == {"convert": 0.7, "b": 0.2, "a": 0.1}
    assert str(plan) == "2 × (convert 70%, b 20%, a 10%)"


def test_a_card_converts_no_more_where_a_judge_has_no_other_room():
    plan = share_cards({"convert": 50.0, "large": 60.0, "small": 10.0}, 100.0, 3)
    assert plan.cards == (("convert", "small"), ("convert", "small"), ("large", "small"))
    assert plan.shares["convert"] == 0.9
    assert (plan.workers("convert"), plan.workers("large"), plan.workers("small")) == (2, 1, 3)


def test_what_has_no_room_waits():
    plan = share_cards({"convert": 50.0, "large": 60.0, "small": 10.0}, 100.0, 1)
    assert plan.cards == (("convert", "small"),)
    assert plan.waiting == ("large",)
    assert str(plan).endswith("; waits for room: large")


def test_what_fits_nowhere_is_an_error_that_says_how_to_mend_it():
    with pytest.raises(UserError) as error:
        share_cards({"convert": 5.0, "wer": 23.4}, 22.0, 4)
    assert str(error.value) == (
        "judge wer needs 23.4 GiB of a GPU, the budget is 22.0 GiB; raise executor.memory, set "
        "executor.judges.wer.gpus=1, or use device=cpu"
    )
    with pytest.raises(UserError, match=r"the conversion .* executor.convert.gpus=1"):
        share_cards({"convert": 25.0}, 22.0, 4)
    assert share_cards({"wer": 23.4}, 22.0, 1, {"wer": 0.9}).shares == {"wer": 0.9}


def test_set_shares_go_before_what_was_measured():
    settings = RaySettings(
        convert=StageSettings(gpus=0.25),
        judges={
            "a": StageSettings(gpus=0.5),
            "c": StageSettings(gpus=1),
            "d": StageSettings(gpus=0),
        },
        memory=10.0,
    )
    needs = {"a": None, "b": 1.0, "c": 99.0, "d": 99.0, "e": 0.0}
    plan = gpu_plan(settings, needs, None, 2)
    assert plan.shares == {"convert": 0.25, "a": 0.5, "b": 0.1}
    assert planned(settings, list(needs), 8, 2, plan) == {
        "convert": (2, Needs(1, 0.25)),
        "a": (2, Needs(1, 0.5)),
        "b": (2, Needs(1, 0.1)),
        "c": (2, Needs(1, 1)),
        "d": (1, Needs(1, 0)),
        "e": (1, Needs(1, 0.0)),
    }


@pytest.mark.parametrize(
    ("needs", "card", "gpus", "why"),
    [
        ({"a": 1.0}, None, 2, "the memory of the GPUs is not known"),
        ({"a": 1.0, "b": None}, 80.0, 2, "not known what b need"),
        ({"a": 1.0}, 80.0, 0, "there is no GPU"),
    ],
)
def test_without_figures_the_shares_are_equal_and_it_says_why(needs, card, gpus, why):
    assert gpu_plan(RaySettings(), needs, card, gpus).startswith(why)


def test_judges_have_everything_where_nothing_is_converted():
    needs = {"large": 60.0, "small": 10.0}
    plan = gpu_plan(RaySettings(), needs, 100.0, 2, converts=False)
    assert plan.cards == (("large", "small"),) * 2
    assert planned(RaySettings(), list(needs), 16, 2, plan, converts=False) == {
        "large": (2, Needs(1, 0.6667)),
        "small": (2, Needs(1, 0.1112)),
    }
    for gpus, expected in ((0, (8, Needs())), (2, (2, Needs(1, 0.5)))):
        shared = planned(RaySettings(), ["a", "b"], 16, gpus, converts=False)
        assert shared == {"a": expected, "b": expected}
    unused = gpu_plan(RaySettings(), {"a": 0.0}, 100.0, 2, converts=False)
    assert str(unused) == "nothing runs on them"


@pytest.mark.parametrize(("address", "share"), [(None, 0.1112), ("auto", 0.2223)])
def test_a_cluster_of_this_machine_has_the_cards_of_this_machine(
    tmp_path, monkeypatch, address, share
):
    """A smaller card that another machine had is no budget for it."""
    monkeypatch.setattr("bench.run.executors.card_gib", lambda: 40.0)
    settings = {"_target_": f"{HERE}.Unknown"}
    memory = MeasuredMemory(tmp_path / "memory.json")
    memory.add(settings, 4.0, 20.0)
    executor = RayExecutor(RaySettings(address))
    judges = {"a": DeclaredJudge(settings)}
    workers = executor._planned(judges, {"CPU": 2, "GPU": 1}, memory, lambda _: None, True)
    assert workers["a"] == (1, Needs(1, share))


def test_the_budget_is_the_card_less_a_margin():
    plan = gpu_plan(RaySettings(), {"a": 9.0}, 100.0, 1)
    assert plan.shares == {"convert": 0.9, "a": 0.1}
    assert gpu_plan(RaySettings(memory=90.0), {"a": 9.0}, 10.0, 1) == plan


class Declares:
    gpu_gib = 2.5


class Unknown:
    pass


def test_the_classes_of_the_settings_declare_what_a_judge_needs():
    here = {"_target_": f"{HERE}.Declares"}
    unknown = {"_target_": f"{HERE}.Unknown"}
    assert declared_gib(here) == 2.5
    assert declared_gib({**here, "parts": [here, {"x": here}]}) == 7.5
    assert declared_gib({**here, "device": "cpu"}) == 0.0
    assert declared_gib({"_target_": "bench.judges.secs.SECS", "encoder": here}) == 2.5
    assert declared_gib({**here, "part": unknown}) is None
    assert declared_gib({"_target_": "bench.judges.integrity.Integrity"}) == 0.0
    assert declared_gib({"_target_": "bench.judges.dnsmos.DNSMOS"}) is None


def test_measurements_are_kept_and_a_damaged_file_is_measured_anew(tmp_path):
    path = tmp_path / "memory.json"
    first = MeasuredMemory(path)
    first.save()
    assert not path.exists()
    first.add({"_target_": "a"}, 3.0, 80.0)
    first.add({"_target_": "a"}, 2.0, 140.0)
    first.add({"_target_": "b"}, 0.0, 0.0)
    first.save()
    again = MeasuredMemory(path)
    assert (again.of({"_target_": "a"}), again.of({"_target_": "b"})) == (3.0, None)
    assert again.card_gib == 80.0
    content = json.loads(path.read_text())
    for text in ("{", "[]", json.dumps({**content, "card": -1}), json.dumps({"needs": {"k": "x"}})):
        path.write_text(text)
        assert MeasuredMemory(path).of({"_target_": "a"}) is None

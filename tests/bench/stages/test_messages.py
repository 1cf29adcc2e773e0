"""Messages between the driver and its workers: what comes back, and what is refused."""

import json
from dataclasses import replace

import pytest

from bench.cli.settings import load
from bench.cli.verbs import suites_of, systems_of
from bench.errors import UserError
from bench.judges import register_metrics_of
from bench.metrics import METRICS, Metric, registry_restored
from bench.run.executors import RayExecutor, RaySettings, StageSettings
from bench.run.judges import DeclaredJudge
from bench.run.run import Run
from bench.stages import convert, pool
from bench.stages.convert import Conversion
from bench.stages.messages import (
    Answer,
    decoded_call,
    encoded_call,
    row_in,
    row_json,
    trial_in,
    trial_json,
)
from bench.stages.remote import JudgeFacts, SystemTask
from bench.stages.sounds import Row
from bench.stages.worker import BrokenMessage
from bench.systems import Facts, UsedNetwork
from bench.weights import Weights
from tests.support.backend import Here

JUDGE = {"length": DeclaredJudge({"_target_": "tests.support.fakes.Length"})}
HUGE = 10**400


@pytest.fixture(scope="module")
def config():
    settings = ["suite=mini_cross_gender", "limit=4", "system=[source,tests.support.fakes.Louder]"]
    return load(settings)


@pytest.fixture(scope="module")
def trial(config):
    first = suites_of(config)[0].trials[0]
    return replace(first, reference_seconds=2.5, factors={"gender_pair": "F2M"})


def over_the_wire(value):
    """The value as the other side receives it."""
    return decoded_call(encoded_call("score", [value]))[1][0]


def test_trials_and_rows_come_back(trial):
    assert trial_in(over_the_wire(trial_json(trial))) == trial
    conversion = Conversion(trial.trial_id, "ok", "0" * 64, "1" * 64, 3, wav="wav/a.wav")
    row = Row("système", "suite", True, trial, conversion)
    back = row_in(over_the_wire(row_json(row, frozenset({"converted", "enrolment"}))))
    assert (back.label, back.conversion.wav) == (row.label, "wav/a.wav")
    assert back.trial.source == trial.source
    assert [u.path for u in back.trial.enrolment] == [u.path for u in trial.enrolment]
    # What the judge does not read is not sent.
    assert back.trial.references == back.trial.source_enrolment == ()


def test_a_path_that_is_no_utf_8_comes_back(trial):
    from pathlib import Path

    odd = replace(trial, source=replace(trial.source, path=Path("/a\udcff.wav")))
    assert trial_in(over_the_wire(trial_json(odd))) == odd


def test_tasks_and_facts_come_back():
    networks = (UsedNetwork("whisper-base", "content"),)
    facts = Facts(trained_on=frozenset({"b", "a"}), code={"f.py": "1"}, networks=networks)
    task = SystemTask("a", {"_target_": "x.Y", "gains": [1, None]}, facts, "f" * 64)
    assert SystemTask.from_json(over_the_wire(task.to_json())) == task
    judge = JudgeFacts(
        "a.B",
        frozenset({"converted", "text"}),
        ("mine",),
        True,
        "print",
        (Weights("net", "/w", "0" * 64, "MIT"),),
        ("net",),
        {"mine": Metric("Mine", True, "mine", limits=(0.0, float("inf")))},
    )
    assert JudgeFacts.from_json(over_the_wire(judge.to_json()), "judge b") == judge


@pytest.mark.parametrize(
    "change",
    [
        {"class_name": 1},
        {"reads": ["converted", "trial_id"]},
        {"reads": "converted"},
        {"metrics": [1]},
        {"metrics": None},
        {"needs_source_words": 1},
        {"fingerprint": None},
        {"weights": [{"name": "a"}]},
        {"weights": {}},
        {"networks": "whisper"},
        {"defines": []},
        {"defines": {"mine": {"label": "Mine"}}},
        {"defines": {"mine": 3}},
        {"more": 1},
    ],
)
def test_facts_of_no_judge_are_refused(change):
    facts = JudgeFacts("a.B", frozenset({"converted"}), ("secs",), False, "print", ()).to_json()
    with pytest.raises((BrokenMessage, UserError)) as error:
        JudgeFacts.from_json({**over_the_wire(facts), **change}, "judge b")
    assert "\n" not in str(error.value)


def answer_with(**fields):
    """The bytes of an answer with other values of some fields."""
    return json.dumps({**vars(Answer()), **fields}).encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x80\x05N.",  # a pickle of None
        b"[]",
        b'{"value": 1}',
        answer_with(more=1),
        answer_with(value=float("nan")),
        answer_with(seconds=-1),
        answer_with(seconds=True),
        answer_with(seconds="LARGE").replace(b'"LARGE"', b"1e999"),
        answer_with(seconds=HUGE),
        answer_with(remarks=[1]),
        answer_with(failure="new"),
        answer_with(message=0),
        answer_with(path=None),
        answer_with(gpu_gib=-1),
        answer_with(card_gib="80"),
        b"[" * 100_000,
        Answer(),  # an object
        "{}",
    ],
)
def test_what_is_no_answer_is_refused(message):
    with pytest.raises(BrokenMessage) as error:
        Answer.decoded(message)
    assert len(str(error.value)) < 200
    assert Answer.decoded(answer_with()) == Answer()


def test_an_answer_that_json_cannot_hold_becomes_an_error():
    answer = Answer.decoded(Answer({"x": float("nan")}).encoded())
    with pytest.raises(UserError, match=r"judge a: value.x = nan: not a finite number"):
        answer.checked("judge a")


@pytest.mark.parametrize(
    "message", [b'{"method": "__reduce__", "arguments": []}', b'{"method": 1}']
)
def test_only_known_methods_are_called(message):
    with pytest.raises(BrokenMessage):
        decoded_call(message)


class Changed(Here):
    """A backend whose workers' answers with work are changed by a function of their value."""

    def __init__(self, method, change):
        super().__init__()
        self.method = method
        self.change = change

    def answer(self, call):
        method = self.calls[call][1]
        answer = super().answer(call)
        if method != self.method:
            return answer
        value = json.loads(json.dumps(answer.value))
        return replace(answer, value=self.change(value))


def of_record(**fields):
    """Changes fields of the first record."""

    def change(value):
        value["records"][0].update(fields)
        return value

    return change


def without(field):
    def change(value):
        del value["records"][0][field]
        return value

    return change


CONVERT = {
    "nothing": lambda value: None,
    "a list": lambda value: [value["records"], value["digests"]],
    "no records": lambda value: {**value, "records": []},
    "one record too many": lambda value: {**value, "records": value["records"] * 2},
    "a record that is no table": lambda value: {**value, "records": [3] * len(value["records"])},
    "another trial": of_record(trial_id="other"),
    "another list": of_record(trial="0" * 64),
    "other settings": of_record(settings="0" * 64),
    "another seed": of_record(seed=1),
    "a field too many": of_record(extra=1),
    "a missing field": without("peak"),
    "another file": of_record(wav="wav/louder/../../../../etc/passwd"),
    "a file of another trial": of_record(wav="wav/source/mini_cross_gender/other.wav"),
    "no hash": of_record(wav_sha256="x" * 64),
    "an unknown state": of_record(status="done"),
    "failed without an error": of_record(status="failed", wav="", wav_sha256=""),
    "an error of a wrong type": of_record(error=["x"]),
    "a negative time": of_record(elapsed_seconds=-1.0),
    "a text for a time": of_record(elapsed_seconds="1"),
    "a yes for a time": of_record(elapsed_seconds=True),
    "a huge time": of_record(elapsed_seconds=HUGE),
    "an infinite time": of_record(elapsed_seconds=float("inf")),
    "a NaN": of_record(peak=float("nan")),
    "no duration": of_record(audio_seconds=None),
    "a fraction of a rate": of_record(sample_rate=16000.5),
    "a stage of a wrong type": of_record(stages={"a": "b"}),
    "stages of a wrong type": of_record(stages=[1]),
    "no digests": lambda value: {**value, "digests": None},
    "digests of others": lambda value: {**value, "digests": {"0" * 64: "0" * 64}},
    "digests of a wrong type": lambda value: {
        **value,
        "digests": dict.fromkeys(value["digests"], 1),
    },
}
SCORE = {
    "nothing": lambda value: None,
    "no rows": lambda value: [],
    "a row too many": lambda value: [*value, value[0]],
    "a row that is no table": lambda value: [3, *value[1:]],
    "a list": lambda value: [{**value[0], "more": [1]}, *value[1:]],
    "an infinite number": lambda value: [{**value[0], "more": float("inf")}, *value[1:]],
    "a text": lambda value: [dict.fromkeys(value[0], "x"), *value[1:]],
    "a huge number": lambda value: [dict.fromkeys(value[0], HUGE), *value[1:]],
}
HELLO = {
    "nothing": lambda value: None,
    "no process": lambda value: {**value, "pid": "1"},
    "no host": lambda value: {"pid": 1},
}


@pytest.mark.parametrize(
    ("method", "change"),
    [
        pytest.param(method, change, id=f"{method}: {name}")
        for method, changes in (("convert", CONVERT), ("score", SCORE), ("hello", HELLO))
        for name, change in changes.items()
    ],
)
def test_an_answer_that_cannot_be_ends_the_run_with_one_line(
    tmp_path, config, monkeypatch, method, change
):
    monkeypatch.setattr(convert, "WARM_UPS", 0)
    monkeypatch.setattr(pool, "MOST_ITEMS", 2)
    stage = StageSettings(workers=1)
    backend = Changed(method, change)
    run = Run(
        tmp_path / "run",
        suites=suites_of(config),
        systems=systems_of(config),
        isolated=False,
        executor=RayExecutor(RaySettings(convert=stage, judge=stage), connect=lambda: backend),
    )
    with pytest.raises(UserError, match=r"^(convert: a worker sent|judge length[: ])") as error:
        run.convert(judges=JUDGE)
    assert "\n" not in str(error.value)
    if method == "convert":  # nothing of the answer was recorded
        assert not list((tmp_path / "run" / "conversions").rglob("*.jsonl"))


def test_metrics_of_a_judge_on_another_machine_are_checked_here():
    """The limits of a metric that only the judge defines hold for answers too."""
    from bench.stages.messages import columns_in

    facts = JudgeFacts("a.B", frozenset(), ("mine",), False, "print", (), None)
    facts.defines = {"mine": Metric("Mine", True, "mine", limits=(0.0, 1.0))}
    back = JudgeFacts.from_json(over_the_wire(facts.to_json()), "judge b")
    with registry_restored():
        register_metrics_of(back, "b")
        assert "mine" in METRICS
        assert columns_in([{"mine": 1}], ["row"], "b", back.metrics) == [{"mine": 1}]
        with pytest.raises(UserError, match="judge b on row gave mine = 2"):
            columns_in([{"mine": 2}], ["row"], "b", back.metrics)

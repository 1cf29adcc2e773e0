"""Systems that stream: the time to the first chunk, and the RTF of streaming."""

from types import SimpleNamespace

import pytest

import bench
from bench.guard import ProcessState
from bench.stages import execute
from bench.stages.execute import Streamed, call
from bench.stages.isolated import Isolated, _outcome
from bench.stages.worker import BrokenMessage
from suites.build import MANIFESTS, MINI
from tests.support.fakes import Length, Louder, Streaming

LIST = MANIFESTS / "mini_cross_gender.v2.jsonl"
ANSWER = {"error": "no", "elapsed_seconds": None, "stages": {}, "origin": "", "remarks": []}
STREAMED = {"first_chunk_seconds": 0.1, "stream_seconds": 0.3, "streamed_seconds": 2.0}


def called(system, recordings):
    source, reference = (r.load() for r in recordings[:2])
    return call(system, source, reference, 0, ProcessState.now())


@pytest.fixture
def streaming(monkeypatch):
    """A system whose pauses pass on a clock that stands still otherwise."""
    passed = []
    monkeypatch.setattr(execute, "now", lambda: sum(passed))
    return Streaming(wait=passed.append)


def test_the_first_chunk_is_the_first_with_samples(streaming, recordings):
    streamed = called(streaming, recordings).streamed
    assert streamed == Streamed(0.25, 0.75, 1.0)


@pytest.mark.parametrize(
    ("fault", "remark"),
    [
        ("raises", "failed to stream: RuntimeError: out of memory"),
        ("type", "failed to stream: TypeError: stream yielded Tensor, not a Waveform"),
        ("empty", "failed to stream: ValueError: stream yielded no samples"),
    ],
)
def test_a_stream_that_fails_is_a_remark_and_the_conversion_stays(fault, remark, recordings):
    outcome = called(Streaming(fault), recordings)
    assert outcome.converted is not None
    assert outcome.streamed is None
    assert remark in outcome.remarks


def test_the_tables_show_it_for_systems_that_stream(streaming, tmp_path):
    run = bench.Run(
        tmp_path / "run",
        suites=[bench.Suite.load(LIST, root=MINI, limit=2)],
        systems={"streaming": streaming, "plain": Louder()},
    )
    run.convert()
    run.score({"length": Length()})
    rows = run.summary[run.summary["judge"] == "timing"].set_index(["system", "metric"])
    assert rows.loc[("streaming", "first_chunk"), "value"] == pytest.approx(250.0)  # ms
    assert rows.loc[("streaming", "stream_rtf"), "value"] == pytest.approx(0.75)
    assert rows.loc[("plain", "first_chunk"), "n"] == 0


def test_without_such_a_system_the_tables_are_as_before(tmp_path):
    run = bench.Run(
        tmp_path / "run",
        suites=[bench.Suite.load(LIST, root=MINI, limit=2)],
        systems={"plain": Louder()},
    )
    run.convert()
    run.score({"length": Length()})
    timing = run.summary[run.summary["judge"] == "timing"]
    assert set(timing["metric"]) == {"rtf"}
    assert "first_chunk_seconds" not in run.scores


def test_an_isolated_system_streams_in_its_process(recordings):
    source, reference = (r.load() for r in recordings[:2])
    system = Isolated("s", {"_target_": "tests.support.fakes.Streaming"})
    try:
        streamed = system.outcome(source, reference, 0).streamed
    finally:
        system.close()
    assert streamed.streamed_seconds == 1.0
    assert Streaming.PAUSES[0] <= streamed.first_chunk_seconds < streamed.stream_seconds


@pytest.mark.parametrize(
    "wrong",
    [
        SimpleNamespace(),
        {"first_chunk_seconds": 0.1},
        STREAMED | {"more": 1},
        STREAMED | {"first_chunk_seconds": 0.4},
        STREAMED | {"stream_seconds": 20.0},
        STREAMED | {"streamed_seconds": 0.0},
        STREAMED | {"streamed_seconds": "2"},
    ],
)
def test_impossible_times_of_a_worker_are_refused(wrong):
    with pytest.raises(BrokenMessage):
        _outcome(ANSWER | {"streamed": wrong}, [], 10.0)


def test_possible_times_of_a_worker_are_taken():
    assert _outcome(ANSWER | {"streamed": STREAMED}, [], 10.0).streamed.stream_seconds == 0.3

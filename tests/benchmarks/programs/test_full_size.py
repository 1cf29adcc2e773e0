"""`benchmarks.programs.full_size`: the stages of the paper's recipe in small, and what it reads."""

import json

import pytest
import torch

from benchmarks.programs import full_size
from benchmarks.programs.full_size import Training, advance, planned, rate
from benchmarks.programs.full_size_worker import differences
from tests.support.tiny_training import write_corpus


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Of the stages `content` and `ctc`; `ctc` fails, for lack of texts as long."""
    folder = tmp_path_factory.mktemp("full-size")
    table = write_corpus(folder / "corpus")
    arguments = ["--data", str(table), "--tiny", "--gpus", "0", "--steps", "4", "--stop-at", "2"]
    arguments += [
        "--log-every",
        "1",
        "--stages",
        "content",
        "ctc",
        "--set",
        "ctc.longest_seconds=1",
    ]
    full_size.main([*arguments, "--folder", str(folder / "work"), "--json", str(folder / "r.json")])
    return json.loads((folder / "r.json").read_text())


def test_a_stage_is_measured_and_resumes(result):
    whole, resumed = result["stages"]["content"], result["stages"]["content resumed"]
    assert [line["step"] for line in whole["log"]] == [1, 2, 3, 4]
    assert whole["state"] == resumed["state"] == "done"
    assert whole["steps_per_second"] > 0
    assert whole["checkpoint_bytes"] > 4 * whole["trained_parameters"]
    assert resumed["first_step"] == 2
    assert resumed["equal_losses"]
    assert resumed["compared"]["module"]["unequal"] == 0


def test_a_failed_stage_is_recorded_and_stops_no_other(result):
    whole, resumed = result["stages"]["ctc"], result["stages"]["ctc resumed"]
    assert whole["state"] == "failed with 1"
    assert "no recording of up to 1 s has a text" in whole["errors"]
    assert resumed["state"].startswith("failed")
    assert "failed with 1" in full_size.table(result)


def test_differences_count_tensors_and_measure_the_largest():
    one = {"a": torch.zeros(2), "b": torch.ones(3)}
    other = {"a": torch.zeros(2), "b": torch.tensor([1.0, 1.5, 1.0])}
    assert differences(one, other) == {"tensors": 2, "unequal": 1, "largest": 0.5}


def test_the_rate_leaves_the_first_steps_out():
    log = [{"step": s, "seconds": t} for s, t in ((2, 9.0), (4, 10.0), (6, 11.0), (10, 13.0))]
    assert rate(log, 10) == 2.0
    assert rate(log[:2], 10) is None


def test_hours_follow_from_the_rate_and_the_recipes_steps():
    stages = {
        "conversion": {"steps_per_second": 2.5},
        "conversion resumed": {"steps_per_second": 2.5},
        "ctc": {"state": "failed with 1"},
    }
    lines = full_size.hours({"stages": stages}).splitlines()
    assert lines[2:] == ["| `conversion` | 4 | 500,000 | 56 | 222 |"]


def test_recordings_of_all_speakers_are_packed_in_turn(tmp_path):
    rows = [("a", "1", 9.0), ("a", "2", 9.0), ("b", "3", 8.0), ("b", "4", 7.9)]
    lines = [f"{speaker},{name},{name}.wav,words,{s}" for speaker, name, s in rows]
    table = tmp_path / "utterances.csv"
    for _, name, _ in rows:
        (tmp_path / f"{name}.wav").write_text(name)
    table.write_text("\n".join(["speaker,utterance_id,path,text,seconds", *lines]) + "\n")
    full_size.pack(table, tmp_path / "packed", 2)
    packed = (tmp_path / "packed" / "utterances.csv").read_text().splitlines()
    assert packed[1:] == ["a,1,1.wav,words,9.0", "b,3,3.wav,words,8.0"]
    assert sorted(p.name for p in (tmp_path / "packed").glob("*.wav")) == ["1.wav", "3.wav"]
    for wrong in ("a,1,1.wav,words,7", "a,1,1.wav,,9", f"a,1,{tmp_path}/1.wav,words,9"):
        table.write_text("speaker,utterance_id,path,text,seconds\n" + wrong)
        with pytest.raises(SystemExit, match="give recordings of 8 s with a text, by relative"):
            full_size.pack(table, tmp_path / "other", None)


def test_a_stage_has_its_gpus_alone(tmp_path):
    trainings = planned(["conversion", "content", "vocoder"], 2, tmp_path)
    names = [t.name for t in trainings]
    assert names[:2] == ["conversion", "conversion resumed"]
    by_name = dict(zip(names, trainings, strict=True))

    def ready(name: str, processes: int) -> Training:
        training = by_name[name]
        training.folder.mkdir()
        for rank in range(processes):
            path = training.folder / f"rank-{rank}.json"
            path.write_text(json.dumps({"processes": processes}))
        return training

    content, vocoder = ready("content", 1), ready("vocoder", 1)
    assert content.cards != vocoder.cards
    for training in (content, vocoder):  # each on its GPU; conversion is still building
        assert advance(training, trainings)
        assert training.state == "training"
    conversion = ready("conversion", 2)
    assert not advance(conversion, trainings)  # its GPUs are in use
    content.state = "finishing"
    again = ready("content resumed", 1)
    (content.folder / "half.pt").touch()
    assert not advance(again, trainings)  # conversion is more important, and waits for this GPU
    vocoder.state = "done"
    assert advance(conversion, trainings)

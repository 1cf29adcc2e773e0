"""Validation on held-out speech: its trials, what TensorBoard shows of them, and their scores."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.audio import Waveform
from bench.judges.encoders.resemblyzer import Resemblyzer
from takin_vc.inputs import Speech
from takin_vc.mel import LogMel
from takin_vc.train.data import features
from takin_vc.train.data.corpus import TrainingRecording, read_recordings
from takin_vc.train.data.versions import load_versions
from takin_vc.train.stage import TrainingError
from takin_vc.train.stages.conversion import ConversionStage
from takin_vc.train.validation import judging, trials
from takin_vc.train.validation.images import GAP, LOUDEST, mel_image
from takin_vc.train.validation.judging import Judges
from takin_vc.train.validation.trials import ValidationConversion, ValidationTrials, draw_trials
from tests.support import tiny_models as tiny
from tests.support.tiny_training import train

SILENCE = LogMel().silence
BANDS = tiny.model().mel.n_mels


def convert(table, out, folder, *overrides) -> dict:
    """Trains the conversion in another folder with the features and the vocoder of `out`."""
    (folder / "vocoder").mkdir(parents=True, exist_ok=True)
    weights = (out / "vocoder" / "vocoder.safetensors").read_bytes()
    (folder / "vocoder" / "vocoder.safetensors").write_bytes(weights)
    shared = (f"features.folder={out}/features", "conversion.train_voiceprint=true")
    return train(table, folder, "conversion", *shared, *overrides)


def lines(folder, name) -> list[dict]:
    read = [json.loads(line) for line in (folder / "conversion" / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "minutes"} for line in read]


def shown(folder, stage) -> EventAccumulator:
    events = EventAccumulator(str(folder / stage / "tensorboard"), {"images": 0, "audio": 0})
    return events.Reload()


@pytest.fixture(scope="module")
def out(table, tmp_path_factory):
    """A training with a vocoder, and with a conversion that nobody validates before its end."""
    folder = tmp_path_factory.mktemp("out")
    train(table, folder, "vocoder")
    convert(table, folder, folder)
    return folder


def test_a_picture_of_mels_has_low_bands_at_the_bottom_and_time_to_the_right():
    quiet, loud = SILENCE, LOUDEST
    middle = (quiet + loud) / 2
    first = torch.tensor([[loud, quiet, quiet], [middle, quiet, 2 * loud]])  # band 0, band 1
    second = torch.tensor([[loud, loud]])
    image = mel_image([first, second], quiet)
    white = [[1.0, 1.0, 1.0]] * GAP
    expected = [[0.5, 0.0, 1.0], [1.0, 0.0, 0.0], *white, [1.0, 1.0, 0.0]]
    torch.testing.assert_close(image, torch.tensor([expected]))


def test_trials_are_between_different_speakers_each_as_often_as_the_others():
    speech = [
        TrainingRecording(f"{s}{i}", s, Path("x"), "Made", "WORDS" if i == 2 else "")
        for s in "abcd"
        for i in range(5)
    ]
    alone = [
        TrainingRecording("e0", "e", Path("x"), "Made"),
        TrainingRecording("?", "", Path("x"), "Made"),
    ]
    recordings = [*speech, *alone]
    able = [i for i in range(len(recordings)) if recordings[i].utterance_id != "a0"]
    drawn = draw_trials(recordings, able, count=12, seed=3)
    assert drawn == draw_trials(recordings, able, count=12, seed=3)
    assert drawn != draw_trials(recordings, able, count=12, seed=4)
    pairs = [(recordings[t.source].speaker, recordings[t.reference].speaker) for t in drawn]
    assert sorted(pairs) == [(a, b) for a in "abcd" for b in "abcd" if a != b]
    assert set(Counter(source for source, _ in pairs[:8]).values()) == {2}
    assert set(Counter(target for _, target in pairs[:8]).values()) == {2}
    for trial in drawn:
        assert recordings[trial.source].text
        for used, others in (
            (trial.reference, trial.enrolment),
            (trial.source, trial.source_enrolment),
        ):
            assert used not in others
            assert len(set(others)) == 3
            assert {recordings[i].speaker for i in others} == {recordings[used].speaker}
            assert set(others) <= set(able)
    assert draw_trials(recordings, [0, 1, 2, 20, 21], count=12, seed=0) == []


class Listener:
    """A judge without scores that records its inputs."""

    reads = frozenset({"converted", "text"})

    def __init__(self):
        self.calls: list[list[ValidationConversion]] = []

    def __call__(self, conversions):
        self.calls.append(list(conversions))
        torch.manual_seed(len(self.calls))  # a judge may do that
        return {"heard/count": float(len(conversions))}


@pytest.fixture(scope="module")
def held_out(table, tmp_path_factory):
    """The labelled recordings as if all were held out, and their features."""
    folder = tmp_path_factory.mktemp("held-out")
    recordings = [r for r in read_recordings([table]) if r.speaker]
    features.prepare(recordings, folder, mel=tiny.model().mel, front_ends={})
    return recordings, load_versions(folder)


def test_judges_get_the_models_conversion_of_each_trial(held_out, monkeypatch):
    monkeypatch.setattr(trials, "REFERENCE_SECONDS", 0.7)
    recordings, versions = held_out
    listener, model = Listener(), tiny.model()
    validation = ValidationTrials(recordings, versions, judging=listener)
    assert validation.validate(model, 7, None) == {
        "heard/count": 10.0,
        "source/heard/count": 10.0,
    }
    files = {r.utterance_id: features.read(r.path, 16000) for r in recordings}

    def who(speech: Speech) -> str:
        """Whose recording begins like this."""
        sizes = {name: min(len(file), len(speech.samples)) for name, file in files.items()}
        return next(
            name
            for name, n in sizes.items()
            if np.abs(files[name][:n] - speech.samples.numpy()[:n]).max() < 2**-14
        )

    conversions, unchanged = listener.calls
    for conversion_given, source_given in zip(conversions, unchanged, strict=True):
        assert torch.equal(source_given.converted.samples, conversion_given.source.samples)
        assert source_given.trial_id == conversion_given.trial_id
    for k, conversion in enumerate(conversions):
        source, reference = who(conversion.source), who(conversion.reference)
        speaker, target = source.split("-")[0], reference.split("-")[0]
        assert speaker != target
        assert conversion.trial_id == f"{source}-{reference}"
        assert conversion.text == "NO WORDS"
        assert len(conversion.source.samples) == len(files[source])
        assert len(conversion.reference.samples) == round(0.7 * 16000)
        for name, given, of in (
            (reference, conversion.enrolment, target),
            (source, conversion.source_enrolment, speaker),
        ):
            others = {who(speech) for speech in given}
            assert others == {n for n in files if n.startswith(f"{of}-")} - {name}
        expected = model.convert(conversion.source, conversion.reference, seed=k)
        torch.testing.assert_close(
            conversion.converted.samples, expected.samples, atol=1e-4, rtol=0
        )


def test_a_validation_disturbs_no_training(table, out, tmp_path, monkeypatch):
    listener = Listener()
    monkeypatch.setattr(judging, "Judges", lambda names: listener)
    draw, states = ConversionStage.draw, []

    def noting(self, step, process):
        states.append(torch.get_rng_state())
        return draw(self, step, process)

    monkeypatch.setattr(ConversionStage, "draw", noting)
    judged = ("conversion.judges=[somebody]", "conversion.settings.validate_minutes=0")
    result = convert(table, out, tmp_path / "often", *judged)
    convert(table, out, tmp_path / "never")
    assert lines(tmp_path / "often", "log.jsonl") == lines(out, "log.jsonl")
    # Each step seeds its random numbers anew; but what stands between two steps is kept, too.
    assert all(torch.equal(a, b) for a, b in zip(states[:4], states[4:], strict=True))
    assert [len(conversions) for conversions in listener.calls] == [10] * 6  # and the sources
    assert result["validation"]["heard/count"] == 10
    logged = lines(tmp_path / "often", "validation.jsonl")
    assert [line["step"] for line in logged] == [1, 2, 3, 4, 4]
    assert logged[-2] == logged[-1]  # the same pairs, noise and words every time
    assert all(line["heard/count"] == 10 for line in logged)
    scalars = shown(tmp_path / "often", "conversion").Scalars("validation/heard/count")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(n, 10) for n in (1, 2, 3, 4, 4)]
    # Judges may come and go between two runs of a training: this one goes on where it ended.
    convert(table, out, tmp_path / "often")


def test_conversions_are_shown_and_played_without_any_judge(out):
    events = shown(out, "conversion")
    pictures = [tag for tag in events.Tags()["images"] if tag.startswith("held out/")]
    assert pictures == [f"held out/{k} mel: source, converted, reference" for k in range(3)]
    for tag in pictures:
        (image,) = events.Images(tag)
        assert image.height == 3 * BANDS + 2 * GAP
        assert 120 <= image.width <= 150  # 1.2 to 1.5 s of 100 frames
    sounds = {f"held out/{k} {name}" for k in range(3) for name in ("source", "converted")}
    assert sounds < set(events.Tags()["audio"])
    assert events.Audio("held out/0 converted")[0].sample_rate == 16000


def test_the_vocoder_shows_the_real_mel_over_the_spoken_one(out):
    events = shown(out, "vocoder")
    (image,) = events.Images("held out/mel: real, spoken")
    assert (image.height, image.width) == (2 * BANDS + GAP, 20)  # crops of 0.2 s


def test_without_a_vocoder_mels_are_shown_and_no_sound(table, out, tmp_path):
    settings = (f"features.folder={out}/features", "conversion.train_voiceprint=true")
    train(table, tmp_path, "conversion", *settings)
    tags = shown(tmp_path, "conversion").Tags()
    assert len(tags["images"]) == 3
    given = [f"held out/{k} {name}" for k in range(3) for name in ("source", "reference")]
    assert tags["audio"] == given


def test_the_harness_judges_a_training(table, out, tmp_path):
    result = convert(table, out, tmp_path, "conversion.judges=[secs_resemblyzer]")
    validation = result["validation"]
    metrics = {f"secs_resemblyzer/{name}" for name in ("secs", "source_secs", "nearer_target")}
    assert set(validation) == {
        "flow",
        "failed",
        "source/failed",
        *metrics,
        *(f"source/{n}" for n in metrics),
    }
    assert validation["failed"] == validation["source/failed"] == 0
    assert 0 < validation["secs_resemblyzer/secs"] <= 1
    # An unconverted source is nearer to the source speaker than to the target.
    assert validation["source/secs_resemblyzer/nearer_target"] < 50
    assert lines(tmp_path, "validation.jsonl") == [{"step": 4, **validation}]
    assert lines(tmp_path, "log.jsonl") == lines(out, "log.jsonl")


def conversion(converted: Speech, text: str = "") -> ValidationConversion:
    target, source = tiny.speech(2.0, 8), tiny.speech(2.0, 0)
    enrolment = (tiny.speech(2.1, 8), tiny.speech(2.2, 9))
    return ValidationConversion("t", converted, source, target, enrolment, (source,), text)


def test_verdicts_are_the_harness_s_and_what_is_no_sound_is_failed():
    voice, silent = tiny.speech(1.9, 8), Speech(torch.zeros(16000), 16000)
    spoken, silence = conversion(voice), conversion(silent)
    verdicts = Judges(["secs_resemblyzer"])([spoken, spoken, spoken, silence])

    def direct(*speeches):
        return Resemblyzer().embed([Waveform(s.samples, 16000) for s in speeches])

    embedding, first, second, old = direct(voice, *spoken.enrolment, spoken.source)
    assert verdicts["secs_resemblyzer/secs"] == pytest.approx(
        (embedding @ first + embedding @ second) / 2
    )
    assert verdicts["secs_resemblyzer/source_secs"] == pytest.approx(embedding @ old)
    assert verdicts["secs_resemblyzer/nearer_target"] == 100
    assert verdicts["failed"] == 25
    assert Judges(["secs_resemblyzer"])([silence]) == {"failed": 100}


class Words:
    reads = frozenset({"converted", "text"})
    metrics = ("wer",)

    def score(self, items):
        assert all(item.source is None for item in items)  # not among what it reads
        return [{"word_errors": 1, "words": len(item.text.split())} for item in items]


def test_a_judge_of_words_gets_trials_with_a_text_and_words_are_pooled():
    judges, voice = Judges([]), tiny.speech(1.0)
    judges.judges["words"] = Words()
    assert judges.reads == {"converted", "text"}
    texts = ["ONE", "ONE TWO THREE", ""]
    pooled = judges([conversion(voice, text) for text in texts])
    assert pooled == {"failed": 0, "words/wer": pytest.approx(100 * 2 / 4)}
    assert judges([conversion(voice)]) == {"failed": 0}


def test_judges_without_anything_to_judge_are_refused_at_the_start(table, out, tmp_path, held_out):
    with pytest.raises(TrainingError, match=r"conversion\.judges: unknown judge 'secs_resembly'"):
        Judges(["secs_resembly"])
    with pytest.raises(TrainingError, match=r"write a list, \[secs_resemblyzer\]"):
        Judges("secs_resemblyzer")
    judges = "conversion.judges=[secs_resemblyzer]"
    settings = (f"features.folder={out}/features", "conversion.train_voiceprint=true")
    with pytest.raises(TrainingError, match=r"no.*vocoder\.safetensors; train it first"):
        train(table, tmp_path, "conversion", *settings, judges)
    with pytest.raises(TrainingError, match=r"raise held_out\.speakers"):
        convert(table, out, tmp_path, judges, "held_out.speakers=0", f"features.folder={tmp_path}")
    recordings, versions = held_out
    strangers = [TrainingRecording(r.utterance_id, "", r.path, r.corpus) for r in recordings]
    with pytest.raises(TrainingError, match="two held-out speakers with two recordings"):
        ValidationTrials(strangers, versions, judging=Listener())
    silent = [TrainingRecording(r.utterance_id, r.speaker, r.path, r.corpus) for r in recordings]
    with pytest.raises(TrainingError, match="needs the texts of held-out recordings"):
        ValidationTrials(silent, versions, judging=Listener())

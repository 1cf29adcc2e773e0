"""The shipped checkpoint: its contents, its training speakers, its conversions of real speech."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

import takin_vc
from bench import audio
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.manifest import read_trials
from bench.validity.exposure import UNSEEN, exposure
from suites.build import MINI
from takin_vc.checkpoint import load_checkpoint
from takin_vc.system import TakinVCSystem, VocoderResynthesis

FOLDER = Path(takin_vc.__file__).parent / "weights" / "mini"
MANIFESTS = sorted((MINI.parents[1] / "manifests").glob("mini_*.jsonl"))
WORDS_OF_JUDGES = ("resemblyzer", "dnsmos", "utmos", "ecapa", "xvector")


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((FOLDER / "config.yaml").read_text())


def test_files_are_small_enough_for_any_repository():
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert max(sizes) <= 16 << 20
    assert sum(sizes) <= 64 << 20


def test_no_speaker_of_the_embedded_suites_was_trained_on(config):
    trained_on = frozenset(config["trained_on"])
    # All but those that only validated; the unlabelled corpus is one name.
    with (FOLDER / "recordings.csv").open(newline="") as file:
        listed = [(r["corpus"], r["speaker"], r["held_out"]) for r in csv.DictReader(file)]
    # Common Voice's speakers have shortened names: it is declared as a whole.
    whole = [("Common Voice" if c.startswith("Common Voice") else c, s, h) for c, s, h in listed]
    named = {
        f"{c}:{s}" if s and c != "Common Voice" else c
        for c, s, held_out in whole
        if held_out == "0"
    }
    assert trained_on == named
    assert len({(c, s) for c, s, held_out in listed if held_out == "1"}) == 13
    assert len(listed) == 4684 + 2973
    speakers = {item.partition(":")[2] for item in trained_on}
    with (MINI / "utterances.csv").open(newline="") as file:
        judged = {row["speaker"] for row in csv.DictReader(file)}
    assert len(judged) == 18
    assert not judged & speakers
    trials = [t for path in MANIFESTS for t in read_trials(path, MINI, files=False)]
    assert len(trials) == 128
    for trial in trials:
        exposed = exposure(trial, trained_on)
        assert exposed.source == exposed.target == UNSEEN


def test_no_judge_is_part_of_the_model(config):
    text = (FOLDER / "config.yaml").read_text().lower()
    assert not any(word in text for word in WORDS_OF_JUDGES)
    # Whisper base is the one thing that judge and model share, and it is left out of the files.
    assert set(config["left_out"]) == {"content.ssl", "content.ppg"}
    assert {node["part"] for node in _parts(config["model"])} == {
        "hybrid_content", "whisper_encoder", "vector_quantizer", "mel_voiceprint",
        "context_aware_timbre", "timbre_memory", "unet_estimator", "conditional_flow", "log_mel",
        "bigvgan",
    }  # fmt: skip


def _parts(node):
    if isinstance(node, dict):
        if "part" in node:
            yield node
        for key, value in node.items():
            if key != "_weights_":
                yield from _parts(value)


@pytest.fixture(scope="module")
def trials():
    """One of each gender pair."""
    path = next(p for p in MANIFESTS if "cross_gender" in p.name)
    return list(read_trials(path, MINI, files=False))[:4]


def loaded(utterance) -> audio.Waveform:
    return audio.load(MINI / utterance.path)


def similarity(encoder, a, b) -> float:
    first, second = (torch.as_tensor(e) for e in encoder.embed([a, b]))
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def test_conversions_are_nearer_to_the_target_than_to_the_source(trials):
    system, encoder = TakinVCSystem(FOLDER, device="cpu"), Resemblyzer()
    assert len({t.factors["gender_pair"] for t in trials}) == 4
    for trial in trials:
        source, reference = loaded(trial.source).first(4.0), loaded(trial.references[0])
        converted = system.convert(source, reference.first(5.0), seed=0)
        assert abs(converted.seconds - source.seconds) < 0.011
        target = similarity(encoder, converted, loaded(trial.enrolment[0]))
        assert target > similarity(encoder, converted, loaded(trial.source_enrolment[0]))
        assert target > similarity(encoder, source, loaded(trial.enrolment[0]))


def test_the_vocoder_gives_a_recording_back(trials):
    vocoder, encoder = VocoderResynthesis(FOLDER), Resemblyzer()
    mel = load_checkpoint(FOLDER).model.mel
    for trial in trials[:2]:
        source = loaded(trial.source).first(4.0)
        again = vocoder.convert(source, source, seed=0)
        assert similarity(encoder, again, source) > 0.95
        frames = len(again.samples)
        difference = mel(again.samples[None]) - mel(source.samples[None, :frames])
        assert float(difference.abs().mean()) < 0.35

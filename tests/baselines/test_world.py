"""The WORLD baseline: what it takes of the reference, keeps of the source, and refuses."""

import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import pyworld
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

import bench
from baselines.world import World
from bench.audio import Waveform
from bench.judges.resemblyzer import Resemblyzer
from bench.systems import System
from bench.trials import Suite, Trial
from suites.build import MANIFESTS, MINI

RATE = 16000  # Hz


@dataclass(frozen=True)
class Conversion:
    trial: Trial
    source: Waveform
    reference: Waveform
    converted: Waveform


@pytest.fixture(scope="module")
def conversions() -> list[Conversion]:
    """Real speech, one trial of each gender pair, references of 5 s."""
    trials = Suite.load("mini", MANIFESTS / "mini_cross_gender.v2.jsonl", MINI, limit=4).trials
    assert {t.factors["gender_pair"] for t in trials} == {"F2F", "F2M", "M2F", "M2M"}
    made = []
    for trial in trials:
        source, reference = trial.source.load(), trial.reference().first(5)
        converted = World().convert(source, reference, seed=0)
        made.append(Conversion(trial, source, reference, converted))
    return made


@cache
def f0(waveform: Waveform) -> np.ndarray:
    """F0 in Hz every 5 ms by Harvest at the full rate; 0 where unvoiced."""
    return pyworld.harvest(waveform.numpy().astype(np.float64), waveform.sample_rate)[0]


def buzz(hertz: float, seconds: float = 1.0, rate: int = RATE) -> Waveform:
    """A voice of constant pitch: pulses through a resonance at 700 Hz."""
    t = np.arange(round(seconds * rate)) / rate
    harmonics = np.arange(hertz, min(rate / 2, 4000), hertz)
    samples = sum(np.cos(2 * np.pi * h * t) / (1 + ((h - 700) / 300) ** 2) for h in harmonics)
    return Waveform.from_numpy(0.3 * samples / np.abs(samples).max(), rate)


def noise(seconds: float = 1.0) -> Waveform:
    draws = np.random.default_rng(0).normal(0, 0.05, round(seconds * RATE))
    return Waveform.from_numpy(draws, RATE)


def test_it_is_a_system_that_was_trained_on_nothing():
    assert isinstance(World(), System)
    assert World.trained_on == frozenset()


def test_mean_pitch_becomes_the_references(conversions):
    for c in conversions:
        ours, theirs = f0(c.converted), f0(c.reference)
        difference = np.log2(ours[ours > 0]).mean() - np.log2(theirs[theirs > 0]).mean()
        assert abs(12 * difference) < 1.0, c.trial.trial_id  # semitones


def test_the_melody_stays_the_sources(conversions):
    for c in conversions:
        ours, sources = f0(c.converted), f0(c.source)
        both = (ours > 0) & (sources > 0)
        a, b = np.log2(ours[both]), np.log2(sources[both])
        # Frames where one of the two F0 tracks jumped an octave say nothing about the melody.
        agree = np.abs((a - np.median(a)) - (b - np.median(b))) < 0.5
        assert agree.mean() > 0.9, c.trial.trial_id
        assert np.corrcoef(a[agree], b[agree])[0, 1] > 0.9, c.trial.trial_id


def test_pitch_of_a_buzz_becomes_the_references_pitch():
    converted = f0(World().convert(buzz(120), buzz(220), seed=0))
    assert np.median(converted[converted > 0]) == pytest.approx(220, rel=0.01)


def test_length_and_rate_are_the_sources_and_no_sample_leaves_the_range(conversions):
    for c in conversions:
        assert c.converted.sample_rate == c.source.sample_rate
        assert len(c.converted.samples) == len(c.source.samples)
        assert c.converted.fault() is None
        assert c.converted.peak <= 1


def test_it_sounds_more_like_the_target_than_the_source_does(conversions):
    judge = Resemblyzer()
    floor, secs = [], []
    for c in conversions:
        enrolment = judge.embed([u.load() for u in c.trial.enrolment])
        source, converted = judge.embed([c.source, c.converted])
        floor.append(np.mean(enrolment @ source))
        secs.append(np.mean(enrolment @ converted))
    assert np.mean(secs) > np.mean(floor) + 0.05


def test_the_same_speech_gives_the_same_samples_whatever_the_seed(conversions):
    c = conversions[0]
    again = World().convert(c.source, c.reference, seed=1)
    assert torch.equal(again.samples, c.converted.samples)


@pytest.mark.parametrize(
    ("source_rate", "reference_rate"),
    [(8000, 16000), (16000, 8000), (8000, 8000), (48000, 16000), (16000, 48000), (48000, 48000)],
)
def test_any_sample_rate_is_taken_and_the_sources_comes_back(source_rate, reference_rate):
    source = buzz(120, rate=source_rate)
    converted = World().convert(source, buzz(220, rate=reference_rate), seed=0)
    assert converted.sample_rate == source_rate
    assert len(converted.samples) == len(source.samples)
    assert converted.fault() is None
    pitch = f0(converted)
    assert np.median(pitch[pitch > 0]) == pytest.approx(220, rel=0.01)


def test_a_source_without_voice_is_converted_without_voice():
    converted = World().convert(noise(), buzz(220), seed=0)
    assert converted.fault() is None
    assert (f0(converted) > 0).mean() < 0.1


def test_a_reference_without_voice_is_refused():
    with pytest.raises(ValueError, match=r"reference has \d voiced frames in 1\.00 s"):
        World().convert(buzz(120), noise(), seed=0)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (torch.zeros(RATE), "is silent"),
        (torch.zeros(0), "is empty"),
        (torch.full((RATE,), torch.nan), "is not finite"),
        (torch.ones(RATE // 20), "lasts 0.050 s"),
    ],
)
def test_unusable_audio_is_refused_by_name(samples, said):
    bad = Waveform(samples, RATE)
    with pytest.raises(ValueError, match=f"the source {said}"):
        World().convert(bad, buzz(220), seed=0)
    with pytest.raises(ValueError, match=f"the reference {said}"):
        World().convert(buzz(120), bad, seed=0)


@pytest.mark.parametrize("seconds", [0.1, 0.12, 0.15, 0.2])
def test_the_shortest_source_is_converted(seconds):
    source = buzz(120, seconds)
    assert len(World().convert(source, buzz(220), seed=0).samples) == len(source.samples)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"frame_period": 0.0}, r"frame_period \(0.0 ms\)"),
        ({"smoothing": -1.0}, r"smoothing \(-1.0 ms\)"),
        ({"f0_floor": 500.0, "f0_ceil": 71.0}, r"f0_floor \(500.0 Hz\).*f0_ceil \(71.0 Hz\)"),
        ({"n_cepstra": 1}, r"n_cepstra \(1\)"),
        ({"neighbours": 0}, r"neighbours \(0\)"),
        ({"borrow": 1.5}, r"borrow \(1.5\)"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        World(**arguments)


@pytest.mark.parametrize("system", ["source", "target", "world"])
def test_each_configuration_lists_every_argument_with_its_default(system):
    path = Path(bench.__file__).parent / "conf" / "system" / f"{system}.yaml"
    arguments = dict(OmegaConf.to_container(OmegaConf.load(path))[system])
    parameters = inspect.signature(get_class(arguments.pop("_target_"))).parameters
    assert arguments == {name: p.default for name, p in parameters.items()}


@pytest.mark.parametrize("arguments", [{"borrow": 0.0}, {"smoothing": 0.0}, {"neighbours": 1}])
def test_every_option_changes_the_speech(conversions, arguments):
    c = conversions[0]
    source = c.source.first(2)
    other = World(**arguments).convert(source, c.reference.first(2), seed=0)
    plain = World().convert(source, c.reference.first(2), seed=0)
    assert other.fault() is None
    assert not torch.equal(other.samples, plain.samples)

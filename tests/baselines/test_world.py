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
from baselines.world import World, _Speech
from bench.audio import Waveform
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.systems import System
from bench.trials import Suite, Trial
from suites.build import MANIFESTS, MINI

RATE = 16000  # Hz
BURST = slice(24000, 24480)  # samples, of `bursts`


@dataclass(frozen=True)
class Conversion:
    trial: Trial
    source: Waveform
    reference: Waveform
    converted: Waveform


@pytest.fixture(scope="module")
def conversions() -> list[Conversion]:
    """Real speech, one trial of each gender pair, references of 5 s."""
    trials = Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI, limit=4).trials
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


def level(waveform: Waveform) -> float:
    """Mean power in dB of full scale."""
    return 10 * np.log10(np.mean(np.square(waveform.numpy(), dtype=np.float64)))


def crest(waveform: Waveform) -> float:
    """Peak over root mean square, in dB: 10 to 25 for speech."""
    return 20 * np.log10(waveform.peak) - level(waveform)


def bursts(gaps: float, burst: float, hertz: float) -> Waveform:
    """A buzz of 1 s, then noise of 1 s with the RMS `gaps`, but `burst` for 30 ms (BURST)."""
    rng = np.random.default_rng(0)
    samples = np.concatenate([buzz(hertz).numpy(), rng.normal(0, gaps, RATE)])
    samples[BURST] = rng.normal(0, burst, BURST.stop - BURST.start)
    return Waveform.from_numpy(samples, RATE)


def frames(
    rng: np.random.Generator, spread: float, outlier: float = 0.0, voiced: bool = False
) -> _Speech:
    """300 frames, half of them voiced, coefficients around -5 with the standard deviation `spread`.

    Every coefficient of one frame, voiced or not, lies `outlier` above the mean.
    """
    f0 = np.where(np.arange(300) % 2 == 0, 120.0, 0.0)
    cepstra = rng.normal(-5, spread, (300, 24))
    cepstra[100 if voiced else 101] = -5 + outlier
    return _Speech(f0, cepstra, np.full((300, 513), 0.5))


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


@pytest.mark.parametrize("voiced", [True, False])
@pytest.mark.parametrize("outlier", [-4.0, 0.0, 4.0])
@pytest.mark.parametrize(("spread", "reference_spread"), [(0.3, 2.0), (2.0, 0.3)])
def test_no_coefficient_leaves_the_range_of_what_was_analysed(
    voiced, outlier, spread, reference_spread
):
    rng = np.random.default_rng(0)
    source = frames(rng, spread, outlier, voiced)
    reference = frames(rng, reference_spread)
    converted = World()._cepstra(source, reference)
    assert not np.array_equal(converted[:, 1:], source.cepstra[:, 1:])
    for one in (source.voiced, ~source.voiced):
        analysed = np.concatenate([source.cepstra[one], reference.cepstra[one]])
        assert (converted[one] >= analysed.min(axis=0)).all()
        assert (converted[one] <= analysed.max(axis=0)).all()


@pytest.mark.parametrize("voiced", [True, False])
@pytest.mark.parametrize("louder", [-6.0, 0.0, 6.0])
def test_energy_is_the_sources_but_for_one_gain_and_tops_no_frame_of_both(voiced, louder):
    rng = np.random.default_rng(0)
    source, reference = frames(rng, 0.3, 4.0, voiced), frames(rng, 1.0)
    reference.cepstra[:, 0] += louder
    world = World()
    cepstra = world._cepstra(source, reference)
    np.testing.assert_array_equal(cepstra[:, 0], source.cepstra[:, 0])
    gains = np.log(
        world._envelope(source, reference, RATE)
        / pyworld.decode_spectral_envelope(cepstra, RATE, 1024)
    )
    np.testing.assert_allclose(gains, gains[0, 0], atol=1e-9)
    loudest = max(source.cepstra[:, 0].max(), reference.cepstra[:, 0].max())
    assert cepstra[:, 0].max() + gains[0, 0] <= loudest + 1e-9


@pytest.mark.parametrize("burst", [3e-4, 3e-3, 3e-2])
@pytest.mark.parametrize("gaps", [1e-5, 1e-4])
def test_a_burst_in_silence_stays_as_far_below_the_voice_as_in_the_source(gaps, burst):
    source = bursts(gaps, burst, hertz=120)
    converted = World().convert(source, bursts(0.03, 1e-4, hertz=220), seed=0)

    def below(waveform: Waveform) -> float:
        voice, noise = waveform.samples[: BURST.start // 2], waveform.samples[BURST]
        return level(Waveform(voice, RATE)) - level(Waveform(noise, RATE))

    assert below(converted) == pytest.approx(below(source), abs=8)


def test_speech_with_deep_silence_becomes_no_click():
    """Once one frame of its silence rose so far that all the rest was scaled down by 68 dB."""
    suite = Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI)
    [trial] = [t for t in suite.trials if t.trial_id == "M2M-03-2033-3242"]
    source, reference = trial.source.load(), trial.reference()
    converted = World().convert(source, reference, seed=0)
    assert level(converted) == pytest.approx(level(reference), abs=6)
    assert crest(converted) < crest(source) + 3


def test_loudness_becomes_the_references(conversions):
    for c in conversions:
        assert level(c.converted) == pytest.approx(level(c.reference), abs=4), c.trial.trial_id


def test_what_would_leave_full_scale_is_scaled_down_as_a_whole():
    plain = World().convert(buzz(120), buzz(220), seed=0)
    loud = Waveform(20 * buzz(220).samples, RATE)
    converted = World().convert(buzz(120), loud, seed=0)
    assert converted.peak == 1
    np.testing.assert_allclose(converted.numpy(), plain.numpy() / plain.peak, atol=1e-3)


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

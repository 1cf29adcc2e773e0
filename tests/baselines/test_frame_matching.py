"""Frame matching: which frames are matched, and what a conversion is made of."""

import pytest
import torch

from baselines.frame_matching import FrameMatching, mean_of_nearest
from bench.audio import Waveform
from bench.errors import UserError
from bench.trials import Suite
from suites.build import MANIFESTS, MINI
from takin_vc.checkpoint import WEIGHTS


@pytest.fixture(scope="module")
def system() -> FrameMatching:
    return FrameMatching(WEIGHTS / "mini", k=1, device="cpu")


@pytest.fixture(scope="module")
def speech() -> tuple[Waveform, Waveform]:
    trial = Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI, limit=1).trials[0]
    return trial.source.load().first(2.5), trial.reference().first(3)


def test_the_nearest_frame_by_angle_is_taken_whatever_its_length():
    candidates = torch.tensor([[5.0, 0.0], [0.0, 0.1], [3.0, 3.0]])
    mels = torch.tensor([[1.0], [2.0], [4.0]])
    words = torch.tensor([[0.1, 0.0], [0.0, 9.0], [1.0, 0.9]])
    assert mean_of_nearest(words, candidates, mels, 1).tolist() == [[1.0], [2.0], [4.0]]


def test_k_frames_are_averaged_and_no_more_than_there_are():
    candidates = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    mels = torch.tensor([[1.0, 10.0], [3.0, 30.0], [50.0, 50.0]])
    words = torch.tensor([[1.0, 0.0]])
    assert mean_of_nearest(words, candidates, mels, 2).tolist() == [[2.0, 20.0]]
    assert mean_of_nearest(words, candidates, mels, 9).tolist() == [[18.0, 30.0]]


def test_many_source_frames_are_matched_in_parts_like_at_once():
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(5000, 8, generator=generator)
    candidates = torch.randn(50, 8, generator=generator)
    mels = torch.randn(50, 3, generator=generator)
    whole = mean_of_nearest(words, candidates, mels, 4)
    assert torch.allclose(whole[4990:], mean_of_nearest(words[4990:], candidates, mels, 4))


def test_a_source_that_is_its_own_reference_becomes_its_resynthesis(system, speech):
    source, _ = speech
    converted = system.convert(source, source, seed=0)
    mel = system.model.mel(source.resample(16000).samples[None])
    lengths = torch.tensor([mel.shape[2]])
    with torch.inference_mode():
        spoken = system.model.speak(mel, lengths)[0].samples
    assert len(converted.samples) == len(spoken)
    error = (converted.samples - spoken).square().mean() / spoken.square().mean()
    assert float(error) < 0.02  # the first and the last two frames have the same content


def test_every_frame_of_a_conversion_is_one_of_the_reference(system, speech):
    source, reference = speech
    made = system.convert(source, reference, seed=0)
    assert made.sample_rate == 16000
    assert abs(made.seconds - source.seconds) <= 0.01
    assert torch.equal(made.samples, system.convert(source, reference, seed=1).samples)
    mels = []
    speak = system.model.speak
    system.model.speak = lambda mel, lengths: mels.append(mel) or speak(mel, lengths)
    try:
        system.convert(source, reference, seed=0)
    finally:
        del system.model.speak
    rows = {tuple(frame.tolist()) for frame in mels[0][0].T}
    frames = {
        tuple(f.tolist()) for f in system.model.prepare([source], [reference]).reference_mel[0].T
    }
    assert rows <= frames
    assert len(rows) > 20


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"checkpoint": WEIGHTS / "mini", "k": 0}, ValueError, "k is 0; it must be 1 or more"),
        ({"checkpoint": "nowhere"}, UserError, "frame_matching: nowhere/config.yaml: no such file"),
    ],
)
def test_wrong_settings_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FrameMatching(**arguments)

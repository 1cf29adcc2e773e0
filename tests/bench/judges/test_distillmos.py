"""DistillMOS against its package, and the judge around it."""

import pytest
import torch
from distillmos import ConvTransformerSQAModel

from bench.audio import Waveform, concatenate
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.distillmos import FRAMES, WINDOW, DistillMOS, Network, load, spectrogram, windows


@pytest.fixture(scope="module")
def judge():
    return DistillMOS(device="cpu")


@pytest.fixture(scope="module")
def package():
    return ConvTransformerSQAModel().eval()


def score(judge, samples):
    [columns] = judge.score([Converted("t", converted=Waveform(samples, 16000))])
    return columns["distillmos"]


@pytest.mark.parametrize("length", [200, 16_000, 60_001, 118_000, WINDOW, WINDOW + 1, 200_000])
def test_the_scores_are_those_of_the_package(judge, package, recordings, length):
    """Of clips that silence fills, of a window's exact length, and of several windows."""
    samples = concatenate([r.load() for r in recordings[:3]]).samples[:length].clone()
    with torch.inference_mode():
        expected = package(samples[None]).item()
    assert score(judge, samples) == pytest.approx(expected, abs=1e-5)


def test_silence_that_is_computed_once_equals_silence_that_is_computed_in_place(judge, recordings):
    samples = torch.zeros(1, WINDOW)
    samples[0, :50_000] = recordings[0].load().samples[:50_000]
    spectrum = spectrogram(samples)[0]
    convolutions = judge.model.cnn
    with torch.inference_mode():
        whole, pieces = convolutions(spectrum, WINDOW), convolutions(spectrum, 50_000)
    assert pieces.shape == whole.shape == (FRAMES, 1024)
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_the_level_of_a_clip_moves_no_score(judge, recordings):
    samples = recordings[0].load().samples
    assert score(judge, samples * 0.1) == pytest.approx(score(judge, samples), abs=1e-4)


def test_a_silent_clip_has_a_score(judge):
    assert 1 <= score(judge, torch.zeros(16000)) <= 5


def test_neighbours_and_order_move_no_score(judge, recordings):
    items = [
        Converted("t", converted=r.load().first(s))
        for r, s in zip(recordings[:2], (3.0, 9.0), strict=True)
    ]
    alone = [judge.score([item])[0]["distillmos"] for item in items]
    reversed_batch = [columns["distillmos"] for columns in judge.score(items[::-1])]
    assert reversed_batch[::-1] == pytest.approx(alone, abs=1e-5)


def test_windows_are_evenly_spread_and_at_most_a_second_apart():
    clip = torch.arange(WINDOW + 40_000)
    starts = [int(part[0]) for part in windows(clip)]
    assert starts == [0, 13_333, 26_666, 40_000]
    assert {len(part) for part in windows(clip)} == {WINDOW}
    assert [len(part) for part in windows(clip[:5])] == [5]


def test_its_self_test_passes_and_with_random_weights_fails(judge, brief):
    assert judge.self_test(brief).passed
    torch.manual_seed(0)
    random = DistillMOS(device="cpu")
    random.model = Network().eval()
    assert not random.self_test(brief).passed


def test_another_file_is_refused(tmp_path):
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"is not DistillMOS: .* is missing.*; install the package"):
        load(tmp_path / "other.pt")

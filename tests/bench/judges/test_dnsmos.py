"""DNSMOS against speechmos, and the judge around it."""

import numpy as np
import pytest
from speechmos import dnsmos as speechmos_dnsmos

from bench.audio import Waveform, concatenate
from bench.judges import Converted
from bench.judges.dnsmos import DNSMOS, add_noise, fill, window_starts
from bench.judges.nn.onnx import read_arrays
from bench.weights.find import WeightsMissing


@pytest.fixture(scope="module")
def judge():
    return DNSMOS()


@pytest.mark.parametrize("seconds", [1.0, 4.6, 5.2, 8.9, 9.01, 13.0])
def test_the_scores_are_those_of_speechmos(judge, recordings, seconds):
    """Of one window and of many, of speech that is doubled once, twice, never."""
    long = concatenate([r.load() for r in recordings[:3]])
    samples = long.samples[: round(seconds * 16000)].clone()
    [scores] = judge.score([Converted("t", converted=Waveform(samples, 16000))])
    expected = speechmos_dnsmos.run(samples.numpy(), 16000)
    for name in ("ovrl", "sig", "bak", "p808"):
        assert scores[name] == pytest.approx(float(expected[f"{name}_mos"]), abs=1e-4)


def test_windows_computed_in_groups_score_the_same(judge, recordings, monkeypatch):
    long = concatenate([r.load() for r in recordings[:3]]).first(15.0)
    [whole] = judge.score([Converted("t", converted=long)])
    monkeypatch.setattr("bench.judges.dnsmos.MOST_WINDOWS", 3)
    [grouped] = judge.score([Converted("t", converted=long)])
    assert grouped == pytest.approx(whole, abs=1e-5)


def test_windows_begin_where_speechmos_has_them():
    def of_speechmos(samples):
        hops = int(np.floor(samples / 16000) - 9.01) + 1
        cut = [np.zeros(samples)[int(h * 16000) : int((h + 9.01) * 16000)] for h in range(hops)]
        return [h for h, part in enumerate(cut) if len(part) >= int(9.01 * 16000)]

    for samples in (144160, 160000, 17 * 16000, 40 * 16000 + 5, 61 * 16000 - 1):
        assert window_starts(samples) == of_speechmos(samples)


def test_speech_is_doubled_until_it_fills_a_window():
    assert len(fill(np.zeros(16000))) == 16 * 16000
    assert len(fill(np.zeros(144160))) == 144160
    assert fill(np.array([1.0, 2.0]))[:4].tolist() == [1, 2, 1, 2]


def test_a_file_of_another_kind_is_named():
    with pytest.raises(ValueError, match="not an ONNX model, or cut short"):
        read_arrays(b"PK\3\4 not a model")
    with pytest.raises(ValueError, match="not an ONNX model, or cut short: 0 graphs"):
        read_arrays(b"")


def test_neighbours_and_order_move_no_score(judge, brief):
    items = [Converted("t", converted=r.load()) for r in brief]
    assert judge.score(items[::-1])[::-1] == judge.score(items)


def test_noise_lowers_it_step_by_step(judge, brief):
    test = judge.self_test(brief)
    assert test.passed
    assert "clean" in test.findings["OVRL with noise"]


def test_noise_comes_at_the_ratio_that_is_asked_for(recordings):
    clean = recordings[0].load().numpy()
    noise = add_noise(clean, 10.0) - clean
    ratio = (clean.astype(float) ** 2).mean() / (noise.astype(float) ** 2).mean()
    assert ratio == pytest.approx(10.0, rel=0.05)


def test_a_judge_that_does_not_detect_noise_fails_its_self_test(judge, recordings, monkeypatch):
    constant = DNSMOS()
    monkeypatch.setattr(constant, "predict", lambda clip: {"ovrl": 3.0})
    assert not constant.self_test(recordings[:2]).passed


def test_without_speechmos_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("bench.judges.dnsmos.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match="pip install speechmos"):
        DNSMOS()

import pytest
from speechmos import dnsmos as speechmos_dnsmos

from bench.judges import Converted
from bench.judges.dnsmos import DNSMOS, add_noise
from bench.weights import WeightsMissing


@pytest.fixture(scope="module")
def judge():
    return DNSMOS()


def test_the_scores_are_speechmos_own(judge, recordings):
    waveform = recordings[0].load()
    [scores] = judge.score([Converted("t", converted=waveform)])
    theirs = speechmos_dnsmos.run(waveform.numpy(), 16000)
    for name in ("ovrl", "sig", "bak", "p808"):
        assert scores[name] == pytest.approx(float(theirs[f"{name}_mos"]), abs=1e-4)


def test_neighbours_and_order_move_no_score(judge, recordings):
    items = [Converted("t", converted=r.load()) for r in recordings[:3]]
    assert judge.score(items[::-1])[::-1] == judge.score(items)


def test_noise_lowers_it_step_by_step(judge, recordings):
    test = judge.self_test(recordings[:2])
    assert test.passed
    assert "clean" in test.findings["OVRL with noise"]


def test_noise_comes_at_the_ratio_that_is_asked_for(recordings):
    clean = recordings[0].load().numpy()
    noise = add_noise(clean, 10.0) - clean
    ratio = (clean.astype(float) ** 2).mean() / (noise.astype(float) ** 2).mean()
    assert ratio == pytest.approx(10.0, rel=0.05)


def test_a_judge_that_cannot_hear_noise_fails_its_self_test(judge, recordings, monkeypatch):
    deaf = DNSMOS()
    monkeypatch.setattr(deaf, "_predict", lambda samples: {"ovrl": 3.0})
    assert not deaf.self_test(recordings[:2]).passed


def test_without_speechmos_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("bench.weights.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match="pip install speechmos"):
        DNSMOS()

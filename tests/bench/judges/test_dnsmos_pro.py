"""DNSMOS Pro against its equations written out in numpy, and the judge around it.

With DNSMOS_PRO_DIR, a clone of fcumlin/DNSMOSPro, also against the authors' file and code.
"""

import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.dnsmos_pro import (
    FILE,
    LENGTH,
    DNSMOSPro,
    DNSMOSProNetwork,
    load,
    spectrogram,
    windows,
)
from bench.weights.find import WeightsMissing


class Scripted(nn.Module):
    """A module whose TorchScript archive has the published names."""

    def __init__(self, network):
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, nn.Module())
            for part, layers in child.named_children():
                getattr(self, name).add_module(part, nn.Sequential(*layers))

    def forward(self, x):
        return x


@pytest.fixture(scope="module")
def random_network():
    torch.manual_seed(0)
    network = DNSMOSProNetwork().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network


@pytest.fixture
def judge(random_network, monkeypatch, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"any")
    monkeypatch.setattr("bench.judges.dnsmos_pro.SHA256", None)
    judge = DNSMOSPro(weights=str(path), device="cpu")
    judge.model = random_network
    return judge


def test_the_spectrogram_is_librosas():
    samples = np.random.default_rng(0).normal(size=16000)
    ours = spectrogram(torch.from_numpy(samples)[None])[0].numpy()
    magnitudes = np.abs(librosa.stft(y=samples, n_fft=320, hop_length=160, win_length=320))
    assert ours == pytest.approx(np.log10(np.clip(magnitudes, 1e-7, None)).T, abs=1e-5)


def test_weights_in_the_published_format_load_and_change_no_value(random_network, tmp_path):
    torch.jit.script(Scripted(random_network)).save(str(tmp_path / "model.pt"))
    loaded = load(tmp_path / "model.pt")
    samples = torch.randn(2, 32_000)
    with torch.inference_mode():
        for a, b in zip(loaded(samples), random_network(samples), strict=True):
            assert torch.equal(a, b)


def test_the_variance_is_positive_and_batches_move_nothing(judge, recordings):
    clips = [
        r.load().resample(16000).samples[:n]
        for r, n in zip(recordings[:2], (9_000, 90_000), strict=True)
    ]
    together = judge.predict(clips)
    alone = [judge.predict([clip])[0] for clip in clips]
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert all(variance > 0 for _, variance in together)


@pytest.mark.skipif(
    "DNSMOS_PRO_DIR" not in os.environ, reason="set DNSMOS_PRO_DIR to a clone of fcumlin/DNSMOSPro"
)
def test_the_scores_are_those_of_the_authors(recordings):
    path = Path(os.environ["DNSMOS_PRO_DIR"]) / "runs" / "BVCC" / "model_best.pt"
    judge, published = DNSMOSPro(str(path), device="cpu"), torch.jit.load(path, "cpu").eval()
    for recording in recordings[:12]:
        [window, *_] = windows(recording.load().resample(16000).samples)
        samples = window.numpy().astype(float)
        spectrum = np.abs(librosa.stft(y=samples, n_fft=320, hop_length=160, win_length=320)).T
        features = torch.FloatTensor(np.log10(np.clip(spectrum, 1e-7, 1e7)))
        with torch.inference_mode():
            expected = published(features[None, None])[0].tolist()
        assert judge._predict([window])[0] == pytest.approx(expected, abs=1e-5)
    assert judge.self_test(recordings).passed


def test_scores_lie_between_1_and_5(judge, recordings):
    [columns] = judge.score([Converted("t", converted=recordings[0].load())])
    assert columns.keys() == {"dnsmos_pro", "variance"}
    assert 1 <= columns["dnsmos_pro"] <= 5


def test_random_weights_fail_the_self_test(judge, brief):
    assert not judge.self_test(brief).passed


def test_clips_are_repeated_to_10_s_or_cut_into_even_windows():
    assert windows(torch.arange(3.0))[0][:7].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [len(w) for w in windows(torch.zeros(LENGTH))] == [LENGTH]
    starts = [int(w[0]) for w in windows(torch.arange(LENGTH * 2 + 10))]
    assert starts == [0, (LENGTH + 10) // 2, LENGTH + 10]


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing, match=f"{FILE}.*get them: curl"):
        DNSMOSPro()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"other")
    with pytest.raises(UserError, match="not the published dfadd"):
        DNSMOSPro(weights=str(tmp_path / "model.pt"))


def test_a_silent_clip_has_a_score(judge):
    silence = Waveform(torch.zeros(16000), 16000)
    [columns] = judge.score([Converted("t", converted=silence)])
    assert 1 <= columns["dnsmos_pro"] <= 5

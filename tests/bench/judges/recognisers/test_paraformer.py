"""Paraformer by a stand-in of FunASR: what it is given, what it says is missing."""

import sys

import pytest
import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.recognisers.paraformer import FILES, Paraformer
from bench.weights.find import WeightsMissing

FUNASR = """
calls = []

class AutoModel:
    def __init__(self, **settings):
        calls.append(settings)

    def generate(self, input, fs, batch_size):
        calls.append((type(input).__name__, input.shape, fs, batch_size))
        return [{"key": "x", "text": " 今 天 很 好 "}]
"""


@pytest.fixture
def funasr(tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    (packages / "funasr").mkdir(parents=True)
    (packages / "funasr" / "__init__.py").write_text(FUNASR)
    (packages / "funasr-1.2.dist-info").mkdir()
    (packages / "funasr-1.2.dist-info" / "METADATA").write_text("Name: funasr\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.delitem(sys.modules, "funasr", raising=False)
    yield
    sys.modules.pop("funasr", None)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "paraformer"
    folder.mkdir()
    for name in FILES.files:
        (folder / name).write_text(name)
    return folder


def test_each_clip_is_given_alone_at_16_khz_from_local_files(funasr, folder):
    recogniser = Paraformer(weights=str(folder), device="cpu")
    clips = [Waveform(torch.zeros(24000), 24000), Waveform(torch.zeros(8000), 16000)]
    assert [t.text for t in recogniser.transcribe(clips, language="zh")] == ["今 天 很 好"] * 2
    import funasr as stand_in

    settings, *generated = stand_in.calls
    assert (settings["model"], settings["device"]) == (str(folder), "cpu")
    assert settings["disable_update"] is True
    assert "trust_remote_code" not in settings
    assert generated == [("ndarray", (16000,), 16000, 1), ("ndarray", (8000,), 16000, 1)]
    assert {w.name for w in recogniser.weights} == {"Paraformer"}
    assert len(recogniser.weights) == len(FILES.files)


def test_what_is_missing_is_named(funasr, folder, tmp_path, monkeypatch):
    (folder / "tokens.json").unlink()
    with pytest.raises(UserError, match=r"holds no tokens\.json"):
        Paraformer(weights=str(folder), device="cpu")
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(WeightsMissing, match=r"hf download funasr/paraformer-zh model\.pt") as e:
        Paraformer(device="cpu")
    assert e.value.download is FILES


def test_without_its_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("bench.judges.recognisers.paraformer.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match="funasr is not installed; pip install funasr"):
        Paraformer(device="cpu")

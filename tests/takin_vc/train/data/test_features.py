"""Recordings at several speeds, and their stored features."""

import json

import numpy as np
import pytest
import torch

from takin_vc.mel import LogMel
from takin_vc.train.data import features
from takin_vc.train.data.corpus import CorpusError, read_recordings
from takin_vc.train.data.versions import load_versions
from tests.support.tiny_training import write_corpus

MEL = {"sample_rate": 16000, "n_fft": 512, "hop_length": 160, "win_length": 400, "n_mels": 20}


class Clock:
    """A front end whose features are the time in the recording, in seconds, at 50 Hz."""

    name, dim, frame_rate = "clock", 1, 50.0

    def __call__(self, waveform, lengths):
        frames = lengths // 320
        index = torch.arange(int(frames.max()))
        mask = index < frames[:, None]
        return ((index + 0.5) / 50).expand(len(lengths), -1)[..., None] * mask[..., None], mask


class Ear:
    """A front end whose features are the level of each hundredth of a second."""

    name, dim, frame_rate = "ear", 1, 100.0

    def __call__(self, waveform, lengths):
        frames = waveform.unfold(1, 160, 160).square().mean(-1, keepdim=True).sqrt()
        mask = torch.arange(frames.shape[1]) < (lengths // 160)[:, None]
        return frames * mask[..., None], mask


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return read_recordings([write_corpus(tmp_path_factory.mktemp("corpus"))])


@pytest.fixture
def versions(recordings, tmp_path):
    features.prepare(
        recordings,
        tmp_path / "f",
        mel=LogMel(**MEL),
        front_ends={"ssl": Clock()},
        speeds=[1.0, 0.8],
    )
    return load_versions(tmp_path / "f")


def test_a_version_is_as_long_as_its_speed_says(recordings, versions):
    seconds = versions.seconds()
    assert seconds.shape == (2, len(recordings))
    assert seconds[0][:4] == pytest.approx([1.2, 1.3, 1.4, 1.5])
    assert seconds[1] == pytest.approx(seconds[0] / 0.8, abs=1e-3)


def test_streams_are_of_the_recording(recordings, versions):
    wave = torch.from_numpy(features.read(recordings[5].path, 16000))
    row = np.array([5])
    stored = versions.wave(row, np.array([0]), len(wave))[0]
    assert float((stored - wave).abs().max()) < 1e-4  # 16 bits
    mel = LogMel(**MEL)(wave[None])[0].T
    kept = versions.frames("mel", row, np.array([0]), len(mel))[0].float()
    assert float((kept - mel).abs().max()) < 0.01
    beyond = versions.wave(row, np.array([len(wave) - 10]), 20)[0]
    assert float(beyond[10:].abs().max()) == 0
    assert float(beyond[:10].abs().max()) > 0


def test_noise_is_what_the_front_ends_hear_in_some_versions_and_nothing_else(recordings, tmp_path):
    settings = {"mel": LogMel(**MEL), "front_ends": {"ssl": Ear()}, "speeds": [1.0, 0.8]}

    def features_of(name, **noise):
        features.prepare(recordings, tmp_path / name, **settings, **noise)
        return load_versions(tmp_path / name)

    clean, noisy, again = (
        features_of("clean"),
        features_of("noisy", noise=0.5),
        features_of("again", noise=0.5),
    )
    for stream in ("wave", "mel"):
        assert torch.equal(clean.streams[stream], noisy.streams[stream])
    assert torch.equal(noisy.streams["ssl"], again.streams["ssl"])
    starts = clean.starts["ssl"]
    same = [
        torch.equal(clean.streams["ssl"][a:b], noisy.streams["ssl"][a:b])
        for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    assert 0.25 < sum(same) / len(same) < 0.75
    with pytest.raises(CorpusError, match="features of other settings"):
        features_of("noisy", noise=0.6)
    for nonsense in (50, -0.5, "yes"):
        with pytest.raises(CorpusError, match=r"must be a number from 0 to 1"):
            features_of("nonsense", noise=nonsense)
    assert not (tmp_path / "nonsense").exists()


def test_the_content_of_another_speed_is_at_the_same_positions(recordings, versions):
    # Frames of the plain version, and where they lie in the slow one: 1.25 times as far in.
    rows = np.array([3, 3 + len(recordings)])
    ratio = np.array([1.0, 1.25])
    start = (10 + 0.5) * ratio - 0.5
    times = versions.stretched("ssl", rows, start, ratio, 20)[:, :, 0].float()
    expected = (torch.arange(10, 30) + 0.5) / 50
    assert float((times[0] - expected).abs().max()) < 1e-3
    assert float((times[1] / 1.25 - expected).abs().max()) < 1e-3


def test_features_of_other_settings_are_refused_and_more_speeds_are_added(recordings, tmp_path):
    def prepare(**changed):
        settings = {"mel": LogMel(**MEL), "front_ends": {}, "speeds": [1.0]}
        features.prepare(recordings, tmp_path / "f", **settings | changed)

    prepare()
    piece = tmp_path / "f" / "speed-1-0000000.safetensors"
    written = piece.stat().st_mtime_ns
    prepare(speeds=[1.0, 1.1])
    assert piece.stat().st_mtime_ns == written  # computed once
    assert load_versions(tmp_path / "f").speeds == (1.0, 1.1)
    assert load_versions(tmp_path / "f", speeds=[1.1]).speeds == (1.1,)
    with pytest.raises(CorpusError, match=r"features of other settings \(n_mels: 20, now 30\)"):
        prepare(mel=LogMel(**MEL | {"n_mels": 30}))
    first, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for part in (first, other):
        part.name, part.dim, part.frame_rate = "linear", 1, 50.0
        part.forward = Clock()
    folder = {"folder": tmp_path / "weights", "mel": LogMel(**MEL)}
    features.prepare(recordings[:2], **folder, front_ends={"ssl": first})
    with pytest.raises(CorpusError, match=r"features of other settings \(ssl: "):
        features.prepare(recordings[:2], **folder, front_ends={"ssl": other})
    with pytest.raises(CorpusError, match=r"with 1\.0 among the first"):
        prepare(speeds=[1.1])
    assert json.loads((tmp_path / "f" / "settings.json").read_text())["n_mels"] == 20


def test_a_recording_that_cannot_be_decoded_is_named(tmp_path):
    table = write_corpus(tmp_path / "c", speakers=2, each=2, unlabelled=0)
    (tmp_path / "c" / "s1-0.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(CorpusError, match=r"s1-0\.wav: cannot be decoded"):
        features.prepare(read_recordings([table]), tmp_path / "f", mel=LogMel(**MEL), front_ends={})


def test_sound_is_stored_at_speeds_without_features(recordings, tmp_path):
    prepared = {"mel": LogMel(**MEL), "front_ends": {"ssl": Clock()}, "speeds": [1.0, 0.8]}
    features.prepare(recordings, tmp_path / "f", **prepared, sound_speeds=[1.25])
    speeds = {"speeds": [1.0, 0.8], "sound_speeds": [1.25]}
    versions = load_versions(tmp_path / "f", **speeds)
    assert (versions.speeds, versions.content_speeds) == ((1.0, 0.8, 1.25), (1.0, 0.8))
    assert versions.seconds()[2] == pytest.approx(versions.seconds()[0] / 1.25, abs=1e-3)
    assert len(versions.lengths("mel")) == 3 * len(recordings)
    assert len(versions.lengths("ssl")) == 2 * len(recordings)
    # Features of an earlier run at such a speed are left out, so that rows mean the same.
    features.prepare(recordings, tmp_path / "g", **prepared | {"speeds": [1.0, 0.8, 1.25]})
    again = load_versions(tmp_path / "g", **speeds)
    assert torch.equal(again.starts["ssl"], versions.starts["ssl"])
    with pytest.raises(CorpusError, match="must be positive and differ"):
        features.prepare(recordings, tmp_path / "h", **prepared, sound_speeds=[0.8])


def test_streams_out_of_several_pieces_stand_where_they_belong(recordings, tmp_path, monkeypatch):
    settings = {"mel": LogMel(**MEL), "front_ends": {"ssl": Clock()}, "speeds": [1.0, 0.8]}
    features.prepare(recordings, tmp_path / "one", **settings)
    for module in ("features", "versions"):
        monkeypatch.setattr(f"takin_vc.train.data.{module}.PIECE", 3)
    features.prepare(recordings, tmp_path / "many", **settings)
    many = load_versions(tmp_path / "many", resident=False)
    assert len(list((tmp_path / "many").glob("speed-1-*"))) > 1
    monkeypatch.undo()
    one = load_versions(tmp_path / "one")
    for name in ("wave", "mel", "ssl"):
        assert many.streams[name].dtype == one.streams[name].dtype
        assert torch.equal(many.starts[name], one.starts[name])
        assert torch.allclose(many.streams[name].float(), one.streams[name].float(), atol=0.01)


def test_the_threads_of_torch_are_given_back():
    before = torch.get_num_threads()
    with features._threads_of_torch(1):
        assert torch.get_num_threads() == 1
    with features._threads_of_torch(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before

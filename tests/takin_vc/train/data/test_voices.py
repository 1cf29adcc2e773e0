"""Recordings in other speakers' voices, and what of them is stored."""

import numpy as np
import pytest
import torch

from takin_vc.checkpoint import load_checkpoint
from takin_vc.mel import LogMel
from takin_vc.train.bundle import bundle
from takin_vc.train.data import features
from takin_vc.train.data.corpus import CorpusError, read, read_recordings
from takin_vc.train.data.versions import load_versions
from takin_vc.train.data.voices import OtherVoices, VoicesSettings
from takin_vc.train.stage import TrainingError
from tests.support.tiny_training import train, write_corpus
from tests.takin_vc.train.data.test_features import MEL, Clock, Ear


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled") / "checkpoint"
    bundle(trained[0], folder)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return read_recordings([write_corpus(tmp_path_factory.mktemp("corpus"))])


def other_voices(recordings, checkpoint, count=1):
    settings = VoicesSettings(str(checkpoint), count=count, steps=1)
    return OtherVoices(recordings, settings, sample_rate=16000, batch_seconds=8)


def test_conversions_are_as_long_as_their_sources_and_each_is_another(recordings, checkpoint):
    voices = other_voices(recordings, checkpoint, count=2)
    waves = [read(r.path, 16000) for r in recordings[3:8]]
    waves[1] = np.zeros(1600, np.float32)  # silent: stays as it is
    first, second = (voices.convert(waves, 3, k) for k in (0, 1))
    again = other_voices(recordings, checkpoint, count=1).convert(waves, 3, 0)
    for wave, a, b, c in zip(waves, first, again, second, strict=True):
        assert len(a) == len(wave)
        assert np.array_equal(a, b)
        if wave.any():
            assert not np.allclose(a, wave)
            assert not np.allclose(a, c)
    assert np.array_equal(first[1], waves[1])


def test_a_reference_is_of_another_speaker(recordings, checkpoint):
    voices = other_voices(recordings, checkpoint)
    speakers = {read(r.path, 16000).tobytes(): r.speaker for r in recordings}
    for index, recording in enumerate(recordings):
        for number in range(8):
            reference = voices._reference(index, number)
            speaker = speakers[reference.samples.numpy().tobytes()]
            assert speaker
            assert speaker != recording.speaker


def test_a_list_without_a_long_enough_reference_is_refused(recordings, checkpoint, monkeypatch):
    monkeypatch.setattr("takin_vc.train.data.voices.REFERENCE_SECONDS", (5.0, 6.0))
    with pytest.raises(CorpusError, match=r"needs recordings of 5 s or more"):
        other_voices(recordings, checkpoint).convert([np.ones(16000, np.float32)], 0, 0)


def test_only_features_of_conversions_are_stored_behind_those_of_the_speeds(
    recordings, checkpoint, tmp_path
):
    prepared = {"mel": LogMel(**MEL), "front_ends": {"ssl": Clock(), "ppg": Ear()}}
    speeds = {"speeds": [1.0, 0.8], "sound_speeds": [1.25]}
    features.prepare(recordings, tmp_path, **prepared, **speeds)
    voices = other_voices(recordings, checkpoint, count=2)
    features.prepare(recordings, tmp_path, **prepared, **speeds, voices=voices)
    plain = load_versions(tmp_path, **speeds)
    versions = load_versions(tmp_path, **speeds, voices=2)
    assert plain.content_speeds == (1.0, 0.8)
    assert versions.content_speeds == (1.0, 0.8, 1.0, 1.0)
    assert versions.recordings == len(recordings)
    for name in ("wave", "mel"):
        assert torch.equal(plain.streams[name], versions.streams[name])
    for name in ("ssl", "ppg"):
        lengths = versions.lengths(name).reshape(4, -1)
        assert torch.equal(lengths[2], lengths[0])
        kept = plain.streams[name]
        assert torch.equal(versions.streams[name][: len(kept)], kept)
    # The frames of a conversion are those of its sound.
    wave = voices.convert([read(r.path, 16000) for r in recordings], 0, 1)[4]
    level, _ = Ear()(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
    rows = np.array([3 * versions.recordings + 4])
    stored = versions.frames("ppg", rows, np.array([0]), level.shape[1])[0]
    assert float((stored.float() - level[0]).abs().max()) < 1e-3


def test_a_training_takes_content_from_other_voices(checkpoint, table, tmp_path):
    given = (f"start={checkpoint}", f"features.voices={{checkpoint:{checkpoint},count:2,steps:1}}")
    result = train(table, tmp_path, "conversion", *given)
    assert result["steps"] == 4
    assert len(list((tmp_path / "features" / "training").glob("voice-1-*"))) == 1
    assert not list((tmp_path / "features" / "held_out").glob("voice-*"))
    exported = load_checkpoint(tmp_path / "conversion" / "checkpoint")
    assert exported.trained_on >= load_checkpoint(checkpoint).trained_on
    with pytest.raises(TrainingError, match=r"was made with features\.voices"):
        train(table, tmp_path, "conversion", *given[:1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{checkpoint:x,count:0}", r"features\.voices\.count is 0; give 1 or more"),
        ("{checkpoint:x,steps:many}", r"features\.voices\.steps is 'many'; give 1 or more"),
        ("{checkpoint:x,voices:2}", r"features\.voices: .*unexpected keyword argument 'voices'"),
        ("{count:2}", r"features\.voices: .*'checkpoint'"),
    ],
)
def test_settings_that_make_no_sense_are_named(table, tmp_path, given, message):
    with pytest.raises(CorpusError, match=message):
        train(table, tmp_path, "features", f"features.voices={given}")


def test_voices_need_stored_features_and_two_speakers(checkpoint, table, recordings, tmp_path):
    given = f"features.voices={{checkpoint:{checkpoint}}}"
    with pytest.raises(CorpusError, match=r"needs features\.stored=true"):
        train(table, tmp_path, "features", given, "features.stored=false", "features.noise=0")
    with pytest.raises(CorpusError, match="two labelled speakers"):
        other_voices(recordings[:1], checkpoint)

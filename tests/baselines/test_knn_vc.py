"""kNN-VC: the matching, the published formats, levels and lengths.

With KNN_VC_DIR, a clone of bshall/knn-vc, also against the authors' code at the published sizes.
"""

import importlib
import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from transformers import WavLMConfig, WavLMModel

from baselines import knn_vc
from baselines.knn_vc import KNNVC, nearest, trimmed
from baselines.nets import wavlm
from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.encoders.wavlm_ecapa import published_name
from bench.systems import declared_facts, facts_of
from bench.validity.kinship import kinship
from tests.support.tiny_judges import SMALL_WAVLM, random_tensors
from tests.support.tiny_systems import (
    SMALL_VOCODER,
    hifigan_shapes,
    microsoft_shapes,
    microsoft_wavlm,
    write_knn_vc,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_knn_vc(tmp_path_factory.mktemp("knn_vc"))


@pytest.fixture
def build(files, monkeypatch):
    monkeypatch.setattr(wavlm, "LARGE", SMALL_WAVLM)
    monkeypatch.setattr(knn_vc, "VOCODER", SMALL_VOCODER)
    return lambda **settings: KNNVC(**files, device="cpu", **settings)


@pytest.fixture
def source(recordings):
    return recordings[0].load().first(2)


@pytest.fixture
def reference(recordings):
    return recordings[40].load().first(3)


def test_the_nearest_frames_are_those_at_the_smallest_cosine_distance_in_this_order():
    query, pool = torch.randn(7, 12), torch.randn(20, 12) * 3
    expected = np.argsort(cdist(query, pool, "cosine"), axis=1)[:, :4]
    assert nearest(query, pool, 4).tolist() == expected.tolist()
    assert nearest(query, pool[:3], 4).shape == (7, 3)


def test_every_frame_is_its_own_nearest_neighbour():
    frames = torch.randn(30, 8)
    assert nearest(frames, frames, 1).flatten().tolist() == list(range(30))


def test_the_source_as_reference_with_k_1_gives_the_sources_own_features(build, source):
    system = build(k=1, trim=0, loudness=None)
    converted = system.convert(source, source, seed=0)
    with torch.inference_mode():
        expected = system.vocoder(system.features(source.samples).T[None])[0]
    torch.testing.assert_close(converted.samples, expected)
    assert not torch.equal(
        build(k=4, trim=0, loudness=None).convert(source, source, seed=0).samples, expected
    )


@pytest.mark.parametrize("layer", [1, 2])
def test_features_are_a_layers_output_of_an_input_that_is_not_normalised(files, source, layer):
    ours = wavlm.load_wavlm(files["wavlm"], layer=layer, **SMALL_WAVLM)
    whole = WavLMModel(WavLMConfig(**SMALL_WAVLM)).eval()
    state = torch.load(files["wavlm"], weights_only=True)["model"]
    prefix = published_name("wavlm.")
    whole.load_state_dict(
        {
            name: state[published_name(f"wavlm.{name}").removeprefix(prefix)]
            for name in whole.state_dict()
        }
    )
    # transformers lists the input of each layer, then the normalised output of the last one.
    outputs = []
    for part in whole.encoder.layers:
        part.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    with torch.inference_mode():
        whole(source.samples[None])
        features = wavlm.wavlm_features(ours, source.samples)
    torch.testing.assert_close(features, outputs[layer - 1][0], atol=1e-4, rtol=1e-4)
    assert len(ours.encoder.layers) == layer


def test_the_published_encoder_has_the_published_names():
    sizes = {"hidden": 1024, "layers": 24, "heads": 16, "feedforward": 4096, "conv": 512}
    with torch.device("meta"):
        model = WavLMModel(WavLMConfig(**wavlm.LARGE))
    prefix = published_name("wavlm.")
    ours = {
        published_name(f"wavlm.{name}").removeprefix(prefix): tuple(value.shape)
        for name, value in model.state_dict().items()
    }
    assert ours == microsoft_shapes(**sizes)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_output_has_a_hop_for_each_frame_of_wavlm_at_16_khz(build, source, reference, rate):
    converted = build().convert(source.resample(rate), reference.resample(22050), seed=0)
    samples = len(source.resample(rate).resample(16000).samples)
    assert converted.sample_rate == 16000
    assert len(converted.samples) == ((samples - 400) // 320 + 1) * 320


def test_the_same_conversion_under_any_seed(build, source, reference):
    first = build().convert(source, reference, seed=0)
    assert torch.equal(first.samples, build().convert(source, reference, seed=1).samples)


def test_the_loudness_is_the_one_asked_for(build, source, reference):
    # ITU-R BS.1770-4: a sine of 997 Hz at full scale in one channel measures -3.01 LUFS.
    sine = 0.01 * torch.sin(2 * torch.pi * 997 / 16000 * torch.arange(32000))
    peak = float(knn_vc._at_loudness(sine, -16.0).abs().max())
    assert 20 * np.log10(peak) == pytest.approx(-16 + 3.01, abs=0.1)
    quiet, louder = (
        build(loudness=loudness).convert(source, reference, seed=0).samples
        for loudness in (-40.0, -34.0)
    )
    torch.testing.assert_close(louder, quiet * 10 ** (6 / 20))


def test_a_level_that_would_clip_is_lower(build, source, reference):
    loud = build(loudness=10.0).convert(source, reference, seed=0)
    assert loud.peak == pytest.approx(1.0)


def test_a_short_or_silent_sound_keeps_its_level():
    short, silent = torch.full((6000,), 0.1), torch.zeros(16000)
    assert torch.equal(knn_vc._at_loudness(short, -16), short)
    assert torch.equal(knn_vc._at_loudness(silent, -16), silent)


def test_the_references_speech_is_kept_and_the_quiet_around_it_is_not(recordings):
    speech = recordings[0].load().first(3).samples
    quiet = 1e-4 * torch.randn(32000, generator=torch.Generator().manual_seed(0))
    kept = trimmed(torch.cat([quiet, speech, quiet]), 7.0)
    assert 1.5 * 16000 < len(kept) < len(speech) + 32000
    assert torch.equal(trimmed(quiet, 7.0), quiet)
    assert torch.equal(trimmed(speech, 0), speech)


def test_a_reference_of_few_frames_is_averaged_whole(build, source, reference):
    system = build(trim=0, loudness=None, k=50)
    converted = system.convert(source, reference.first(0.1), seed=0)  # 4 frames
    with torch.inference_mode():
        mean = system.features(reference.first(0.1).samples).mean(0)
        frames = len(converted.samples) // 320
        expected = system.vocoder(mean[None, :, None].expand(1, -1, frames))[0]
    torch.testing.assert_close(converted.samples, expected, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_converted_is_an_error(build, source):
    silence = Waveform(torch.zeros(16000), 16000)
    with pytest.raises(ValueError, match="the reference is silent"):
        build().convert(source, silence, seed=0)
    with pytest.raises(ValueError, match="the source is too short"):
        build().convert(source.first(0.04), source, seed=0)
    with pytest.raises(ValueError, match=r"k \(0\) must be at least 1"):
        build(k=0)


def test_missing_weights_name_both_files_of_the_release(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    encoder, vocoder = KNNVC.missing_weights(k=4)
    assert encoder.download.url.endswith("/v0.1/WavLM-Large.pt")
    assert encoder.download.sha256 == wavlm.SHA256
    assert vocoder.download.url.endswith("/v0.1/prematch_g_02500000.pt")
    [_, regular] = KNNVC.missing_weights(prematched=False)
    assert regular.download.url.endswith("/v0.1/g_02500000.pt")
    for file, error in ((wavlm.FILE, encoder), ("prematch_g_02500000.pt", vocoder)):
        assert error.download.path == tmp_path / "hub" / "checkpoints" / file
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / wavlm.FILE).write_bytes(b"other")
    with pytest.raises(UserError, match="not the published 6fb4"):
        KNNVC.missing_weights()


def test_given_files_are_found_and_another_file_is_refused(files, tmp_path):
    assert KNNVC.missing_weights(**files) == []
    with pytest.raises(UserError, match=r"vocoder\.pt is not WavLM-Large: it has no state dict"):
        KNNVC(**{**files, "wavlm": files["vocoder"]}, device="cpu")
    state = microsoft_wavlm()
    del state["encoder.layers.1.fc1.bias"]
    torch.save({"model": state}, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"encoder\.layers\.1\.fc1\.bias is missing"):
        wavlm.load_wavlm(tmp_path / "cut.pt", **SMALL_WAVLM)


def test_it_declares_its_training_speakers_and_wavlm(build):
    settings = {"_target_": "baselines.knn_vc.KNNVC", "k": 4}
    facts = declared_facts(settings, "knn_vc")
    assert facts.trained_on == {"LibriSpeech/train-clean-100"}
    assert replace(facts_of(build(), "knn_vc", settings), code=facts.code) == facts
    assert kinship(facts.networks, ["wavlm-large-finetune"]).grade == "same family"
    assert kinship(facts.networks, ["ge2e-resemblyzer"]) is None


@pytest.mark.skipif(
    "KNN_VC_DIR" not in os.environ, reason="set KNN_VC_DIR to a clone of bshall/knn-vc"
)
def test_it_converts_as_the_authors_code_does(tmp_path, monkeypatch, recordings):
    folder = Path(os.environ["KNN_VC_DIR"])
    effects = types.ModuleType("torchaudio.sox_effects")  # gone from torchaudio; never called
    effects.apply_effects_tensor = None
    monkeypatch.setitem(sys.modules, "torchaudio.sox_effects", effects)
    monkeypatch.syspath_prepend(str(folder))
    authors_wavlm, hifigan, matcher = (
        importlib.import_module(name) for name in ("wavlm.WavLM", "hifigan.models", "matcher")
    )
    settings = importlib.import_module("hifigan.utils").AttrDict(
        json.loads((folder / "hifigan" / "config_v1_wavlm.json").read_text())
    )
    cfg = {
        "extractor_mode": "layer_norm",
        "encoder_layers": 24,
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
        "layer_norm_first": True,
        "normalize": True,
        "relative_position_embedding": True,
        "num_buckets": 320,
        "max_distance": 800,
        "gru_rel_pos": True,
    }
    encoder, generator = (
        authors_wavlm.WavLM(authors_wavlm.WavLMConfig(cfg)),
        hifigan.Generator(settings),
    )
    shapes = {k: tuple(v.shape) for k, v in encoder.state_dict().items()}
    encoder.load_state_dict(random_tensors(shapes))
    encoder.eval()
    sizes = {"features": 1024, "projected": 512, "kernels": (20, 16, 4, 4)}
    generator.load_state_dict(random_tensors(hifigan_shapes(**sizes), seed=1))
    torch.save({"cfg": cfg, "model": encoder.state_dict()}, tmp_path / "wavlm.pt")
    torch.save({"generator": generator.state_dict()}, tmp_path / "vocoder.pt")
    generator.remove_weight_norm()
    authors = matcher.KNeighborsVC(encoder, generator, settings, "cpu")
    ours = KNNVC(
        wavlm=str(tmp_path / "wavlm.pt"), vocoder=str(tmp_path / "vocoder.pt"), device="cpu"
    )
    for n in (0, 30, 60):
        source, reference = recordings[n].load().first(3), recordings[n + 40].load()
        query = authors.get_features(source.samples)
        pool = authors.get_matching_set([reference.samples])
        with torch.inference_mode():
            torch.testing.assert_close(ours.features(source.samples), query, atol=1e-3, rtol=0)
        expected = authors.match(query, pool)
        expected = expected / max(1.0, float(expected.abs().max()))
        converted = ours.convert(source, reference, seed=0)
        torch.testing.assert_close(converted.samples, expected, atol=1e-5, rtol=0)

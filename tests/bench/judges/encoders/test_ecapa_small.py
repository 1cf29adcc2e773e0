"""The small ECAPA-TDNN: its file format, its batches, and what random weights do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.errors import UserError
from bench.judges.encoders import ecapa, ecapa_small
from bench.judges.encoders.ecapa import ECAPA, EcapaTDNN
from bench.judges.encoders.ecapa_small import CHANNELS, SmallECAPA
from bench.judges.secs import SECS
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    network = EcapaTDNN(CHANNELS).network
    return random_tensors({name: tuple(v.shape) for name, v in network.state_dict().items()})


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the training writes it: matrices in half precision."""
    path = tmp_path_factory.mktemp("small") / "encoder.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in state.items()}, path
    )
    return path


def test_half_precision_is_computed_in_single(weights) -> None:
    model = SmallECAPA(str(weights)).model
    kinds = {v.dtype for v in model.state_dict().values()}
    assert kinds == {torch.float32, torch.int64}


def test_embeddings_do_not_depend_on_the_batch(weights, recordings) -> None:
    clips = pieces(recordings, [16000, 9000, 12345, 1600, 16000])
    alone = SmallECAPA(str(weights), batch_size=1).embed(clips)
    together = SmallECAPA(str(weights), batch_size=16).embed(clips[::-1])[::-1]
    assert alone.shape == (5, 192)
    assert np.abs(alone - together).max() < 1e-5
    assert np.linalg.norm(alone, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_random_weights_fail_the_self_test(weights, recordings) -> None:
    speakers = sorted({r.speaker for r in recordings})[:6]
    few = [r for s in speakers for r in [x for x in recordings if x.speaker == s][:3]]
    judge = SECS(SmallECAPA(str(weights)))
    assert not judge.self_test(few).passed


def test_weights_of_the_published_size_are_refused(tmp_path) -> None:
    other = EcapaTDNN(16).network.state_dict()
    save_file(other, tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match=r"is not small ECAPA-TDNN: blocks\.0\.conv\.conv\.weight"):
        _ = SmallECAPA(str(tmp_path / "encoder.safetensors")).model


def test_it_is_another_judge_than_the_published_encoder(weights, tmp_path) -> None:
    published = tmp_path / ecapa.FILE
    published.write_bytes(weights.read_bytes())
    assert SmallECAPA(str(weights)).fingerprint != ECAPA(str(published)).fingerprint


def test_missing_weights_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ecapa_small, "TRAINED", tmp_path / "encoder.safetensors")
    with pytest.raises(WeightsMissing, match="small ECAPA-TDNN: no weights"):
        SmallECAPA()


def test_all_frames_valid_is_the_same_as_no_frames(weights) -> None:
    """The training calls the network without lengths."""
    model = SmallECAPA(str(weights)).model
    features = torch.randn(2, 57, 80)
    with torch.inference_mode():
        assert torch.allclose(
            model(features), model(features, torch.tensor([57, 57])), rtol=1e-4, atol=1e-4
        )

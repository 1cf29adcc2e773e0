"""speechbrain's ECAPA-TDNN in masked batches: against speechbrain itself, one clip at a time."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.encoders import ecapa
from bench.judges.encoders.ecapa import ECAPA, reflect
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """speechbrain's network at the published size, with random weights."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    network = ECAPA_TDNN(
        80,
        lin_neurons=192,
        channels=[1024, 1024, 1024, 1024, 3072],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=128,
    )
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(random_tensors(shapes))
    return network.eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ecapa") / ecapa.FILE
    torch.save(network.state_dict(), path)
    return path


def alone(network: nn.Module, clip: Waveform) -> np.ndarray:
    """What speechbrain's pipeline gives for one clip: its features, its mean norm, its network."""
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    with torch.no_grad():
        features = Fbank(n_mels=80)(clip.samples[None])
        norm = InputNormalization(norm_type="sentence", std_norm=False)
        embedding = network(norm(features, torch.ones(1)))
    unit: Tensor = nn.functional.normalize(embedding.flatten(), dim=0)
    return unit.numpy()


def test_speechbrains_import_rounds_no_embedding_to_tf32(weights) -> None:
    """It switches TF32 on for the process: seen in a first batch on an H100, 3e-4 off."""
    code = f"""
import torch
from bench.audio import Waveform
from bench.judges.encoders.ecapa import ECAPA
def rounds():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
judge = ECAPA({str(weights)!r})
judge.model.register_forward_pre_hook(lambda *_: print(*rounds()))
judge.embed([Waveform(torch.randn(16000), 16000)])
print(*rounds())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SB_DISABLE_QUIRKS": ""},  # so that it does switch it on
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["False False", "True True"]


def test_speechbrain_is_kept_from_switching_tf32_on(weights, monkeypatch) -> None:
    monkeypatch.setenv("SB_DISABLE_QUIRKS", "")  # so that it is put back
    monkeypatch.delenv("SB_DISABLE_QUIRKS")
    assert ECAPA(str(weights)).model is not None
    assert os.environ["SB_DISABLE_QUIRKS"] == "allow_tf32"


def test_embeddings_are_speechbrains_whatever_the_batch(weights, network, recordings) -> None:
    clips = pieces(recordings, [16000, 9000, 12345, 1600, 16000])
    expected = np.stack([alone(network, clip) for clip in clips])
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    model = None
    for batch_size, step in ((1, 1), (3, -1), (16, 1)):
        encoder = ECAPA(str(weights), batch_size=batch_size)
        if model is not None:
            encoder.model = model
        model = encoder.model
        embeddings = encoder.embed(clips[::step])[::step]
        assert np.abs(embeddings - expected).max() < 1e-5


def test_speechbrains_batch_would_move_them(network, recordings) -> None:
    """Why its convolutions are given another reflection: speechbrain issues 1374 and 2986."""
    from speechbrain.lobes.features import Fbank

    short, long = pieces(recordings, [9000, 16000])
    samples = nn.utils.rnn.pad_sequence([long.samples, short.samples], batch_first=True)
    with torch.no_grad():
        features = Fbank(n_mels=80)(samples)
        features = features - features.mean(1, keepdim=True)
        embedding = network(features, torch.tensor([1.0, 9000 / 16000]))[1].flatten()
    unit = nn.functional.normalize(embedding, dim=0).numpy()
    assert np.abs(unit - alone(network, short)).max() > 1e-3


def test_any_number_of_frames_counts_exactly_its_frames(weights) -> None:
    """speechbrain takes shares of the batch's length: rounding must not add or drop a frame."""
    encoder = ECAPA(str(weights)).model
    from speechbrain.dataio.dataio import length_to_mask

    for longest in (7, 41, 1001, 2999):
        frames = torch.arange(5, longest + 1)
        shares = (frames - 0.5) / longest
        assert torch.equal(length_to_mask(shares * longest, max_len=longest).sum(1), frames.float())
    features = torch.randn(1, 57, 80)
    padded = torch.cat([features, torch.full((1, 44, 80), 1e3)], dim=1)
    with torch.inference_mode():
        alone, in_batch = (encoder(x, torch.tensor([57])) for x in (features, padded))
    assert torch.allclose(alone, in_batch, rtol=1e-5, atol=1e-6 * float(alone.norm()))


def test_a_clip_shorter_than_the_convolutions_reach_has_an_embedding(weights) -> None:
    click = Waveform(torch.linspace(-0.5, 0.5, 100), 16000)
    embeddings = ECAPA(str(weights)).embed([click])
    assert np.linalg.norm(embeddings) == pytest.approx(1)


def test_each_clip_is_reflected_at_its_end() -> None:
    x = torch.tensor([[[1.0, 2, 3, 4, 5]], [[1.0, 2, 3, 0, 0]]])
    padded = reflect(x, torch.tensor([5, 3]), 2)
    assert padded[0, 0].tolist() == [3, 2, 1, 2, 3, 4, 5, 4, 3]
    assert padded[1, 0, :7].tolist() == [3, 2, 1, 2, 3, 2, 1]


def test_a_folder_of_the_hubs_cache_is_located(weights) -> None:
    assert ECAPA(str(weights.parent)).weights[0].path == str(weights)


def test_other_weights_are_refused(tmp_path) -> None:
    torch.save({"fc.conv.weight": torch.zeros(192, 6144, 1)}, tmp_path / ecapa.FILE)
    with pytest.raises(UserError, match=r"blocks\.0\.conv\.conv\.weight is missing"):
        _ = ECAPA(str(tmp_path)).model


def test_missing_weights_name_the_command_that_gets_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download speechbrain/spkrec-ecapa-voxceleb emb"):
        ECAPA()
    with pytest.raises(UserError, match=r"holds no embedding_model\.ckpt; correct `weights`"):
        ECAPA(str(tmp_path))

"""WavLM x-vectors in masked batches: against transformers itself, one clip at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import WavLMConfig, WavLMForXVector

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.encoders.wavlm_xvector import WavLMXVector
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors, write_hub_folder


def small_model(**more: object) -> WavLMForXVector:
    """A small model like microsoft/wavlm-base-plus-sv, with random weights."""
    config = WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        tdnn_dim=(32, 32, 32, 32, 64),
        xvector_output_dim=24,
        use_weighted_layer_sum=True,
        **more,  # type: ignore[arg-type]
    )
    model = WavLMForXVector(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(random_tensors(shapes))
    return model.eval()


@pytest.fixture(scope="module")
def network() -> WavLMForXVector:
    return small_model()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    return write_hub_folder(tmp_path_factory.mktemp("xvector"), network)


def alone(network: WavLMForXVector, clip: Waveform) -> np.ndarray:
    with torch.no_grad():
        embedding = network(clip.samples[None]).embeddings[0]
    return nn.functional.normalize(embedding, dim=0).numpy()


def test_embeddings_are_transformers_whatever_the_batch(folder, network, recordings) -> None:
    clips = pieces(recordings, [16000, 9000, 12345, 6000, 16000])
    expected = np.stack([alone(network, clip) for clip in clips])
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    for batch_size, step in ((1, 1), (3, -1), (16, 1)):
        encoder = WavLMXVector(str(folder), batch_size=batch_size)
        assert np.abs(encoder.embed(clips[::step])[::step] - expected).max() < 1e-5


def test_a_batch_by_transformers_would_move_them(network, recordings) -> None:
    """Why the pooling is written again: padding reaches the first layer's norm and the pooling."""
    short, long = pieces(recordings, [9000, 16000])
    samples = nn.utils.rnn.pad_sequence([long.samples, short.samples], batch_first=True)
    mask = torch.tensor([[1] * 16000, [1] * 9000 + [0] * 7000])
    with torch.no_grad():
        embedding = network(samples, attention_mask=mask).embeddings[1]
    unit = nn.functional.normalize(embedding, dim=0).numpy()
    assert np.abs(unit - alone(network, short)).max() > 1e-3


def test_no_time_is_lost_in_transformers_attention(folder, recordings, monkeypatch) -> None:
    """It is replaced by name: where transformers changes that, this must be noticed."""

    def slow(*_: object, **__: object) -> None:
        raise AssertionError("frame by frame")

    monkeypatch.setattr("torch.nn.functional.multi_head_attention_forward", slow)
    assert len(WavLMXVector(str(folder)).embed([recordings[0].load()])) == 1


def test_a_click_has_an_embedding(folder) -> None:
    embeddings = WavLMXVector(str(folder)).embed([Waveform(torch.linspace(-0.5, 0.5, 100), 16000)])
    assert np.linalg.norm(embeddings) == pytest.approx(1)


def test_pytorchs_format_loads_too_and_without_the_trainings_classifier(
    folder, network, tmp_path, recordings
) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    state = {n: v for n, v in network.state_dict().items() if not n.startswith("classifier.")}
    torch.save(state, tmp_path / "pytorch_model.bin")
    [clip] = pieces(recordings, [9000])
    embeddings = WavLMXVector(str(tmp_path)).embed([clip])
    np.testing.assert_allclose(embeddings[0], alone(network, clip), atol=1e-5)


def test_a_half_loaded_checkpoint_is_refused(folder, network, tmp_path) -> None:
    """microsoft/UniSpeech issue 47: what is not in the file stays random, and gives numbers."""
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    state = {n: v for n, v in network.state_dict().items() if "layers.1." not in n}
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"it has no tensor wavlm\.encoder\.layers\.1\."):
        _ = WavLMXVector(str(tmp_path)).model


def test_another_rate_is_refused(folder, network, tmp_path, recordings) -> None:
    write_hub_folder(tmp_path, network)
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(UserError, match="its input is 8000 Hz"):
        WavLMXVector(str(tmp_path)).embed(pieces(recordings, [9000]))


def test_missing_weights_name_the_command_that_gets_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download microsoft/wavlm-base-plus-sv config"):
        WavLMXVector()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds no model\.safetensors or pytorch_model\.bin"):
        WavLMXVector(str(tmp_path))

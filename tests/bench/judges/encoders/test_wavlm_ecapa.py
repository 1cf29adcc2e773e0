"""The WavLM-Large speaker judge against UniSpeech's code, and the promises of its encoder.

The weights are random, in the published format: a small WavLM under the head of the published size.
With these weights microsoft/UniSpeech (commit 40d322798fba7fbaef8c882e04ac06ae5e784435) gave
UNISPEECH_EMBEDDINGS; with its folder in the environment variable UNISPEECH_DIR it is run again
with ours, and at the published size too. Largest difference seen in embeddings of unit length:
1.4e-6, at the published size 4.0e-6 (torch 2.11, CPU).
"""

import importlib
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.encoders import wavlm_ecapa
from bench.judges.encoders.wavlm_ecapa import WavLMLargeECAPA
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import (
    SMALL,
    SMALL_WAVLM,
    pieces,
    random_tensors,
    unispeech_shapes,
    write_unispeech,
)

LARGE = {"hidden": 1024, "layers": 24, "heads": 16, "feedforward": 4096, "conv": 512}
needs_unispeech = pytest.mark.skipif(
    "UNISPEECH_DIR" not in os.environ, reason="UNISPEECH_DIR is not set"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unispeech(tmp_path_factory.mktemp("wavlm") / wavlm_ecapa.FILE)


def small(weights: Path, **arguments: object) -> WavLMLargeECAPA:
    encoder = WavLMLargeECAPA(str(weights), **arguments)  # type: ignore[arg-type]
    encoder.model = wavlm_ecapa.load(weights, wavlm=SMALL_WAVLM)
    return encoder


def buzzes() -> list[Waveform]:
    """Gliding buzzes of several lengths, known without a file."""
    clips = []
    for n, size in enumerate([16000, 24000, 8001, 720]):
        seconds = torch.arange(size, dtype=torch.float64) / 16000
        phase = 2 * torch.pi * ((90 + 30 * n) * seconds + 20 * seconds**2)
        buzz = sum(torch.sin(h * phase) / h for h in range(1, 21))
        clips.append(Waveform((0.1 * buzz).float(), 16000))
    return clips


# The first three numbers of each unit embedding of `buzzes`.
UNISPEECH_EMBEDDINGS = [
    [-0.061890, 0.007637, 0.010361],
    [-0.066900, 0.002013, 0.012766],
    [-0.056656, 0.012773, 0.020517],
    [-0.066854, 0.103845, -0.013347],
]


def test_embeddings_are_those_that_unispeech_gave_with_the_same_weights(weights: Path) -> None:
    embeddings = small(weights).embed(buzzes())[:, :3]
    np.testing.assert_allclose(embeddings, UNISPEECH_EMBEDDINGS, atol=1e-5)


def unispeech(sizes: dict[str, int]) -> nn.Module:
    """UniSpeech's model of these sizes, around its WavLM."""
    root = Path(os.environ["UNISPEECH_DIR"])
    sys.path[:0] = [str(root / "WavLM"), str(root / "downstreams/speaker_verification")]
    names = ("WavLM", "modules", "models", "models.utils", "models.ecapa_tdnn")
    try:
        unused = types.ModuleType("models.utils")  # it needs fairseq, and for other models only
        unused.UpstreamExpert = None  # type: ignore[attr-defined]
        sys.modules["models.utils"] = unused
        wavlm = importlib.import_module("WavLM")
        ecapa = importlib.import_module("models.ecapa_tdnn")
    finally:
        del sys.path[:2]
        for name in names:
            sys.modules.pop(name, None)

    class Upstream(nn.Module):
        """What s3prl's `wavlm_large` does: standardise, run, keep every layer's input."""

        def __init__(self) -> None:
            super().__init__()
            conv = sizes["conv"]
            self.model = wavlm.WavLM(
                wavlm.WavLMConfig(
                    {
                        "extractor_mode": "layer_norm",
                        "encoder_layers": sizes["layers"],
                        "encoder_embed_dim": sizes["hidden"],
                        "encoder_ffn_embed_dim": sizes["feedforward"],
                        "encoder_attention_heads": sizes["heads"],
                        "layer_norm_first": True,
                        "conv_feature_layers": (
                            f"[({conv},10,5)] + [({conv},3,2)] * 4 + [({conv},2,2)] * 2"
                        ),
                        "relative_position_embedding": True,
                        "num_buckets": 320,
                        "max_distance": 800,
                        "gru_rel_pos": True,
                    }
                )
            )

        def forward(self, wavs: list[Tensor]) -> dict[str, tuple[Tensor, ...]]:
            states: list[Tensor] = []
            hooks = [
                layer.register_forward_pre_hook(
                    lambda _, inputs: states.append(inputs[0].transpose(0, 1).clone())
                )
                for layer in self.model.encoder.layers
            ]
            ready = torch.stack([nn.functional.layer_norm(w, w.shape) for w in wavs])
            last, _ = self.model.extract_features(ready)
            for hook in hooks:
                hook.remove()
            return {"hidden_states": (*states, last)}

    original = torch.hub.load
    torch.hub.load = lambda *_: Upstream().eval()
    try:
        return ecapa.ECAPA_TDNN_SMALL(feat_dim=sizes["hidden"], feat_type="wavlm_large").eval()
    finally:
        torch.hub.load = original


def compare(original: nn.Module, ours: WavLMLargeECAPA) -> np.ndarray:
    """Embeddings of `buzzes` by UniSpeech, which ours must match to 1e-5."""
    with torch.no_grad():
        given = torch.cat([original(clip.samples[None]) for clip in buzzes()])
    expected = nn.functional.normalize(given, dim=1).numpy()
    difference = np.abs(ours.embed(buzzes()) - expected).max()
    spread = np.abs(expected[0] - expected[1]).max()
    print(f"max abs difference {difference:.1e}, between two clips {spread:.1e}")
    assert difference < 1e-5 < spread / 100
    return expected


@needs_unispeech
def test_embeddings_are_those_that_unispeech_gives_now(weights: Path) -> None:
    original = unispeech(SMALL)
    state = torch.load(weights, weights_only=True)["model"]
    assert original.load_state_dict(state, strict=False).missing_keys == []
    expected = compare(original, small(weights))
    print(f"UniSpeech: {np.round(expected[:, :3].astype(float), 6).tolist()}")
    np.testing.assert_allclose(expected[:, :3], UNISPEECH_EMBEDDINGS, atol=1e-5)


@needs_unispeech
@pytest.mark.slow
def test_at_the_published_size_too(tmp_path: Path) -> None:
    original = unispeech(LARGE)
    state = random_tensors(unispeech_shapes(**LARGE))
    original.load_state_dict(state)
    torch.save({"model": state}, tmp_path / "w.pth")
    ours = WavLMLargeECAPA(str(tmp_path / "w.pth"))
    assert ours.model is not None
    (tmp_path / "w.pth").unlink()  # 1.3 GB
    compare(original, ours)


def test_every_published_tensor_is_used() -> None:
    with torch.device("meta"):
        network = wavlm_ecapa.WavLMEcapa()
    ours = {wavlm_ecapa.published_name(k): tuple(v.shape) for k, v in network.state_dict().items()}
    assert ours == unispeech_shapes(**LARGE)


def test_an_embedding_depends_on_nothing_but_its_clip(weights: Path, recordings) -> None:
    clips = pieces(recordings, [16000, 9000, 12345, 720, 16000, 4000, 30000])
    alone = [small(weights).embed([clip])[0] for clip in clips]
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    for batch_size in (1, 3, 16):
        encoder = small(weights, batch_size=batch_size)
        together = encoder.embed(clips)
        turned = encoder.embed(clips[::-1])[::-1]
        assert np.abs(together - alone).max() < 1e-5
        assert np.abs(turned - alone).max() < 1e-5


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    shapes = unispeech_shapes(**SMALL)
    state = random_tensors(shapes)
    del state["bn.running_mean"]
    torch.save({"model": state}, tmp_path / "cut.pth")
    with pytest.raises(UserError, match=r"bn\.running_mean is missing, not float32 \(3072,\)"):
        wavlm_ecapa.load(tmp_path / "cut.pth", wavlm=SMALL_WAVLM)
    state = random_tensors(shapes) | {"extra": torch.zeros(1)}
    torch.save({"model": state}, tmp_path / "more.pth")
    with pytest.raises(UserError, match="it has a tensor 'extra' too many"):
        wavlm_ecapa.load(tmp_path / "more.pth", wavlm=SMALL_WAVLM)
    (tmp_path / "text.pth").write_text("not found")
    with pytest.raises(UserError, match="it cannot be read as tensors"):
        wavlm_ecapa.load(tmp_path / "text.pth")


def test_missing_weights_name_the_command_that_gets_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download k2-fsa/TTS_eval_models speaker_sim"):
        WavLMLargeECAPA()

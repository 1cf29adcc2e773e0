"""SCOREQ: its file format, its batches, and the public code under the same random weights.

With SCOREQ_PYTORCH_DIR, a folder that holds the package scoreq-pytorch (0.1.0, MIT), whose modules
have the names and the layers of the authors' fairseq code, its scores are compared with ours.
"""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

from bench.errors import UserError
from bench.judges import Converted
from bench.judges.scoreq import (
    FILE,
    SCOREQ,
    TRAINING_ONLY,
    SCOREQNetwork,
    filled,
    load,
    published_name,
)
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors

SIZES = [16000, 16320, 8001, 300, 24000]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        network = SCOREQNetwork()
    shapes = {published_name(name): tuple(v.shape) for name, v in network.state_dict().items()}
    state = random_tensors(shapes)
    # The published line has a slope too: without one all sounds would score the same.
    return state | {"mos_layer.weight": 30 * state["mos_layer.weight"]}


@pytest.fixture(scope="module")
def judge(state, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("scoreq") / FILE
    torch.save({k: v for k, v in state.items() if k != TRAINING_ONLY}, path)
    judge = SCOREQ(str(path), device="cpu")
    _ = judge.model
    path.unlink()  # 380 MB: too large to wait for pytest's clean-up
    return judge


def test_published_names(state) -> None:
    """As fairseq's wav2vec 2.0 and the authors' two heads name them."""
    encoder = "pt_model.ssl_model"
    assert {
        f"{encoder}.mask_emb",
        f"{encoder}.feature_extractor.conv_layers.0.2.weight",
        f"{encoder}.post_extract_proj.weight",
        f"{encoder}.encoder.pos_conv.0.weight_g",
        f"{encoder}.encoder.layers.11.self_attn.out_proj.bias",
        f"{encoder}.encoder.layers.0.self_attn_layer_norm.weight",
        "pt_model.embedding_layer.1.weight",
        "mos_layer.bias",
    } <= state.keys()
    assert len(state) == 215


def test_a_file_with_the_tensor_that_training_uses_loads_too(state, tmp_path) -> None:
    path = tmp_path / FILE
    torch.save(state, path)
    loaded = load(path).state_dict()
    path.unlink()
    assert torch.equal(loaded["wav2vec2.masked_spec_embed"], state[TRAINING_ONLY])


def test_clips_are_filled_to_whole_frames() -> None:
    sizes = {1: 640, 320: 640, 640: 640, 641: 960, 960: 960}
    assert {size: len(filled(torch.ones(size))) for size in sizes} == sizes
    assert filled(torch.ones(641)).sum() == 641


def test_scores_do_not_depend_on_the_batch(judge, recordings) -> None:
    clips = [w.samples for w in pieces(recordings, SIZES)]
    together = judge.predict(clips)
    assert together == pytest.approx([judge.predict([c])[0] for c in clips], abs=1e-5)
    assert max(together) - min(together) > 0.1


@pytest.mark.skipif(
    "SCOREQ_PYTORCH_DIR" not in os.environ,
    reason="set SCOREQ_PYTORCH_DIR to a folder that holds scoreq-pytorch",
)
def test_scores_are_those_of_the_public_code(judge, state, recordings, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [os.environ["SCOREQ_PYTORCH_DIR"], *sys.path])
    public = importlib.import_module("scoreq_pytorch.scoreq_torch").SCOREQModel("nr").eval()
    # Strict: the names are the same, but for a tensor that only training uses.
    public.model.load_state_dict({k: v for k, v in state.items() if k != TRAINING_ONLY})
    clips = [w.samples for w in pieces(recordings, [n for n in SIZES if n > 320])]
    with torch.inference_mode():
        expected = [public(clip).item() for clip in clips]
    differences = [abs(a - b) for a, b in zip(judge.predict(clips), expected, strict=True)]
    print(f"max abs difference {max(differences):.1e}, scores {expected}")
    assert max(differences) < 1e-5
    assert max(expected) - min(expected) > 0.1


def test_scores_lie_between_1_and_5_and_random_weights_fail(judge, recordings) -> None:
    brief = min((r for r in recordings if r.load().seconds >= 5), key=lambda r: r.load().seconds)
    [columns] = judge.score([Converted("t", converted=brief.load().first(2.0))])
    assert columns.keys() == {"scoreq"}
    assert 1 <= columns["scoreq"] <= 5
    assert not judge.self_test([brief]).passed


def test_missing_and_wrong_weights_are_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(WeightsMissing, match=f"{FILE}.*get them: curl.*zenodo"):
        SCOREQ()
    torch.save({"mos_layer.weight": torch.zeros(1, 768)}, tmp_path / FILE)
    with pytest.raises(UserError, match=r"is not SCOREQ .*missing"):
        _ = SCOREQ(str(tmp_path / FILE)).model

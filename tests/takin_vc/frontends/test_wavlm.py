"""WavLM's features beside transformers' own hidden states."""

import copy

import pytest
import torch
from transformers import (
    WavLMConfig,
    WavLMModel,
)

from takin_vc.frontends.base import standardise
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.mel import frame_mask
from takin_vc.tensors import WeightsError
from tests.support.tiny_frontends import (
    GROUP_NORM,
    LAYER_NORM,
    TINY,
    speech,
    wavlm,
)

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

NORMS = pytest.mark.parametrize("norm", [LAYER_NORM, GROUP_NORM], ids=["layer", "group"])


@torch.no_grad()
@NORMS
def test_wavlm_layer_6_is_the_output_of_the_sixth_transformer_layer(norm):
    """`hidden_states[0]` of transformers is what enters layer 1: `[6]` is what leaves layer 6."""
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **norm)).eval()
    waveform, lengths = speech((16000,))
    x = waveform
    if norm is LAYER_NORM:  # such models hear speech of mean 0 and variance 1
        x = standardise(waveform, frame_mask(lengths, 16000))
    full = model(x, attention_mask=torch.ones_like(x).long(), output_hidden_states=True)
    sixth = []
    hook = model.encoder.layers[5].register_forward_hook(lambda *call: sixth.append(call[2][0]))
    model(x, attention_mask=torch.ones_like(x).long())
    hook.remove()
    features, _ = WavLMFeatures(copy.deepcopy(model), layer=6)(waveform, lengths)
    difference = float((features - full.hidden_states[6]).abs().max())
    print(f"WavLM layer 6, {norm['feat_extract_norm']} norm: largest difference {difference:.1e}")
    assert len(full.hidden_states) == 9
    assert torch.equal(full.hidden_states[6], sixth[0])
    assert torch.equal(features, sixth[0])
    for other in (5, 7, 8):
        assert float((features - full.hidden_states[other]).abs().max()) > 1e-2


@torch.no_grad()
def test_layers_past_the_chosen_one_are_neither_run_nor_kept():
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **LAYER_NORM)).eval()
    for layer in model.encoder.layers[6:]:
        for weight in layer.parameters():
            weight.fill_(float("nan"))
    model.encoder.layer_norm.weight.fill_(float("nan"))
    weights = sum(p.numel() for p in model.parameters())
    one_layer = sum(p.numel() for p in model.encoder.layers[7].parameters())
    features = WavLMFeatures(model, layer=6)
    assert features(*speech())[0].isfinite().all()
    assert len(features.model.encoder.layers) == 6
    kept = sum(p.numel() for p in features.parameters())
    assert kept == weights - 2 * one_layer - 2 * TINY["hidden_size"]


@torch.no_grad()
def test_padding_would_reach_group_norm():
    """Why Base models run each length apart: in a plain batch the shorter utterance changes."""
    model = wavlm(GROUP_NORM).model
    waveform, lengths = speech((16000, 9000))
    batch = model(waveform, attention_mask=frame_mask(lengths, 16000).long()).last_hidden_state
    alone = model(waveform[1:, :9000]).last_hidden_state
    assert float((batch[1, : alone.shape[1]] - alone[0]).abs().max()) > 1e-2


@torch.no_grad()
def test_published_weights_load_from_a_folder_without_the_later_layers(tmp_path):
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **GROUP_NORM)).eval()
    model.save_pretrained(tmp_path)
    features = WavLMFeatures.from_pretrained(str(tmp_path))
    waveform, lengths = speech((16000,))
    full = model(waveform, output_hidden_states=True).hidden_states[6]
    assert torch.equal(features(waveform, lengths)[0], full)


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(WeightsError, match=r"WavLM: .* holds no config\.json; put it there"):
        WavLMFeatures.from_pretrained(str(tmp_path))


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"layer \(9\) must be at most 8"):
        WavLMFeatures.from_config({**TINY, **LAYER_NORM}, layer=9)
    with pytest.raises(ValueError, match=r"layer \(0\) must be between 1 and the model's 8"):
        WavLMFeatures(WavLMModel(WavLMConfig(**TINY)), layer=0)
    with pytest.raises(ValueError, match="adapter"):
        WavLMFeatures(WavLMModel(WavLMConfig(**TINY, add_adapter=True)))

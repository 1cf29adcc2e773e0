"""CTC recognisers in masked batches: against transformers itself, one clip at a time."""

from pathlib import Path

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.recognisers.ctc import CTC, cut, spell
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import VOCABULARY, pieces, random_tensors, write_hub_folder

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "vocab_size": len(VOCABULARY),
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
KINDS = {
    "facebook/hubert-large-ls960-ft": (HubertForCTC, HubertConfig),
    "facebook/wav2vec2-large-960h-lv60-self": (Wav2Vec2ForCTC, Wav2Vec2Config),
}


@pytest.fixture(scope="module", params=KINDS)
def published(request, tmp_path_factory):
    """A small model in each published format: repository, folder, the model of transformers."""
    kind, config = KINDS[request.param]
    model = kind(config(**SIZES))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = random_tensors(shapes)
    state["lm_head.bias"][1:4] = -100.0  # trained models never say <s>, </s>, <unk>
    model.load_state_dict(state)
    folder = write_hub_folder(tmp_path_factory.mktemp("ctc"), model, VOCABULARY)
    return request.param, folder, model.eval()


def heard_alone(folder: Path, model, clip: Waveform) -> str:
    """What transformers' feature extractor, model and tokenizer make of one clip."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    inputs = extractor(clip.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        best = model(inputs.input_values).logits[0].argmax(1)
    return " ".join(tokenizer.decode(best).split())


def test_transcripts_are_transformers_whatever_the_batch(published, recordings) -> None:
    repository, folder, model = published
    clips = pieces(recordings, [32000, 9000, 12345, 400, 20000])
    expected = [heard_alone(folder, model, clip) for clip in clips]
    assert len(set(expected)) == 5
    assert max(map(len, expected)) > 10
    for batch_size, step in ((1, 1), (3, -1), (16, 1)):
        recogniser = CTC(repository, str(folder), batch_size=batch_size)
        transcripts = [t.text for t in recogniser.transcribe(clips[::step])][::step]
        assert transcripts == expected


def test_repeats_are_merged_and_blanks_part_them() -> None:
    tokens = {1: " ", 2: "A", 3: "B"}
    assert spell([0, 2, 2, 0, 2, 1, 1, 3, 3, 3, 0], tokens) == "AA B"


def test_long_speech_is_cut_where_it_is_quiet() -> None:
    samples = 0.1 * torch.ones(70 * 16000)
    samples[24 * 16000 : 24 * 16000 + 3200] = 0.001
    samples[50 * 16000 : 50 * 16000 + 3200] = 0.001
    parts = cut(samples)
    assert [len(part) / 16000 for part in parts[:2]] == pytest.approx([24.1, 26.0], abs=0.11)
    assert torch.equal(torch.cat(parts), samples)
    assert all(len(part) <= 30 * 16000 for part in parts)
    assert len(cut(samples[: 30 * 16000])) == 1


def test_cut_speech_keeps_all_its_words(published, recordings) -> None:
    repository, folder, _ = published
    recogniser = CTC(repository, str(folder))
    clips = [r.load() for r in recordings[:4]]
    long = Waveform(torch.cat([c.samples for c in clips]), 16000)
    assert long.seconds > 30
    [whole] = recogniser.transcribe([long])
    parts = recogniser.transcribe([Waveform(part, 16000) for part in cut(long.samples)])
    assert whole.text == " ".join(part.text for part in parts)


def test_a_model_of_another_kind_is_named(published, tmp_path) -> None:
    repository, folder, _ = published
    for name in ("preprocessor_config.json", "vocab.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model_type 'bert' is no hubert, wav2vec2, wavlm"):
        _ = CTC(repository, str(tmp_path)).model


def test_missing_weights_name_the_command_that_gets_them(monkeypatch) -> None:
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download facebook/hubert-large-ls960-ft config"):
        CTC("facebook/hubert-large-ls960-ft")

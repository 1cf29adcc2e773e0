"""HuBERT's emotion head in masked batches: against transformers itself, one clip at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import HubertConfig, HubertForSequenceClassification

from bench.errors import UserError
from bench.judges.encoders.hubert_emotion import FILE, HuBERTEmotion, arousal
from bench.judges.style import Style
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors

CLASSES = {0: "neu", 1: "hap", 2: "ang", 3: "sad"}


def small_model(seed: int = 0, labels: dict[int, str] = CLASSES) -> HubertForSequenceClassification:
    """A small model like superb/hubert-large-superb-er, with random weights."""
    model = HubertForSequenceClassification(
        HubertConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            conv_dim=(16,) * 7,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            use_weighted_layer_sum=True,
            id2label=labels,
            label2id={name: number for number, name in labels.items()},
        )
    )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(random_tensors(shapes, seed) | {"layer_weights": torch.arange(4.0)})
    # As s3prl, with which the head was trained: see docs/decisions/judges.md.
    model.config.tie_last_hidden_states = True
    return model.eval()


def write(folder: Path, model: HubertForSequenceClassification) -> Path:
    """The three published files."""
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / FILE)
    settings = {"do_normalize": True, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def network() -> HubertForSequenceClassification:
    return small_model()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("emotion"), network)


@pytest.mark.parametrize(("batch_size", "step"), [(1, 1), (3, -1), (16, 1)])
def test_styles_are_transformers_whatever_the_batch(
    folder, network, recordings, batch_size, step
) -> None:
    clips = pieces(recordings, [16000, 9000, 12345, 6000, 16000])
    pooled = []
    hook = network.classifier.register_forward_pre_hook(lambda _, given: pooled.append(given[0][0]))
    with torch.inference_mode():
        standard = [(c.samples - c.samples.mean()) / c.samples.std(correction=0) for c in clips]
        logits = [network(samples[None]).logits[0] for samples in standard]
    hook.remove()
    expected = np.stack([nn.functional.normalize(p, dim=0).numpy() for p in pooled])
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    encoder = HuBERTEmotion(str(folder), device="cpu", batch_size=batch_size)
    styles = encoder.styles(clips[::step])[::step]
    assert np.abs(np.stack([s.embedding for s in styles]) - expected).max() < 1e-5
    logs = np.stack([logit.log_softmax(0).numpy() for logit in logits])
    ours = np.array([[s.scores[name] for name in CLASSES.values()] for s in styles])
    assert np.abs(ours - logs).max() < 1e-5


def test_the_last_layer_is_taken_after_its_normalisation(folder, network, recordings) -> None:
    """transformers 5 lists it before; SUPERB's head was trained on the layers after it."""
    [clip] = pieces(recordings, [16000])
    [style] = HuBERTEmotion(str(folder), device="cpu").styles([clip])
    samples = (clip.samples - clip.samples.mean()) / clip.samples.std(correction=0)
    network.config.tie_last_hidden_states = False
    with torch.inference_mode():
        other = network(samples[None]).logits[0].log_softmax(0)
    network.config.tie_last_hidden_states = True
    assert abs(other - torch.tensor([*style.scores.values()])).max() > 0.01


def test_random_weights_fail_the_self_test(tmp_path, recordings) -> None:
    for seed in range(4):
        encoder = HuBERTEmotion(str(write(tmp_path, small_model(seed))), device="cpu")
        assert not encoder.self_test(recordings).passed, seed


def test_speech_that_sounds_more_aroused_when_faster_passes(
    folder, recordings, monkeypatch
) -> None:
    encoder = HuBERTEmotion(str(folder), device="cpu")
    [rate] = {r.load().sample_rate for r in recordings}

    def styles(waveforms, factor=2.0):
        odds = [factor * (w.sample_rate / rate - 1.2) for w in waveforms]
        probabilities = [1 / (1 + np.exp(-odd)) / 2 for odd in odds]
        return [
            Style(
                np.ones(1),
                {
                    **dict.fromkeys(("hap", "ang"), float(np.log(p))),
                    **dict.fromkeys(("neu", "sad"), float(np.log(0.5 - p))),
                },
            )
            for p in probabilities
        ]

    monkeypatch.setattr(encoder, "styles", styles)
    test = encoder.self_test(recordings)
    assert test.passed
    assert "-0.80 at 0.8 × speed, -0.40 at 1 × speed, +0.10 at" in str(test.findings)
    monkeypatch.setattr(encoder, "styles", lambda waveforms: styles(waveforms, factor=-2.0))
    assert not encoder.self_test(recordings).passed
    with pytest.raises(UserError, match="need a recording; there is none"):
        encoder.self_test([])


def test_arousal_is_the_log_odds_of_happy_and_angry() -> None:
    shares = {"neu": 0.5, "hap": 0.2, "ang": 0.1, "sad": 0.2}
    style = Style(np.ones(1), {name: float(np.log(share)) for name, share in shares.items()})
    assert arousal(style) == pytest.approx(np.log(0.3 / 0.7))


def test_other_classes_and_half_a_checkpoint_are_refused(tmp_path, recordings) -> None:
    write(tmp_path, small_model(labels={0: "a", 1: "b", 2: "c", 3: "d"}))
    with pytest.raises(UserError, match="its classes are a, b, c, d, or it sums no layers; get"):
        _ = HuBERTEmotion(str(tmp_path), device="cpu").model
    model = small_model()
    write(tmp_path, model)
    state = {n: v for n, v in model.state_dict().items() if n != "classifier.bias"}
    torch.save(state, tmp_path / FILE)
    with pytest.raises(UserError, match=r"it has no tensor classifier\.bias"):
        _ = HuBERTEmotion(str(tmp_path), device="cpu").model


def test_missing_weights_name_the_command_that_gets_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download superb/hubert-large-superb-er config"):
        HuBERTEmotion()
    with pytest.raises(UserError, match=r"holds no config\.json"):
        HuBERTEmotion(str(tmp_path))

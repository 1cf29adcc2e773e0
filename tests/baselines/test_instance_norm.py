"""Instance normalisation: what the network separates, its training, and the system."""

import pytest
import torch
import yaml

from baselines.instance_norm.network import FACTS, WEIGHTS, InstanceNormAutoencoder
from baselines.instance_norm.system import InstanceNorm
from baselines.instance_norm.train import Recipe, main, train
from bench.errors import UserError
from bench.systems import declared_facts
from bench.trials import Suite
from suites.build import MANIFESTS, MINI
from takin_vc import checkpoint
from takin_vc.tensors import load_tensors, read_tensors
from tests.support.tiny_training import write_corpus

MINI_CHECKPOINT = checkpoint.WEIGHTS / "mini"


def network(**settings) -> InstanceNormAutoencoder:
    torch.manual_seed(0)
    return InstanceNormAutoencoder(hidden=16, blocks=3, **settings).eval()


def mel(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_shapes():
    encoded = network(content_dim=5).encode(mel(40))
    assert encoded.content.shape == (1, 5, 40)
    assert encoded.means.shape == encoded.deviations.shape == (1, 3, 16)
    assert float(encoded.content.min()) > 0
    assert float(encoded.content.max()) < 1
    assert network()(mel(40), mel(25, 1)).shape == (1, 80, 40)


@torch.no_grad()
def test_the_decoder_gives_its_blocks_the_means_and_deviations_of_the_reference_last_first():
    model = network()
    voice = model.encode(mel(60, 1))
    inputs = []
    for block in [*model.decoder[1:], model.output[0]]:
        block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    model(mel(40), mel(60, 1))
    assert len(inputs) == 3
    for at, x in enumerate(inputs):
        # The deviations are a little lower: the smallest variance is added to that of both.
        assert torch.allclose(x.mean(-1), voice.means[:, 2 - at], atol=1e-4)
        assert torch.allclose(x.std(-1, correction=0), voice.deviations[:, 2 - at], rtol=0.05)


@torch.no_grad()
def test_the_reference_changes_the_output_only_by_its_means_and_deviations():
    model = network()
    long = mel(50, 1)
    voice = model.encode(long)
    content = model.encode(mel(40)).content
    expected = model.decode(content, voice.means, voice.deviations)
    assert torch.equal(model(mel(40), long), expected)
    other = model.decode(content, voice.means + 1, voice.deviations)
    assert not torch.allclose(other, expected, atol=0.1)


def test_a_training_lowers_its_loss_resumes_and_is_a_system(tmp_path, capsys):
    data = write_corpus(tmp_path / "corpus", speakers=4)
    # Of this corpus, whose recordings are short:
    settings = {"data": str(data), "held_out": 1, "minutes": None, "batch_seconds": 4.0}
    settings |= {"device": "cpu", "out": str(tmp_path / "out")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("baselines.instance_norm.train.TARGETS", (0.5,))
        patch.setattr("baselines.instance_norm.train.REFERENCES", (0.6,))
        first = train(Recipe(**settings, steps=1))
        resumed = train(Recipe(**settings, steps=15))
    assert "resuming at step 1" in capsys.readouterr().out
    assert (first["steps"], resumed["steps"]) == (1, 15)
    assert resumed["validation"]["mel"] < 0.98 * first["validation"]["mel"]
    facts = yaml.safe_load((tmp_path / "out" / FACTS).read_text())
    assert len(facts["trained_on"]) == 3  # of four speakers one is held out
    tensors = read_tensors(tmp_path / "out" / WEIGHTS)
    load_tensors(InstanceNormAutoencoder(**facts["model"]), tensors, "out")
    system = InstanceNorm(tmp_path / "out", MINI_CHECKPOINT, device="cpu")
    assert system.trained_on >= frozenset(facts["trained_on"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=nowhere.csv", "device=cpu"], "error: nowhere.csv: no such list of recordings"),
        (["dat=x.csv"], "error: Key 'dat' not in 'Recipe'"),
        (["data=x.csv", "steps=soon"], "error: Value 'soon'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_the_shipped_weights_convert_real_speech():
    trial = Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI, limit=1).trials[0]
    folder = MINI_CHECKPOINT.parents[2] / "baselines" / "instance_norm" / "weights"
    system = InstanceNorm(folder, MINI_CHECKPOINT, device="cpu")
    source, reference = trial.source.load().first(3), trial.reference().first(3)
    made = system.convert(source, reference, seed=0)
    assert made.sample_rate == 16000
    assert abs(made.seconds - source.seconds) <= 0.01
    assert made.fault() is None
    other = system.convert(source, source, seed=0)
    assert not torch.allclose(made.samples, other.samples, atol=0.05)
    assert sum(f.stat().st_size for f in folder.iterdir()) < 5 << 20


def test_its_training_data_is_known_without_building_it():
    folder = MINI_CHECKPOINT.parents[2] / "baselines" / "instance_norm" / "weights"
    settings = {
        "_target_": "baselines.instance_norm.system.InstanceNorm",
        "weights": str(folder),
        "vocoder": str(MINI_CHECKPOINT),
    }
    facts = declared_facts(settings, "instance_norm")
    assert "LibriSpeech:103" in facts.trained_on
    with pytest.raises(UserError, match="no trained autoencoder at nowhere"):
        declared_facts({**settings, "weights": "nowhere"}, "instance_norm")

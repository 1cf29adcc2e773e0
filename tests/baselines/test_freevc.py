"""FreeVC: the flow, the published format, lengths, seeds and what is refused.

With FREEVC_DIR, a clone of OlaWod/FreeVC, also against the authors' code.
"""

import importlib
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines import freevc
from baselines.freevc import FreeVC, load_freevc
from baselines.nets import wavlm
from baselines.nets.freevc import FreeVCNetwork, _Flow, _WaveNet
from bench.audio import Waveform
from bench.errors import UserError
from bench.systems import declared_facts, facts_of
from bench.validity.kinship import kinship
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import SMALL_WAVLM, random_tensors
from tests.support.tiny_systems import SMALL_FREEVC, freevc_shapes, write_freevc


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_freevc(tmp_path_factory.mktemp("freevc"))


@pytest.fixture
def system(files, monkeypatch):
    monkeypatch.setattr(wavlm, "LARGE", SMALL_WAVLM)
    monkeypatch.setattr(freevc, "load_freevc", lambda path: load_freevc(path, **SMALL_FREEVC))
    return FreeVC(**files, device="cpu")


@pytest.fixture
def source(recordings):
    return recordings[0].load().first(2)


@pytest.fixture
def reference(recordings):
    return recordings[40].load().first(3)


def test_the_published_checkpoint_has_the_published_names_and_shapes():
    with torch.device("meta"):
        ours = {k: tuple(v.shape) for k, v in FreeVCNetwork().state_dict().items()}
    assert ours == {
        name.replace("weight_v", "weight"): shape
        for name, shape in freevc_shapes().items()
        if not name.endswith("weight_g")
    }


def test_the_flow_is_the_inverse_of_couplings_and_reversals():
    torch.manual_seed(0)
    flow = _Flow(latent=6, channels=8, layers=2, flows=3, condition=4).eval()
    x, speaker = torch.randn(1, 6, 5), torch.randn(1, 4)
    with torch.inference_mode():
        y = x
        for coupling in flow.flows[::2]:
            kept, moved = y.chunk(2, dim=1)
            shift = coupling.post(coupling.enc(coupling.pre(kept), speaker))
            y = torch.cat([kept, moved + shift], dim=1).flip(1)
        assert not torch.allclose(x, y, atol=1e-2)
        torch.testing.assert_close(flow.inverse(y, speaker), x)


def test_a_wave_net_of_one_layer_by_hand():
    torch.manual_seed(0)
    net = _WaveNet(channels=3, layers=1, condition=2).eval()
    x, steering = torch.randn(1, 3, 7), torch.randn(1, 2)
    with torch.inference_mode():
        both = net.in_layers[0](x) + net.cond_layer(steering[:, :, None])
        expected = net.res_skip_layers[0](torch.tanh(both[:, :3]) * torch.sigmoid(both[:, 3:]))
        torch.testing.assert_close(net(x, steering), expected)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_output_has_a_hop_for_each_frame_of_wavlm_at_16_khz(system, source, reference, rate):
    converted = system.convert(source.resample(rate), reference.resample(22050), seed=0)
    samples = len(source.resample(rate).resample(16000).samples)
    assert converted.sample_rate == 16000
    assert len(converted.samples) == ((samples - 400) // 320 + 1) * 320
    assert 0 < converted.peak <= 1


def test_a_seed_gives_the_same_conversion_and_another_one_another(system, source, reference):
    first = system.convert(source, reference, seed=3).samples
    torch.rand(7)  # the process's own random numbers do not matter
    assert torch.equal(system.convert(source, reference, seed=3).samples, first)
    assert not torch.allclose(system.convert(source, reference, seed=4).samples, first, atol=1e-4)


def test_the_content_is_wavlms_normalised_output(system, source):
    content = wavlm.wavlm_features(system.wavlm, source.samples)
    norm = system.wavlm.encoder.layer_norm
    plain = (content - norm.bias) / norm.weight
    assert plain.mean(1).abs().max() < 1e-4
    torch.testing.assert_close(
        plain.var(1, correction=0), torch.ones(len(plain)), atol=1e-2, rtol=0
    )


def test_quiet_ends_of_the_reference_do_not_count(system, reference):
    speech = reference.samples
    quiet = torch.zeros(16000)
    padded = Waveform(torch.cat([quiet, speech, quiet]), 16000)
    embedding = system.embed(padded)
    assert float(embedding.norm()) == pytest.approx(1)
    similar = float((embedding * system.embed(reference)).sum())
    assert similar > 0.999
    tail = Waveform(torch.cat([speech, speech[:24000]]), 16000)
    assert float((embedding * system.embed(tail)).sum()) < similar


def test_what_cannot_be_converted_is_an_error(system, source):
    silence = Waveform(torch.zeros(16000), 16000)
    with pytest.raises(ValueError, match="the reference is silent"):
        system.convert(source, silence, seed=0)
    short = source.first(0.06)
    assert np.isfinite(system.convert(short, short, seed=0).numpy()).all()


def test_missing_weights_name_their_places(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    networks, content, speaker = FreeVC.missing_weights()
    folder = tmp_path / "hub" / "checkpoints" / "freevc"
    assert str(folder / "freevc.pth") in str(networks)
    assert networks.download is None
    assert content.download.url == wavlm.URL
    assert speaker.download.path == folder / "pretrained_bak_5805000.pt"
    assert "OlaWod/FreeVC/raw/60032a7" in speaker.download.url
    with pytest.raises(WeightsMissing, match="FreeVC"):
        FreeVC(device="cpu")


def test_another_file_is_refused_with_the_tensor_that_differs(files, tmp_path):
    assert FreeVC.missing_weights(**files) == []
    state = random_tensors(freevc_shapes(**SMALL_FREEVC))
    del state["flow.flows.2.post.bias"]
    torch.save({"model": state}, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"flow\.flows\.2\.post\.bias is missing"):
        load_freevc(tmp_path / "cut.pt", **SMALL_FREEVC)
    with pytest.raises(UserError, match="is not FreeVC: it has no state dict 'model'"):
        load_freevc(files["speaker"])


def test_it_declares_its_training_speakers_and_networks(system):
    settings = {"_target_": "baselines.freevc.FreeVC"}
    facts = declared_facts(settings, "freevc")
    assert facts.trained_on == {"VCTK"}
    assert replace(facts_of(system, "freevc", settings), code=facts.code) == facts
    assert kinship(facts.networks, ["ge2e-resemblyzer"]).grade == "same family"
    assert kinship(facts.networks, ["wavlm-large-finetune"]).grade == "same family"


@pytest.mark.skipif(
    "FREEVC_DIR" not in os.environ, reason="set FREEVC_DIR to a clone of OlaWod/FreeVC"
)
def test_the_networks_are_the_authors(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(os.environ["FREEVC_DIR"])
    models = importlib.import_module("models")
    try:
        authors = models.SynthesizerTrn(
            spec_channels=641,
            segment_size=28,
            inter_channels=192,
            hidden_channels=192,
            filter_channels=768,
            n_heads=2,
            n_layers=6,
            kernel_size=3,
            p_dropout=0.1,
            resblock="1",
            resblock_kernel_sizes=[3, 7, 11],
            resblock_dilation_sizes=[[1, 3, 5]] * 3,
            upsample_rates=[10, 8, 2, 2],
            upsample_initial_channel=512,
            upsample_kernel_sizes=[16, 16, 4, 4],
            gin_channels=256,
            ssl_dim=1024,
            use_spk=True,
        ).eval()
    finally:
        for name in ("models", "modules", "commons"):
            sys.modules.pop(name, None)
    state = random_tensors({k: tuple(v.shape) for k, v in authors.state_dict().items()})
    state["enc_p.proj.weight"] *= 0.3
    authors.load_state_dict(state)
    torch.save({"model": authors.state_dict()}, tmp_path / "freevc.pth")
    ours = load_freevc(tmp_path / "freevc.pth")
    content, speaker = torch.randn(1, 1024, 40), torch.rand(1, 256)
    torch.manual_seed(5)
    with torch.inference_mode():
        expected = authors.infer(content, g=speaker)[:, 0]
        converted = ours(content.mT, speaker, torch.Generator().manual_seed(5))
    torch.testing.assert_close(converted, expected, atol=1e-5, rtol=0)

"""DiffVC: the solver's steps, the mel spectrogram, the published format, lengths and seeds.

With DIFFVC_DIR, the folder DiffVC of a clone of huawei-noah/Speech-Backbones, also against the
authors' code and notebook.
"""

import importlib
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from baselines import diffvc
from baselines.diffvc import DiffusionVC, DiffVC, coefficients, denoised, gamma, log_mel
from baselines.nets.diffvc import _LinearAttention, _RelativeAttention
from bench.audio import Waveform
from bench.errors import UserError
from bench.judges.encoders.resemblyzer import PRETRAINED_SHA256, Resemblyzer
from bench.systems import declared_facts, facts_of
from bench.validity.kinship import kinship
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import random_tensors
from tests.support.tiny_systems import (
    SMALL_DIFFVC,
    diffvc_shapes,
    hifigan_shapes,
    random_diffvc,
)

PARAMETERS = 126_259_128  # as the authors' notebook prints them


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffvc")
    torch.save(random_diffvc(), folder / "networks.pt")
    generator = random_tensors(hifigan_shapes(channels=16), seed=1)
    torch.save({"generator": generator}, folder / "generator")
    return {"weights": str(folder / "networks.pt"), "vocoder": str(folder / "generator")}


@pytest.fixture
def build(files, monkeypatch):
    load, vocoder = diffvc.load_networks, diffvc.load_hifigan
    # Where the score is random, nothing counteracts the growth of the state under the published
    # schedule, and mel spectrograms become hundreds.
    monkeypatch.setattr(diffvc, "BETA_MAX", 1.0)
    monkeypatch.setattr(diffvc, "load_networks", lambda path: load(path, **SMALL_DIFFVC))
    monkeypatch.setattr(
        diffvc, "load_hifigan", lambda path, name, how: vocoder(path, name, how, channels=16)
    )
    return lambda **settings: DiffVC(**files, device="cpu", **{"steps": 2, **settings})


@pytest.fixture
def source(recordings):
    return recordings[0].load().first(1)


@pytest.fixture
def reference(recordings):
    return recordings[40].load().first(2)


def test_the_published_checkpoint_has_the_published_names_and_as_many_parameters():
    with torch.device("meta"):
        model = DiffusionVC()
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == diffvc_shapes()
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS


def test_the_mel_spectrogram_is_the_notebooks(source):
    samples = source.resample(22050).numpy()
    whole = np.pad(samples[: len(samples) // 256 * 256], 384, mode="reflect")
    spectrum = librosa.stft(y=whole, n_fft=1024, hop_length=256, center=False)
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    filters = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    expected = np.log(np.clip(filters @ magnitude, 1e-5, None))
    ours = log_mel(torch.from_numpy(samples)).numpy()
    assert ours.shape == (80, len(samples) // 256)
    assert ours == pytest.approx(expected, abs=1e-3)


def test_what_is_left_at_a_time_is_the_integral_of_the_schedule():
    times = np.linspace(0.2, 0.7, 100_001)
    integral = np.trapezoid(0.05 + 19.95 * times, times)
    assert gamma(0.2, 0.7) == pytest.approx(math.exp(-integral / 2))
    assert gamma(0.2, 0.7) * gamma(0.7, 0.9) == pytest.approx(gamma(0.2, 0.9))
    assert gamma(0, 1) ** 2 < 1e-4  # little of the source is left where the diffusion begins


@pytest.mark.parametrize("steps", [1, 3, 30])
def test_the_maximum_likelihood_solver_is_exact_where_there_is_one_datum(steps):
    """With a single datum the score is known, and each step is the exact conditional.

    The state at time s given that at time t is then normal with mean mu x(t) + nu x0 (about the
    prior's mean) and deviation sigma, so that the last step ends at the datum itself.
    """
    datum, mean, xt, generator = 1.7, -0.4, 2.9, torch.Generator().manual_seed(0)
    h = 1 / steps
    for step in range(steps):
        t, s = 1 - step * h, max(0.0, 1 - (step + 1) * h)
        expected = datum * gamma(0, t) + mean * (1 - gamma(0, t))
        score = -(xt - expected) / (1 - gamma(0, t) ** 2)
        drift, scale, deviation = coefficients(t, h, "ml")
        left, right, both = (1 - gamma(*ends) ** 2 for ends in ((0, s), (s, t), (0, t)))
        exact = (
            mean
            + gamma(s, t) * left / both * (xt - mean)
            + gamma(0, s) * right / both * (datum - mean)
        )
        xt = xt - (mean - xt) * drift + score * scale
        assert xt == pytest.approx(exact, rel=1e-6)
        assert deviation == pytest.approx(math.sqrt(left * right / both), abs=1e-12)
        xt += deviation * float(torch.randn((), generator=generator))
    assert xt == pytest.approx(datum, abs=1e-6)


def test_small_steps_of_the_three_solvers_agree_in_drift_and_score():
    ml, em, pf = (coefficients(0.5, 1e-5, solver) for solver in diffvc.SOLVERS)
    assert ml == pytest.approx(em, rel=1e-3)
    assert pf[0] == em[0]
    assert pf[1] == em[1] / 2
    assert pf[2] == 0


def test_attention_with_distances_by_hand():
    torch.manual_seed(0)
    layer = _RelativeAttention(channels=4, heads=2, window=1).eval()
    x = torch.randn(1, 4, 5)
    with torch.inference_mode():
        q, k, v = (f(x)[0].T for f in (layer.conv_q, layer.conv_k, layer.conv_v))  # (L, C)
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            rows = []
            for i in range(5):
                keys = k[:, head].clone()
                values = v[:, head].clone()
                for j in range(max(0, i - 1), min(5, i + 2)):
                    keys[j] += layer.emb_rel_k[0, j - i + 1]
                    values[j] += layer.emb_rel_v[0, j - i + 1]
                weights = (keys @ q[i, head] / math.sqrt(2)).softmax(0)
                rows.append(weights @ values)
            heads.append(torch.stack(rows))
        expected = layer.conv_o(torch.cat(heads, dim=1).T[None])
        torch.testing.assert_close(layer(x), expected)
        assert layer(x[:, :, :1]).shape == (1, 4, 1)  # shorter than the window


def test_linear_attention_by_hand():
    torch.manual_seed(0)
    layer = _LinearAttention(3, heads=2, size=4).eval()
    x = torch.randn(1, 3, 2, 5)
    with torch.inference_mode():
        q, k, v = layer.to_qkv(x).reshape(3, 2, 4, 10)
        heads = []
        for head in range(2):
            weights = k[head].softmax(dim=1)  # over positions
            context = sum(weights[:, n, None] * v[head][None, :, n] for n in range(10))  # (d, e)
            heads.append(torch.stack([context.T @ q[head][:, n] for n in range(10)], dim=1))
        expected = layer.to_out(torch.cat(heads).reshape(1, 8, 2, 5))
        torch.testing.assert_close(layer(x), expected)


def test_padding_to_multiples_of_four_frames_does_not_stay():
    model = DiffusionVC(**SMALL_DIFFVC).eval()
    voice, speaker = torch.randn(1, 80, 9), torch.rand(1, 256)
    with torch.inference_mode():
        for frames in (1, 5, 8):
            mel = model.convert(
                torch.randn(1, 80, frames),
                voice,
                speaker,
                torch.Generator().manual_seed(0),
                steps=1,
                solver="ml",
            )
            assert mel.shape == (1, 80, frames)


def test_noise_is_subtracted_where_it_is_quietest():
    """Constant noise under a tone: its power is gone, but for 2 % of it."""
    mel = torch.full((80, 40), math.log(0.1))  # the noise
    mel[28:33, :20] = math.log(0.5)
    clean = denoised(mel, mel)
    assert clean[30, 0].exp() == pytest.approx(math.sqrt(0.25 - 0.01), rel=1e-4)
    assert clean[:, 30].exp().tolist() == pytest.approx([math.sqrt(0.02 * 0.01)] * 80, rel=1e-4)
    silent = mel.flip(1)  # it is now quiet where `mel` has the tone
    assert denoised(mel, silent)[30, 0].exp() < clean[30, 0].exp()


def test_the_smoothing_over_bands_is_the_notebooks_one_band_too_high():
    noise = torch.tensor([1.0, 5.0, 2.0, 8.0, *[8.0] * 76])
    mel = noise.log()[:, None].expand(80, 3) / 2
    power = (2 * denoised(mel, mel)).exp()[:, 0]
    # min(noise of the next band, median of three): 1 → min(5, 1), 5 → min(2, 2), 2 → min(8, 5)
    expected = [0.02, 3.0, 0.1, 0.16]  # max(power - noise, 2 % of the noise)
    assert power[:4].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_output_lasts_as_long_as_the_source_in_whole_frames(build, source, reference, rate):
    converted = build().convert(source.resample(rate), reference, seed=0)
    assert converted.sample_rate == 22050
    assert len(converted.samples) == 22050 // 256 * 256
    assert converted.peak <= 1


def test_a_seed_gives_the_same_conversion_and_another_one_another(build, source, reference):
    system = build()
    first = system.convert(source, reference, seed=3).samples
    torch.rand(7)  # the process's own random numbers do not matter
    assert torch.equal(system.convert(source, reference, seed=3).samples, first)
    assert not torch.allclose(system.convert(source, reference, seed=4).samples, first, atol=1e-4)


def test_steps_solver_and_silence_change_the_conversion(build, source, reference):
    base = build().convert(source, reference, seed=0).samples
    for settings in ({"steps": 3}, {"solver": "pf"}, {"silence": "none"}, {"silence": "source"}):
        other = build(**settings).convert(source, reference, seed=0).samples
        assert not torch.equal(base, other), settings


def test_the_speaker_embedding_is_resemblyzers_but_for_its_step(build, reference, recordings):
    system = build()
    short = reference.first(1.5)  # one window
    expected = torch.from_numpy(Resemblyzer(device="cpu").embed([short]))
    torch.testing.assert_close(system.embed(short), expected)
    long = recordings[0].load()
    [judged] = Resemblyzer(device="cpu").embed([long])
    embedding = system.embed(long)[0]
    assert float(embedding.norm()) == pytest.approx(1)
    assert 0.99 < float(embedding @ torch.from_numpy(judged)) < 0.99999


def test_what_cannot_be_converted_or_set_is_an_error(build, source):
    with pytest.raises(ValueError, match="the reference is silent"):
        build().convert(source, Waveform(torch.zeros(16000), 16000), seed=0)
    with pytest.raises(ValueError, match=r"steps \(0\) must be at least 1"):
        build(steps=0)
    with pytest.raises(UserError, match="solver=mle: no such solver; did you mean 'ml'"):
        build(solver="mle")
    with pytest.raises(UserError, match="silence=sorce: no such silence; did you mean 'source'"):
        build(silence="sorce")
    with pytest.raises(UserError, match=r"trained=vctc: no published weights .*'vctk'"):
        build(trained="vctc")


def test_the_shortest_source_and_reference_convert(build, source):
    short = source.first(0.05)
    converted = build().convert(short, short, seed=0)
    assert len(converted.samples) == round(0.05 * 22050) // 256 * 256


def test_missing_weights_name_their_places_and_are_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    networks, vocoder = DiffVC.missing_weights(steps=30)
    folder = tmp_path / "hub" / "checkpoints" / "diffvc"
    assert "18Xbme0CTVo58p2vOHoTQm8PBGW7oEjAy" in str(networks)
    assert str(folder / "vc_libritts_wodyn.pt") in str(networks)
    assert str(folder / "generator") in str(vocoder)
    assert networks.download is None
    assert vocoder.download is None
    assert "vc_vctk_wodyn.pt" in str(DiffVC.missing_weights(trained="vctk")[0])
    with pytest.raises(WeightsMissing, match="DiffVC"):
        DiffVC(device="cpu")


def test_another_file_is_refused_with_the_tensor_that_differs(files, tmp_path):
    assert DiffVC.missing_weights(**files) == []
    state = random_diffvc()
    del state["decoder.estimator.mid_attn.fn.g"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"decoder\.estimator\.mid_attn\.fn\.g is missing"):
        diffvc.load_networks(tmp_path / "cut.pt", **SMALL_DIFFVC)
    with pytest.raises(UserError, match=r"generator is not DiffVC: encoder\.encoder\."):
        diffvc.load_networks(files["vocoder"])


def test_it_declares_its_training_speakers_and_the_judges_network(build):
    settings = {"_target_": "baselines.diffvc.DiffVC", "trained": "libritts"}
    facts = declared_facts(settings, "diffvc")
    assert "LibriTTS/train-clean-360" in facts.trained_on
    assert declared_facts({**settings, "trained": "vctk"}, "diffvc").trained_on == {"VCTK"}
    assert replace(facts_of(build(), "diffvc", settings), code=facts.code) == facts
    kin = kinship(facts.networks, ["ge2e-resemblyzer"], [PRETRAINED_SHA256])
    assert kin.grade == "conditioned on"
    assert kinship(facts.networks, ["wavlm-large-finetune"]) is None


@pytest.fixture
def authors(monkeypatch):
    """The authors' package `model`, and the functions of their notebook."""
    folder = Path(os.environ["DIFFVC_DIR"])
    monkeypatch.syspath_prepend(str(folder))
    model = importlib.import_module("model")
    filters = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    notebook = {"np": np, "librosa": librosa, "mel_basis": filters, "load": lambda x, sr: (x, sr)}
    cells = json.loads((folder / "inference.ipynb").read_text())["cells"]
    exec("".join(cells[1]["source"]), notebook)  # the user named this folder
    yield model, notebook
    for name in [name for name in sys.modules if name.partition(".")[0] == "model"]:
        del sys.modules[name]


@pytest.mark.skipif(
    "DIFFVC_DIR" not in os.environ,
    reason="set DIFFVC_DIR to the folder DiffVC of a clone of huawei-noah/Speech-Backbones",
)
@pytest.mark.parametrize("solver", diffvc.SOLVERS)
@pytest.mark.parametrize("beta_max", [20.0, 1.0])
def test_it_converts_as_the_authors_notebook_does(
    authors, build, files, source, reference, solver, beta_max, monkeypatch
):
    model, notebook = authors
    system = build(solver=solver, steps=5)
    monkeypatch.setattr(diffvc, "BETA_MAX", beta_max)
    small = SMALL_DIFFVC["encoder"]
    network = model.DiffVC(
        *(80, small["channels"], small["filters"], small["heads"], small["layers"]),
        *(small["kernel"], 0.1, small["window"], small["postnet"]),
        *(SMALL_DIFFVC["decoder"]["condition"], True, SMALL_DIFFVC["decoder"]["channels"]),
        *(0.05, beta_max),
    )
    network.load_state_dict(torch.load(files["weights"], weights_only=True))
    network.eval()
    voice = reference.resample(22050)
    for seconds in (0.9, 0.92, 0.93, 0.94):  # 77 to 80 frames: every remainder of 4
        words = source.first(seconds).resample(22050)
        mels = [
            torch.from_numpy(notebook["get_mel"](w.numpy())).float()[None] for w in (words, voice)
        ]
        lengths = [torch.LongTensor([mel.shape[2]]) for mel in mels]
        speaker = system.embed(voice)
        torch.manual_seed(5)
        _, mel = network(
            mels[0], lengths[0], mels[1], lengths[1], speaker, n_timesteps=5, mode=solver
        )
        seeded = torch.Generator().manual_seed(5)
        with torch.inference_mode():
            ours = system.model.convert(*mels, speaker, seeded, steps=5, solver=solver)
        torch.testing.assert_close(ours, mel, atol=1e-3, rtol=1e-4)
        if beta_max > 1:
            continue
        synthesised = mel[0].numpy()
        clean = torch.from_numpy(
            notebook["mel_spectral_subtraction"](synthesised, synthesised, smoothing_window=1)
        )
        torch.testing.assert_close(denoised(mel[0], mel[0]), clean, atol=1e-3, rtol=1e-4)
        with torch.inference_mode():
            expected = system.vocoder(clean[None])[0]
        converted = system.convert(words, voice, seed=5).samples
        torch.testing.assert_close(converted, expected, atol=1e-3, rtol=0)

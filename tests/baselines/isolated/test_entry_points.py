"""Adapters of repositories call them as their code wants to be called, by stubs.

The stubs in `tests/support/repositories/` have the names and signatures that the repositories have
at the commit of the adapter. Where VCBENCH_CLONES names a folder with clones, they are compared.
"""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from baselines.worker.environments import EnvironmentRecipe, adapters

STUBS = Path(__file__).parents[2] / "support" / "repositories"
STUBBED = sorted(p.name for p in STUBS.iterdir() if p.name != "packages")
# What adapters replace in libraries of their own process, which is this one here.
REPLACED = (
    *((torch, "load"), (torch.hub, "load"), (torch.jit, "load"), (torch.cuda, "is_available")),
    *((torch.Tensor, "cuda"), (yaml, "Loader")),
)


def _is_in(module, *folders):
    """Whether a module, or a package without a file, is from one of these folders."""
    spec = vars(module).get("__spec__")
    paths = [
        getattr(spec, "origin", None),
        *(getattr(spec, "submodule_search_locations", None) or ()),
    ]
    return any(str(path).startswith(tuple(map(str, folders))) for path in paths)


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    """Loads an adapter whose repository and libraries are stubs; gives it and its calls."""
    for module, name in REPLACED:
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(torch.jit, "load", lambda path, **_: f"script {path}")
    monkeypatch.setenv("TORCH_HOME", "")
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "path", [str(STUBS / "packages"), *sys.path])
    names = {p.name for place in STUBS.iterdir() for p in place.iterdir()}
    for name in list(sys.modules):  # a library that is installed here is not asked
        if name.partition(".")[0] in {n.partition(".")[0] for n in names}:
            del sys.modules[name]
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "scratch")

    def load(name, files=(), **options):
        path = adapters()[name]
        folder = tmp_path / "environment"
        shutil.copytree(STUBS / name, folder / "repository")
        for wanted in EnvironmentRecipe.of(path).weights:
            (folder / "weights" / wanted.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "weights" / wanted.path).write_bytes(dict(files).get(wanted.path, b""))
        spec = importlib.util.spec_from_file_location(f"adapter_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made = module.Adapter("cpu", folder, **options)
        return made, sys.modules["calls"].CALLS

    yield load
    # Libraries that an adapter loaded stay: some cannot be loaded twice.
    of_stubs = [name for name, module in sys.modules.items() if _is_in(module, STUBS, tmp_path)]
    for name in of_stubs:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def sounds(tmp_path):
    """Paths of a source of 1.5 s and a reference of 1 s at 16 kHz."""
    draws = np.random.default_rng(1)
    paths = []
    for name, samples in (("source", 24000), ("reference", 16000)):
        paths.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(paths[-1], draws.uniform(-0.5, 0.5, samples), 16000, subtype="FLOAT")
    return paths


class Stage:
    """In place of the worker's clock."""

    def __init__(self, name):
        self.name = name

    def __enter__(self): ...

    def __exit__(self, *_): ...


def converted(made, sounds):
    return np.asarray(made.convert(*sounds, 1, Stage), dtype="float32").reshape(-1)


def only(calls, name):
    """The arguments of the only call of this name."""
    (arguments,) = [a for n, a in calls if n == name]
    return arguments


def weights(tmp_path, name=""):
    return str(tmp_path / "environment" / "weights" / name).rstrip("/")


def test_vec2wav2_reads_no_code_and_names_its_files(adapter, sounds, tmp_path):
    made, calls = adapter("vec2wav2")
    assert converted(made, sounds).tolist() == [0.25] * 2400
    assert made.sample_rate == 24000
    built = only(calls, "VoiceConverter")
    assert built["expdir"] == weights(tmp_path)
    assert built["token_extractor"] == weights(tmp_path, "vq-wav2vec_kmeans.pt")
    assert built["prompt_extractor"] == weights(tmp_path, "WavLM-Large.pt")
    called = only(calls, "voice_conversion")
    assert [called["source_audio"], called["target_audio"]] == sounds


@pytest.mark.parametrize("model", ["small", "large"])
def test_genvc_loads_its_model_and_draws_from_top_k(model, adapter, sounds, tmp_path):
    made, calls = adapter("genvc", model=model, top_k=7)
    assert converted(made, sounds).tolist() == [0.25] * 2400
    assert only(calls, "model_init") == {
        "checkpoint_path": weights(tmp_path, f"GenVC_{model}.pth"),
        "device": "cpu",
    }
    assert only(calls, "synthesize_utt") == {"top_k": 7, "src_wav": (sounds[0], 16000)}
    with pytest.raises(ValueError, match="load_audio refuses"):
        made.convert("refused.wav", sounds[1], 1, Stage)


def test_genvc_knows_two_models(adapter):
    with pytest.raises(ValueError, match="small, large"):
        adapter("genvc", model="huge", top_k=1)


def test_meanvc_takes_its_speaker_network_from_the_package(adapter, sounds, tmp_path):
    made, calls = adapter("meanvc", steps=1, chunk=20)
    assert converted(made, sounds).tolist() == [0.25] * 1600
    assert only(calls, "wavlm_local") == {"ckpt": weights(tmp_path, "WavLM-Large.pt")}
    loaded = only(calls, "load_checkpoint")
    assert loaded["ckpt_path"] == weights(tmp_path, "model_200ms.safetensors")
    assert loaded["use_ema"] is False
    features = only(calls, "extract_features_from_audio")
    assert [features["source_path"], features["reference_path"]] == sounds
    assert features["asr_model"] == f"script {weights(tmp_path, 'fastu2++.pt')}"
    called = only(calls, "inference")
    assert called["vocos"] == f"script {weights(tmp_path, 'vocos.pt')}"
    assert {k: called[k] for k in ("bn", "spk_emb", "prompt_mel", "chunk_size", "steps")} == {
        "bn": "bn",
        "spk_emb": "spk_emb",
        "prompt_mel": "prompt_mel",
        "chunk_size": 20,
        "steps": 1,
    }


def test_x_vc_reads_local_networks_and_cuts_the_padding(adapter, sounds, tmp_path):
    made, calls = adapter("x_vc", ema=True)
    assert converted(made, sounds).tolist() == [0.25] * 24000
    assert only(calls, "load_xvc") == {
        "ckpt_path": weights(tmp_path, "xvc.pt"),
        "ema_load": True,
        "tokenizer": weights(tmp_path, "tokenizer"),
        "features": weights(tmp_path, "tokenizer"),
        "speaker": weights(tmp_path, "speaker"),
    }
    loaded = only(calls, "load_pair_as_tensors")
    assert [loaded["source_wav_path"], loaded["target_wav_path"]] == sounds
    assert loaded["device"] == torch.device("cpu")
    assert only(calls, "run_offline")["target_wav_cond"] == "condition"
    Path("code.pt").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(Exception, match="weights_only"):  # the script's loader would allow code
        torch.load("code.pt", weights_only=False)


def test_vevo_timbre_finds_hubert_and_its_configuration(adapter, sounds, tmp_path):
    made, calls = adapter("vevo_timbre", steps=5)
    assert converted(made, sounds).tolist() == [0.25] * 2400
    built = only(calls, "VevoInferencePipeline")
    assert built["fmt_ckpt_path"] == weights(tmp_path, "acoustic_modeling/Vq8192ToMels")
    assert built["content_style_tokenizer_ckpt_path"] == weights(tmp_path, "tokenizer/vq8192")
    assert built["ar_ckpt_path"] is None
    assert only(calls, "inference_fm") == {
        "src_wav_path": sounds[0],
        "timbre_ref_wav_path": sounds[1],
        "flow_matching_steps": 5,
        "display_audio": False,
    }


def test_ns2vc_keeps_silence_and_cuts_what_it_added(adapter, sounds, tmp_path):
    made, calls = adapter("ns2vc")
    speech = converted(made, sounds)
    assert speech.tolist() == [0.0] * 1200 + [0.25] * 2400
    assert only(calls, "cut")["db_thresh"] == -40
    called = only(calls, "infer")
    assert called["refer_path"] == sounds[1]
    assert called["auto_predict_f0"] is True
    assert only(calls, "Svc")["model_path"] == weights(tmp_path, "model.pt")


def test_seed_vc_v2_streams_without_mp3_and_reads_local_files(adapter, sounds, tmp_path):
    made, calls = adapter(
        "seed_vc_v2", steps=4, intelligibility=0.6, similarity=0.5, style=False, fp16=False
    )
    assert converted(made, sounds).tolist() == [0.25] * 2205
    assert made.sample_rate == 22050
    assert only(calls, "files") == {
        "narrow": weights(tmp_path, "bsq32/bsq32_light.pth"),
        "style": weights(tmp_path, "campplus_cn_common.bin"),
    }
    built = only(calls, "VoiceConversionWrapper")
    assert built["content_extractor_wide"].ssl_model_name == weights(tmp_path, "hubert")
    called = only(calls, "convert_voice_with_streaming")
    assert called["diffusion_steps"] == 4
    assert called["intelligebility_cfg_rate"] == 0.6
    assert called["similarity_cfg_rate"] == 0.5
    assert called["dtype"] == torch.float32
    assert called["stream_output"] is True


@pytest.mark.parametrize("model", ["cosyvoice2", "cosyvoice3"])
def test_cosyvoice_joins_its_pieces(model, adapter, sounds, tmp_path):
    made, calls = adapter("cosyvoice", model=model, fp16=False)
    assert converted(made, sounds).tolist() == [0.25] * 2400
    assert only(calls, "CosyVoice2")["model_dir"] == weights(tmp_path, model)
    assert only(calls, "inference_vc") == {
        "source_wav": sounds[0],
        "prompt_wav": sounds[1],
        "stream": False,
        "speed": 1.0,
    }


def test_hierspeechpp_moves_the_pitch_and_sets_the_peak(adapter, sounds, tmp_path):
    config = {
        "train": {"segment_size": 61440},
        "data": {
            "sampling_rate": 16000,
            "filter_length": 1280,
            "hop_length": 320,
            "win_length": 1280,
            "n_mel_channels": 80,
            "mel_fmin": 0,
            "mel_fmax": 8000,
        },
        "model": {"gin_channels": 256},
    }
    torch.save({}, tmp_path / "empty.pth")
    files = {
        "config.json": json.dumps(config).encode(),
        "hierspeechpp_v1.1_ckpt.pth": (tmp_path / "empty.pth").read_bytes(),
    }
    made, calls = adapter("hierspeechpp", files, noise=0.5, sample_rate=16000)
    np.testing.assert_allclose(converted(made, sounds), [0.999] * 24000)
    assert only(calls, "Wav2vec2") == {"read": weights(tmp_path, "mms-300m")}
    assert only(calls, "SynthesizerTrn")["spec_channels"] == 641
    assert only(calls, "SynthesizerTrn")["segment_size"] == 192
    called = only(calls, "voice_conversion_noise_control")
    assert called["noise_scale"] == 0.5
    assert called["trg_mel"].shape[0] == 2
    pitch = called["f0"].exp() - 1
    # source and reference have the same mean and spread: the pitch stays where it is
    np.testing.assert_allclose(pitch.unique(), [0, 100, 120], atol=0.1)


def test_hierspeechpp_knows_three_rates(adapter):
    with pytest.raises(ValueError, match="16000, 24000 or 48000"):
        adapter("hierspeechpp", noise=0.5, sample_rate=22050)


def signatures(text):
    """Dotted name → arguments with their defaults, of the functions and methods of a module."""
    found = {}
    for node in ast.parse(text).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for each in inner:
            if isinstance(each, ast.FunctionDef):
                a = each.args
                defaults = [ast.unparse(d) for d in (*a.defaults, *filter(None, a.kw_defaults))]
                names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
                found[prefix + each.name] = (names, defaults)
    return found


@pytest.mark.parametrize("name", STUBBED)
def test_stubs_have_the_signatures_of_the_repository(name):
    recipe = EnvironmentRecipe.of(adapters()[name])
    clone = Path(os.environ.get("VCBENCH_CLONES", "clones")) / recipe.repository.partition("/")[2]
    if not clone.is_dir():
        pytest.skip(f"no clone of {recipe.repository} at {clone}; VCBENCH_CLONES names the folder")
    compared = 0
    for stub in (STUBS / name).rglob("*.py"):
        path = f"{recipe.commit}:{stub.relative_to(STUBS / name).as_posix()}"
        git = ["git", "-C", str(clone), "show", path]
        shown = subprocess.run(git, capture_output=True, text=True, check=False)
        if not stub.read_text().strip():  # it makes a folder a package
            continue
        assert shown.returncode == 0, shown.stderr
        real = signatures(shown.stdout)
        for function, (names, defaults) in signatures(stub.read_text()).items():
            if function in SHORTENED or function.endswith(".forward"):
                continue
            assert real[function] == (names, defaults), function
            compared += 1
    assert compared


# Constructors of networks, whose stubs take what the adapter does not choose as one argument.
SHORTENED = (
    "DiT.__init__",
    "MelSpectrogramFixed.__init__",
    "SynthesizerTrn.__init__",
    "VoiceConversionWrapper.__init__",
)

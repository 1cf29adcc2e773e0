"""Public weights: read from this machine or named with the way to get them, never downloaded."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertForCTC, WavLMConfig, WavLMModel

from bench.__main__ import main
from bench.errors import UserError
from bench.weights import find as weights
from bench.weights.find import HubFiles, WeightsMissing
from takin_vc.checkpoint import Checkpoint, save_checkpoint
from takin_vc.config import load
from takin_vc.frontends.hubert import HuBERTPosteriors
from takin_vc.frontends.wavlm import WavLMFeatures
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.system import TakinVCSystem, VocoderResynthesis, find_whisper_base
from takin_vc.tensors import MissingWeights, WeightsError
from takin_vc.timbre import ECAPAVoiceprint
from takin_vc.vocoder import BigVGAN
from tests.support import tiny_models as tiny

TINY = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
WAVLM, VOCODER = "microsoft/wavlm-large", "owner/bigvgan"


@pytest.fixture
def nothing_here(tmp_path, monkeypatch, no_network):
    """Empty caches and no packages of weights; the addresses that were tried."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("bench.weights.whisper_base.package_folder", lambda name: None)
    monkeypatch.chdir(tmp_path)
    return no_network


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkpoint that leaves a WavLM and a vocoder out."""
    model, config = tiny.new(), load(["model=tiny"])["model"]
    config["content"]["ssl"]["_weights_"] = {
        "part": "wavlm.pretrained",
        "source": WAVLM,
        "layer": 1,
    }
    config["vocoder"]["_weights_"] = {
        "part": "bigvgan.pretrained",
        "source": VOCODER,
    }
    checkpoint = Checkpoint(model, config, frozenset())
    save_checkpoint(tmp_path / "c", checkpoint, leave_out=["content.ssl", "vocoder"])
    return tmp_path / "c"


@pytest.mark.parametrize(
    ("find", "repository"),
    [
        (WavLMFeatures.from_pretrained, WAVLM),
        (HuBERTPosteriors.from_pretrained, "facebook/hubert-large-ls960-ft"),
        (WhisperEncoderFeatures.from_pretrained, "openai-whisper"),
        (find_whisper_base, "openai-whisper"),
        (lambda: BigVGAN.from_pretrained("nvidia/bigvgan_24khz_100band"), "nvidia/bigvgan_24khz"),
        (lambda: ECAPAVoiceprint.from_pretrained("speechbrain/spkrec"), "speechbrain/spkrec"),
    ],
    ids=["wavlm", "hubert", "whisper", "whisper base", "bigvgan", "ecapa"],
)
def test_no_part_of_a_model_downloads_its_weights(nothing_here, find, repository):
    with pytest.raises(MissingWeights, match="get them: ") as caught:
        find()
    assert caught.value.repository.startswith(repository)
    assert "\n" not in str(caught.value)
    assert nothing_here == []


@torch.no_grad()
def test_the_hubs_cache_is_read_without_a_connection(tmp_path, monkeypatch, no_network):
    snapshot = tiny.hub_cache(tmp_path, monkeypatch, "facebook/hubert-large-ls960-ft")
    model = HubertForCTC(HubertConfig(**TINY)).eval()
    model.config.save_pretrained(snapshot)
    torch.save(model.state_dict(), snapshot / "pytorch_model.bin")
    heard = torch.randn(1, 16000), torch.tensor([16000])
    found, _ = HuBERTPosteriors.from_pretrained()(*heard)
    assert torch.equal(found, HuBERTPosteriors(model)(*heard)[0])
    assert no_network == []


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        ("config.json", lambda content: content[:30]),
        ("config.json", lambda content: content.replace(b'"hidden_size": 16', b'"hidden_size": 8')),
        ("model.safetensors", lambda content: content[:-100]),
        ("model.safetensors", lambda content: b""),
    ],
    ids=["cut settings", "other settings", "cut tensors", "no tensors"],
)
def test_published_files_that_are_spoilt_are_one_line(tmp_path, file, spoil):
    WavLMModel(WavLMConfig(**TINY)).save_pretrained(tmp_path)
    path = tmp_path / file
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(WeightsError, match=rf"^{tmp_path}.*WavLMModel \(.*\); get it again$"):
        WavLMFeatures.from_pretrained(str(tmp_path), layer=1)


def test_a_published_file_without_a_tensor_is_refused(tmp_path):
    # transformers would leave that tensor random and warn.
    WavLMModel(WavLMConfig(**TINY)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer_norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"it has no encoder\.layer_norm\.weight of this shape"):
        WavLMFeatures.from_pretrained(str(tmp_path), layer=1)


@pytest.mark.parametrize("system", [TakinVCSystem, VocoderResynthesis])
def test_a_system_names_what_its_checkpoint_lacks_and_never_connects(nothing_here, folder, system):
    with pytest.raises(WeightsMissing) as caught:
        system(folder, device="cpu")
    name = "takin_vc" if system is TakinVCSystem else "vocoder"
    assert str(caught.value) == (
        f"{name}: WavLM: no config.json of {WAVLM} in the cache of the Hugging Face hub; "
        f"get them: vcbench doctor --fetch system={name} system.{name}.checkpoint={folder}"
    )
    assert nothing_here == []


def test_a_system_lists_downloads_without_building_its_model(nothing_here, folder, monkeypatch):
    monkeypatch.setattr("takin_vc.checkpoint.build_model", None)
    downloads = [missing.download for missing in TakinVCSystem.missing_weights(folder, steps=3)]
    assert downloads == [
        HubFiles(
            WAVLM,
            files=("config.json",),
            either=("model.safetensors", "pytorch_model.bin"),
            size=1_262_000_000,
        ),
        HubFiles(
            VOCODER,
            files=("config.json",),
            either=(
                "bigvgan_generator.safetensors",
                "model.safetensors",
                "bigvgan_generator.pt",
            ),
        ),
    ]
    with pytest.raises(UserError, match=r"absent/config\.yaml: no such file"):
        TakinVCSystem.missing_weights("absent")


def test_doctor_fetches_what_a_checkpoint_leaves_out(
    nothing_here, folder, tmp_path, monkeypatch, capsys
):
    fetched = []

    def download(repository: str, file: str, revision: str | None) -> None:
        fetched.append((repository, file))
        place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        if not place.exists():
            tiny.hub_cache(tmp_path / "hub", monkeypatch, repository)
        (place / "snapshots" / "0123abc" / file).touch()

    monkeypatch.setattr(weights, "hf_hub_download", download)
    command = ["system=takin_vc", f"system.takin_vc.checkpoint={folder}", "judge=[]"]
    for fetch in ([], ["--fetch"], []):
        with pytest.raises(SystemExit, match="0"):
            main(["doctor", *fetch, *command])
        printed = capsys.readouterr().out
        if not fetched:
            assert f"– takin_vc not available: WavLM: no config.json of {WAVLM}" in printed
            assert "(1262 MB)" in printed
            assert "(size unknown)" in printed
        else:
            assert "✓ takin_vc has its weights" in printed
    assert fetched == [
        (WAVLM, "config.json"),
        (WAVLM, "model.safetensors"),
        (VOCODER, "config.json"),
        (VOCODER, "bigvgan_generator.safetensors"),
    ]
    assert nothing_here == []


def test_the_shipped_checkpoint_asks_for_whisper_once(nothing_here):
    [missing] = TakinVCSystem.missing_weights(Path(__file__).parents[2] / "takin_vc/weights/mini")
    assert missing.download.path.name == "base.pt"
    assert missing.download.size == 145_300_000


def test_weights_that_no_hub_has_are_asked_for_too(nothing_here, folder, tmp_path):
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        config.replace("bigvgan.pretrained", "campplus.pretrained").replace(
            VOCODER, "campplus_cn_en_common.pt"
        )
    )
    [_, missing] = TakinVCSystem.missing_weights(folder)
    assert "on ModelScope" in str(missing)
    assert missing.download is None

"""Checkpoints: what is restored, what is refused, and what the errors say."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from takin_vc.checkpoint import (
    WEIGHTS,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    shipped,
)
from takin_vc.config import ConfigError, load, load_public_weights
from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.tensors import WeightsError, fingerprint, from_8_bits, in_8_bits
from tests.support import tiny_models as tiny

SPEECH = tiny.speech(0.5, 0), tiny.speech(0.5, 1)


def samples(model) -> torch.Tensor:
    return model.convert(*SPEECH, seed=3).samples


@pytest.fixture
def checkpoint() -> Checkpoint:
    return new_checkpoint()


def new_checkpoint() -> Checkpoint:
    return Checkpoint(
        tiny.new(),
        load(["model=tiny"])["model"],
        frozenset({"LibriTTS/train-clean-100"}),
        {"steps": 7, "loss": [0.5, None]},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, written once; not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoint") / "c"
    save_checkpoint(folder, new_checkpoint())
    return folder


@pytest.fixture
def folder(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "c"))


def edit(folder: Path, **values) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_a_checkpoint_rebuilds_its_model(folder, checkpoint):
    loaded = load_checkpoint(folder)
    assert torch.equal(samples(loaded.model), samples(checkpoint.model))
    assert loaded.config == checkpoint.config
    assert loaded.trained_on == {"LibriTTS/train-clean-100"}
    assert loaded.facts == {"steps": 7, "loss": [0.5, None]}
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "model.safetensors"}


def test_settings_of_the_conversion_can_be_others(folder):
    model = load_checkpoint(folder, settings={"steps": 5, "guidance": 0.0}).model
    assert (model.steps, model.guidance) == (5, 0.0)
    with pytest.raises(ValueError, match="unknown solver 'rk4'"):
        load_checkpoint(folder, settings={"solver": "rk4"})


def test_half_precision_halves_the_file_and_hardly_moves_the_audio(tmp_path, folder, checkpoint):
    save_checkpoint(tmp_path / "h", checkpoint, bits=16)
    half, whole = (p / "model.safetensors" for p in (tmp_path / "h", folder))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = load_checkpoint(tmp_path / "h").model
    assert loaded.estimator.null_context.dtype == torch.float32
    assert float((samples(loaded) - samples(checkpoint.model)).abs().mean()) < 0.002


def test_tensors_may_go_into_several_small_files(tmp_path, folder, checkpoint):
    save_checkpoint(tmp_path / "s", checkpoint, file_bytes=400_000)
    files = sorted((tmp_path / "s").glob("model-*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-1-of-{len(files)}.safetensors"
    assert all(path.stat().st_size < 450_000 for path in files)
    assert torch.equal(samples(load_checkpoint(tmp_path / "s").model), samples(checkpoint.model))
    # Written again as one file, nothing of the several stays.
    save_checkpoint(tmp_path / "s", checkpoint)
    assert {p.name for p in (tmp_path / "s").iterdir()} == {p.name for p in folder.iterdir()}


def test_a_file_outside_the_folder_is_not_read(folder):
    edit(folder, files={"../model.safetensors": "0" * 64})
    with pytest.raises(WeightsError, match="is not a file of this folder"):
        load_checkpoint(folder)


@pytest.fixture
def public(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    """Public weights of the PPG, named in the checkpoint's settings and loaded into its model."""
    HybridFormer(**checkpoint.config["content"]["ppg"]["config"]).save(tmp_path / "public")
    checkpoint.config["content"]["ppg"]["_weights_"] = {
        "part": "hybridformer.pretrained",
        "folder": str(tmp_path / "public"),
    }
    load_public_weights(checkpoint.model, checkpoint.config)
    return tmp_path / "public"


def test_public_weights_can_be_left_out(tmp_path, checkpoint, public):
    save_checkpoint(tmp_path / "c", checkpoint, leave_out=["content.ppg"])
    tensors = load_file(tmp_path / "c" / "model.safetensors")
    assert not any(name.startswith("content.ppg.") for name in tensors)
    assert any(name.startswith("content.ppg_projection.") for name in tensors) is False
    loaded = load_checkpoint(tmp_path / "c").model
    assert torch.equal(samples(loaded), samples(checkpoint.model))


def test_other_public_weights_are_refused(tmp_path, checkpoint, public):
    save_checkpoint(tmp_path / "c", checkpoint, leave_out=["content.ppg"])
    HybridFormer(**checkpoint.config["content"]["ppg"]["config"]).save(public)
    with pytest.raises(WeightsError, match=r"other weights of content\.ppg \(sha256"):
        load_checkpoint(tmp_path / "c")
    for path in public.iterdir():
        path.unlink()
    with pytest.raises(WeightsError, match=r"public/config\.yaml: no such file"):
        load_checkpoint(tmp_path / "c")


def test_what_has_no_public_weights_cannot_be_left_out(tmp_path, checkpoint):
    with pytest.raises(ValueError, match=r"'timbre' cannot be left out: .* none\)"):
        save_checkpoint(tmp_path / "c", checkpoint, leave_out=["timbre"])
    assert not (tmp_path / "c").exists()


def test_the_first_tensor_that_differs_is_named(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["estimator"]["hidden"] = 128
    edit(folder, model=config["model"])
    with pytest.raises(
        WeightsError,
        match=r"'estimator.time.0.weight' has shape \(64, 64\), .* TakinVC needs \(128, 128\)",
    ):
        load_checkpoint(folder)


def test_a_missing_tensor_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["estimator.norm.bias"]
    save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder, files={"model.safetensors": digest})
    with pytest.raises(WeightsError, match=r"has no tensor 'estimator\.norm\.bias'"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: no such"):
        load_checkpoint(folder)


def test_a_file_cut_short_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model\.safetensors: its sha256 is not .* cut short"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trained_on", "LibriTTS"),
        ("trained_on", None),
        ("trained_on", {"LibriTTS": 1}),
        ("trained_on", ["LibriTTS", 7]),
        ("left_out", ["content.ppg"]),
        ("left_out", {"content.ppg": 3}),
        ("files", {"model.safetensors": None}),
        ("files", "model.safetensors"),
        ("model", None),
        ("facts", [1]),
    ],
)
def test_a_value_of_another_kind_is_named_with_its_file_and_key(folder, key, value):
    edit(folder, **{key: value})
    with pytest.raises(
        WeightsError, match=rf"config\.yaml: {key} is .*, not a (list|mapping)"
    ) as e:
        load_checkpoint(folder)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mel_std", float("nan")),
        ("flow.sigma_min", float("inf")),
        ("mel_std", 0),
        ("mel_mean", "loud"),
        ("steps", 2.5),
        ("guidance", "much"),
        ("timbre.heads", 0),
        ("estimator.hidden", -64),
        ("vocoder.upsample_rates", 5),
        ("vocoder.upsample_rates", []),
        ("mel.sample_rate", "16 kHz"),
        ("content", []),
        ("content.ppg.config.layers", "x"),
        ("flow", None),
        ("vocoder._weights_", 3),
    ],
)
def test_senseless_settings_are_one_line_that_names_the_file(folder, key, value):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    *parents, last = ["model", *key.split(".")]
    node = config
    for name in parents:
        node = node[name]
    node[last] = value
    edit(folder, **config)
    with pytest.raises(ConfigError, match=rf"^{folder}/config\.yaml: \S") as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_settings_of_the_caller_are_not_blamed_on_the_file(folder):
    for settings in ({"guidance": float("nan")}, {"steps": "many"}, {"reference_seconds": []}):
        with pytest.raises(ConfigError) as caught:
            load_checkpoint(folder, settings=settings)
        assert str(folder) not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"format: 2\nmodel: {a: [", b"a: " + b"[" * 1200, b"x: \x00"],
    ids=["empty", "binary", "cut", "deep", "a null byte"],
)
def test_settings_that_cannot_be_read_are_one_line(folder, content):
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"config\.yaml: (not plain YAML|format 'NoneType')"
    ) as e:
        load_checkpoint(folder)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: b"",
        lambda c: c[:5],
        lambda c: c[:-100],
        lambda c: b"\xff" * 8 + c[8:],
        lambda c: b"<html>",
    ],
    ids=["empty", "a few bytes", "cut", "a header without end", "a web page"],
)
def test_tensors_that_cannot_be_read_are_one_line(folder, spoil):
    """Also where somebody has put the spoilt file's hash into the settings."""
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"model\.safetensors: its sha256 is not"):
        load_checkpoint(folder)
    edit(folder, files={path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
    with pytest.raises(
        WeightsError, match=r"model\.safetensors: not a whole weight file \(.*\); get"
    ):
        load_checkpoint(folder)


def test_loading_runs_no_code_out_of_the_file(folder, tmp_path):
    trace = tmp_path / "trace"
    path = folder / "config.yaml"
    text = path.read_text()
    path.write_text(f"x: !!python/object/apply:pathlib.Path.touch [{trace}]\n" + text)
    with pytest.raises(WeightsError, match="not plain YAML"):
        load_checkpoint(folder)
    path.write_text(text)
    config = yaml.safe_load(text)["model"]
    for target in ("pathlib.Path.touch", "os.mkdir", "takin_vc.checkpoint.Path.touch"):
        config["flow"] = {"part": target, "self": str(trace), "path": str(trace)}
        edit(folder, model=config)
        with pytest.raises(ConfigError, match="flow: no part is called"):
            load_checkpoint(folder)
    assert not trace.exists()


def test_another_format_is_named(folder):
    edit(folder, format=1)
    with pytest.raises(WeightsError, match="format 1; this version reads 3"):
        load_checkpoint(folder)
    (folder / "config.yaml").write_text("[]")
    with pytest.raises(WeightsError, match="format 'list'"):
        load_checkpoint(folder)
    (folder / "config.yaml").write_text("format: 3\nmodel: {}\n")
    with pytest.raises(WeightsError, match="lacks facts, files, left_out, trained_on"):
        load_checkpoint(folder)


def test_only_plain_values_are_written(tmp_path, checkpoint):
    odd = Checkpoint(checkpoint.model, checkpoint.config, frozenset(), {"loss": torch.ones(1)})
    with pytest.raises(TypeError, match="plain values only, not Tensor"):
        save_checkpoint(tmp_path / "c", odd)


def test_8_bits_move_a_weight_by_half_a_step_at_most():
    tensors = {
        "matrix": torch.tensor([[0.5, -1.27, 0.0], [100.0, 3.0, -127.0]]),
        "zeros": torch.zeros(2, 3),
        "vector": torch.tensor([0.123456789]),
        "counts": torch.tensor([[3, 4]]),
    }
    stored = in_8_bits(tensors)
    assert stored["matrix"].dtype == torch.int8
    assert stored["matrix"].tolist() == [[50, -127, 0], [100, 3, -127]]
    restored = from_8_bits(stored)
    assert restored.keys() == tensors.keys()
    steps = torch.tensor([[0.01], [1.0]])
    assert bool(((restored["matrix"] - tensors["matrix"]).abs() <= steps / 2 + 1e-6).all())
    for name in ("zeros", "vector", "counts"):
        assert torch.equal(restored[name], tensors[name])


def test_a_checkpoint_of_8_bits_is_small_and_loads(tmp_path):
    checkpoint = new_checkpoint()
    save_checkpoint(tmp_path / "32", checkpoint)
    save_checkpoint(tmp_path / "8", checkpoint, bits=8, file_bytes=20_000)
    sizes = [
        sum(f.stat().st_size for f in (tmp_path / n).glob("*.safetensors")) for n in ("32", "8")
    ]
    assert sizes[1] < 0.45 * sizes[0]
    loaded = load_checkpoint(tmp_path / "8").model.state_dict()
    for name, tensor in checkpoint.model.state_dict().items():
        if tensor.is_floating_point():
            largest = float(tensor.abs().max()) if tensor.numel() else 0.0
            assert float((loaded[name] - tensor).abs().max()) <= largest / 254 + 1e-6, name


def test_a_part_of_a_shipped_checkpoint_has_its_weights():
    part = shipped(source="mini", name="voiceprint")
    whole = load_checkpoint(WEIGHTS / "mini").model.voiceprint
    assert fingerprint(part.state_dict()) == fingerprint(whole.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "minni", "name": "vocoder"}, "no checkpoint 'minni'"),
        ({"source": "../mini", "name": "vocoder"}, "no checkpoint '../mini'"),
        ({"source": "mini", "name": "steps"}, "no part 'steps'"),
    ],
)
def test_what_is_not_shipped_is_refused(arguments, message):
    with pytest.raises(WeightsError, match=message):
        shipped(**arguments)

"""Weight files: what is read, what is refused, and what the errors say."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from takin_vc.tensors import (
    MissingWeights,
    WeightsError,
    find_files,
    fingerprint,
    load_tensors,
    read_tensors,
)
from tests.support import tiny_models as tiny


def test_nested_names_are_joined_and_other_values_left_out(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"generator": {"a.b": torch.ones(2)}, "steps": 7, "x": torch.zeros(1)}, path)
    read = read_tensors(path)
    assert read.keys() == {"generator.a.b", "x"}
    assert read["generator.a.b"].tolist() == [1, 1]


def test_safetensors_come_back_as_saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(3)}, path)
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    torch.save({"a": Runs(trace)}, path)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        read_tensors(path)
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Runs(trace), protocol=2))
    with pytest.raises(WeightsError):
        read_tensors(bare)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_cut_short_is_named(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save({"a": torch.ones(1000)}, path)
    else:
        save_file({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(WeightsError, match=rf"model{suffix}: not a whole weight file"):
        read_tensors(path)
    with pytest.raises(WeightsError, match="no such weight file"):
        read_tensors(tmp_path / "absent.pt")


def test_load_names_the_first_tensor_that_differs():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    good = {name: torch.randn_like(t) for name, t in module.state_dict().items()}
    load_tensors(module, good, "file")
    assert torch.equal(module[1].weight, good["1.weight"])
    with pytest.raises(WeightsError, match=r"file: '0.bias' has shape \(4,\), .* needs \(3,\)"):
        load_tensors(module, good | {"0.bias": torch.ones(4), "1.bias": torch.ones(4)}, "file")
    with pytest.raises(
        WeightsError, match=r"file: has no tensor '1.weight', which this Sequential"
    ):
        load_tensors(module, {k: v for k, v in good.items() if k != "1.weight"}, "file")
    with pytest.raises(WeightsError, match=r"file: has a tensor '2.weight', which this Sequential"):
        load_tensors(module, good | {"2.weight": torch.ones(1)}, "file")


def test_files_come_from_a_file_a_folder_or_the_hubs_cache(tmp_path, monkeypatch, no_network):
    file = tmp_path / "b.pt"
    file.touch()
    assert find_files(file, files=("a.pt",), what="Test") == [file]
    assert find_files(tmp_path, either=("a.pt", "b.pt"), what="Test") == [file]
    with pytest.raises(WeightsError, match=r"Test: .* holds no c\.pt or d\.pt; put it there"):
        find_files(tmp_path, either=("c.pt", "d.pt"), what="Test")
    with pytest.raises(WeightsError, match=r"Test: .*absent: no such file or folder; .* a\.pt"):
        find_files(tmp_path / "absent", files=("a.pt",), what="Test")

    model = {"files": ("config.json",), "either": ("a.pt", "b.pt"), "what": "Test"}
    snapshot = tiny.hub_cache(tmp_path / "hub", monkeypatch, "owner/name", "config.json")
    with pytest.raises(MissingWeights) as caught:
        find_files("owner/name", **model)
    assert str(caught.value) == (
        "Test: no a.pt or b.pt of owner/name in the cache of the Hugging Face hub; get them: "
        "hf download owner/name config.json b.pt"
    )
    assert caught.value.repository == "owner/name"
    assert (caught.value.files, caught.value.either) == (model["files"], model["either"])
    (snapshot / "b.pt").touch()
    assert find_files("owner/name", **model) == [snapshot / "config.json", snapshot / "b.pt"]
    with pytest.raises(MissingWeights, match=r"no config\.json of other/name"):
        find_files("other/name", **model)


def test_fingerprint_sees_values_shapes_and_names_but_no_order():
    a, b = torch.ones(2, 3), torch.zeros(1)
    same = fingerprint({"a": a, "b": b})
    assert fingerprint({"b": b, "a": a.clone()}) == same
    for other in (
        {"a": a.T, "b": b},
        {"c": a, "b": b},
        {"a": a * 2, "b": b},
        {"a": a.double(), "b": b},
    ):
        assert fingerprint(other) != same

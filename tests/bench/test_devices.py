"""The setting `device`, which all judges and Takin-VC resolve in the same way."""

import pytest
import torch

from bench.cli.settings import load, options
from bench.devices import torch_device
from bench.errors import UserError
from bench.judges.dnsmos import DNSMOS
from bench.objects import build


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs torch reports."""

    def set_number(number: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return set_number


def test_auto_is_the_first_gpu_where_there_is_one(gpus):
    gpus(0)
    assert torch_device("auto") == torch.device("cpu")
    gpus(2)
    assert torch_device("auto") == torch.device("cuda")
    assert torch_device("cpu") == torch.device("cpu")
    assert torch_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("cuda", 0, "device=cuda: torch finds no GPUs on this machine; device=auto takes"),
        ("cuda:1", 1, "device=cuda:1: torch finds 1 GPU on this machine"),
        ("cud", 1, r"did you mean 'cuda'\? known: auto, cpu, cuda"),
        ("meta", 1, "device=meta: no such device"),
        ("cuda:x", 1, "device=cuda:x: no such device"),
        ("", 1, "device=: no such device"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(gpus, name, number, message):
    gpus(number)
    with pytest.raises(UserError, match=message) as caught:
        torch_device(name)
    assert "\n" not in str(caught.value)


def devices(config) -> dict[str, str]:
    """The device of everything that has the setting, by group and name."""
    resolved = {}
    for group in ("judge", "system"):
        for name, node in config[group].items():
            for part in (node, node.get("encoder"), node.get("recogniser")):
                if part is not None and "device" in part:
                    resolved[f"{group} {name}"] = part.device
    return resolved


def test_one_setting_is_for_all_and_a_parts_setting_overrides_it():
    everything = [f"{group}=[{','.join(options(group))}]" for group in ("judge", "system")]
    computing = devices(load(everything))
    assert set(computing.values()) == {"auto"}
    # Twenty judges have a model that torch runs, and 25 systems.
    assert len(computing) == 45
    command = [*everything, "device=cpu", "judge.dnsmos.device=cuda"]
    assert devices(load(command)) == dict.fromkeys(computing, "cpu") | {"judge dnsmos": "cuda"}


def test_a_judges_scores_are_cached_whatever_computed_them(gpus):
    gpus(1)
    node = load(["judge=dnsmos"]).judge.dnsmos
    on_gpu, on_cpu = build(node, "dnsmos"), DNSMOS(device="cpu")
    assert (on_gpu.device.type, on_cpu.device.type) == ("cuda", "cpu")
    assert on_gpu.fingerprint == on_cpu.fingerprint

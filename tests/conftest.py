"""Shared fixtures: small suites of real speech, in copies that a test may damage."""

import gc
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from huggingface_hub import constants

from bench.metrics import registry_restored
from bench.trials import Suite, Utterance
from suites.build import MANIFESTS, MINI

MANIFEST = MANIFESTS / "mini_cross_gender.v2.jsonl"

# Files of few tests that take long. They begin first, so that no processor waits at the end.
LONGEST = (
    "tests/documents/test_blocks.py",
    "tests/takin_vc/train/test_processes.py",
    "tests/bench/stages/test_isolated.py",
    "tests/bench/judges/test_wer.py",
    "tests/baselines/test_world.py",
    "tests/bench/cli/test_verbs.py",
    "tests/benchmarks/programs/test_full_size.py",
    "tests/baselines/worker/",
    "tests/bench/run/test_array.py",
    "tests/takin_vc/test_readme.py",
    "tests/bench/judges/",
    "tests/bench/stats/",
    "tests/takin_vc/test_mini.py",
    "tests/bench/validity/test_flags.py",
    "tests/takin_vc/",
)

# With Python's 700, 10 and 10, 548 tests took a tenth more of the processor's time: each collection
# of the oldest objects visits all that torch, pandas and the like have made.
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def metrics_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Metrics that a test registers are unknown to the next one, and its folder is not searched."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    with registry_restored():
        yield


@pytest.fixture(scope="session")
def recordings() -> list[Utterance]:
    """Every recording of the embedded corpus."""
    return list(Suite.load(MANIFEST, root=MINI).utterances.values())


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """The first four trials of mini_cross_gender as JSON objects: one of each gender pair."""
    return [json.loads(line) for line in MANIFEST.read_text().splitlines()[:4]]


@pytest.fixture
def corpus(tmp_path: Path, lines: list[dict[str, Any]]) -> Path:
    """A copy of the recordings of those trials, which a test may change."""
    root = tmp_path / "corpus"
    for line in lines:
        for utterance in (
            line["source"],
            line["target"],
            *line["references"],
            *line["enrolment"],
            *line["source_enrolment"],
        ):
            (root / utterance["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(MINI / utterance["path"], root / utterance["path"])
    return root


@pytest.fixture
def load_suite(tmp_path: Path, corpus: Path) -> Callable[..., Suite]:
    """Writes trials as a manifest and loads it over the copied corpus."""

    def load(trials: list[Any], **arguments: Any) -> Suite:
        manifest = tmp_path / "trials.jsonl"
        manifest.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
        return Suite.load(manifest, root=corpus, name="small", **arguments)

    return load


@pytest.fixture
def suite(load_suite: Callable[..., Suite], lines: list[dict[str, Any]]) -> Suite:
    """Four trials of real speech, one of each gender pair."""
    return load_suite(lines)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets no socket connect, with downloads allowed; every address that was tried."""
    tried: list[Any] = []

    def refuse(*address: Any, **_: Any) -> NoReturn:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of `tests/slow.txt` as slow, and puts the `LONGEST` files first.

    `make quick` leaves slow tests out. The order holds for `--no-loadscope-reorder`.
    """
    lines = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    slow = tuple(line for line in lines if line and not line.startswith("#"))
    for item in items:
        if item.nodeid.startswith(slow):
            item.add_marker(pytest.mark.slow)

    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(LONGEST) if item.nodeid.startswith(name)), 99)

    items.sort(key=place)  # stable: the tests of a file stay together

"""A run on disk with sounds of three systems, and listening tests of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.audio import Waveform
from bench.files import sha256_of
from bench.results import ScoredRun
from bench.run.folder import read_report
from bench.run.recordings import store_trials
from reports.listening.export import Presentation, write_test
from reports.listening.stimuli import ListeningTest, Options, design_test
from reports.listening.wording import read_wording
from tests.support import made_up

SYSTEMS = ("world", "knn", "diffusion")
LEVELS = {"world": (0.2, 0), "knn": (0.9, 3000), "diffusion": (0.5, 8000)}  # gain, silent samples


def write_run(folder: Path, limit: int | None = None, systems: tuple[str, ...] = SYSTEMS) -> Path:
    """A scored run over embedded speech whose systems differ in level, silence and length."""
    suites = ("mini_cross_gender",)
    results = made_up.make_results(folder, limit, dict.fromkeys(systems, "world"), suites)
    table = results.scores.copy()
    for row in table.itertuples():
        path = folder / str(row.wav)
        if row.system in LEVELS:
            gain, silent = LEVELS[str(row.system)]
            sound = Waveform.from_numpy(_changed(path, gain, silent), 16000)
            sound.save(path)
        table.loc[row.Index, "wav_sha256"] = sha256_of(path)
    hashes = {name: store_trials(folder, suite) for name, suite in results.suites.items()}
    facts: dict[str, Any] = {
        **results.facts,
        "suites": {
            name: {"sha256": suite.sha256, "list": hashes[name]}
            for name, suite in results.suites.items()
        },
    }
    return made_up.write_folder(folder, facts, table, lambda _: results.summary)


def _changed(path: Path, gain: float, silent: int) -> np.ndarray:
    from bench.audio import load

    samples = load(path).resample(16000).numpy()
    return np.concatenate([np.zeros(silent, np.float32), gain * samples, np.zeros(2 * silent)])


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """Three systems over the 72 trials of the embedded corpus, with `source` and `target`."""
    return read_report(write_run(tmp_path_factory.mktemp("runs") / "mini"))


@pytest.fixture(scope="session")
def make(run: ScoredRun) -> Callable[..., ListeningTest]:
    """Designs a test of `run`."""

    def design(kind: str, **options: Any) -> ListeningTest:
        return design_test(run, Options(kind, **options), read_wording(kind))

    return design


@pytest.fixture(scope="session")
def exported(
    make: Callable[..., ListeningTest], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes a small test of each kind, once a session."""
    folders: dict[tuple[str, int], Path] = {}

    def export(kind: str, training: int = 0) -> Path:
        if (kind, training) not in folders:
            folder = tmp_path_factory.mktemp("tests") / kind
            test = make(kind, trials=8, listeners=8, systems=SYSTEMS[:2], training=training)
            write_test(test, folder, Presentation(url="https://example.org/audio"))
            folders[kind, training] = folder
        return folders[kind, training]

    return export

"""What the folder of a page has before its first block runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from bench.run.folder import read_report
from reports.listening.export import Presentation, write_test
from reports.listening.stimuli import Options, design_test
from reports.listening.wording import DEFAULT, read_wording
from suites.build import MANIFESTS, MINI
from tests.reports.listening.conftest import write_run
from tests.suites import miniatures
from tests.support import made_up
from tests.support.simulation import ring

SYSTEMS = ("world", "knn", "takin_vc")
SOURCE, TARGET = ring()


def copied(folder: Path, to: Path) -> None:
    """Copies a folder whose files are replaced, never changed: by hard links."""
    shutil.copytree(folder, to, copy_function=shutil.os.link)  # type: ignore[attr-defined]


def versions(folder: Path) -> None:
    """outputs/v12 and v13, which is a little better; s0, s1 and s2 differ in the seed."""
    rng = np.random.default_rng(0)
    base = 0.6 + 0.05 * rng.normal(size=72) + 0.05 * rng.normal(size=18)[TARGET]
    for name, gain in (("v12", 0.0), ("v13", 0.02)):
        secs = base + gain + 0.015 * rng.normal(size=72)
        made_up.write(made_up.run(name, made_up.scores("a", secs), folder=folder / "outputs"))
    for seed in range(3):
        secs = base + 0.01 * rng.normal(size=72)
        settings = {"seed": seed}
        made_up.write(
            made_up.run(
                f"s{seed}",
                made_up.scores("a", secs),
                folder=folder / "outputs",
                settings=settings,
            )
        )


def corpus(folder: Path) -> None:
    """trials.jsonl, one trial of real speech, and corpus/, the folder of its recordings."""
    lines = (MANIFESTS / "mini_cross_gender.v2.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "trials.jsonl").write_text("\n".join(lines[:1]) + "\n", encoding="utf-8")
    (folder / "corpus").symlink_to(MINI)


def wavs(folder: Path) -> None:
    """wavs/, finished conversions of the first 4 trials of mini_cross_gender but one."""
    sounds = sorted((folder / "outputs" / "mini" / "wav" / "world").rglob("*.wav"))
    (folder / "wavs").mkdir()
    for path in sounds:
        shutil.copyfile(path, folder / "wavs" / path.name)


def answers(folder: Path) -> None:
    """listening/, a test of outputs/mini, and answers/, those of 8 listeners.

    They prefer, from best to worst: source, takin_vc, knn, world.
    """
    test = design_test(
        read_report(folder / "outputs" / "mini"),
        Options("nmos", trials=8, listeners=8, traps=0, gold=0, repeats=0),
        read_wording("nmos"),
    )
    write_test(test, folder / "listening", Presentation())
    exported = json.loads((folder / "listening" / "test.json").read_text())
    key = json.loads((folder / "listening" / "key.json").read_text())["stimuli"]
    shown = {screen["screen"]: screen["stimuli"][0] for screen in exported["screens"]}
    level = {"source": 5, "takin_vc": 4, "knn": 3, "world": 2}
    rng = np.random.default_rng(0)
    (folder / "answers").mkdir()
    for group, screens in enumerate(exported["groups"]):
        rows = ["listener,stimulus,rating"]
        for stimulus in (shown[screen] for screen in screens):
            rating = level[key[stimulus]["system"]] + rng.integers(-1, 2)
            rows.append(f"L{group},{stimulus},{min(max(rating, 1), 5)}")
        (folder / "answers" / f"L{group}.csv").write_text("\n".join(rows) + "\n")


def recordings(folder: Path) -> None:
    """two.wav and four.wav, instructions; earlier.csv, ratings of outputs/mini."""
    sounds = sorted((folder / "outputs" / "mini" / "wav" / "knn").rglob("*.wav"))
    for name, path in zip(("two.wav", "four.wav"), sounds, strict=False):
        (folder / name).symlink_to(path)
    scores = pd.read_csv(folder / "outputs" / "mini" / "scores.csv")
    trials = sorted(scores["trial_id"].unique())[:12]
    rows = [
        (f"l{listener}", SYSTEMS[(listener + t) % 3], trial, 1 + (listener * t + t) % 5)
        for listener in range(6)
        for t, trial in enumerate(trials)
    ]
    table = pd.DataFrame(rows, columns=["listener", "system", "trial_id", "rating"])
    table.to_csv(folder / "earlier.csv", index=False)
    table.to_csv(folder / "ratings.csv", index=False)


def wording(folder: Path) -> None:
    """german.yaml, which is not German but says so."""
    text = DEFAULT.read_text(encoding="utf-8").replace("language: en", "language: de")
    (folder / "german.yaml").write_text(text, encoding="utf-8")


def my_corpus(folder: Path) -> None:
    """my_corpus/, a folder of recordings with one CSV."""
    (folder / "my_corpus").symlink_to(MINI)


def miniature_corpora(folder: Path) -> None:
    """corpora/: LibriTTS and ESD with a few recordings each."""
    speakers = [*miniatures.WOMEN[:3], *miniatures.MEN[:3]]
    miniatures.libritts(folder / "corpora" / "LibriTTS", speakers, count=7)
    miniatures.esd(folder / "corpora" / "ESD", neutral=10)


CONTENTS: dict[str, Callable[[Path], None]] = {
    "versions": versions,
    "corpus": corpus,
    "wavs": wavs,
    "answers": answers,
    "recordings": recordings,
    "wording": wording,
    "my_corpus": my_corpus,
    "corpora": miniature_corpora,
}  # and "run": outputs/mini, over 24 embedded trials, by `SYSTEMS`


@contextmanager
def scored_run(folder: Path) -> Iterator[Path]:
    """A scored run with planted scores and real sounds."""
    yield write_run(folder / "mini", limit=24, systems=SYSTEMS)

"""Times the export of a listening test: `python -m benchmarks.programs.stimuli [trials] [systems]`.

The run is made up: sounds of 5 s of modulated noise at 24 kHz, each trial another sentence.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bench.audio import Waveform
from bench.results import ScoredRun
from bench.trials import Suite, Trial, Utterance
from reports.listening.export import write_test
from reports.listening.stimuli import Options, design_test
from reports.listening.wording import read_wording

RATE, SECONDS = 24_000, 5


def made_up(folder: Path, trials: int, systems: int) -> ScoredRun:
    """A run of `systems` systems over `trials` trials, with a floor."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(RATE * SECONDS) / RATE
    names = [*(f"system{i}" for i in range(systems)), "source"]
    rows, listed = [], []
    for t in range(trials):
        speech = rng.normal(0, 0.1, len(time_axis)) * np.sin(np.pi * (1 + t % 3) * time_axis)
        for name in names:
            path = folder / "wav" / name / f"{t}.wav"
            Waveform.from_numpy(speech, RATE).save(path)
            rows.append((name, "s", f"t{t}", "ok", str(path.relative_to(folder))))
        source = Utterance(f"s{t}", f"S{t % 10}", "FM"[t % 2], path, f"sentence {t}")
        voice = Utterance(f"r{t}", f"R{t % 7}", "FM"[t // 2 % 2], path, f"reference {t}")
        listed.append(Trial(f"t{t}", source, (voice,), ()))
    scores = pd.DataFrame(rows, columns=["system", "suite", "trial_id", "status", "wav"])
    facts = {"anchors": {"source": "floor"}, "sha256": "0"}
    suites = {"s": Suite("s", tuple(listed), "0")}
    return ScoredRun("made_up", folder, facts, scores, pd.DataFrame(), suites)


def main(trials: int = 100, systems: int = 6) -> None:
    """Prints the seconds of an export."""
    with tempfile.TemporaryDirectory() as temporary:
        run = made_up(Path(temporary) / "run", trials, systems)
        start = time.perf_counter()
        test = design_test(run, Options("nmos", trials=trials), read_wording("nmos"))
        write_test(test, Path(temporary) / "test")
        seconds = time.perf_counter() - start
        print(f"{trials} trials × {systems} systems: {len(test.ids)} sounds in {seconds:.1f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Measures what `executor=ray` costs over `executor=local`: one worker, trials of a known length.

    python -m benchmarks.programs.overhead                # 60 trials of 1 s each; needs Ray
    python -m benchmarks.programs.overhead --trials 20 --seconds 0.5

The system sleeps, and the judge measures durations. Each measurement is a process of its own,
`vcbench run`. Printed are

    a trial   seconds from one conversion to the next: from the times of the first and last sound
    whole     seconds of the process, with imports, the start of Ray and its workers, and the tables

and the ratio of both executors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = "mini_cross_gender"
SETTINGS = (
    *("name=run", f"suite={SUITE}", "report=[]", "progress=none"),
    *("system=tests.support.fakes.Slow", "judge=[tests.support.fakes.Length]"),
)
RAY = ("executor=ray", "executor.convert.workers=1", "executor.judge.workers=1")
EXECUTORS = {"local": ("executor=local",), "ray": RAY}


def measured(executor: str, trials: int, seconds: float) -> dict[str, float]:
    """Runs one executor: the seconds of a trial, and of the whole process."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    size = (f"limit={trials}", f"+system.slow.seconds={seconds}")
    command = [sys.executable, "-m", "bench", "run", *SETTINGS, *size, *EXECUTORS[executor]]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True)
        whole = time.monotonic() - begun
        sounds = Path(folder, "outputs", "run", "wav", "slow", SUITE).glob("*.wav")
        times = sorted(path.stat().st_mtime for path in sounds)
        rows = Path(folder, "outputs", "run", "scores.csv").read_text().count("\n") - 1
    if not len(times) == rows == trials:
        sys.exit(f"{executor}: {len(times)} sounds and {rows} rows of {trials} trials")
    return {"a trial": (times[-1] - times[0]) / (trials - 1), "whole": whole}


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Prints both measurements and their ratio; with --json it also writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=60, help="2 to 72")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a conversion")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    results = {name: measured(name, given.trials, given.seconds) for name in EXECUTORS}
    local, ray = results["local"], results["ray"]
    results["ratio"] = {key: ray[key] / local[key] for key in local}
    for name, values in results.items():
        print(f"{name:8}", *(f"{key} {value:8.3f}  " for key, value in values.items()))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()

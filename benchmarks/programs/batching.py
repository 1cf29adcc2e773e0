"""Measures how much batching changes the scores of every judge, over all 136 embedded utterances.

    python -m benchmarks.programs.batching             # judges with real weights on this machine
    python -m benchmarks.programs.batching --random    # the others at full size, random weights
    python -m benchmarks.programs.batching --judges secs_resemblyzer --batch-sizes 1 3 16
    python -m benchmarks.programs.batching --device cuda --random

Each judge scores each utterance alone, then in shuffled batches of 3 and of 16. The program prints
the largest differences and exits with 1 if one is above its tolerance: 1e-3; 1e-4 for SECS; for WER
no transcript may change. `--every 8` takes every eighth utterance.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.audio import Waveform
from bench.cli.settings import load
from bench.judges import Converted
from bench.objects import build
from bench.weights.find import WeightsMissing
from benchmarks.programs import random_judges
from suites.build import MINI
from suites.corpora.table import utterances

EMBEDDED = ("secs_resemblyzer", "wer_whisper_base", "distillmos", "dnsmos", "utmos")
TOLERANCES = {"embedding": 1e-4, "transcript": 0, "score": 1e-3}


def answers(judge: Any, batch_size: int) -> tuple[str, Callable[[Sequence[Waveform]], list[Any]]]:
    """The kind of answer of the judge's model (a key of `TOLERANCES`), and the model at this batch
    size as a function of waveforms."""
    if hasattr(judge, "encoder"):
        judge.encoder.batch_size = batch_size
        return "embedding", lambda clips: list(judge.encoder.embed(clips))
    if hasattr(judge, "recogniser"):
        judge.recogniser.batch_size = batch_size
        return "transcript", lambda clips: [t.text for t in judge.recogniser.transcribe(clips)]
    judge.batch_size = batch_size

    def score(clips: Sequence[Waveform]) -> list[Any]:
        rows = judge.score([Converted(str(n), converted=clip) for n, clip in enumerate(clips)])
        return [np.array([v for v in row.values() if isinstance(v, float)]) for row in rows]

    return "score", score


def difference(kind: str, batched: Sequence[Any], alone: Sequence[Any]) -> float:
    """The largest difference between two lists of answers.

    For embeddings: of the cosine of any two utterances. For transcripts: how many differ.
    """
    if kind == "transcript":
        return float(sum(a != b for a, b in zip(batched, alone, strict=True)))
    if kind == "embedding":
        one, other = np.stack(batched), np.stack(alone)
        return float(np.abs(one @ one.T - other @ other.T).max())
    return float(max(np.abs(a - b).max() for a, b in zip(batched, alone, strict=True)))


def main() -> None:
    """Prints a table for every judge; exits with 1 if a difference is above its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--judges", nargs="*", help="names; None for all that can be had")
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[3, 16])
    parser.add_argument("--every", type=int, default=1, help="only every so many utterances")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--random", action="store_true", help="random weights, full size")
    parser.add_argument("--tiny", action="store_true", help="random weights, a few kilobytes")
    arguments = parser.parse_args()
    clips = [u.load() for u in utterances(MINI / "utterances.csv")[:: arguments.every]]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.random or arguments.tiny:
            judges = random_judges.make(
                Path(folder), arguments.device, arguments.tiny, arguments.judges
            )
        else:
            configured = {}
            config = load([f"judge=[{','.join(arguments.judges or EMBEDDED)}]"])
            for name, node in config.judge.items():
                try:
                    configured[str(name)] = build(node, f"judge {name}")
                except WeightsMissing as error:
                    print(f"{name}: {error}")
            judges = iter(configured.items())
        for name, judge in judges:
            wrong += [name] if not check(name, judge, clips, arguments.batch_sizes) else []
    if wrong:
        sys.exit(f"batches move the numbers of {', '.join(wrong)}")


def check(name: str, judge: Any, clips: Sequence[Waveform], batch_sizes: Sequence[int]) -> bool:
    """Prints a line for each batch size; returns whether all are within the tolerance."""
    kind, answer = answers(judge, 1)
    begun = time.perf_counter()
    alone = [answer([clip])[0] for clip in clips]
    seconds = (time.perf_counter() - begun) / len(clips)
    print(f"{name:24} {len(clips)} utterances alone: {seconds:.3f} s each", flush=True)
    good = True
    for batch_size in batch_sizes:
        _, answer = answers(judge, batch_size)
        order = np.random.default_rng(batch_size).permutation(len(clips))
        begun = time.perf_counter()
        shuffled = answer([clips[i] for i in order])
        seconds = (time.perf_counter() - begun) / len(clips)
        batched: list[Any] = [None] * len(clips)
        for index, result in zip(order, shuffled, strict=True):
            batched[index] = result
        moved = difference(kind, batched, alone)
        good &= moved <= TOLERANCES[kind]
        unit = "transcripts differ" if kind == "transcript" else f"max abs difference of {kind}s"
        print(f"  batches of {batch_size:2}: {moved:.1e} {unit}, {seconds:.3f} s each", flush=True)
    return good


if __name__ == "__main__":
    main()

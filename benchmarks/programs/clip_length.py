"""Measures how a judge's scores depend on the length of a clip: prefixes of clean recordings.

    python -m benchmarks.programs.clip_length distillmos dnsmos

Takes 24 embedded recordings of 8 s or more, cuts each to its first 1, 2, 3, 4, 6 and 8 s, and
prints the mean score of each length for each leading metric of naturalness.
"""

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cli.settings import load
from bench.judges import Converted
from bench.metrics import METRICS, NATURALNESS, leading
from bench.objects import build
from suites.build import MINI
from suites.corpora.table import utterances

SECONDS = (1, 2, 3, 4, 6, 8)
RECORDINGS = 24


def means(judge: str, seconds: Sequence[float]) -> tuple[str, list[float]]:
    """The label of the judge's leading metric of naturalness, and its mean at each length."""
    settings = load([f"judge=[{judge}]"])
    built = build(settings.judge[judge], f"judge {judge}")
    [(_, name)] = leading([(judge, metric) for metric in built.metrics], [NATURALNESS])
    clips = [u.load() for u in utterances(MINI / "utterances.csv")]
    long = [clip for clip in clips if clip.seconds >= max(seconds)][:RECORDINGS]
    items = [
        Converted(f"{n}", converted=clip.first(length))
        for length in seconds
        for n, clip in enumerate(long)
    ]
    values = [float(c[METRICS[name].numerator] or np.nan) for c in built.score(items)]
    return METRICS[name].label, list(np.mean(np.reshape(values, (len(seconds), -1)), axis=1))


def main(judges: Sequence[str]) -> None:
    table = Table("metric", *(f"{s} s" for s in SECONDS))
    for judge in judges:
        label, values = means(judge, SECONDS)
        table.add_row(label, *(f"{value:.2f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or ["distillmos", "dnsmos"])

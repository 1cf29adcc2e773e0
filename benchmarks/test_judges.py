"""Times scoring the same rows one at a time (as seed-vc's eval.py does) and with the harness.

`make benchmarks ARGS="-s benchmarks/test_judges.py"`, 10 minutes. Real weights on the CPU.
Environment variables set the number of rows (see the constants below). On a GPU, with models of the
papers' sizes: `python -m benchmarks.programs.judges_gpu`.
"""

import os
import time

import pytest

from bench.judges import Converted
from bench.judges.dnsmos import DNSMOS
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.judges.recognisers.whisper import Whisper
from bench.judges.secs import SECS
from bench.judges.wer import WER
from bench.stages import sounds
from bench.stages.cache import ScoreCache
from bench.stages.score import score_rows
from benchmarks.programs.loop import AsPublished, converted, crossed, embedded, one_at_a_time
from suites.build import MINI
from suites.corpora.table import utterances

TRIALS = int(os.getenv("VCBENCH_TRIALS", "8"))  # of each suite
SOURCES = int(os.getenv("VCBENCH_SOURCES", "3"))
TARGETS = int(os.getenv("VCBENCH_TARGETS", "5"))


@pytest.fixture(scope="module", params=["embedded", "crossed"])
def folder(request, tmp_path_factory):
    return tmp_path_factory.mktemp(request.param)


@pytest.fixture(scope="module")
def rows(folder):
    """The rows of the embedded benchmark, or of one system with different pairs only."""
    if folder.name.startswith("embedded"):
        return embedded(TRIALS, folder)
    return converted(crossed(utterances(MINI / "utterances.csv"), SOURCES, TARGETS), folder)


@pytest.fixture(scope="module")
def models():
    """An encoder, a recogniser and DNSMOS, loaded and warmed up, for both ways of scoring."""
    encoder, recogniser, quality = Resemblyzer(), Whisper(), DNSMOS()
    clip = utterances(MINI / "utterances.csv")[0].load()
    encoder.embed([clip])
    recogniser.transcribe([clip])
    quality.score([Converted("t", converted=clip)])
    return encoder, recogniser, quality


@pytest.fixture(scope="module")
def seen(folder):
    """The results of earlier tests of the same rows."""
    return {}


class Clock:
    """Wall-clock seconds, and CPU seconds of all cores, which a busy machine hardly changes."""

    def __init__(self) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Wall-clock seconds and CPU seconds since it was created."""
        return time.perf_counter() - self.begun[0], time.process_time() - self.begun[1]


def test_one_pair_at_a_time(benchmark, rows, folder, models, seen):
    encoder, recogniser, quality = models
    clock = Clock()
    seen["loop"] = benchmark.pedantic(
        one_at_a_time,
        (rows, folder, encoder, recogniser, AsPublished(quality)),
        rounds=1,
    )
    seen["loop_seconds"] = clock.read()


def harness(rows, folder, models, path):
    """Scores the rows with the harness, with the score cache at `path`."""
    encoder, recogniser, quality = models
    cache = ScoreCache(path)
    judges = {
        "secs": SECS(encoder, against=["reference"]),
        "wer": WER(recogniser, references=["text", "asr_source"]),
        "dnsmos": quality,
    }
    columns = {n: score_rows(rows, n, judge, folder, cache) for n, judge in judges.items()}
    cache.close()
    return columns


def test_all_pairs_with_the_harness(benchmark, rows, folder, models, seen, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "scores.sqlite"
    clock = Clock()
    columns = benchmark.pedantic(harness, (rows, folder, models, path), rounds=1)
    seen["cache"], seen["harness_seconds"] = path, clock.read()
    for n, pair in enumerate(seen["loop"]):
        assert columns["secs"][n]["secs_reference"] == pytest.approx(pair.secs, abs=1e-4)
        for name in ("hypothesis", "source_hypothesis", "word_errors"):
            assert columns["wer"][n].get(name) == getattr(pair, name)
        assert columns["dnsmos"][n]["ovrl"] == pytest.approx(pair.ovrl, abs=1e-3)
    print(f"\n{len(rows)} rows, {folder.name}, equal values:")
    for kind, loop, ours in zip(
        ("wall", "all cores"), seen["loop_seconds"], seen["harness_seconds"], strict=True
    ):
        benchmark.extra_info[f"times faster, {kind}"] = round(loop / ours, 2)
        print(f"{kind}: loop {loop:.1f} s, harness {ours:.1f} s, {loop / ours:.2f} times faster")


def test_again_from_the_cache(benchmark, rows, folder, models, seen):
    sounds._load.cache_clear()  # as in a new process
    sounds._reference.cache_clear()
    clock = Clock()
    benchmark.pedantic(harness, (rows, folder, models, seen["cache"]), rounds=1)
    ratio = seen["harness_seconds"][0] / clock.read()[0]
    print(f"\nfrom the cache: {clock.read()[0]:.2f} s, {ratio:.0f} times faster than scoring")
    assert ratio > 50

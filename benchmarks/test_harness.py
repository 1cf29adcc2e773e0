"""Times the harness without models: `make benchmarks`. Compare ratios within a run, not seconds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.cli.settings import load
from bench.cli.verbs import suites_of
from bench.metrics import METRICS
from bench.stages.cache import ScoreCache
from bench.stages.convert import Entry, convert_suite
from bench.stages.score import rows_of, score_rows
from bench.stats.pooling import interval
from bench.trials import Utterance
from suites.corpora.table import CorpusRecording
from suites.protocols import cross_gender
from tests.support.fakes import Length, Louder

CONFIG = load(["suite=mini_cross_gender", "limit=null"])


@pytest.fixture(scope="module")
def suite():
    return suites_of(CONFIG)[0]


def test_reading_a_manifest_of_72_trials(benchmark):
    assert len(benchmark(suites_of, CONFIG)[0].trials) == 72


def test_listing_1000_trials_over_150_000_recordings(benchmark):
    recordings = []
    for speaker in range(600):
        name = f"{'FM'[speaker % 2]}{speaker}"
        for i in range(250):
            sound = Path(f"{name}-{i}.wav")
            utterance = Utterance(f"{name}-{i}", name, name[0], sound, f"words {name}-{i}")
            recordings.append(CorpusRecording(utterance, 1.0 + i % 15, ""))
    size = {"seed": 0, "trials": 1000}
    assert len(benchmark.pedantic(cross_gender, (recordings,), size, rounds=1)) == 1000


def test_checking_the_audio_of_72_trials(benchmark, suite):
    assert benchmark(suite.check_audio) == []


def test_scoring_72_rows_from_the_cache(benchmark, suite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    entry = Entry("louder", Louder())
    done = convert_suite(entry, suite, folder)
    rows = rows_of([entry], [suite], {("louder", suite.name): done})
    cache = ScoreCache(folder / "scores.sqlite")
    score_rows(rows, "length", Length(), folder, cache)
    judge = Length()
    benchmark(score_rows, rows, "length", judge, folder, cache)
    assert judge.items == []


@pytest.mark.parametrize("trials", [100, 10_000])
def test_an_interval(benchmark, trials):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "word_errors": rng.integers(0, 3, trials),
            "words": rng.integers(5, 20, trials),
            "source_speaker": rng.integers(0, 40, trials).astype(str),
            "target_speaker": rng.integers(0, 40, trials).astype(str),
        }
    )
    low, high = benchmark(interval, METRICS["wer"], table)
    assert low < METRICS["wer"].pool(table) < high

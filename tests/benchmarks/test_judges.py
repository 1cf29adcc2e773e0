"""The programs that time judges and measure the effect of batches, at a tiny size."""

import json
import sys

from bench.cli.verbs import suites_of
from benchmarks import test_harness
from benchmarks.programs import batching, judges_gpu


def test_a_loop_and_the_harness_are_timed_and_compared(tmp_path, monkeypatch, capsys) -> None:
    given = "--device cpu --tiny --sources 1 --targets 2 --judges secs_wavlm_large wer_hubert_large"
    kept = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["judges_gpu", *given.split(), "--json", str(kept)])
    judges_gpu.main()
    figures = json.loads(kept.read_text(encoding="utf-8"))
    assert figures["pairs"] == 2
    assert set(figures["judges"]) == {"secs_wavlm_large", "wer_hubert_large"}
    assert figures["judges"]["secs_wavlm_large"]["difference"] < 1e-4
    assert figures["judges"]["wer_hubert_large"]["transcripts_moved"] == 0
    assert "all" in capsys.readouterr().out


def test_batches_are_held_against_single_recordings(monkeypatch, capsys) -> None:
    given = "--tiny --every 40 --judges secs_wavlm_base_plus wer_hubert_large"
    monkeypatch.setattr(sys, "argv", ["batching", *given.split()])
    batching.main()
    printed = capsys.readouterr().out
    assert "secs_wavlm_base_plus     4 utterances alone" in printed
    assert printed.count("transcripts differ") == 2


def test_a_batch_that_moves_a_number_is_noticed() -> None:
    class Judge:
        batch_size = 1

        def score(self, items):
            return [{"quality": 1.0 if self.batch_size == 1 else 1.1} for _ in items]

    assert not batching.check("moving", Judge(), [None] * 3, [3])


def test_the_benchmarks_of_the_harness_run(tmp_path_factory) -> None:
    def benchmark(work, *given):
        return work(*given)

    [suite] = suites_of(test_harness.CONFIG)
    test_harness.test_reading_a_manifest_of_72_trials(benchmark)
    test_harness.test_checking_the_audio_of_72_trials(benchmark, suite)
    test_harness.test_scoring_72_rows_from_the_cache(benchmark, suite, tmp_path_factory)
    test_harness.test_an_interval(benchmark, 100)

"""Each thing once: models, references, enrolments and sources, counted through the whole stage."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.audio import Waveform
from bench.judges.encoders.resemblyzer import Resemblyzer, load
from bench.judges.recognisers import Transcript
from bench.judges.secs import SECS
from bench.judges.wer import WER
from bench.stages.cache import ScoreCache
from bench.stages.convert import Entry, convert_suite
from bench.stages.score import rows_of, score_rows
from tests.support.fakes import Louder


class Spectrum:
    """A speaker encoder that counts what it is asked, and how often it is loaded."""

    weights = ()
    fingerprint = "spectrum"

    def __init__(self):
        self.received = []

    def embed(self, waveforms):
        self.received += [w.sha256 for w in waveforms]
        spectra = [np.abs(np.fft.rfft(w.numpy(), 512)) for w in waveforms]
        return np.stack([s / np.linalg.norm(s) for s in spectra])


class Counter:
    """A recogniser that counts what it is asked."""

    weights = ()
    fingerprint = "counter"

    def __init__(self):
        self.received = []

    def transcribe(self, waveforms):
        self.received += [w.sha256 for w in waveforms]
        return [Transcript(f"{len(w.samples)} samples") for w in waveforms]


class Half(Louder):
    """Another system, with other sounds."""

    def convert(self, source, reference, *, seed):
        return Waveform(source.samples * 0.2, source.sample_rate)


@pytest.fixture
def crossed(suite, tmp_path):
    """Two systems' conversions of every source to every reference: 32 rows."""
    trials = [
        replace(
            source,
            trial_id=f"{source.trial_id}-{target.trial_id}",
            references=target.references,
            enrolment=target.enrolment,
            reference_seconds=target.reference_seconds,
        )
        for source in suite.trials
        for target in suite.trials
    ]
    everyone = replace(suite, trials=tuple(trials))
    entries = [Entry("louder", Louder()), Entry("half", Half())]
    done = {(e.name, everyone.name): convert_suite(e, everyone, tmp_path) for e in entries}
    return rows_of(entries, [everyone], done)


def sounds(rows, pick):
    return {u.load().sha256 for row in rows for u in pick(row.trial)}


def test_each_recording_is_embedded_once_for_all_systems(crossed, tmp_path):
    encoder = Spectrum()
    judge = SECS(encoder, against=["enrolment", "reference"])
    cache = ScoreCache(tmp_path / "scores.sqlite")
    score_rows(crossed, "secs", judge, tmp_path, cache)
    enrolled = sounds(crossed, lambda t: (*t.enrolment, *t.source_enrolment))
    references = {row.trial.reference().sha256 for row in crossed}
    # a source sounds the same whatever the target: so many sounds did the two systems make
    converted = 2 * len(sounds(crossed, lambda t: (t.source,)))
    assert len(encoder.received) == len(set(encoder.received))
    assert len(encoder.received) == len(enrolled | references) + converted
    again = Spectrum()
    judge = SECS(again, against=["enrolment", "reference"])
    score_rows(crossed, "secs", judge, tmp_path, cache)
    assert again.received == []  # nothing for a row that is known


def test_each_source_is_transcribed_once_for_all_systems(crossed, tmp_path):
    recogniser = Counter()
    judge = WER(recogniser, references=["text", "asr_source"])
    cache = ScoreCache(tmp_path / "scores.sqlite")
    score_rows(crossed, "wer", judge, tmp_path, cache)
    sources = sounds(crossed, lambda t: (t.source,))
    assert (
        len(recogniser.received) == len(set(recogniser.received)) == len(sources) + 2 * len(sources)
    )
    again = Counter()
    score_rows(crossed, "wer", WER(again, references=["text", "asr_source"]), tmp_path, cache)
    assert again.received == []


def test_a_model_is_loaded_once_and_not_at_all_for_known_rows(crossed, tmp_path, monkeypatch):
    loaded = []

    def counted(path):
        loaded.append(path)
        return load(path)

    monkeypatch.setattr("bench.judges.encoders.resemblyzer.load", counted)
    cache = ScoreCache(tmp_path / "scores.sqlite")
    monkeypatch.setattr("bench.stages.score.BATCH", 3)
    first = score_rows(crossed[:8], "secs", SECS(Resemblyzer()), tmp_path, cache)
    assert len(loaded) == 1
    second = score_rows(crossed[:8], "secs", SECS(Resemblyzer()), tmp_path, cache)
    assert len(loaded) == 1
    assert first == second


def test_a_failed_judge_is_asked_again_and_only_for_what_is_missing(crossed, tmp_path, monkeypatch):
    """VERSA's defect: a row whose metric failed counts as done on resume."""
    monkeypatch.setattr("bench.stages.score.BATCH", 2)

    class Broken(Counter):
        def transcribe(self, waveforms):
            if len(self.received) >= 2:
                raise RuntimeError("the model is broken")
            return super().transcribe(waveforms)

    cache = ScoreCache(tmp_path / "scores.sqlite")
    broken = Broken()
    with pytest.raises(Exception, match="RuntimeError: the model is broken"):
        score_rows(crossed, "wer", WER(broken), tmp_path, cache)
    mended = Counter()
    scores = score_rows(crossed, "wer", WER(mended), tmp_path, cache)
    assert all("word_errors" in columns for columns in scores)
    assert not set(mended.received) & set(broken.received)


def test_scores_of_a_resumed_run_are_those_of_a_fresh_one(crossed, tmp_path, recordings):
    """seed-vc's defect: SECS of converted files differ between a fresh and a resumed run."""
    torch.manual_seed(1)
    fresh = score_rows(
        crossed[:6], "secs", SECS(Resemblyzer()), tmp_path, ScoreCache(tmp_path / "a.sqlite")
    )
    half = ScoreCache(tmp_path / "b.sqlite")
    score_rows(crossed[3:5], "secs", SECS(Resemblyzer()), tmp_path, half)
    resumed = score_rows(crossed[:6], "secs", SECS(Resemblyzer()), tmp_path, half)
    for one, other in zip(fresh, resumed, strict=True):
        assert other == pytest.approx(one, abs=1e-6)

"""`benchmarks.programs.known_voices` detects memorised voices."""

import re

import numpy as np
import pytest

from bench.audio import Waveform
from benchmarks.programs import known_voices
from takin_vc.checkpoint import Checkpoint, save_checkpoint
from takin_vc.config import load
from takin_vc.inputs import Speech
from tests.support import tiny_models as tiny
from tests.support.tiny_training import write_corpus


class Parrot:
    """Repeats the reference, whatever the words are."""

    def convert(self, source, reference, *, seed):
        return Speech(reference.samples, reference.sample_rate)


class FirstSample:
    """An encoder whose answer is known: two directions, by the sign of the first sample."""

    def embed(self, waveforms):
        return np.stack([np.eye(2)[int(w.samples[0] > 0)] for w in waveforms])


def test_the_start_of_a_recording_is_given_and_the_rest_compared_with():
    samples = np.full(10 * 1000, -0.5, np.float32)
    same, other = samples.copy(), samples.copy()
    other[5000:] = 0.5  # the rest is another voice
    voices = [Waveform.from_numpy(s, 1000) for s in (same, other)]
    measured, ceiling = known_voices.likeness(Parrot(), FirstSample(), voices, voices)
    assert measured.tolist() == ceiling.tolist() == [1.0, 0.0]


def test_it_distinguishes_trained_voices_from_unknown_ones(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(known_voices, "VOICES", 4)
    monkeypatch.setattr(known_voices, "WORDS_SECONDS", 1.0)
    table = write_corpus(tmp_path / "corpus")
    config = load(["model=tiny"])["model"]
    checkpoint = Checkpoint(tiny.new().eval(), config, frozenset({"Made:s0"}))
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    assert known_voices.main([str(tmp_path / "checkpoint"), str(table)]) == 0
    trained, unknown = capsys.readouterr().out.splitlines()
    assert trained == "trained on: no recording of such a voice is 9 s long"
    measured = re.fullmatch(
        r"unknown: (\d+) voices, SECS (0\.\d+) ± 0\.\d+, of their true references (0\.\d+)", unknown
    )
    assert int(measured[1]) == 4
    assert float(measured[3]) == pytest.approx(0.90, abs=0.05)
    assert float(measured[2]) < 0.7  # untrained


def test_wrong_arguments_are_answered_with_how_to_call_it(capsys):
    assert known_voices.main(["--help"]) == 0
    assert known_voices.main([]) == 1
    assert "python -m benchmarks.programs.known_voices CHECKPOINT" in capsys.readouterr().out


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert known_voices.main([str(tmp_path / "none"), "list.csv"]) == 1
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'none' / 'config.yaml'}: no such"
    )

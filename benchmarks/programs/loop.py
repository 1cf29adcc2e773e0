"""Scores one pair at a time, as Plachtaa/seed-vc's eval.py does, to compare the harness with.

Each model is loaded once. The reference is embedded and the source transcribed again for every
pair, each model processes one clip at a time, and every file is read when it is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import audio
from bench.audio import Waveform
from bench.cli.settings import load
from bench.cli.verbs import suites_of, systems_of
from bench.judges import Converted, Judge, Value
from bench.judges.dnsmos import DNSMOS
from bench.judges.recognisers import Recogniser
from bench.judges.secs import SpeakerEncoder
from bench.judges.wer import error_counts
from bench.objects import build
from bench.stages.convert import Conversion, Entry, convert_suite
from bench.stages.score import Row, rows_of
from bench.trials import Suite, Trial, Utterance


class Faster:
    """Plays the source faster, by a factor that the seed decides, so that every pair differs."""

    trained_on = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """`source` sped up by 2 to 22 %, at 16 kHz."""
        factor = 1.02 + 0.2 * (seed % 997) / 997
        return Waveform(source.samples, round(source.sample_rate * factor)).resample(16000)


def crossed(recordings: Sequence[Utterance], sources: int, targets: int) -> Suite:
    """A suite of every source with every target, as seed-vc evaluates; speakers sorted by name."""
    speakers = {u.speaker: [v for v in recordings if v.speaker == u.speaker] for u in recordings}
    by_speaker = [speakers[name] for name in sorted(speakers)]
    trials = [
        Trial(
            f"{s}-{t}",
            source=by_speaker[s % len(by_speaker)][s // len(by_speaker)],
            references=(by_speaker[-1 - t % len(by_speaker)][t // len(by_speaker)],),
            enrolment=tuple(by_speaker[-1 - t % len(by_speaker)][-2:]),
        )
        for s in range(sources)
        for t in range(targets)
    ]
    return Suite("crossed", tuple(trials), "")


def converted(suite: Suite, folder: Path) -> list[Row]:
    """Converts the suite with `Faster`, into the folder, and returns the rows to score."""
    entry = Entry("faster", Faster())
    done: dict[str, Conversion] = convert_suite(entry, suite, folder)
    return rows_of([entry], [suite], {("faster", suite.name): done})


def embedded(trials: int, folder: Path) -> list[Row]:
    """The rows of the embedded benchmark: source, target and WORLD, `trials` of each suite."""
    config = load(["system=[source,target,world]", f"limit={trials}"])
    entries = [
        Entry(name, build(settings, f"system {name}"), settings)
        for name, settings in systems_of(config).items()
    ]
    suites = suites_of(config)
    done = {(e.name, s.name): convert_suite(e, s, folder) for e in entries for s in suites}
    return rows_of(entries, suites, done)


class AsPublished:
    """speechmos without changes: one clip at a time, on all threads of the CPU."""

    def __init__(self, judge: DNSMOS) -> None:
        from speechmos.dnsmos import DNSMOS as SpeechMOS  # imports librosa; the others do not

        self.predictor = SpeechMOS(*(w.path for w in judge.weights))

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """The OVRL of a single item, 1 to 5."""
        [item] = items
        assert item.converted is not None
        scores = self.predictor(item.converted.resample(16000).numpy(), 16000, False)
        return [{"ovrl": float(scores["ovrl_mos"])}]


@dataclass(frozen=True)
class Pair:
    """The loop's results for a pair; None for what was not computed."""

    secs: float | None = None
    hypothesis: str | None = None
    source_hypothesis: str | None = None
    word_errors: int | None = None
    ovrl: float | None = None


def one_at_a_time(
    rows: Sequence[Row],
    folder: Path,
    encoder: SpeakerEncoder | None = None,
    recogniser: Recogniser | None = None,
    quality: Judge | AsPublished | None = None,
) -> list[Pair]:
    """Scores the rows as seed-vc does, with the models of the harness's judges."""
    pairs = []
    for row in rows:
        measured: dict[str, object] = {}
        if encoder is not None:
            reference = row.trial.reference()
            speech = audio.load(folder / row.conversion.wav)
            one, other = encoder.embed([reference])[0], encoder.embed([speech])[0]
            measured["secs"] = float(np.dot(one, other))
        if recogniser is not None and row.has_source_words:
            speech = audio.load(folder / row.conversion.wav)
            source = audio.load(row.trial.source.path)
            [transcript], [source_transcript] = (
                recogniser.transcribe([speech]),
                recogniser.transcribe([source]),
            )
            measured["hypothesis"], measured["source_hypothesis"] = (
                transcript.text,
                source_transcript.text,
            )
            measured["word_errors"] = error_counts(row.trial.source.text, transcript.text)[
                "word_errors"
            ]
        if quality is not None:
            speech = audio.load(folder / row.conversion.wav)
            [columns] = quality.score([Converted("t", converted=speech)])
            measured["ovrl"] = float(next(v for v in columns.values() if isinstance(v, float)))
        pairs.append(Pair(**measured))  # type: ignore[arg-type]
    return pairs

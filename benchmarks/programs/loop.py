"""How others score (Plachtaa/seed-vc's eval.py): one pair at a time, everything anew for each pair.

Nothing is loaded twice, but the reference is embedded and the source transcribed for every pair,
each model hears one clip at a time, and every file is read when it is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from speechmos.dnsmos import DNSMOS as SpeechMOS

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
    """Plays the source faster, by a rate that the reference's length decides: a sound a pair."""

    trained_on = frozenset()

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        factor = 1.02 + 0.2 * (seed % 997) / 997
        return Waveform(source.samples, round(source.sample_rate * factor)).resample(16000)


def crossed(recordings: Sequence[Utterance], sources: int, targets: int) -> Suite:
    """Every source to every target, as seed-vc evaluates; speakers in the order of their names."""
    speakers = {u.speaker: [v for v in recordings if v.speaker == u.speaker] for u in recordings}
    own = [speakers[name] for name in sorted(speakers)]
    trials = [
        Trial(
            f"{s}-{t}",
            source=own[s % len(own)][s // len(own)],
            references=(own[-1 - t % len(own)][t // len(own)],),
            enrolment=tuple(own[-1 - t % len(own)][-2:]),
        )
        for s in range(sources)
        for t in range(targets)
    ]
    return Suite("crossed", tuple(trials), "")


def converted(suite: Suite, folder: Path) -> list[Row]:
    """The rows of one system over the suite, its wavs in the folder."""
    entry = Entry("faster", Faster())
    done: dict[str, Conversion] = convert_suite(entry, suite, folder)
    return rows_of([entry], [suite], {("faster", suite.name): done})


def embedded(trials: int, folder: Path) -> list[Row]:
    """The embedded benchmark's rows: source, target and WORLD, so many trials of each suite."""
    config = load(["system=[source,target,world]", f"limit={trials}"])
    entries = [
        Entry(name, build(settings, f"system {name}"), settings)
        for name, settings in systems_of(config).items()
    ]
    suites = suites_of(config)
    done = {(e.name, s.name): convert_suite(e, s, folder) for e in entries for s in suites}
    return rows_of(entries, suites, done)


class AsPublished:
    """speechmos as it comes: a clip at a time, over all threads of the CPU."""

    def __init__(self, judge: DNSMOS) -> None:
        self.predictor = SpeechMOS(*(w.path for w in judge.weights))

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        [item] = items
        assert item.converted is not None
        found = self.predictor(item.converted.resample(16000).numpy(), 16000, False)
        return [{"ovrl": float(found["ovrl_mos"])}]


@dataclass(frozen=True)
class Pair:
    """What the loop finds out about a pair; None where it was not asked."""

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
    """Scores the rows as seed-vc does, with the same models as ours."""
    pairs = []
    for row in rows:
        found: dict[str, object] = {}
        if encoder is not None:
            reference = row.trial.reference()
            speech = audio.load(folder / row.conversion.wav)
            one, other = encoder.embed([reference])[0], encoder.embed([speech])[0]
            found["secs"] = float(np.dot(one, other))
        if recogniser is not None and row.has_source_words:
            speech = audio.load(folder / row.conversion.wav)
            source = audio.load(row.trial.source.path)
            [heard], [said] = recogniser.transcribe([speech]), recogniser.transcribe([source])
            found["hypothesis"], found["source_hypothesis"] = heard.text, said.text
            found["word_errors"] = error_counts(row.trial.source.text, heard.text)["word_errors"]
        if quality is not None:
            speech = audio.load(folder / row.conversion.wav)
            [columns] = quality.score([Converted("t", converted=speech)])
            found["ovrl"] = float(next(v for v in columns.values() if isinstance(v, float)))
        pairs.append(Pair(**found))  # type: ignore[arg-type]
    return pairs

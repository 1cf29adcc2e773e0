"""The trials of a suite as cards, worst first, with texts, sounds and measurements."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from bench import audio
from bench.audio import AudioError, Waveform
from bench.files import replacing
from bench.metrics import (
    INTELLIGIBILITY,
    LEAKAGE,
    METRICS,
    NATURALNESS,
    SIMILARITY,
    leading,
)
from bench.results import ScoredRun
from bench.stats.pooling import judge_table, measures_in
from bench.trials import Trial
from reports.html.clips import Clip, clip, mp3
from reports.html.ranking import in_turn, measures_over, rankings
from reports.tables import number, systems_of

AUDIO = "audio"  # folder, next to the report, of sources and references that are not embedded
# The families whose leading metrics are shown for each output.
SHOWN = (SIMILARITY, LEAKAGE, INTELLIGIBILITY, NATURALNESS)


@dataclass(frozen=True)
class Word:
    """A position of two aligned texts.

    Attributes:
        source: the word of the source text; "" if the transcript has an additional word.
        transcript: the word of the transcript; "" if a word of the source is missing there.
    """

    source: str
    transcript: str


@dataclass(frozen=True)
class CardSound:
    """One recording or conversion of a card.

    Attributes:
        name: "source", "reference" or the system's name.
        role: a short description, such as "converted".
        measures: (label, value) pairs.
        words: (judge, source text aligned with the judge's transcript).
        problem: why there is no sound; "" if there is one.
        wav: path of its file in the run's folder; "" if it has none there.
        clip: the embedded sound; None if it is not embedded.
        in_time: whether it has the source's words and timing, so that players may be switched at
            the same time.
    """

    name: str
    role: str = ""
    measures: tuple[tuple[str, str], ...] = ()
    words: tuple[tuple[str, tuple[Word, ...]], ...] = ()
    problem: str = ""
    wav: str = ""
    clip: Clip | None = None
    in_time: bool = True

    @property
    def link(self) -> str:
        """Relative address of its file, safe in an attribute."""
        return f"./{quote(self.wav)}" if self.wav else ""


@dataclass(frozen=True)
class Card:
    """One trial with all of its sounds.

    Attributes:
        trial: the trial.
        ranks: position of the trial in each order of its `Listing`, 0 the worst.
        reason: of its position in the first order.
        sounds: source and reference, if there are files of them, then the output of every system.
        flags: (system, flag in words) of its conversions.
    """

    trial: Trial
    ranks: tuple[int, ...]
    reason: str
    sounds: tuple[CardSound, ...]
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def longest(self) -> float:
        """Seconds of its longest clip: the pictures of a card share one time scale."""
        return max((v.clip.seconds for v in self.sounds if v.clip), default=0.0)

    @property
    def size(self) -> int:
        """Bytes of embedded audio and pictures."""
        return sum(v.clip.size for v in self.sounds if v.clip)


@dataclass(frozen=True)
class Listing:
    """All trials of a suite, in the first of its orders.

    Attributes:
        suite: its name.
        orders: titles of the orders that the cards can be sorted by.
        cards: one for each trial.
        embedded: number of cards with embedded audio.
        measured: the metrics that the cards show, with their judges.
    """

    suite: str
    orders: tuple[str, ...]
    cards: tuple[Card, ...]
    embedded: int
    measured: str


def listing(
    results: ScoredRun,
    suite: str,
    embed_trials: int,
    max_bytes: float,
    flags: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    beside_trials: int = 0,
) -> Listing:
    """The suite's trials: the worst of each ranking in turn, then the second worst, and so on.

    Args:
        results: the run.
        suite: the suite's name.
        embed_trials: number of trials with embedded audio: the first ones, without those that a
            failed conversion put there.
        max_bytes: limit of all embedded audio.
        flags: trial id → (system, flag in words).
        beside_trials: number of further trials whose source and reference are written to `AUDIO`.
            The systems' outputs are in the run's folder already.
    """
    ranked = rankings(results, suite)
    trials = {trial.trial_id: trial for trial in results.suites[suite].trials}
    mixed = in_turn(ranked) or [(trial_id, None) for trial_id in trials]
    orders = [[trial_id for trial_id, _ in mixed], *(r.trial_ids for r in ranked), sorted(trials)]
    ranks = [{trial_id: rank for rank, trial_id in enumerate(order)} for order in orders]
    scores = results.scores[results.scores["suite"] == suite]
    shown = _shown(results, suite, scores)
    order = {system: n for n, system in enumerate(systems_of(results, suite))}
    in_order = scores.sort_values("system", key=lambda s: s.map(order), kind="stable")
    rows_of = dict(list(in_order.groupby("trial_id", sort=False)))
    cards = [
        Card(
            trials[trial_id],
            tuple(rank[trial_id] for rank in ranks),
            "" if ranking is None else ranking.reasons.get(trial_id, ""),
            tuple(
                _output(results, trials[trial_id], row, shown)
                for _, row in rows_of[trial_id].iterrows()
            ),
            tuple((flags or {}).get(trial_id, ())),
        )
        for trial_id, ranking in mixed
    ]
    embeddable = [
        i for i, (t, ranking) in enumerate(mixed) if ranking is None or t not in ranking.failed
    ]
    embeddable = embeddable[:embed_trials]
    clips: dict[str, Clip] = {}
    embedded, size = 0, 0
    tried = set()
    pool = ThreadPoolExecutor(os.cpu_count())
    with_audio = pool.map(lambda i: _with_audio(cards[i], results.folder, clips), embeddable)
    for i, card in zip(embeddable, with_audio, strict=True):
        if size + card.size > max_bytes:
            break
        cards[i] = card
        tried.add(i)
        embedded += card.size > 0
        size += card.size
    pool.shutdown(cancel_futures=True)
    silent = [i for i in range(len(cards)) if i not in tried][:beside_trials]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        linked = pool.map(lambda i: _with_links(cards[i], results.folder), silent)
        for i, card in zip(silent, linked, strict=True):
            cards[i] = card
    return Listing(
        suite,
        ("worst first: every measure and system in turn", *(r.title for r in ranked), "trial id"),
        tuple(cards),
        embedded,
        ", ".join(
            f"{METRICS[metric].label} by {judge}"
            for judge, metric in leading(measures_over(results, suite), SHOWN)
        ),
    )


def align(text: str, transcript: str, language: str = "en") -> tuple[Word, ...]:
    """Aligns a text with a transcript word by word, as WER counts errors; Chinese by characters.

    Both are normalised first (see `bench.judges.normalisers.units`).
    """
    import jiwer

    from bench.judges.normalisers import units

    reference, hypothesis = (" ".join(units(t, language)) for t in (text, transcript))
    if not reference or not hypothesis:
        return (
            *(Word(w, "") for w in reference.split()),
            *(Word("", w) for w in hypothesis.split()),
        )
    output = jiwer.process_words(reference, hypothesis)
    words = []
    for chunk in output.alignments[0]:
        a = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        b = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        words += [Word(x, y) for x, y in zip_longest(a, b, fillvalue="")]
    return tuple(words)


def _shown(results: ScoredRun, suite: str, scores: pd.DataFrame) -> pd.DataFrame:
    """The measures of each row of `scores` as text, by label; None if not measured."""
    measures = leading(measures_over(results, suite), SHOWN)
    metrics = [metric for _, metric in measures]
    shown = {}
    for judge, metric in measures:
        m = METRICS[metric]
        name = m.label if metrics.count(metric) == 1 else f"{m.label} ({judge})"
        values = m.per_trial(judge_table(scores, judge))
        shown[name] = [
            f"{number(metric, v)} {m.unit}".strip() if pd.notna(v) else None for v in values
        ]
    return pd.DataFrame(shown, index=scores.index)


def _output(results: ScoredRun, trial: Trial, row: pd.Series, shown: pd.DataFrame) -> CardSound:
    """A system's output for the trial, or why there is none."""
    system = str(row["system"])
    role = results.anchors.get(system, "converted")
    output = CardSound(system, role, in_time=role != "ceiling")
    if row["status"] == "failed":
        return replace(output, problem=f"failed: {row['error']}")
    if row["status"] == "absent":
        return replace(output, problem="the corpus has no such recording")
    wav = str(row["wav"])
    exists = (results.folder / wav).is_file()
    return replace(
        output,
        measures=tuple((str(k), v) for k, v in shown.loc[row.name].items() if isinstance(v, str)),
        words=tuple(
            (judge, align(trial.source.text, row[f"{judge}.hypothesis"], trial.language))
            for judge in _transcribed_by(row)
        ),
        wav=wav if exists else "",
        problem="" if exists else f"the sound is missing: {wav}",
    )


def _transcribed_by(row: pd.Series) -> list[str]:
    """Judges that transcribed the output; the transcript may be empty."""
    counts = {
        judge: f"{judge}.{METRICS[metric].numerator}"
        for judge, metric in leading(measures_in(row.index), [INTELLIGIBILITY])
    }
    return [
        judge
        for judge, count in counts.items()
        if isinstance(row.get(f"{judge}.hypothesis"), str) and pd.notna(row[count])
    ]


def _loaded(load: Callable[[], Waveform]) -> Waveform | str:
    """The sound, or why there is none: a report is written without missing sounds."""
    try:
        return load()
    except (AudioError, OSError) as error:
        return str(error)


def _with_links(card: Card, folder: Path) -> Card:
    """The card with links to its source and reference, which are written next to the report."""
    trial = card.trial
    parts: list[tuple[CardSound, Callable[[], Waveform]]] = [
        (CardSound("reference", f"speaker {trial.speaker}", in_time=False), trial.reference)
    ]
    if not any(sound.role == "floor" for sound in card.sounds):  # the floor is the source
        parts.insert(0, (CardSound("source", f"speaker {trial.source.speaker}"), trial.source.load))
    sounds = []
    for sound, load in parts:
        waveform = _loaded(load)
        if isinstance(waveform, str):
            sounds.append(replace(sound, problem=waveform))
            continue
        path = Path(AUDIO) / f"{waveform.sha256[:24]}.mp3"
        if not (folder / path).is_file():
            with replacing(folder / path) as temporary:
                temporary.write_bytes(mp3(waveform))
        sounds.append(replace(sound, wav=path.as_posix()))
    return replace(card, sounds=(*sounds, *card.sounds))


def _with_audio(card: Card, folder: Path, clips: dict[str, Clip]) -> Card:
    """The card with embedded sounds: source and reference, then the outputs.

    A recording that equals the source (the floor) is merged with it, and replaces it if the file of
    the corpus is missing.

    Args:
        card: without sounds.
        folder: of the run.
        clips: by hash of the sound; new ones are added.
    """
    trial = card.trial
    parts: list[tuple[CardSound, Callable[[], Waveform]]] = [
        (CardSound("source", f"speaker {trial.source.speaker}"), trial.source.load),
        (CardSound("reference", f"speaker {trial.speaker}", in_time=False), trial.reference),
        *((v, partial(audio.load, folder / v.wav)) for v in card.sounds if v.wav),
    ]
    source, source_clip = parts[0][0], None
    has_floor = any(sound.role == "floor" for sound in card.sounds)
    sounds: list[CardSound] = []
    for sound, load in parts:
        waveform = _loaded(load)
        if isinstance(waveform, str):
            if sound is not source or not has_floor:
                sounds.append(replace(sound, problem=waveform, wav=""))
            continue
        if waveform.sha256 not in clips:
            clips.setdefault(waveform.sha256, clip(waveform))  # another thread may be first
        embedded = clips[waveform.sha256]
        if sound is source:
            source_clip = embedded
        elif source_clip is embedded:
            role = f"{sounds[0].role} · {sound.name} ({sound.role})"
            sounds[0] = replace(sound, name=source.name, role=role, clip=embedded)
            continue
        sounds.append(replace(sound, clip=embedded))
    return replace(card, sounds=(*sounds, *(v for v in card.sounds if not v.wav)))

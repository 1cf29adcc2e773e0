"""The trials of a run, worst first, with what was said, heard and measured."""

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
from bench.run.results import Results
from bench.stats.pooling import judge_table, measures_in
from bench.trials import Trial
from reports.html.clips import Clip, clip, mp3
from reports.html.ranking import in_turn, measures_over, rankings
from reports.tables import number, systems_of

AUDIO = "audio"  # folder of what is played from beside the report
# The families whose leading metrics stand beside each output.
SHOWN = (SIMILARITY, LEAKAGE, INTELLIGIBILITY, NATURALNESS)


@dataclass(frozen=True)
class Word:
    """A word of the aligned texts: `said` and/or `heard`; equal where it was understood."""

    said: str
    heard: str


@dataclass(frozen=True)
class Voice:
    """One recording or conversion of a card.

    Attributes:
        name: "source", "reference" or the system's name.
        role: what it is, in a few words.
        measures: (label, value) pairs.
        words: the text against what a judge heard, by judge.
        problem: why there is nothing to hear; "" where there is.
        wav: path of its file in the run's folder; "" where it has none there.
        clip: the embedded sound, None where it is not embedded.
        in_time: whether it follows the source's words, so that a moment of it is one of the source.
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
    """One trial with everything that was made of it.

    Attributes:
        ranks: place of the trial in each order of its `Listing`, 0 the worst.
        reason: what put the trial at its place in the first order.
        flags: what is suspicious about its conversions: (system, in words).
    """

    trial: Trial
    ranks: tuple[int, ...]
    reason: str
    voices: tuple[Voice, ...]
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def longest(self) -> float:
        """Seconds of its longest clip: the pictures of a card share one time scale."""
        return max((v.clip.seconds for v in self.voices if v.clip), default=0.0)

    @property
    def size(self) -> int:
        """Bytes of embedded audio and pictures."""
        return sum(v.clip.size for v in self.voices if v.clip)


@dataclass(frozen=True)
class Listing:
    """All trials of a suite, in the first of its orders.

    Attributes:
        orders: titles of the orders that the cards can be sorted by.
        cards: a card a trial.
        embedded: how many cards carry their audio.
        measured: which judge measured what the cards show.
    """

    suite: str
    orders: tuple[str, ...]
    cards: tuple[Card, ...]
    embedded: int
    measured: str


def listing(
    results: Results,
    suite: str,
    embed_trials: int,
    max_bytes: float,
    flags: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    beside_trials: int = 0,
) -> Listing:
    """The suite's trials, the worst of every system and measure in turn.

    Args:
        results: the run.
        suite: the suite's name.
        embed_trials: so many trials carry their audio: the first ones where the system that put
            them there did convert.
        max_bytes: no further trial is embedded once this much is.
        flags: trial id → (system, what is suspicious).
        beside_trials: so many further trials get their source and reference as files in `AUDIO`
            beside the report, where the systems' own files lie already.
    """
    found = rankings(results, suite)
    trials = {trial.trial_id: trial for trial in results.suites[suite].trials}
    mixed = in_turn(found) or [(trial_id, None) for trial_id in trials]
    orders = [[trial_id for trial_id, _ in mixed], *(r.trial_ids for r in found), sorted(trials)]
    places = [{trial_id: place for place, trial_id in enumerate(order)} for order in orders]
    scores = results.scores[results.scores["suite"] == suite]
    shown = _shown(results, suite, scores)
    order = {system: place for place, system in enumerate(systems_of(results, suite))}
    in_order = scores.sort_values("system", key=lambda s: s.map(order), kind="stable")
    rows_of = dict(list(in_order.groupby("trial_id", sort=False)))
    cards = [
        Card(
            trials[trial_id],
            tuple(place[trial_id] for place in places),
            "" if ranking is None else ranking.reasons.get(trial_id, ""),
            tuple(
                _voice(results, trials[trial_id], row, shown)
                for _, row in rows_of[trial_id].iterrows()
            ),
            tuple((flags or {}).get(trial_id, ())),
        )
        for trial_id, ranking in mixed
    ]
    heard = [
        i for i, (t, ranking) in enumerate(mixed) if ranking is None or t not in ranking.failed
    ]
    heard = heard[:embed_trials]
    clips: dict[str, Clip] = {}
    embedded, size = 0, 0
    tried = set()
    pool = ThreadPoolExecutor(os.cpu_count())
    sounded = pool.map(lambda i: _with_audio(cards[i], results.folder, clips), heard)
    for i, card in zip(heard, sounded, strict=True):
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
        ("worst first: every measure and system in turn", *(r.title for r in found), "trial id"),
        tuple(cards),
        embedded,
        ", ".join(
            f"{METRICS[metric].label} by {judge}"
            for judge, metric in leading(measures_over(results, suite), SHOWN)
        ),
    )


def align(said: str, heard: str) -> tuple[Word, ...]:
    """The two texts word by word, after the normalisation and by the alignment that WER counts.

    Both pass through Whisper's English normalisation first.
    """
    import jiwer

    from bench.judges.wer import normalise

    reference, hypothesis = normalise(said), normalise(heard)
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


def _shown(results: Results, suite: str, scores: pd.DataFrame) -> pd.DataFrame:
    """The measures of every row of `scores` as text under their labels, None where not measured."""
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


def _voice(results: Results, trial: Trial, row: pd.Series, shown: pd.DataFrame) -> Voice:
    system = str(row["system"])
    role = results.anchors.get(system, "converted")
    voice = Voice(system, role, in_time=role != "ceiling")
    if row["status"] == "failed":
        return replace(voice, problem=f"failed: {row['error']}")
    if row["status"] == "absent":
        return replace(voice, problem="the corpus has no such recording")
    wav = str(row["wav"])
    there = (results.folder / wav).is_file()
    return replace(
        voice,
        measures=tuple((str(k), v) for k, v in shown.loc[row.name].items() if isinstance(v, str)),
        words=tuple(
            (judge, align(trial.source.text, row[f"{judge}.hypothesis"]))
            for judge in _heard_by(row)
        ),
        wav=wav if there else "",
        problem="" if there else f"the sound is missing: {wav}",
    )


def _heard_by(row: pd.Series) -> list[str]:
    """Judges that wrote down what they heard in it; that may have been nothing."""
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
    """The sound, or why there is none: a report does without sounds that are missing."""
    try:
        return load()
    except (AudioError, OSError) as error:
        return str(error)


def _with_links(card: Card, folder: Path) -> Card:
    """The card with links to its source and reference, written beside the report."""
    trial = card.trial
    parts: list[tuple[Voice, Callable[[], Waveform]]] = [
        (Voice("reference", f"speaker {trial.speaker}", in_time=False), trial.reference)
    ]
    if not any(voice.role == "floor" for voice in card.voices):  # that is the source already
        parts.insert(0, (Voice("source", f"speaker {trial.source.speaker}"), trial.source.load))
    voices = []
    for voice, load in parts:
        waveform = _loaded(load)
        if isinstance(waveform, str):
            voices.append(replace(voice, problem=waveform))
            continue
        path = Path(AUDIO) / f"{waveform.sha256[:24]}.mp3"
        if not (folder / path).is_file():
            with replacing(folder / path) as temporary:
                temporary.write_bytes(mp3(waveform))
        voices.append(replace(voice, wav=path.as_posix()))
    return replace(card, voices=(*voices, *card.voices))


def _with_audio(card: Card, folder: Path, clips: dict[str, Clip]) -> Card:
    """The card with its sounds: source and reference, then the outputs.

    A recording that is the source itself (the floor) is merged with it, not played twice, and
    stands for it where the corpus' own file is missing.

    Args:
        card: without sounds.
        folder: of the run.
        clips: by content; new ones are added.
    """
    trial = card.trial
    parts: list[tuple[Voice, Callable[[], Waveform]]] = [
        (Voice("source", f"speaker {trial.source.speaker}"), trial.source.load),
        (Voice("reference", f"speaker {trial.speaker}", in_time=False), trial.reference),
        *((v, partial(audio.load, folder / v.wav)) for v in card.voices if v.wav),
    ]
    source, source_clip = parts[0][0], None
    has_floor = any(voice.role == "floor" for voice in card.voices)
    voices: list[Voice] = []
    for voice, load in parts:
        waveform = _loaded(load)
        if isinstance(waveform, str):
            if voice is not source or not has_floor:
                voices.append(replace(voice, problem=waveform, wav=""))
            continue
        if waveform.sha256 not in clips:
            clips.setdefault(waveform.sha256, clip(waveform))  # another thread may be first
        found = clips[waveform.sha256]
        if voice is source:
            source_clip = found
        elif source_clip is found:
            role = f"{voices[0].role} · {voice.name} ({voice.role})"
            voices[0] = replace(voice, name=source.name, role=role, clip=found)
            continue
        voices.append(replace(voice, clip=found))
    return replace(card, voices=(*voices, *(v for v in card.voices if not v.wav)))

"""The protocols: seeded builders of trial lists of any size over any corpus.

All of them share three rules. Nobody is source and target of one trial. A speaker's recordings are
dealt out once: what is reference or ceiling is never source or enrolment. And every list is
interleaved, so that its beginning is as balanced as the whole. The lists of the embedded corpus
are made by `suites.cross_gender`, `unseen_speakers` and `reference_length`, which are frozen.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, zip_longest
from math import lcm

from bench.errors import UserError
from bench.trials import Trial, Utterance
from bench.validity.exposure import SEEN, UNKNOWN, UNSEEN, heard
from suites.corpora.table import Recording

SHORTEST_SOURCE, LONGEST_SOURCE = 2.0, 15.0  # seconds
ENROLMENTS = 3  # recordings of a target that SECS compares with
SHORTEST_ENROLMENT = 2.0  # seconds
LENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # seconds of reference, each a prefix of the next
LENGTH_CLASSES = ("short", "medium", "long")  # thirds of the corpus's sources by duration


@dataclass(frozen=True)
class Voice:
    """One speaker's recordings, dealt out.

    Attributes:
        reference: recordings that together last as long as the protocol asks: the chain.
        target: one more: the ceiling row.
        enrolment: others: what SECS compares with.
        sources: all others and the enrolment ones that may be a source, by length class.
        others: of the enrolment kind, for leakage where this speaker is the source.
    """

    name: str
    gender: str
    reference: tuple[Utterance, ...]
    target: Utterance
    enrolment: tuple[Utterance, ...]
    sources: Mapping[str, tuple[Utterance, ...]]
    split: str
    language: str

    def others_than(self, source: Utterance) -> tuple[Utterance, ...]:
        """Recordings of this speaker that are not `source`, the same wherever possible."""
        if source not in self.enrolment:
            return self.enrolment  # one tuple for all: lists may have a million trials
        return tuple(u for u in (*self.enrolment, self.target) if u != source)[:ENROLMENTS]


def deal(
    recordings: Sequence[Recording],
    rng: random.Random,
    *,
    reference_seconds: float,
    source: Callable[[Recording], bool] = lambda _: True,
    reference: Callable[[Recording], bool] = lambda _: True,
) -> list[Voice]:
    """The speakers who have enough recordings, sorted by name.

    The reference is a speaker's longest recordings until they last `reference_seconds`, the target
    the next longest; the rest is shuffled.

    Args:
        recordings: a corpus.
        rng: of the shuffles.
        reference_seconds: what the reference must last.
        source: which recordings may be a source.
        reference: which may be reference, target or enrolment.

    Raises:
        UserError: if no speaker has enough.
    """
    by_speaker: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_speaker[recording.speaker].append(recording)
    bounds = _bounds([r.seconds for r in recordings if _usable(r) and source(r)])
    voices = []
    for name in sorted(by_speaker):
        own = sorted(by_speaker[name], key=lambda r: (-r.seconds, r.utterance.utterance_id))
        voice = _voice(name, own, rng, reference_seconds, source, reference, bounds)
        if voice is not None:
            voices.append(voice)
    if not voices:
        raise UserError(
            f"none of {len(by_speaker)} speakers has {reference_seconds:g} s of reference, a "
            f"target, {ENROLMENTS} enrolment recordings and a source of {SHORTEST_SOURCE:g} to "
            f"{LONGEST_SOURCE:g} s"
        )
    return voices


def _voice(
    name: str,
    own: Sequence[Recording],
    rng: random.Random,
    reference_seconds: float,
    source: Callable[[Recording], bool],
    reference: Callable[[Recording], bool],
    bounds: tuple[float, float],
) -> Voice | None:
    """The speaker dealt out, or None where there is too little; `own` from long to short."""
    held: list[Recording] = []
    seconds = 0.0
    for recording in filter(reference, own):
        if seconds >= reference_seconds:
            break
        held.append(recording)
        seconds += recording.seconds
    left = [r for r in own if r not in held]
    able = [r for r in left if reference(r)]
    if seconds < reference_seconds or len(able) < 1 + ENROLMENTS:
        return None
    target, *able = able
    others = [r for r in left if r is not target]
    rng.shuffle(others)
    enrolment = [r for r in others if reference(r) and r.seconds >= SHORTEST_ENROLMENT][
        -ENROLMENTS:
    ]
    sources: dict[str, list[Utterance]] = {c: [] for c in LENGTH_CLASSES}
    for recording in others:
        if _usable(recording) and source(recording):
            sources[_class(recording.seconds, bounds)].append(recording.utterance)
    if len(enrolment) < ENROLMENTS or not any(sources.values()):
        return None
    return Voice(
        name,
        own[0].utterance.gender,
        tuple(r.utterance for r in held),
        target.utterance,
        tuple(r.utterance for r in enrolment),
        {c: tuple(utterances) for c, utterances in sources.items()},
        own[0].split,
        own[0].language,
    )


def _usable(recording: Recording) -> bool:
    return SHORTEST_SOURCE <= recording.seconds <= LONGEST_SOURCE


def _bounds(seconds: Sequence[float]) -> tuple[float, float]:
    """What parts the durations into thirds."""
    ordered = sorted(seconds) or [0.0]
    return ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]


def _class(seconds: float, bounds: tuple[float, float]) -> str:
    return LENGTH_CLASSES[sum(seconds >= bound for bound in bounds)]


def even_pairs(
    sources: Sequence[Voice], targets: Sequence[Voice], rng: random.Random
) -> Iterator[tuple[Voice, Voice]]:
    """Pairs without end: after any number of them every source and target had about its share.

    The lists are turned against each other by one amount after another, in random order; within a
    turn every source has equally many trials, and every target. No pair comes twice before all
    have come. Where the lists share speakers, nobody meets themselves.
    """
    a, b = rng.sample(list(sources), len(sources)), rng.sample(list(targets), len(targets))
    if {v.name for v in a} == {v.name for v in b}:
        b = a
    block = lcm(len(a), len(b))
    turns = list(range(len(a) * len(b) // block))
    if all(a[i % len(a)].name == b[i % len(b)].name for i in range(block)):
        turns = turns[1:]
    if not turns:
        raise UserError("a list of trials needs at least two speakers")
    while True:
        for turn in rng.sample(turns, len(turns)):
            for i in range(block):
                source, target = a[i % len(a)], b[(i + turn) % len(b)]
                if source.name != target.name:
                    yield source, target


class Sources:
    """Hands out each speaker's sources in turn, length class after length class."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str], int] = defaultdict(int)
        self._class: dict[tuple[str, str], int] = defaultdict(int)

    def next(self, cell: str, source: Voice, *targets: Voice) -> tuple[Utterance, str]:
        """The next source for `targets` and its length class.

        Within a cell each speaker's trials go through the classes in turn, so that all cells have
        equally many of each. A source that says what the reference says is passed over.
        """
        key = cell, source.name
        place = self._class[key] + sum(map(ord, source.name))
        self._class[key] += 1
        names = [LENGTH_CLASSES[(place + i) % 3] for i in range(3)]
        length = next(name for name in names if source.sources[name])
        said = {_words(u.text) for target in targets for u in target.reference}
        pool = source.sources[length]
        turn = self._used["", source.name, length]
        for i in range(len(pool)):
            utterance = pool[(turn + i) % len(pool)]
            if _words(utterance.text) not in said:
                self._used["", source.name, length] = turn + i + 1
                return utterance, length
        names = [target.name for target in targets]
        raise UserError(f"every source of {source.name} says what a reference of {names} says")


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def make_trial(
    trial_id: str,
    utterance: Utterance,
    source: Voice,
    target: Voice,
    reference_seconds: float,
    factors: Mapping[str, str],
) -> Trial:
    """The trial in which `target`'s voice is to say `utterance`."""
    return Trial(
        re.sub(r"[^A-Za-z0-9_.+-]", "_", trial_id)[:120],
        utterance,
        target.reference,
        target.enrolment,
        source.others_than(utterance),
        target.target,
        reference_seconds,
        _shared(tuple(factors.items())),
    )


@lru_cache(maxsize=4096)
def _shared(factors: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """One mapping for all trials that have these factors."""
    return dict(factors)


def _in_cells(
    cells: Mapping[str, tuple[Sequence[Voice], Sequence[Voice]]],
    rng: random.Random,
    trials: int,
    reference_seconds: float,
    factor: str,
) -> list[Trial]:
    """`trials` trials, one of each cell in turn.

    Args:
        cells: name → who may be source and who target.
        rng: of the shuffles.
        trials: how many; a multiple of the number of cells.
        reference_seconds: of each.
        factor: what the cell's name is called in `Trial.factors`; "" where it is none.
    """
    for name, (sources, targets) in cells.items():
        if len({v.name for v in (*sources, *targets)}) < 2 or not sources or not targets:
            raise UserError(
                f"{name}: {len(sources)} source and {len(targets)} target speakers; "
                "two different ones are needed"
            )
    _divide(trials, len(cells), f"the cells {', '.join(cells)}")
    pairs = {name: even_pairs(*who, rng) for name, who in cells.items()}
    turns, built = Sources(), []
    for number in range(trials // len(cells)):
        for name, stream in pairs.items():
            source, target = next(stream)
            utterance, length = turns.next(name, source, target)
            trial_id = f"{name}-{number:04d}-{source.name}-{target.name}"
            factors = {factor: name} if factor else {}
            if source.gender and target.gender:
                factors["gender_pair"] = f"{source.gender}2{target.gender}"
            factors["source_length"] = length
            built.append(
                make_trial(trial_id, utterance, source, target, reference_seconds, factors)
            )
    return built


def _divide(trials: int, parts: int, of: str) -> None:
    """Raises UserError unless all parts get equally many trials, and at least one."""
    if trials % parts or trials < parts:
        raise UserError(
            f"trials={trials} must be a multiple of {parts} ({of}); "
            f"take {trials + parts - trials % parts}"
        )


def cross_gender(
    recordings: Sequence[Recording], *, seed: int, trials: int, reference_seconds: float = 5.0
) -> list[Trial]:
    """F2F, F2M, M2F and M2M in equal numbers, balanced over speakers and source lengths."""
    rng = random.Random(seed)
    voices = deal(recordings, rng, reference_seconds=reference_seconds)
    of = {g: [v for v in voices if v.gender == g] for g in "FM"}
    if not all(of.values()):
        raise UserError(
            f"{len(of['F'])} women and {len(of['M'])} men with enough recordings; cross_gender "
            "needs both: is the corpus's speaker table there?"
        )
    cells = {f"{a}2{b}": (of[a], of[b]) for a in "FM" for b in "FM"}
    return _in_cells(cells, rng, trials, reference_seconds, "gender_pair")


def unseen_speakers(
    recordings: Sequence[Recording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    trained_on: frozenset[str] = frozenset(),
    strata: bool = False,
) -> list[Trial]:
    """Only speakers that none of the systems has heard, each equally often source and target.

    Args:
        recordings: a corpus.
        seed: of the shuffles.
        trials: how many.
        reference_seconds: of each.
        trained_on: all that the systems declare together (see `bench.validity.exposure`);
            speakers whose exposure is unknown are left out.
        strata: instead, equal numbers of s2s, s2u, u2s, u2u: seen and unseen sources and targets.

    Raises:
        UserError: names the counts where the corpus has too few speakers of a kind.
    """
    rng = random.Random(seed)
    voices = deal(recordings, rng, reference_seconds=reference_seconds)
    of: dict[str, list[Voice]] = {SEEN: [], UNSEEN: [], UNKNOWN: []}
    for voice in voices:
        of[heard(voice.target, trained_on)].append(voice)
    if len(of[UNSEEN]) < 2 or (strata and len(of[SEEN]) < 2):
        raise UserError(
            f"of {len(voices)} speakers {len(of[SEEN])} are seen, {len(of[UNSEEN])} unseen and "
            f"{len(of[UNKNOWN])} unknown to what the systems were trained on "
            f"({', '.join(sorted(trained_on)) or 'nothing'}); two of a kind are needed"
        )
    if strata:
        kinds = {"s": of[SEEN], "u": of[UNSEEN]}
        cells = {f"{a}2{b}": (kinds[a], kinds[b]) for a in "su" for b in "su"}
        return _in_cells(cells, rng, trials, reference_seconds, "seen")
    return _in_cells({"U": (of[UNSEEN],) * 2}, rng, trials, reference_seconds, "")


def reference_length(
    recordings: Sequence[Recording],
    *,
    seed: int,
    trials: int,
    lengths: Sequence[float] = LENGTHS,
) -> list[Trial]:
    """One source and one chain of references at each of `lengths` seconds; only that varies.

    The shorter references are prefixes of the longer ones and the enrolment stays the same.
    """
    _divide(trials, len(lengths), "the lengths")
    rng = random.Random(seed)
    voices = deal(recordings, rng, reference_seconds=max(lengths))
    if len(voices) < 2:
        raise UserError(f"one speaker with {max(lengths):g} s of reference; two are needed")
    turns = Sources()
    return [
        make_trial(
            f"L-{number:04d}-{source.name}-{target.name}-{seconds:g}s",
            utterance,
            source,
            target,
            seconds,
            {"reference_seconds": f"{seconds:g}", "source_length": length},
        )
        for number, (source, target) in enumerate(
            islice(even_pairs(voices, voices, rng), trials // len(lengths))
        )
        for utterance, length in [turns.next("L", source, target)]
        for seconds in lengths
    ]


def cross_lingual(
    recordings: Sequence[Recording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    languages: Sequence[str] = (),
) -> list[Trial]:
    """Source and reference in every pair of languages: crossed ones, and one language as control.

    Args:
        recordings: a corpus in several languages.
        seed: of the shuffles.
        trials: how many.
        reference_seconds: of each.
        languages: of the sources; empty for all. References are in all of the corpus's languages.

    Raises:
        UserError: if the corpus has one language only.
    """
    rng = random.Random(seed)
    by_language = {
        language: _of_language(recordings, language, rng, reference_seconds)
        for language in sorted({r.language for r in recordings if r.language})
    }
    by_language = {language: voices for language, voices in by_language.items() if voices}
    if len(by_language) < 2:
        raise UserError(
            f"languages with enough recordings: {', '.join(by_language) or 'none'}; two are needed"
        )
    if missing := set(languages) - set(by_language):
        raise UserError(f"no {sorted(missing)[0]!r} in {', '.join(by_language)}")
    cells = {
        f"{a}2{b}": (sources, targets)
        for a, sources in by_language.items()
        for b, targets in by_language.items()
        if (not languages or a in languages)
        and len({v.name for v in (*sources, *targets)}) > 1
        and not (len(sources) == len(targets) == 1 and sources[0].name == targets[0].name)
    }
    return _in_cells(cells, rng, trials, reference_seconds, "languages")


def _of_language(
    recordings: Sequence[Recording], language: str, rng: random.Random, reference_seconds: float
) -> list[Voice]:
    """The speakers with enough in this language; none is no error."""
    own = [r for r in recordings if r.language == language]
    try:
        return deal(own, rng, reference_seconds=reference_seconds)
    except UserError:
        return []


def expressive(
    recordings: Sequence[Recording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    neutral: str = "neutral",
) -> list[Trial]:
    """A source of every emotion in equal numbers, the reference neutral: what of it is kept?

    Source and target speak one language. Neutral sources are the control.
    """
    rng = random.Random(seed)
    emotions = sorted({r.emotion for r in recordings if r.emotion})
    if neutral not in emotions or len(emotions) < 2:
        raise UserError(
            f"emotions in the corpus: {', '.join(emotions) or 'none'}; {neutral!r} and one more "
            "are needed"
        )
    languages = sorted({r.language for r in recordings})
    streams: dict[str, dict[str, list[Voice]]] = {}
    for emotion in emotions:
        for language in languages:
            own = [r for r in recordings if r.language == language]
            voices = deal(
                own,
                # One deal for all emotions: the same reference and enrolment in all cells.
                random.Random(f"{seed}:{language}"),
                reference_seconds=reference_seconds,
                source=lambda r, emotion=emotion: r.emotion == emotion,  # type: ignore[misc]
                reference=lambda r: r.emotion == neutral,
            )
            streams.setdefault(emotion, {})[language] = voices
    cells = len(emotions) * len(languages)
    _divide(trials, cells, f"{len(emotions)} emotions in {len(languages)} languages")
    by_language = [
        _in_cells(
            {emotion: (streams[emotion][language],) * 2 for emotion in emotions},
            rng,
            trials // len(languages),
            reference_seconds,
            "emotion",
        )
        for language in languages
    ]
    return list(chain.from_iterable(zip(*by_language, strict=True)))


def grid(
    recordings: Sequence[Recording],
    *,
    seed: int,
    trials: int = 1200,
    references: int = 12,
    reference_seconds: float = 10.0,
) -> list[Trial]:
    """Every source with every reference, as in seed-vc's evaluation (its EVAL.md): 100 × 12.

    Half of the reference speakers are women, half men; they are no sources.
    """
    _divide(trials, references, "the references")
    rng = random.Random(seed)
    voices = deal(recordings, rng, reference_seconds=reference_seconds)
    shuffled = rng.sample(voices, len(voices))
    women = [v for v in shuffled if v.gender == "F"]
    men = [v for v in shuffled if v.gender == "M"]
    half = references // 2
    targets = women[:half] + men[: references - half]
    names = {v.name for v in targets}
    left = [[v for v in of if v.name not in names] for of in (women, men)]
    sources = [v for pair in zip_longest(*left) for v in pair if v is not None]
    if len(targets) < references or not sources:
        raise UserError(
            f"{len(women)} women and {len(men)} men with enough recordings; {references} are "
            "needed as references and one more as source"
        )
    turns = Sources()
    built = []
    used: set[str] = set()
    for number in range(trials // references):
        source = sources[number % len(sources)]
        # No source comes twice: with this many tries every length class has come round.
        for _ in range(3 * sum(map(len, source.sources.values()))):
            utterance, length = turns.next("grid", source, *targets)
            if utterance.utterance_id not in used:
                break
        else:
            raise UserError(
                f"{len(sources)} speakers are left as sources, and {source.name} has too few "
                f"recordings for {trials // references} different ones; ask for fewer trials"
            )
        used.add(utterance.utterance_id)
        for place, target in enumerate(targets):
            built.append(
                make_trial(
                    f"G-{number:03d}-{place:02d}-{source.name}-{target.name}",
                    utterance,
                    source,
                    target,
                    reference_seconds,
                    {
                        "gender_pair": f"{source.gender}2{target.gender}",
                        "source_length": length,
                    },
                )
            )
    return built


PROTOCOLS: dict[str, Callable[..., list[Trial]]] = {
    "cross_gender": cross_gender,
    "unseen_speakers": unseen_speakers,
    "reference_length": reference_length,
    "cross_lingual": cross_lingual,
    "expressive": expressive,
    "grid": grid,
}

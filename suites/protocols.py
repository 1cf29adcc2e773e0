"""The protocols: seeded builders of trial lists of any size over any corpus.

All share three rules. Nobody is source and target of one trial. A speaker's recordings are dealt
once (`suites.dealing`). Every list is interleaved, so that its beginning is as balanced as the
whole. The lists over the embedded corpus are frozen and have separate builders
(`suites.embedded`).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice, zip_longest

from bench.errors import UserError
from bench.trials import Trial
from bench.validity.exposure import SEEN, UNKNOWN, UNSEEN, speaker_exposure
from suites.corpora.table import CorpusRecording
from suites.dealing import DealtSpeaker, SourceQueue, deal, even_pairs, make_trial
from suites.listed import listed

LENGTHS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)  # seconds of reference, each a prefix of the next


def _in_cells(
    cells: Mapping[str, tuple[Sequence[DealtSpeaker], Sequence[DealtSpeaker]]],
    rng: random.Random,
    trials: int,
    reference_seconds: float,
    factor: str,
) -> list[Trial]:
    """`trials` trials, one of each cell in turn.

    Args:
        cells: name → possible source speakers, possible target speakers.
        rng: of the shuffles.
        trials: how many; a multiple of the number of cells.
        reference_seconds: of each trial.
        factor: the key in `Trial.factors` that holds the cell's name; "" for no such factor.

    Raises:
        UserError: if a cell has too few speakers, or `trials` cannot be split evenly.
    """
    for name, (sources, targets) in cells.items():
        if len({s.name for s in (*sources, *targets)}) < 2 or not sources or not targets:
            raise UserError(
                f"{name}: {len(sources)} source and {len(targets)} target speakers; "
                "two different ones are needed"
            )
    _divide(trials, len(cells), f"the cells {', '.join(cells)}")
    pairs = {name: even_pairs(*who, rng) for name, who in cells.items()}
    queue, built = SourceQueue(), []
    for number in range(trials // len(cells)):
        for name, stream in pairs.items():
            source, target = next(stream)
            utterance, length = queue.next(name, source, target)
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
    recordings: Sequence[CorpusRecording], *, seed: int, trials: int, reference_seconds: float = 5.0
) -> list[Trial]:
    """F2F, F2M, M2F and M2M in equal numbers, balanced over speakers and source lengths."""
    rng = random.Random(seed)
    speakers = deal(recordings, rng, reference_seconds=reference_seconds)
    of = {g: [s for s in speakers if s.gender == g] for g in "FM"}
    if not all(of.values()):
        raise UserError(
            f"{len(of['F'])} women and {len(of['M'])} men with enough recordings; cross_gender "
            "needs both: is the corpus's speaker table there?"
        )
    cells = {f"{a}2{b}": (of[a], of[b]) for a in "FM" for b in "FM"}
    return _in_cells(cells, rng, trials, reference_seconds, "gender_pair")


def unseen_speakers(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    trained_on: frozenset[str] = frozenset(),
    strata: bool = False,
) -> list[Trial]:
    """Only speakers outside of all training data, each equally often source and target.

    Args:
        recordings: a corpus.
        seed: of the shuffles.
        trials: how many.
        reference_seconds: of each.
        trained_on: the training data of all systems together (see `bench.validity.exposure`).
            Speakers whose training exposure is unknown are left out.
        strata: instead, equal numbers of s2s, s2u, u2s, u2u: seen and unseen sources and targets.

    Raises:
        UserError: names the counts where the corpus has too few speakers of a kind.
    """
    rng = random.Random(seed)
    speakers = deal(recordings, rng, reference_seconds=reference_seconds)
    of: dict[str, list[DealtSpeaker]] = {SEEN: [], UNSEEN: [], UNKNOWN: []}
    for speaker in speakers:
        of[speaker_exposure(speaker.target, trained_on)].append(speaker)
    if len(of[UNSEEN]) < 2 or (strata and len(of[SEEN]) < 2):
        raise UserError(
            f"of {len(speakers)} speakers {len(of[SEEN])} are seen, {len(of[UNSEEN])} unseen and "
            f"{len(of[UNKNOWN])} unknown to what the systems were trained on "
            f"({', '.join(sorted(trained_on)) or 'nothing'}); two of a kind are needed"
        )
    if strata:
        kinds = {"s": of[SEEN], "u": of[UNSEEN]}
        cells = {f"{a}2{b}": (kinds[a], kinds[b]) for a in "su" for b in "su"}
        return _in_cells(cells, rng, trials, reference_seconds, "seen")
    return _in_cells({"U": (of[UNSEEN],) * 2}, rng, trials, reference_seconds, "")


def reference_length(
    recordings: Sequence[CorpusRecording],
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
    speakers = deal(recordings, rng, reference_seconds=max(lengths))
    if len(speakers) < 2:
        raise UserError(f"one speaker with {max(lengths):g} s of reference; two are needed")
    queue = SourceQueue()
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
            islice(even_pairs(speakers, speakers, rng), trials // len(lengths))
        )
        for utterance, length in [queue.next("L", source, target)]
        for seconds in lengths
    ]


def cross_lingual(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    languages: Sequence[str] = (),
) -> list[Trial]:
    """Source and reference in every pair of languages; pairs of one language are the control.

    Args:
        recordings: a corpus in several languages.
        seed: of the shuffles.
        trials: how many.
        reference_seconds: of each.
        languages: of the sources; empty for all. References are in all of the corpus's languages.

    Raises:
        UserError: if the corpus has one language only, or lacks one of `languages`.
    """
    rng = random.Random(seed)
    by_language = {
        language: _of_language(recordings, language, rng, reference_seconds)
        for language in sorted({r.language for r in recordings if r.language})
    }
    by_language = {language: speakers for language, speakers in by_language.items() if speakers}
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
        and len({s.name for s in (*sources, *targets)}) > 1
        and not (len(sources) == len(targets) == 1 and sources[0].name == targets[0].name)
    }
    return _in_cells(cells, rng, trials, reference_seconds, "languages")


def _of_language(
    recordings: Sequence[CorpusRecording],
    language: str,
    rng: random.Random,
    reference_seconds: float,
) -> list[DealtSpeaker]:
    """The speakers with enough recordings in this language; there may be none."""
    in_language = [r for r in recordings if r.language == language]
    try:
        return deal(in_language, rng, reference_seconds=reference_seconds)
    except UserError:
        return []


def expressive(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    trials: int,
    reference_seconds: float = 5.0,
    neutral: str = "neutral",
) -> list[Trial]:
    """Sources of every emotion in equal numbers, with neutral references.

    It shows how much of the emotion a conversion keeps. Source and target speak one language.
    Neutral sources are the control.
    """
    rng = random.Random(seed)
    emotions = sorted({r.emotion for r in recordings if r.emotion})
    if neutral not in emotions or len(emotions) < 2:
        raise UserError(
            f"emotions in the corpus: {', '.join(emotions) or 'none'}; {neutral!r} and one more "
            "are needed"
        )
    languages = sorted({r.language for r in recordings})
    streams: dict[str, dict[str, list[DealtSpeaker]]] = {}
    for emotion in emotions:
        for language in languages:
            speakers = deal(
                [r for r in recordings if r.language == language],
                # One deal for all emotions: the same reference and enrolment in all cells.
                random.Random(f"{seed}:{language}"),
                reference_seconds=reference_seconds,
                source=lambda r, emotion=emotion: r.emotion == emotion,  # type: ignore[misc]
                reference=lambda r: r.emotion == neutral,
            )
            streams.setdefault(emotion, {})[language] = speakers
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
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    trials: int = 1200,
    references: int = 12,
    reference_seconds: float = 10.0,
) -> list[Trial]:
    """Every source with every reference, as in seed-vc's evaluation (its EVAL.md): 100 × 12.

    Half of the reference speakers are women, half are men. They are never sources.
    """
    _divide(trials, references, "the references")
    rng = random.Random(seed)
    speakers = deal(recordings, rng, reference_seconds=reference_seconds)
    shuffled = rng.sample(speakers, len(speakers))
    women = [s for s in shuffled if s.gender == "F"]
    men = [s for s in shuffled if s.gender == "M"]
    half = references // 2
    targets = women[:half] + men[: references - half]
    names = {s.name for s in targets}
    left = [[s for s in of if s.name not in names] for of in (women, men)]
    sources = [s for pair in zip_longest(*left) for s in pair if s is not None]
    if len(targets) < references or not sources:
        raise UserError(
            f"{len(women)} women and {len(men)} men with enough recordings; {references} are "
            "needed as references and one more as source"
        )
    queue = SourceQueue()
    built = []
    used: set[str] = set()
    for number in range(trials // references):
        source = sources[number % len(sources)]
        # No source is used twice. This many tries go through every length class.
        for _ in range(3 * sum(map(len, source.sources.values()))):
            utterance, length = queue.next("grid", source, *targets)
            if utterance.utterance_id not in used:
                break
        else:
            raise UserError(
                f"{len(sources)} speakers are left as sources, and {source.name} has too few "
                f"recordings for {trials // references} different ones; ask for fewer trials"
            )
        used.add(utterance.utterance_id)
        for column, target in enumerate(targets):
            built.append(
                make_trial(
                    f"G-{number:03d}-{column:02d}-{source.name}-{target.name}",
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
    "listed": listed,
}

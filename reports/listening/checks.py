"""Makes the attention checks of a listening test, traps and gold questions, and its training.

The sounds are recordings of people: references of the run's trials, whose sentences no other screen
has where there are enough of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

import numpy as np

from bench.trials import Trial, Utterance
from reports.listening.design import Screen, Sound, sentence
from reports.listening.format import (
    GOLD,
    HIGH,
    LOW,
    PAIRS,
    REFERENCE,
    TRAINING,
    TRAP,
    TRAP_SOUND,
    WITH_VOICE,
)
from reports.listening.wording import SCALES

DEGRADED = "degraded"
TONES = "tones_"  # a change: this many tones follow the recording


@dataclass(frozen=True)
class SpokenTrap:
    """A recorded instruction: "please choose two"; and the rating that it asks for."""

    path: Path
    rating: float


def recordings(
    trials: Iterable[Trial], used: set[str], rng: np.random.Generator
) -> list[Utterance]:
    """Recordings for checks, each file once, in a seeded order; unused sentences come first."""
    every = {u.path: u for trial in trials for u in trial.references if u.path.is_file()}
    by_path = [every[path] for path in sorted(every)]
    shuffled = [by_path[i] for i in rng.permutation(len(by_path))]
    return sorted(shuffled, key=lambda u: sentence(u.text) in used)


def gold_screens(
    kind: str, count: int, pool: Sequence[Utterance], label: str = "gold"
) -> list[Screen]:
    """Screens with a known answer: in turns the highest and the lowest rating.

    Naturalness: a recording of a person must be rated highest, a strongly degraded one lowest.
    Similarity: a recording compared with itself highest, with another speaker's, where possible of
    another gender, lowest. Pairs: the good one first, then the good one second.

    Returns:
        `count` screens; fewer if the pool has no two speakers where they are needed. `label` tells
        their sounds from those of another call.
    """
    lowest, highest, _ = SCALES[kind]
    screens: list[Screen] = []
    for number, recording in zip(range(count), cycle(pool), strict=False):
        name = f"{label}{number}"
        good = _sound(HIGH, name, recording)
        bad = _sound(LOW, name, recording, DEGRADED)
        reference = None
        if kind in WITH_VOICE:
            reference = _sound(REFERENCE, name, recording)
            other = _other_voice(recording, pool)
            if other is None:
                break
            bad = _sound(LOW, name, other)
        sounds: tuple[Sound, ...]
        if kind in PAIRS:
            sounds = (good, bad) if number % 2 == 0 else (bad, good)
        else:
            sounds = (good,) if number % 2 == 0 else (bad,)
        expected = highest if number % 2 == 0 else lowest
        screens.append(Screen(sounds, reference, GOLD, expected))
    return screens


def trap_screens(
    kind: str,
    count: int,
    pool: Sequence[Utterance],
    spoken: Sequence[SpokenTrap],
    rng: np.random.Generator,
) -> list[Screen]:
    """Screens that ask for a rating: by words where recordings are given, else by tones.

    The answer is in the sound alone. No file that listeners get says which screens are traps.
    """
    answers = list(tone_answers(kind).items())
    answers = [answers[i] for i in rng.permutation(len(answers))]
    screens = []
    if spoken:
        for number, trap in enumerate(spoken):
            screens.append(_trap(kind, f"trap{number}", (trap.path,), trap.rating, pool))
        return screens
    for number, recording in zip(range(count), cycle(pool[::-1]), strict=False):
        tones, answer = answers[number % len(answers)]
        change = f"{TONES}{tones}"
        screens.append(_trap(kind, f"trap{number}", (recording.path,), answer, pool, change))
    return screens


def tone_answers(kind: str) -> Mapping[int, int]:
    """Number of tones → the rating that they ask for; the middle of a scale is never asked for.

    Pairs have two answers only, one for each system, so that few tones have to be counted.
    """
    lowest, highest, step = SCALES[kind]
    if kind in PAIRS:
        return {1: highest, 2: lowest}
    middle = (lowest + highest) / 2
    return {v: v for v in range(lowest, highest + 1, step) if v != middle}


def training_screens(
    kind: str,
    count: int,
    screens: Sequence[Screen],
    pool: Sequence[Utterance],
    tones: bool,
) -> list[Screen]:
    """Screens that listeners see before the test, and whose answers do not count.

    Args:
        kind: of the test.
        count: how many at most.
        screens: of trials that are not in the test; where there are too few, recordings and
            degraded recordings follow.
        pool: recordings for those and for the trap.
        tones: whether the last screen, of two or more, shows what a trap by tones is.
    """
    example = tones and count >= 2 and bool(pool)
    chosen = list(screens[: count - example])
    chosen += gold_screens(kind, count - example - len(chosen), pool, "training")
    if example:
        change, answer = f"{TONES}1", tone_answers(kind)[1]
        chosen.append(_trap(kind, "training_trap", (pool[0].path,), answer, pool, change))
    return [replace(screen, role=TRAINING, expected=None) for screen in chosen]


def _trap(
    kind: str,
    name: str,
    paths: tuple[Path, ...],
    answer: float,
    pool: Sequence[Utterance],
    change: str = "",
) -> Screen:
    sound = Sound(TRAP_SOUND, "", "", name, paths, change=change)
    sounds = (sound, replace(sound, copy=1)) if kind in PAIRS else (sound,)
    reference = _sound(REFERENCE, name, pool[0]) if kind in WITH_VOICE and pool else None
    return Screen(sounds, reference, TRAP, answer)


def _sound(what: str, name: str, recording: Utterance, change: str = "") -> Sound:
    speaker = recording.speaker
    return Sound(what, "", "", name, (recording.path,), speaker, speaker, change=change)


def _other_voice(recording: Utterance, pool: Sequence[Utterance]) -> Utterance | None:
    others = [u for u in pool if u.speaker != recording.speaker]
    return min(others, key=lambda u: u.gender == recording.gender, default=None)

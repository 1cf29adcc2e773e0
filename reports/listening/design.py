"""Chooses the trials of a listening test and who hears what in which order. Reads no sound.

A test with C conditions (systems, or ordered pairs of systems) over N trials is a Latin square:
group g rates trial i under condition (i + g) mod C. Each group hears every condition, no sentence
twice, and over C groups every trial is rated once under each condition. Trials are played in rounds
of C. Within a round every condition occurs once, and over C groups every condition occurs once at
each position. The order of the rounds differs between groups.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from bench.errors import UserError, choose_one_of
from bench.trials import Trial
from reports.listening.format import REPEAT, TRIAL

FIRST_SCREENS = 2  # of a listener without attention checks


@dataclass(frozen=True)
class Sound:
    """One sound of a test before it is processed and blinded.

    Attributes:
        what: one of the constants of `reports.listening.format`.
        system: the system of the run whose sound it is; "" for references, traps and anchors.
        suite: the suite of its trial; "" if it has none.
        trial_id: its trial; "" if it has none.
        paths: the audio files, joined in this order.
        source_speaker: of the trial.
        target_speaker: of the trial.
        gender_pair: of the trial: "F2M".
        change: "" for none; "low_pass_3500", "low_pass_7000", "degraded" or "tones_2"
            (two tones follow).
        first_seconds: only this beginning of the joined files is used; None for all.
        copy: tells apart sounds that are equal otherwise.
    """

    what: str
    system: str
    suite: str
    trial_id: str
    paths: tuple[Path, ...]
    source_speaker: str = ""
    target_speaker: str = ""
    gender_pair: str = ""
    change: str = ""
    first_seconds: float | None = None
    copy: int = 0


@dataclass(frozen=True)
class Screen:
    """What a listener rates at once.

    Attributes:
        sounds: one, two, or several for MUSHRA.
        reference: played openly beside them, or None.
        role: what it is for: TRIAL, TRAP, GOLD, REPEAT or TRAINING.
        expected: the rating that an attentive listener gives; None if any can be right.
        repeats: the number of the screen that it repeats, or None.
    """

    sounds: tuple[Sound, ...]
    reference: Sound | None = None
    role: str = TRIAL
    expected: float | None = None
    repeats: int | None = None


@dataclass(frozen=True)
class Design:
    """Screens, and for each listener group the numbers of its screens in their order.

    Attributes:
        screens: all.
        groups: of each listener group, the numbers of its screens.
        training: the numbers of the screens that every listener sees before; they do not count.
    """

    screens: tuple[Screen, ...]
    groups: tuple[tuple[int, ...], ...]
    training: tuple[int, ...] = ()


def sentence(text: str) -> str:
    """The text as it is compared: lower case, letters and digits only."""
    return "".join(c for c in text.lower() if c.isalnum())


def gender_pair(trial: Trial) -> str:
    """Gender of source and target: "F2M"; "" if one is unknown."""
    source, target = trial.source.gender, trial.references[0].gender
    return trial.factors.get("gender_pair") or (f"{source}2{target}" if source and target else "")


def pick_trials(
    candidates: Sequence[tuple[str, Trial]],
    count: int | None,
    rng: np.random.Generator,
    multiple: int = 1,
    targets: bool = False,
) -> list[tuple[str, Trial]]:
    """Chooses trials of different sentences, balanced over gender pairs, speakers and suites.

    The next trial is always one whose gender pair, target speaker, source speaker and suite were
    chosen least often so far; among equals the seeded generator decides.

    Args:
        candidates: (suite, trial) of those that can be used.
        count: how many; None for `DEFAULT_TRIALS`, or as many as there are if these are fewer.
        rng: decides among equals.
        multiple: the number of conditions; without `count` the number is a multiple of it.
        targets: whether the sentences of the trials' target recordings count too.

    Raises:
        UserError: if there are fewer trials of different sentences than wanted.
    """
    wanted = DEFAULT_TRIALS if count is None else count
    left = [candidates[i] for i in rng.permutation(len(candidates))]
    chosen: list[tuple[str, Trial]] = []
    used: set[str] = set()
    seen: Counter[tuple[str, str]] = Counter()

    def traits(suite: str, trial: Trial) -> tuple[tuple[str, str], ...]:
        return (
            ("pair", gender_pair(trial)),
            ("target", trial.speaker),
            ("source", trial.source.speaker),
            ("suite", suite),
        )

    while left and len(chosen) < wanted:
        best = min(range(len(left)), key=lambda i: [seen[t] for t in traits(*left[i])])
        suite, trial = left.pop(best)
        texts = sentences(trial, targets)
        if texts & used:
            continue
        used |= texts
        chosen.append((suite, trial))
        seen.update(traits(suite, trial))
    if count is None and len(chosen) >= multiple:
        return chosen[: len(chosen) - len(chosen) % multiple]
    if len(chosen) < (wanted if count is not None else multiple):
        needed = f"trials={count}" if count is not None else f"a design of {multiple} conditions"
        raise UserError(
            f"the run has {len(chosen)} usable trials of different sentences, {needed} needs "
            f"{count or multiple}; lower trials=, name fewer systems, or rate a larger run"
        )
    return chosen


DEFAULT_TRIALS = 24


def not_skipped(every: Sequence[tuple[str, Trial]], skip: Sequence[str]) -> list[tuple[str, Trial]]:
    """The (suite, trial) pairs without those that are named "trial_id" or "suite/trial_id".

    Raises:
        UserError: if a name is unknown.
    """
    names = [{trial.trial_id, f"{suite}/{trial.trial_id}"} for suite, trial in every]
    known = set().union(*names)
    for name in skip:
        if name not in known:
            raise UserError(f"skip={name}: no such trial; {choose_one_of(name, sorted(known))}")
    return [of for of, called in zip(every, names, strict=True) if not called & set(skip)]


def sentences(trial: Trial, targets: bool) -> set[str]:
    """The sentences that the stimuli of a trial say."""
    texts = {sentence(trial.source.text)}
    if targets and trial.target is not None:
        texts.add(sentence(trial.target.text))
    return texts


def dealt(chosen: Sequence[tuple[str, Trial]]) -> list[tuple[str, Trial]]:
    """The trials sorted by gender pair: the trials of each condition then have all of them."""
    return sorted(chosen, key=lambda of: gender_pair(of[1]))


def ordered_pairs(systems: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    """Every pair in both orders; with a baseline only the pairs that contain it."""
    pairs = [p for p in combinations(systems, 2) if baseline is None or baseline in p]
    return [ordered for a, b in pairs for ordered in ((a, b), (b, a))]


def latin_square(
    trials: int, conditions: int, groups: int, rng: np.random.Generator
) -> list[list[tuple[int, int]]]:
    """For each group, the (trial, condition) of its screens in their order.

    Args:
        trials: how many; at least `conditions`.
        conditions: how many.
        groups: a multiple of `conditions`.
        rng: shuffles rounds, and trials within them.
    """
    rounds = [
        list(range(first, min(first + conditions, trials)))
        for first in range(0, trials, conditions)
    ]
    whole = [r for r in rounds if len(r) == conditions]
    part = [r for r in rounds if len(r) < conditions]
    within: list[list[int]] = []
    plans: list[list[tuple[int, int]]] = []
    for group in range(groups):
        if group % conditions == 0:  # one square is complete: another order within the rounds
            within = [list(rng.permutation(len(r))) for r in (*whole, *part)]
        order = [whole[i] for i in rng.permutation(len(whole))] + part
        plans.append(
            [
                (members[place], (members[place] + group) % conditions)
                for members, places in zip(order, within, strict=True)
                for place in places
            ]
        )
    return plans


def with_attention(
    screens: Sequence[Screen],
    groups: Sequence[Sequence[int]],
    checks: Sequence[Screen],
    repeats: int,
    rng: np.random.Generator,
    training: Sequence[Screen] = (),
) -> Design:
    """Adds attention checks to each group, and screens that repeat an earlier one of the group.

    Args:
        screens: those of the trials.
        groups: numbers of screens, in order.
        checks: traps and gold questions; every group gets each once, at places of its own.
        repeats: how many screens of a group are repeated. They come from its first half, and the
            repetition from its last third.
        rng: chooses places and screens.
        training: screens before the test.
    """
    every = [*screens, *checks]
    numbers = range(len(screens), len(every))
    repeated: dict[int, int] = {}
    orders = []
    for group in groups:
        order = list(group)
        first = rng.permutation(max(len(order) // 2, 1))[:repeats]
        again = [order[place] for place in sorted(int(i) for i in first)]
        for original in again:
            if original not in repeated:
                repeated[original] = len(every)
                every.append(replace(every[original], role=REPEAT, repeats=original))
        for number in numbers:
            order.insert(int(rng.integers(min(FIRST_SCREENS, len(order)), len(order) + 1)), number)
        for original in again:
            lowest = max(2 * len(order) // 3, order.index(original) + 1)
            order.insert(int(rng.integers(lowest, len(order) + 1)), repeated[original])
        orders.append(tuple(order))
    before = tuple(range(len(every), len(every) + len(training)))
    return Design((*every, *training), tuple(orders), before)

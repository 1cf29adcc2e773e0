"""Makes the stimuli of a listening test from a scored run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.files import fingerprint, sha256_of
from bench.results import ScoredRun
from bench.systems import CEILING, FLOOR
from bench.trials import Trial
from reports.listening.checks import (
    SpokenTrap,
    gold_screens,
    recordings,
    tone_answers,
    training_screens,
    trap_screens,
)
from reports.listening.design import (
    Design,
    Screen,
    Sound,
    dealt,
    gender_pair,
    latin_square,
    not_skipped,
    ordered_pairs,
    pick_trials,
    sentences,
    with_attention,
)
from reports.listening.format import (
    CONVERTED,
    FORMAT,
    HIGH,
    LOW,
    MUSHRA,
    PAIRS,
    REFERENCE,
    SOURCE,
    TARGET,
    TRAP,
    WITH_VOICE,
)
from reports.listening.wording import Wording, scale, trap_notice

REFERENCE_SECONDS = 8.0  # of a target's reference that listeners hear
MOST_CONDITIONS = 12  # on a MUSHRA screen: ITU-R BS.1534 and webMUSHRA
GROUND_TRUTH = "source"  # name of the source recordings in a run that has no floor


@dataclass(frozen=True)
class Options:
    """What a user can choose.

    Attributes:
        kind: one of `KINDS`.
        systems: names; empty for all. Recordings of people are added to nmos and smos.
        suites: names; empty for all.
        trials: how many; None for 24, or fewer in a small run.
        per_listener: trials that one listener hears; None for all.
        listeners: expected number. Each has an order of their own; rounded up to whole squares.
        baseline: for pairs: compare each system with this one only; "" for every pair.
        seed: of the choice of trials, orders and ids.
        traps, gold, repeats: attention checks of each listener.
        spoken: recorded instructions; empty for traps by tones.
        training: screens before the test that do not count; one at most for MUSHRA.
        skip: trials that are left out for all systems: "trial_id" or "suite/trial_id".
        sample_rate: of the stimuli in Hz; None for the highest of the sounds, 48000 at most.
    """

    kind: str
    systems: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    trials: int | None = None
    per_listener: int | None = None
    listeners: int = 24
    baseline: str = ""
    seed: int = 1
    traps: int = 1
    gold: int = 2
    repeats: int = 2
    spoken: tuple[SpokenTrap, ...] = ()
    training: int = 3
    skip: tuple[str, ...] = ()
    sample_rate: int | None = None


@dataclass(frozen=True)
class ListeningTest:
    """A designed test whose sounds are not yet written.

    Attributes:
        test_id: 16 hexadecimal digits that begin with a letter: pymushra turns texts that look like
            numbers into numbers.
        options: of the user.
        wording: the words.
        run: name of the run.
        design: screens and groups.
        ids: of the sounds.
        screen_ids: of the screens, by their number.
        conditions: names of the systems or ordered pairs that are rated.
        trials: how many.
        notes: what the user should know.
    """

    test_id: str
    options: Options
    wording: Wording
    run: str
    design: Design
    ids: Mapping[Sound, str]
    screen_ids: Sequence[str]
    conditions: Sequence[str]
    trials: int
    notes: Sequence[str] = field(default=())

    def public(self) -> dict[str, Any]:
        """The contents of test.json."""
        screens = [
            {
                "screen": self.screen_ids[number],
                "stimuli": [self.ids[sound] for sound in screen.sounds],
                "reference": self.ids[screen.reference] if screen.reference else None,
                "role": "trial",
            }
            for number, screen in enumerate(self.design.screens)
        ]
        return {
            "format": FORMAT,
            "test_id": self.test_id,
            "kind": self.options.kind,
            "scale": scale(self.options.kind, self.wording),
            "screens": sorted(screens, key=lambda screen: str(screen["screen"])),
            "groups": [[self.screen_ids[n] for n in group] for group in self.design.groups],
            "training": [self.screen_ids[n] for n in self.design.training],
            "notice": self._notice(),
            "language": self.wording.language,
        }

    def key(self, processing: Mapping[Sound, Mapping[str, Any]]) -> dict[str, Any]:
        """The contents of key.json; `processing` says what was done to each sound."""
        by_id = sorted((name, sound) for sound, name in self.ids.items())
        return {
            "format": FORMAT,
            "test_id": self.test_id,
            "run": self.run,
            "options": _plain(self.options),
            "stimuli": {
                name: {
                    "system": sound.system,
                    "suite": sound.suite,
                    "trial_id": sound.trial_id if sound.suite else "",
                    "sha256": processing[sound]["sha256"],
                    "source_speaker": sound.source_speaker,
                    "target_speaker": sound.target_speaker,
                    "gender_pair": sound.gender_pair,
                    "what": sound.what,
                }
                for name, sound in by_id
            },
            "screens": {
                self.screen_ids[number]: {
                    "role": screen.role,
                    "expected": screen.expected,
                    "repeats": None if screen.repeats is None else self.screen_ids[screen.repeats],
                }
                for number, screen in enumerate(self.design.screens)
            },
            "processing": {
                name: {k: v for k, v in processing[sound].items() if k != "sha256"}
                for name, sound in by_id
            },
        }

    def _notice(self) -> str:
        """What every screen says about traps by tones; "" if there are none."""
        if self.options.spoken or all(screen.role != TRAP for screen in self.design.screens):
            return ""
        return trap_notice(self.wording, tone_answers(self.options.kind))


def design_test(run: ScoredRun, options: Options, wording: Wording) -> ListeningTest:
    """Designs a test over the trials of a run, read by `bench.run.folder.read_report`.

    Raises:
        UserError: if a name is unknown, or the run has too few systems or trials.
    """
    conditions = _conditions(run, options)
    suites = _chosen("suite", options.suites, list(run.suites))
    test_id = _test_id(run, options, wording)
    rng = np.random.default_rng([options.seed, int(test_id, 16) % 2**32])
    rows = run.scores[run.scores["status"] == "ok"].set_index(["system", "suite", "trial_id"])
    every = [(suite, trial) for suite in suites for trial in run.suites[suite].trials]
    wanted = not_skipped(every, options.skip)
    usable = [of for of in wanted if _usable(run, rows, conditions, *of, options.kind)]
    notes = []
    if len(usable) < len(wanted):
        notes.append(
            f"{len(wanted) - len(usable)} trials are left out: a sound of theirs failed or is "
            "missing."
        )
    pairs = ordered_pairs(conditions, options.baseline or None) if options.kind in PAIRS else []
    count = {**dict.fromkeys(PAIRS, len(pairs)), MUSHRA: 1}.get(options.kind, len(conditions))
    has_target = any(run.anchors.get(name) == CEILING for name in conditions)
    chosen = dealt(pick_trials(usable, options.trials, rng, count, has_target))
    blocks = _blocks(len(chosen), count, options.per_listener)
    square = count * len(blocks)
    groups = -(-options.listeners // square) * square

    def sound(name: str, of: tuple[str, Trial]) -> Sound:
        return _sound(run, rows, name, *of)

    def rated(of: tuple[str, Trial], condition: int) -> Screen:
        if options.kind == MUSHRA:
            return _mushra(rng, [sound(name, of) for name in conditions], *of)
        names = pairs[condition] if options.kind in PAIRS else (conditions[condition],)
        voice = _voice(*of) if options.kind in WITH_VOICE else None
        return Screen(tuple(sound(name, of) for name in names), voice)

    screens: list[Screen] = []
    numbers: dict[tuple[int, int], int] = {}
    for t, of in enumerate(chosen):
        for c in range(count):
            numbers[t, c] = len(screens)
            screens.append(rated(of, c))
    plans: list[list[int]] = [[] for _ in range(groups)]
    for b, block in enumerate(blocks):
        for g, plan in enumerate(latin_square(len(block), count, groups // len(blocks), rng)):
            order = [numbers[block[t], c] for t, c in plan]
            plans[g * len(blocks) + b] = order
    used = {text for _, trial in chosen for text in sentences(trial, has_target)}
    pool = recordings((trial for _, trial in usable), used, rng)
    checks: list[Screen] = []
    checked = options.kind != MUSHRA  # which has its hidden reference and anchors
    if checked:
        checks = gold_screens(options.kind, options.gold, pool)
        checks += trap_screens(options.kind, options.traps, pool, options.spoken, rng)
        if len([s for s in checks if s.role != TRAP]) < options.gold:
            notes.append("There are fewer gold questions: the run has one target speaker only.")
    others = [of for of in usable if not sentences(of[1], has_target) & used]
    picked = [others[i] for i in rng.permutation(len(others))[: options.training]]
    training = training_screens(
        options.kind,
        options.training if checked else min(options.training, 1),
        [rated(of, int(c)) for of, c in zip(picked, cycle(rng.permutation(count)), strict=False)],
        [*pool[options.gold :], *pool[: options.gold]] if checked else (),
        bool(options.traps) and not options.spoken,
    )
    if options.training and not training:
        notes.append("There is no training: no trial of the run is left for it.")
    repeats = options.repeats if checked else 0
    design = with_attention(screens, plans, checks, repeats, rng, training)
    if len(chosen) % count:
        notes.append(
            f"{len(chosen)} trials are no multiple of {count} conditions: a listener hears some "
            "conditions once more than others."
        )
    if groups != options.listeners:
        notes.append(
            f"There are {groups} listener groups, a multiple of {square}: invite {groups} "
            "listeners, so that every stimulus is rated equally often."
        )
    sounds = _sounds(design)
    names = _ids("s", len(sounds), rng)
    return ListeningTest(
        test_id=test_id,
        options=options,
        wording=wording,
        run=run.name,
        design=design,
        ids=dict(zip(sounds, names, strict=True)),
        screen_ids=_ids("q", len(design.screens), rng),
        conditions=[f"{a} / {b}" for a, b in pairs] or conditions,
        trials=len(chosen),
        notes=tuple(notes),
    )


def _conditions(run: ScoredRun, options: Options) -> list[str]:
    """The systems that are rated, with recordings of people where the kind of test has them."""
    floor = next((n for n, role in run.anchors.items() if role == FLOOR), GROUND_TRUTH)
    ceiling = next((n for n, role in run.anchors.items() if role == CEILING), None)
    known = [*run.systems, *(name for name in (floor, ceiling) if name)]
    chosen = _chosen("system", options.systems, known, run.systems)
    added = {
        "nmos": (floor,),
        "smos": (floor, ceiling) if ceiling else (floor,),
        MUSHRA: (floor,),
    }.get(options.kind, ())
    conditions = list(dict.fromkeys([*chosen, *added]))
    if not set(conditions) & set(run.systems):
        raise UserError(f"{run.folder} has no converted speech to rate; name a system: systems=…")
    if options.kind in PAIRS:
        if len(conditions) < 2:
            raise UserError(
                f"{options.kind} compares two systems, {run.folder} has "
                f"{', '.join(conditions)}; add systems=…,{floor} to compare with recordings"
            )
        if options.baseline and options.baseline not in conditions:
            raise UserError(
                f"unknown baseline {options.baseline!r}; "
                f"{choose_one_of(options.baseline, conditions)}"
            )
    elif options.baseline:
        raise UserError(f"baseline= is for {', '.join(PAIRS)}; {options.kind} has no pairs")
    if options.kind == MUSHRA and len(conditions) + 2 > MOST_CONDITIONS:
        raise UserError(
            f"a MUSHRA screen has {MOST_CONDITIONS} clips at most, with reference and two anchors; "
            f"name {MOST_CONDITIONS - 3} systems or fewer: systems=…"
        )
    return conditions


def _chosen(
    what: str, names: Sequence[str], known: Sequence[str], default: Sequence[str] | None = None
) -> list[str]:
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}; {choose_one_of(name, known)}")
    return list(dict.fromkeys(names)) or list(known if default is None else default)


def _usable(
    run: ScoredRun,
    rows: pd.DataFrame,
    conditions: Sequence[str],
    suite: str,
    trial: Trial,
    kind: str,
) -> bool:
    recorded = {GROUND_TRUTH} - {*run.systems, *run.anchors}  # needs no row of the run
    if any(
        (name, suite, trial.trial_id) not in rows.index
        for name in conditions
        if name not in recorded
    ):
        return False
    paths = [p for name in conditions for p in _sound(run, rows, name, suite, trial).paths]
    if kind in WITH_VOICE:
        paths += _voice(suite, trial).paths
    return all(path.is_file() for path in paths)


def _sound(run: ScoredRun, rows: pd.DataFrame, name: str, suite: str, trial: Trial) -> Sound:
    """What a system made of a trial, or the recording that a floor or ceiling is."""
    role = run.anchors.get(name, FLOOR if name == GROUND_TRUTH else "")
    key = (name, suite, trial.trial_id)
    path = run.folder / str(rows.at[key, "wav"]) if key in rows.index else trial.source.path
    what = {FLOOR: SOURCE, CEILING: TARGET}.get(role, CONVERTED)
    if name in run.systems:
        what = CONVERTED
    return Sound(what, name, suite, trial.trial_id, (path,), *_speakers(trial))


def _voice(suite: str, trial: Trial) -> Sound:
    """The reference that the systems got, or the beginning of it."""
    seconds = min(trial.reference_seconds or REFERENCE_SECONDS, REFERENCE_SECONDS)
    paths = tuple(u.path for u in trial.references)
    of = _speakers(trial)
    return Sound(REFERENCE, "", suite, trial.trial_id, paths, *of, first_seconds=seconds)


def _mushra(rng: np.random.Generator, sounds: Sequence[Sound], suite: str, trial: Trial) -> Screen:
    """All systems, the hidden reference, and two anchors; the reference is the source."""
    hidden = next(sound for sound in sounds if sound.what == SOURCE)
    of = (suite, trial.trial_id, hidden.paths, *_speakers(trial))
    every = [
        *sounds,
        Sound(LOW, "", *of, change="low_pass_3500"),
        Sound(HIGH, "", *of, change="low_pass_7000"),
    ]
    shuffled = tuple(every[i] for i in rng.permutation(len(every)))
    return Screen(shuffled, Sound(REFERENCE, "", *of))


def _speakers(trial: Trial) -> tuple[str, str, str]:
    return trial.source.speaker, trial.speaker, gender_pair(trial)


def _blocks(trials: int, conditions: int, per_listener: int | None) -> list[list[int]]:
    """The trials in blocks; a listener hears one block."""
    if per_listener is None or per_listener >= trials:
        return [list(range(trials))]
    if per_listener < conditions:
        raise UserError(
            f"per_listener={per_listener} is less than the {conditions} conditions that a listener "
            f"hears; give {conditions} or more"
        )
    count = trials // per_listener
    return [list(range(first, trials, count)) for first in range(count)]


def _sounds(design: Design) -> list[Sound]:
    """Every sound of the screens, once, in their order."""
    return list(
        dict.fromkeys(
            sound
            for screen in design.screens
            for sound in (*screen.sounds, *([screen.reference] if screen.reference else ()))
        )
    )


def _ids(letter: str, count: int, rng: np.random.Generator) -> list[str]:
    """Different random names: a letter and 10 hexadecimal digits."""
    names: dict[str, None] = {}
    while len(names) < count:
        names.setdefault(letter + rng.bytes(5).hex())
    return list(names)


def _test_id(run: ScoredRun, options: Options, wording: Wording) -> str:
    digest = fingerprint(
        [
            run.name,
            run.facts.get("sha256", ""),
            _plain(options),
            wording.language,
            wording.instructions,
            wording.question,
        ]
    )
    return "abcdef"[int(digest[0], 16) % 6] + digest[1:16]


def _plain(options: Options) -> dict[str, Any]:
    """The options as JSON; recorded traps by the hash of their file."""
    spoken = [[sha256_of(trap.path), trap.rating] for trap in options.spoken]
    return {**asdict(options), "spoken": spoken}

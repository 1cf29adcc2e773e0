"""Excludes answers of listeners who did not listen, each exclusion with its rule."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from reports.listening.format import AB, ABX, GOLD, MUSHRA, REPEAT, TRAP, TRIAL
from reports.listening.ratings.exported import ExportedTest

WHOLE = ""  # the screen of an exclusion of all answers of a listener
FEWEST = 5  # ratings of a listener, for rules about their spread
FEWEST_PAIRS = 2  # repeats of a listener, for the rule about them


@dataclass(frozen=True)
class ScreeningRules:
    """Limits of the rules. A listener beyond a limit is excluded.

    `None` switches a rule off. Shares are from 0 to 1; parts of the scale are of its range.

    Attributes:
        traps: share of trap screens that may be missed (P.808 has one trap and allows none).
        gold: share of gold screens that may be missed. A rating within a quarter of the scale of
            what is expected is right: 1 of 1 to 5, as in P.808.
        unplayed: share of clips that may be rated without being played to the end. Such ratings are
            excluded in any case (P.808: all clips must be played).
        constant: variance of the ratings, on a scale of 1 to 5 (P.808: 0.1). A listener who finds
            all pairs equal is kept.
        repeats: mean difference between the two ratings of a repeated screen, as a part of the
            scale. Two random ratings differ by 0.4 on average. Not for ab and abx: listeners who
            hear no difference contradict themselves.
        hidden_reference: share of MUSHRA screens whose hidden reference may be rated below 90
            (ITU-R BS.1534-3, section 4.1.2: 15 %).
        fast: median time per screen, as a share of the median of all listeners.
    """

    traps: float | None = 0.25
    gold: float | None = 0.25
    unplayed: float | None = 0.1
    constant: float | None = 0.1
    repeats: float | None = 0.5
    hidden_reference: float | None = 0.15
    fast: float | None = 0.33

    @classmethod
    def without(cls, names: list[str]) -> "ScreeningRules":
        """The default rules without these.

        Raises:
            UserError: if one is unknown.
        """
        known = [f.name for f in fields(cls)]
        for name in names:
            if name not in known:
                raise UserError(f"without={name}: no such rule; {choose_one_of(name, known)}")
        return cls(**dict.fromkeys(names))


@dataclass(frozen=True)
class Screened:
    """Answers after screening.

    Attributes:
        kept: answers to trial screens that count, see `reports.listening.ratings.table`.
        trials: all answers to trial screens, before screening.
        excluded: one row per exclusion: listener, screen ("" for all answers), rule, detail,
            answers (to trial screens). A listener may have broken several rules.
        listeners: one row per listener: listener, group, answers, kept, traps, traps_missed, gold,
            gold_missed, repeats, repeat_difference, mean, sd, seconds (median per screen),
            excluded_by (rules).
        rules: that were applied.
        notes: rules that could not be applied, and why.
    """

    kept: pd.DataFrame
    trials: pd.DataFrame
    excluded: pd.DataFrame
    listeners: pd.DataFrame
    rules: ScreeningRules
    notes: list[str] = field(default_factory=list)


def screen(
    test: ExportedTest, table: pd.DataFrame, rules: ScreeningRules | None = None
) -> Screened:
    """Applies the rules.

    Args:
        test: that was answered.
        table: see `reports.listening.ratings.table.checked`.
        rules: None for the defaults.
    """
    rules = rules or ScreeningRules()
    table = table.assign(role=table["screen"].map(dict(test.roles)))
    trials = table[table["role"] == TRIAL]
    unplayed = trials["played"] <= 0
    rows: list[dict[str, object]] = []
    listeners = []
    typical = float(_times(table).median()) if table["seconds"].notna().any() else float("nan")
    for name, answers in table.groupby("listener", sort=True):
        of_trials = answers[answers["role"] == TRIAL]
        facts, broken = _judged(test, answers, of_trials, rules, typical)
        for rule, detail in broken.items():
            row = {"listener": name, "screen": WHOLE, "rule": rule, "detail": detail}
            rows.append({**row, "answers": len(of_trials)})
        if rules.unplayed is not None and "unplayed" not in broken:
            for screen_, n in of_trials[of_trials["played"] <= 0].groupby("screen").size().items():
                row = {"listener": name, "screen": screen_, "rule": "unplayed"}
                rows.append({**row, "detail": "rated without playing it to the end", "answers": n})
        listeners.append({"listener": name, **facts, "excluded_by": ", ".join(broken)})
    people = pd.DataFrame(listeners)
    out = set(people["listener"][people["excluded_by"] != ""])
    left = ~trials["listener"].isin(out)
    if rules.unplayed is not None:
        left &= ~unplayed
    counts = trials[left].groupby("listener").size()
    people["kept"] = people["listener"].map(counts).fillna(0).astype(int)
    columns = ["listener", "screen", "rule", "detail", "answers"]
    excluded = pd.DataFrame(rows, columns=columns)
    notes = list(_not_applied(test, table, rules))
    kept = trials[left].drop(columns="role").reset_index(drop=True)
    if kept.empty:
        reasons = ", ".join(pd.unique(excluded["rule"])) or "there is no answer to a trial screen"
        raise UserError(f"screening leaves no answer ({reasons}); without=RULE switches a rule off")
    return Screened(kept, trials.drop(columns="role"), excluded, people, rules, notes)


def _judged(
    test: ExportedTest,
    answers: pd.DataFrame,
    trials: pd.DataFrame,
    rules: ScreeningRules,
    typical: float,
) -> tuple[dict[str, object], dict[str, str]]:
    """Facts on a listener, and the rules that they broke → how."""
    broken: dict[str, str] = {}
    size = test.highest - test.lowest
    traps = _missed(test, answers[answers["role"] == TRAP], test.step / 2)
    gold = _missed(test, answers[answers["role"] == GOLD], size / 4)
    for rule, (missed, asked), limit in (
        ("traps", traps, rules.traps),
        ("gold", gold, rules.gold),
    ):
        if limit is not None and asked and missed / asked > limit:
            broken[rule] = f"{missed} of {asked} missed; at most {limit:.0%}"
    not_played = int((trials["played"] <= 0).sum())
    if rules.unplayed is not None and not_played > rules.unplayed * len(trials):
        broken["unplayed"] = (
            f"{not_played} of {len(trials)} clips not played to the end; at most "
            f"{rules.unplayed:.0%}"
        )
    variance = float(trials["rating"].var()) if len(trials) > 1 else float("nan")
    limit = (rules.constant or 0) * (size / 4) ** 2
    all_equal = test.paired and bool((trials["rating"] == 0).all())
    several = len(trials) >= FEWEST and not all_equal
    if rules.constant is not None and several and variance < limit:
        broken["constant"] = f"variance {variance:.3g} of the ratings; at least {limit:.3g}"
    differences = _repeat_differences(test, answers)
    difference = float(differences.mean()) if len(differences) else float("nan")
    if (
        rules.repeats is not None
        and test.kind not in (AB, ABX)
        and len(differences) >= FEWEST_PAIRS
        and difference > rules.repeats * size
    ):
        broken["repeats"] = (
            f"{len(differences)} repeats differ by {difference:.2f} on average; at most "
            f"{rules.repeats * size:.2f}"
        )
    if rules.hidden_reference is not None and test.kind == MUSHRA:
        hidden = trials["stimulus"] == trials["screen"].map(test.hidden_reference)
        below, asked = int((trials["rating"][hidden] < 90).sum()), int(hidden.sum())
        if asked and below / asked > rules.hidden_reference:
            broken["hidden_reference"] = (
                f"rated below 90 in {below} of {asked} screens; at most "
                f"{rules.hidden_reference:.0%}"
            )
    seconds = float(_times(answers).median())
    if rules.fast is not None and seconds < rules.fast * typical:
        broken["fast"] = (
            f"{seconds:.1f} s per screen, the median of all is {typical:.1f} s; at least "
            f"{rules.fast:.0%} of it"
        )
    facts = {
        "group": answers["group"].iloc[0],
        "answers": len(trials),
        "kept": 0,
        "traps": traps[1],
        "traps_missed": traps[0],
        "gold": gold[1],
        "gold_missed": gold[0],
        "repeats": len(differences),
        "repeat_difference": difference,
        "mean": float(trials["rating"].mean()),
        "sd": float(np.sqrt(variance)),
        "seconds": seconds,
    }
    return facts, broken


def _missed(test: ExportedTest, answers: pd.DataFrame, allowed: float) -> tuple[int, int]:
    """How many of the checks were missed, and how many there were; those without an answer known
    beforehand do not count. On a screen of several stimuli each must be right."""
    wanted = answers["screen"].map(dict(test.expected)).astype(float)
    wrong = ((answers["rating"] - wanted).abs() > allowed)[wanted.notna()]
    by_screen = wrong.groupby(answers["screen"][wanted.notna()]).any()
    return int(by_screen.sum()), len(by_screen)


def _repeat_differences(test: ExportedTest, answers: pd.DataFrame) -> pd.Series:
    """The difference between the two ratings of every stimulus of a repeated screen."""
    again = answers[answers["role"] == REPEAT]
    again = again.assign(screen=again["screen"].map(dict(test.repeats)))
    both = again.merge(answers, on=["screen", "stimulus"], suffixes=("", "_first"))
    swapped = again.merge(
        answers, left_on=["screen", "stimulus"], right_on=["screen", "other"],
        suffixes=("", "_first"),
    ) if test.paired else both.head(0)  # fmt: skip
    one = (both["rating"] - both["rating_first"]).abs()
    other = (swapped["rating"] + swapped["rating_first"]).abs()
    return pd.concat([one, other], ignore_index=True)


def _times(answers: pd.DataFrame) -> pd.Series:
    """Seconds of each screen of each listener; a screen with several ratings counts once."""
    return answers.groupby(["listener", "screen"])["seconds"].max()


def _not_applied(test: ExportedTest, table: pd.DataFrame, rules: ScreeningRules) -> Iterator[str]:
    roles = set(test.roles.values())
    repeated = max(
        (sum(test.roles[s] == REPEAT for s in group) for group in test.groups), default=0
    )
    reasons: dict[str, Callable[[], str]] = {
        "traps": lambda: "" if TRAP in roles else "the test has no trap",
        "gold": lambda: "" if GOLD in roles else "the test has no gold screen",
        "unplayed": lambda: "" if table["played"].notna().any() else "the answers do not say it",
        "repeats": lambda: (
            "listeners who hear no difference contradict themselves"
            if test.kind in (AB, ABX)
            else ""
            if repeated >= FEWEST_PAIRS
            else f"no listener has {FEWEST_PAIRS} repeated screens"
        ),
        "fast": lambda: "" if table["seconds"].notna().any() else "the answers have no times",
    }
    for name, reason in reasons.items():
        if getattr(rules, name) is None:
            yield f"Rule {name} is switched off."
        elif why := reason():
            yield f"Rule {name} was not applied: {why}."

"""Detects outputs that are not real conversions (copies, noise, reversed speech), by trial.

A flag is not a score. It warns that a number of the trial is misleading: a copy of the source has
an excellent WER, a copy of the reference an excellent SECS.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from bench.metrics import INTELLIGIBILITY, LEAKAGE, METRICS, SIMILARITY, Measure, leading
from bench.stats.pooling import judge_table, measures_in
from bench.trials import Suite, Trial

# Thresholds. Copies are far above each of them and real conversions far below.
SOURCE_MATCH = 0.15  # share of the output
REFERENCE_MATCH_SECONDS = 0.7
REFERENCE_WORDS = 3  # consecutive words
CHARACTERS_OF_WORD = {"zh": 2}  # where the units of a text are characters: about two to a word
DURATION_RATIO = (0.67, 1.5)
LEVEL_CHANGE_DB = 15.0
FLATNESS = 0.3
NARROW_HZ = 4500.0
WIDE_HZ = 5500.0  # a narrow output is flagged only if both inputs reach this
WORDS_LOST = 90.0  # % of WER
MIN_WORDS = 4  # of the source: shorter sentences are often lost by chance
LEAKAGE_BELOW_FLOOR = 0.1  # of a cosine
CLIPPED = 0.01  # share of samples outside [-1, 1]
# A system is suspicious if more than this share of its conversions is flagged, and this many.
SYSTEM_SHARE = 0.05
FEWEST = 2

INTEGRITY = "integrity"


@dataclass(frozen=True)
class Flag:
    """A kind of flag.

    Attributes:
        label: a predicate of the output, such as "is the source".
        about: what it means for the numbers.
        when: what raises it.
    """

    label: str
    about: str
    when: str


FLAGS = {
    "source_copy": Flag(
        "is the source",
        "Its words and its naturalness are the source's; nothing was converted.",
        f"at least {SOURCE_MATCH:.0%} of it matches the source",
    ),
    "unconverted": Flag(
        "WER at the ceiling, SECS at the floor",
        "As well understood as the source, no more similar to the target, and still the old voice.",
        "every judge of similarity finds it no nearer to the target than the floor, at most "
        f"{LEAKAGE_BELOW_FLOOR} less similar to the source speaker, and every recogniser finds no "
        "more errors than in the floor",
    ),
    "reversed": Flag(
        "is the source backwards",
        "It sounds like speech and has no words.",
        f"at least {SOURCE_MATCH:.0%} of it matches the source backwards",
    ),
    "reference_audio": Flag(
        "has the reference in it",
        "SECS rises with every second of the target's recording.",
        f"at least {REFERENCE_MATCH_SECONDS} s of it match the reference",
    ),
    "reference_words": Flag(
        "says the reference's words",
        "The reference leaks into the output; SECS may come from it.",
        f"a recogniser transcribes {REFERENCE_WORDS} consecutive words of the reference that the "
        "source does not have",
    ),
    "clipped": Flag(
        "clipped",
        "Many samples were outside [-1, 1] and were cut off: the output is distorted.",
        f"over {CLIPPED:.0%} of its samples were outside of [-1, 1]",
    ),
    "words_lost": Flag(
        "has lost the words",
        "Whatever its SECS is, it does not say the source.",
        f"an error rate of at least {WORDS_LOST:.0f}%, for sources of {MIN_WORDS} words or more",
    ),
    "no_speech": Flag(
        "is noise",
        "Its spectrum is flat; scores of speech do not apply to it.",
        f"a spectral flatness of at least {FLATNESS}",
    ),
    "duration": Flag(
        "duration off",
        "Much shorter or longer than the source.",
        f"under {DURATION_RATIO[0]} or over {DURATION_RATIO[1]} of the source's duration",
    ),
    "level": Flag(
        "level off",
        "Far softer or louder than source and reference.",
        f"over {LEVEL_CHANGE_DB:.0f} dB from both",
    ),
    "narrow_band": Flag(
        "telephone bandwidth",
        "Source and reference reach higher; this lowers or distorts SECS and naturalness, "
        "whatever the voice.",
        f"nothing above {NARROW_HZ:.0f} Hz, while source and reference reach {WIDE_HZ:.0f} Hz",
    ),
}


def raised(
    scores: pd.DataFrame, suites: Mapping[str, Suite], floor: str | None = None
) -> pd.DataFrame:
    """Raises the flags of every conversion.

    Args:
        scores: the score table; without the columns of `bench.judges.integrity`, flags that
            need them are not raised.
        suites: name → trials.
        floor: the system that is the unconverted source; None if the run has none.

    Returns:
        One row per flag raised, with the columns system, suite, trial_id, flag (key of FLAGS),
        reason (the measurement that raised it).
    """
    ok = scores[scores["status"] == "ok"]
    tables: list[pd.DataFrame] = []

    def add(flag: str, hit: pd.Series, reasons: Callable[[pd.Series], list[str]]) -> None:
        rows = ok.loc[hit[hit].index, ["system", "suite", "trial_id"]]
        tables.append(rows.assign(flag=flag, reason=reasons(hit[hit].index)))

    def measure(column: str) -> pd.Series:
        name = f"{INTEGRITY}.{column}"
        return ok[name] if name in ok else pd.Series(np.nan, index=ok.index)

    def beyond(flag: str, values: pd.Series, hit: pd.Series, text: str) -> None:
        add(flag, hit.fillna(False), lambda index: [text.format(v) for v in values[index]])

    match = measure("source_match")
    beyond("source_copy", match, match >= SOURCE_MATCH, "{:.0%} of it matches the source")
    match = measure("reversed_match")
    beyond("reversed", match, match >= SOURCE_MATCH, "{:.0%} of it matches the source backwards")
    match = measure("reference_match_seconds")
    beyond(
        "reference_audio",
        match,
        match >= REFERENCE_MATCH_SECONDS,
        "{:.1f} s of it match the reference",
    )
    ratio = measure("duration_ratio")
    low, high = DURATION_RATIO
    beyond("duration", ratio, (ratio < low) | (ratio > high), "{:.2f} × the source's duration")
    change = measure("level_change_db")
    beyond("level", change, change.abs() > LEVEL_CHANGE_DB, "{:+.0f} dB from source and reference")
    flatness = measure("flatness")
    beyond("no_speech", flatness, flatness >= FLATNESS, "spectral flatness {:.2f}")
    width = measure("bandwidth_hz")
    inputs = pd.concat(
        [measure("source_bandwidth_hz"), measure("reference_bandwidth_hz")], axis=1
    ).min(axis=1)
    beyond(
        "narrow_band", width, (width < NARROW_HZ) & (inputs > WIDE_HZ), "nothing above {:.0f} Hz"
    )
    clipped = ok["clipped"].astype(float) if "clipped" in ok else pd.Series(np.nan, ok.index)
    beyond("clipped", clipped, clipped > CLIPPED, "{:.1%} of its samples were outside [-1, 1]")
    for judge, name in leading(measures_in(ok.columns), [INTELLIGIBILITY]):
        metric = METRICS[name]
        if metric.unit != "%" or metric.higher_is_better is not False or not metric.denominator:
            continue  # not an error rate
        rate = metric.per_trial(judge_table(ok, judge))
        enough = ok[f"{judge}.{metric.denominator}"] >= MIN_WORDS
        add(
            "words_lost",
            (rate >= WORDS_LOST) & enough,
            lambda index, rate=rate, label=metric.label, judge=judge: [  # type: ignore[misc]
                f"{label} {value:.0f}% by {judge}" for value in rate[index]
            ],
        )
    for judge in _judges(ok, "hypothesis"):
        phrases = _phrases(ok, judge, suites)
        add(
            "reference_words",
            phrases != "",
            lambda index, phrases=phrases, judge=judge: [  # type: ignore[misc]
                f"“{phrase}” transcribed by {judge}" for phrase in phrases[index]
            ],
        )
    if floor is not None:
        hit, reasons = _unconverted(ok, floor)
        add("unconverted", hit, lambda index: [reasons[i] for i in index])
    return (
        pd.concat(tables)
        .drop_duplicates(["system", "suite", "trial_id", "flag"])
        .reset_index(drop=True)
    )


def suspicious(scores: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """The systems with more flags than chance explains.

    Returns:
        One row per suite × system × flag raised on at least `FEWEST` and over `SYSTEM_SHARE` of the
        conversions, with the columns suite, system, flag, trials (flagged), of (converted).
    """
    keys = ["suite", "system"]
    converted = scores[scores["status"] == "ok"].groupby(keys, sort=False).size().rename("of")
    counts = flags.groupby([*keys, "flag"], sort=False).size().rename("trials").reset_index()
    counts = counts.join(converted, on=keys)
    often = counts["trials"] > SYSTEM_SHARE * counts["of"]
    return counts[often & (counts["trials"] >= FEWEST)].reset_index(drop=True)


def _judges(scores: pd.DataFrame, column: str) -> list[str]:
    return [c.removesuffix(f".{column}") for c in scores.columns if c.endswith(f".{column}")]


def _unconverted(ok: pd.DataFrame, floor: str) -> tuple[pd.Series, dict[object, str]]:
    """Trials no more similar to the target than the floor, and no less intelligible.

    Every judge of similarity and of intelligibility must agree.

    Returns:
        Whether each row of `ok` is such a trial; row → its similarity and the floor's, in words.
    """
    keys = pd.MultiIndex.from_frame(ok[["suite", "trial_id"]])
    anchor = ok[ok["system"] == floor].set_index(["suite", "trial_id"])
    measures = measures_in(ok.columns)

    def gain(measure: Measure) -> tuple[pd.Series, pd.Series, pd.Series]:
        """How much each row is better than the floor; its value; the floor's value."""
        judge, name = measure
        metric = METRICS[name]
        value = metric.per_trial(judge_table(ok, judge))
        of_floor = metric.per_trial(judge_table(anchor, judge))
        base = pd.Series(of_floor.reindex(keys).to_numpy(), ok.index)
        return (value - base) * (1 if metric.higher_is_better else -1), value, base

    hit = pd.Series(True, index=ok.index)
    reasons: dict[object, str] = {}
    similarity = leading(measures, [SIMILARITY])
    intelligibility = leading(measures, [INTELLIGIBILITY])
    for measure in similarity:
        metric = METRICS[measure[1]]
        better, value, base = gain(measure)
        hit &= better <= (metric.near or 0.0)
        if not reasons:
            reasons = {
                row: f"{metric.label} {x:.{metric.decimals}f}, floor {y:.{metric.decimals}f}"
                for row, x, y in zip(ok.index, value, base, strict=True)
            }
    for measure in leading(measures, [LEAKAGE]):
        better, value, _ = gain(measure)
        if measure[0] in dict(similarity) and value.notna().any():
            hit &= better <= LEAKAGE_BELOW_FLOOR
    for measure in intelligibility:
        better, _, _ = gain(measure)
        hit &= better >= 0
    if not similarity or not intelligibility:
        hit[:] = False
    return hit, reasons


def _phrases(ok: pd.DataFrame, judge: str, suites: Mapping[str, Suite]) -> pd.Series:
    """The longest phrase of the reference that a judge transcribed and the source does not have."""
    trials = {(name, t.trial_id): t for name, suite in suites.items() for t in suite.trials}
    phrases = []
    for suite, trial_id, transcript in zip(
        ok["suite"], ok["trial_id"], ok[f"{judge}.hypothesis"], strict=True
    ):
        trial = trials.get((suite, trial_id))
        known = trial is not None and isinstance(transcript, str)  # NaN without a transcript
        phrases.append(_leak(trial, transcript) if known else "")  # type: ignore[arg-type]
    return pd.Series(phrases, index=ok.index)


@lru_cache(maxsize=1 << 16)
def _normal(text: str, language: str) -> str:
    from bench.judges.normalisers import units  # whisper comes with it

    return " ".join(units(text, language))


def _leak(trial: Trial, transcript: str) -> str:
    language = trial.language
    source = f" {_normal(trial.source.text, language)} "
    reference = f" {_normal(' '.join(u.text for u in trial.references), language)} "
    words = _normal(transcript, language).split()
    shortest = REFERENCE_WORDS * CHARACTERS_OF_WORD.get(language, 1)
    longest = ""
    for start in range(len(words)):
        stop = start + max(shortest, len(longest.split()) + 1)
        while stop <= len(words):
            phrase = " ".join(words[start:stop])
            if f" {phrase} " not in reference:
                break
            if f" {phrase} " not in source:
                longest = phrase
            stop += 1
    return longest

"""Conversions that are none: what gives them away, trial by trial, whatever their averages say.

A flag is no score. It says that a number of this trial does not mean what it seems to: the WER of a
copy of the source is excellent, the SECS of a copy of the reference too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from bench.metrics import METRICS
from bench.summary import judge_table
from bench.trials import Suite, Trial

# Thresholds. Copies stand far beyond each of them and honest conversions far below: README.
SOURCE_MATCH = 0.15  # share of the output
REFERENCE_MATCH_SECONDS = 0.7
REFERENCE_WORDS = 3  # in a row
DURATION_RATIO = (0.67, 1.5)
LEVEL_CHANGE_DB = 15.0
FLATNESS = 0.3
NARROW_HZ = 4500.0
WIDE_HZ = 5500.0  # what both inputs must reach for a narrow output to be the system's doing
WORDS_LOST = 90.0  # % of WER
WORDS_ASKED = 4  # fewer words are lost by accident
SECS_ABOVE_FLOOR = 0.02
SECS_TO_SOURCE_BELOW_FLOOR = 0.1
SYSTEM_SHARE = 0.05  # of a system's trials: so many flagged call the system out,
FEWEST = 2  # and so many

INTEGRITY = "integrity"


@dataclass(frozen=True)
class Flag:
    """A kind of suspicion.

    Attributes:
        label: in a few words, of the output.
        about: what it means for the numbers.
    """

    label: str
    about: str


FLAGS = {
    "source_copy": Flag(
        "is the source", "Its words and its naturalness are the source's; nothing was converted."
    ),
    "unconverted": Flag(
        "WER at the ceiling, SECS at the floor",
        "As well understood as the source, no more similar to the target, and still the old voice.",
    ),
    "reversed": Flag("is the source backwards", "Voice and spectrum are speech's, no word is."),
    "reference_audio": Flag(
        "has the reference in it", "SECS rises with every second of the target's own recording."
    ),
    "reference_words": Flag(
        "says the reference's words", "The reference leaks into what is said; SECS may rest on it."
    ),
    "words_lost": Flag("has lost the words", "Whatever its SECS: it does not say the source."),
    "no_speech": Flag("is noise", "Its spectrum is flat; judges of speech say nothing about it."),
    "duration": Flag("duration off", "Much shorter or longer than the source."),
    "level": Flag("level off", "Far softer or louder than source and reference."),
    "narrow_band": Flag(
        "telephone bandwidth",
        "Source and reference reach higher; SECS and naturalness of such audio are lower or "
        "otherwise skewed, whatever the voice.",
    ),
}


def raised(
    scores: pd.DataFrame, suites: Mapping[str, Suite], floor: str | None = None
) -> pd.DataFrame:
    """The flags of every conversion.

    Args:
        scores: the score table; without the columns of `bench.integrity` what rests on them is not
            looked for.
        suites: name → trials.
        floor: the system that is the unconverted source, where the run has one.

    Returns:
        One row per flag raised, with the columns system, suite, trial_id, flag (key of FLAGS),
        reason (the measure that raised it).
    """
    ok = scores[scores["status"] == "ok"]
    found: list[pd.DataFrame] = []

    def add(flag: str, hit: pd.Series, reasons: Callable[[pd.Series], list[str]]) -> None:
        rows = ok.loc[hit[hit].index, ["system", "suite", "trial_id"]]
        found.append(rows.assign(flag=flag, reason=reasons(hit[hit].index)))

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
    for judge in _judges(ok, "hypothesis"):
        wer = METRICS["wer"].per_trial(judge_table(ok, judge))
        enough = ok[f"{judge}.words"] >= WORDS_ASKED
        beyond("words_lost", wer, (wer >= WORDS_LOST) & enough, f"WER {{:.0f}}% by {judge}")
        phrases = _phrases(ok, judge, suites)
        add(
            "reference_words",
            phrases != "",
            lambda index, phrases=phrases, judge=judge: [  # type: ignore[misc]
                f"“{phrase}” heard by {judge}" for phrase in phrases[index]
            ],
        )
    if floor is not None:
        hit, reasons = _unconverted(ok, floor)
        add("unconverted", hit, lambda index: [reasons[i] for i in index])
    return (
        pd.concat(found)
        .drop_duplicates(["system", "suite", "trial_id", "flag"])
        .reset_index(drop=True)
    )


def called_out(scores: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """The systems that flags are raised on too often to be chance.

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
    """Trials with SECS no better than the floor's and WER no worse, by every judge of each."""
    keys = pd.MultiIndex.from_frame(ok[["suite", "trial_id"]])
    anchor = ok[ok["system"] == floor].set_index(["suite", "trial_id"])
    hit = pd.Series(True, index=ok.index)
    parts: list[pd.Series] = []
    for judge in _judges(ok, "secs"):
        own = ok[f"{judge}.secs"]
        base = pd.Series(anchor[f"{judge}.secs"].reindex(keys).to_numpy(), ok.index)
        hit &= own <= base + SECS_ABOVE_FLOOR
        if f"{judge}.source_secs" in ok and ok[f"{judge}.source_secs"].notna().any():
            left = pd.Series(anchor[f"{judge}.source_secs"].reindex(keys).to_numpy(), ok.index)
            hit &= ok[f"{judge}.source_secs"] >= left - SECS_TO_SOURCE_BELOW_FLOOR
        parts.append("SECS " + own.map("{:.2f}".format) + ", floor " + base.map("{:.2f}".format))
    for judge in _judges(ok, "hypothesis"):
        own = ok[f"{judge}.word_errors"]
        base = pd.Series(anchor[f"{judge}.word_errors"].reindex(keys).to_numpy(), ok.index)
        hit &= own <= base
    if not parts or not _judges(ok, "hypothesis"):
        hit[:] = False
    reasons = dict(parts[0].items()) if parts else {}
    return hit, reasons


def _phrases(ok: pd.DataFrame, judge: str, suites: Mapping[str, Suite]) -> pd.Series:
    """The longest run of the reference's words that is heard and that the source does not say."""
    trials = {(name, t.trial_id): t for name, suite in suites.items() for t in suite.trials}
    found = []
    for suite, trial_id, heard in zip(
        ok["suite"], ok["trial_id"], ok[f"{judge}.hypothesis"], strict=True
    ):
        trial = trials.get((suite, trial_id))
        known = trial is not None and isinstance(heard, str)  # NaN where no judge listened
        found.append(_leak(trial, heard) if known else "")  # type: ignore[arg-type]
    return pd.Series(found, index=ok.index)


@lru_cache(maxsize=1 << 16)
def _normal(text: str) -> str:
    from bench.judges.wer import normalise  # torch and whisper come with it

    return normalise(text)


def _leak(trial: Trial, heard: str) -> str:
    said = f" {_normal(trial.source.text)} "
    words = _normal(heard).split()
    spoken = f" {_normal(' '.join(u.text for u in trial.references))} "
    longest = ""
    for start in range(len(words)):
        stop = start + max(REFERENCE_WORDS, len(longest.split()) + 1)
        while stop <= len(words):
            run = " ".join(words[start:stop])
            if f" {run} " not in spoken:
                break
            if f" {run} " not in said:
                longest = run
            stop += 1
    return longest

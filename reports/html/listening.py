"""The section of report.html on listening tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import audio
from bench.audio import AudioError
from bench.files import sha256_of
from bench.results import ScoredRun
from bench.stats.listening import ALL
from reports.figures.base import Figure, style
from reports.figures.opinions import opinions
from reports.html.clips import address, mp3
from reports.listening.format import AUDIO, MUSHRA
from reports.listening.ratings.exported import ExportedTest
from reports.listening.ratings.extremes import Extreme, extremes
from reports.listening.ratings.report import (
    LABELS,
    READING,
    READING_OF_PAIRS,
    difference_grid,
    score_grid,
    summary_lines,
)
from reports.listening.ratings.results import TestResults

PLAYED = 36  # stimuli of a test that can be played: three of each of twelve systems
TOO_LARGE = "not embedded: the report's limit of sounds is reached (max_audio_megabytes)"


@dataclass(frozen=True)
class Player:
    """A sound of a listening test as the page plays it.

    Attributes:
        label: what it is, for everyone who does not see its row.
        audio: `data:audio/mpeg;base64,…`; "" if it cannot be played.
        problem: why it cannot be played; "" if it can.
    """

    label: str
    audio: str = ""
    problem: str = ""


def listening_sections(
    results: ScoredRun, rated: Mapping[str, TestResults], max_bytes: float = 10e6
) -> list[dict[str, Any]]:
    """Of each listening test: title, lines, tables (title, heads, rows), reading, figure, notes,
    stimuli (extreme, mean as text, players) and how many stimuli are left out.

    Args:
        results: the run.
        rated: kind of each test → its results.
        max_bytes: limit of the embedded sounds of each test.
    """
    sections = []
    for kind, test in rated.items():
        tables = [("Scores", *score_grid(test)), ("Differences", *difference_grid(test))]
        chosen, left_out = extremes(test, PLAYED)
        sections.append(
            {
                "title": f"{LABELS[kind]}, listening test {test.test.test_id}",
                "lines": summary_lines(test),
                "tables": [table for table in tables if table[2]],
                "reading": READING_OF_PAIRS if test.test.paired else READING,
                "figure": _figure(results, test),
                "notes": test.notes,
                "stimuli": _played(test.test, chosen, max_bytes),
                "left_out": left_out,
                "paired": test.test.paired,
            }
        )
    return sections


def _figure(results: ScoredRun, test: TestResults) -> Figure | None:
    if test.test.paired:
        return None
    scores: pd.DataFrame = test.scores[test.scores["slice"] == ALL]
    with style():
        return opinions(results, scores, LABELS[test.test.kind])


def _played(
    test: ExportedTest, chosen: list[Extreme], max_bytes: float
) -> list[tuple[Extreme, str, list[Player]]]:
    """Each stimulus, its mean as text, and its players; those over the limit say so."""
    decimals = 1 if test.kind == MUSHRA else 2
    rows = []
    for extreme in chosen:
        players = []
        for what, stimulus in extreme.sounds:
            label = f"{what}, {extreme.trial_id or stimulus} ({extreme.rank} of {extreme.name})"
            sound, problem = _embedded(test, stimulus)
            if len(sound) > max_bytes:
                sound, problem = "", TOO_LARGE
            max_bytes -= len(sound)
            players.append(Player(label, sound, problem))
        mean = f"{extreme.mean:{'+' if test.paired else ''}.{decimals}f}"
        rows.append((extreme, mean, players))
    return rows


def _embedded(test: ExportedTest, stimulus: str) -> tuple[str, str]:
    """A stimulus as a `data:` address, or why there is none."""
    folder = (test.folder / AUDIO).resolve()
    path = folder / f"{stimulus}.wav"
    if path.resolve().parent != folder or not path.is_file():
        return "", f"{AUDIO}/{stimulus}.wav is missing in the folder of the test"
    known = test.stimuli[stimulus].get("sha256", "")
    if known and sha256_of(path) != known:
        return "", f"{AUDIO}/{stimulus}.wav is not the file that was exported (another sha256)"
    try:
        return address("audio/mpeg", mp3(audio.load(path))), ""
    except AudioError as error:
        return "", str(error)

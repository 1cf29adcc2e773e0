"""Writes the input files of the P.808 toolkit (github.com/microsoft/P.808, 5b8c00a, 2026-03).

    p808/rating_clips.csv     rating_clips[,references]
    p808/training_clips.csv   training_clips[,training_references]
    p808/gold_clips.csv       gold_clips,gold_clips_ans       (acr)
    p808/trapping_clips.csv   trapping_clips,trapping_ans     (acr, from recorded instructions only)

nmos is its method acr; cmos its ccr, where the processed clip is compared with the reference; smos
its dcr, whose page asks for degradation: its question must be changed to similarity. The toolkit
shows a listener clips at random: the Latin square of test.json is not kept.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.files import write_text
from reports.listening.format import GOLD, HIGH, LOW, TRAP, TRIAL

FOLDER = "p808"
METHODS = {"nmos": "acr", "smos": "dcr", "cmos": "ccr"}
TRAINING_CLIPS = 3  # rated clips in the training, besides the gold clips


def write_p808(
    folder: Path, test: Mapping[str, Any], key: Mapping[str, Any], url: str
) -> list[str]:
    """Writes the CSV files.

    Args:
        folder: of the test.
        test: the contents of test.json.
        key: the contents of key.json.
        url: address of the folder that `audio/` will be served from.

    Returns:
        Notes for the user.
    """
    method = METHODS.get(test["kind"])
    if method is None:
        return [f"The P.808 toolkit has no {test['kind']} test: no files are written for it."]
    out = folder / FOLDER
    by_role: dict[str, list[Mapping[str, Any]]] = {TRIAL: [], GOLD: [], TRAP: []}
    for screen in test["screens"]:
        by_role.setdefault(key["screens"][screen["screen"]]["role"], []).append(screen)

    def address(name: str) -> str:
        return f"{url.rstrip('/')}/{name}.wav"

    def expected(screen: Mapping[str, Any]) -> int:
        return int(key["screens"][screen["screen"]]["expected"])

    def rows(screens: Iterable[Mapping[str, Any]]) -> list[list[str]]:
        every = []
        for screen in screens:
            other = [] if method == "acr" else [screen["reference"] or screen["stimuli"][1]]
            every.append([address(name) for name in (screen["stimuli"][0], *other)])
        return every

    extra = [] if method == "acr" else ["references"]
    trials = by_role[TRIAL]
    training = [*by_role[GOLD], *trials[:TRAINING_CLIPS]]
    _write(out / "rating_clips.csv", ["rating_clips", *extra], rows(trials))
    _write(
        out / "training_clips.csv",
        ["training_clips", *(f"training_{name}" for name in extra)],
        rows(training),
    )
    notes = []
    if method == "acr":
        gold = [
            [address(screen["stimuli"][0]), expected(screen)]
            for screen in by_role[GOLD]
            if key["stimuli"][screen["stimuli"][0]]["what"] in (HIGH, LOW)
        ]
        _write(out / "gold_clips.csv", ["gold_clips", "gold_clips_ans"], gold)
        spoken = by_role[TRAP] if key["options"]["spoken"] else []
        traps = [[address(s["stimuli"][0]), expected(s)] for s in spoken]
        if traps:
            _write(out / "trapping_clips.csv", ["trapping_clips", "trapping_ans"], traps)
        else:
            notes.append(
                "The P.808 toolkit needs trap clips with a spoken instruction, and this test has "
                "none: give recordings (trap_audio=… trap_ratings=…), or make them by its "
                "create_trapping_stimuli.py."
            )
    if test["kind"] == "smos":
        notes.append("P.808's dcr page asks for degradation: change its question to similarity.")
    return notes


def _write(path: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    write_text(path, text.getvalue())

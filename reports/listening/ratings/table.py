"""The table of answers in which every presentation ends, and the checks that it passes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import UserError, shown
from bench.run.ratings import read_ratings
from reports.listening.format import GOLD, TRAINING, TRAP
from reports.listening.ratings.exported import ExportedTest

# One row an answer; mushra has one for each stimulus of a screen.
COLUMNS = (
    *("test_id", "listener", "group", "screen", "stimulus", "other"),
    *("rating", "position", "seconds", "played"),
)
WHERE = "where"  # file and line of a row, for errors; not written
SESSION = "session"  # of a listener; not written
REFUSE, FIRST = "refuse", "first"  # what to do with a listener who took part twice


@dataclass
class Answers:
    """Answers of a file or of several.

    Attributes:
        table: `COLUMNS`, `WHERE` and `SESSION`; every value is a text.
        notes: what is unusual, and what was left out.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def rows_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """The rows with all columns, as texts; "" where a row has no value."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, WHERE, SESSION])
    return table.map(lambda v: "" if v is None or v != v else str(v).strip())


def read_table(path: Path, test: ExportedTest) -> pd.DataFrame:
    """A file that `vcbench ratings import` wrote, checked against its test: see `checked`."""
    raw = read_ratings(path)
    for name in ("listener", "screen", "stimulus", "rating"):
        if name not in raw:
            raise UserError(f"{path} has no column {name!r}; make it by vcbench ratings import")
    raw[WHERE] = [f"{path}:{line}" for line in raw.index]
    table = rows_table(raw.to_dict("records"))
    return checked(test, Answers(table)).table


def checked(test: ExportedTest, answers: Answers, twice: str = REFUSE) -> Answers:
    """The answers with the types of their columns, and notes on partial listeners.

    Args:
        test: that they answer.
        answers: of all files together.
        twice: `REFUSE` or `FIRST`: keep the first session of a listener who took part twice.

    Returns:
        The table with numbers in rating, position, seconds and played (NaN where not known).

    Raises:
        UserError: names the first row with another test's id, an unknown screen or stimulus, a
            rating off the scale, or a listener without a name or with two sessions.
    """
    table, notes = answers.table.reset_index(drop=True), list(answers.notes)
    if table.empty:
        raise UserError("there is no answer in what was given; nothing is imported")

    def refuse(bad: pd.Series, column: str, text: str) -> None:
        if bad.any():
            row = table.loc[int(np.argmax(bad.to_numpy()))]
            raise UserError(f"{row[WHERE]}: {text.replace('{}', shown(row[column]))}")

    refuse(
        (table["test_id"] != test.test_id) & (table["test_id"] != ""),
        "test_id",
        f"the answers are of test {{}}, but {test.folder} is test {test.test_id!r}: two exports "
        "are mixed up; import each with its folder",
    )
    table["test_id"] = test.test_id
    refuse(table["listener"] == "", "listener", "no listener; name who gave the rating")
    refuse(
        ~table["screen"].isin(list(test.screens)),
        "screen",
        f"unknown screen {{}}; {test.folder} does not have it",
    )
    training = table["screen"].map(dict(test.roles)) == TRAINING
    if training.any():
        notes.append(f"{int(training.sum())} answers of the training are left out.")
        table = table[~training].reset_index(drop=True)
        if table.empty:
            raise UserError("there are answers of the training only; nothing is imported")
    known = {(screen, s) for screen, stimuli in test.screens.items() for s in stimuli}
    for column in ("stimulus", "other") if test.paired else ("stimulus",):
        refuse(
            ~table[column].isin(list(test.stimuli)),
            column,
            f"unknown {'stimulus' if column == 'stimulus' else 'other stimulus'} {{}}; the key of "
            f"{test.folder} does not have it",
        )
        off = [pair not in known for pair in zip(table["screen"], table[column], strict=True)]
        refuse(pd.Series(off), column, "stimulus {} is not on that screen")
    if test.paired:
        refuse(table["stimulus"] == table["other"], "other", "{} is compared with itself")
    values = pd.to_numeric(table["rating"], errors="coerce")
    refuse(~np.isfinite(values), "rating", "the rating {} is not a number")
    off_scale = (values < test.lowest) | (values > test.highest)
    refuse(off_scale, "rating", f"the rating {{}} is not on the scale {test.lowest:g} to "
           f"{test.highest:g}")  # fmt: skip
    steps = (values - test.lowest) / test.step
    refuse((steps - steps.round()).abs() > 1e-6, "rating", f"the rating {{}} is between two steps "
           f"of {test.step:g}")  # fmt: skip
    table["rating"] = values.astype(float)
    for column in ("position", "seconds", "played"):
        lowered = table[column].str.lower().replace({"true": "1", "false": "0"})
        numbers = pd.to_numeric(lowered, errors="coerce")
        refuse(numbers.isna() & (lowered != ""), column, f"{column} {{}} is not a number")
        table[column] = numbers.astype(float)
    table = _once(test, table, twice, notes)
    notes += _partial(test, table)
    return Answers(table, notes)


def _once(test: ExportedTest, table: pd.DataFrame, twice: str, notes: list[str]) -> pd.DataFrame:
    """Each listener's answers to each screen once; checks may be answered in several sessions."""
    key = ["listener", "screen", "stimulus"]
    same = table.duplicated([*key, "other", "rating", "seconds", "position"])
    again = table.duplicated(key)
    copies = same & again
    if copies.any():
        names = ", ".join(pd.unique(table["listener"][copies]))
        notes.append(f"The same answers were given more than once and count once: of {names}.")
        table = table[~copies]
    checks = table["screen"].map(dict(test.roles)).isin([TRAP, GOLD])
    again = table.duplicated(key)
    again &= ~(checks & (table[SESSION] != ""))
    if not again.any():
        return table.reset_index(drop=True)
    row = table[again].iloc[0]
    first = table[(table[key] == row[key]).all(axis=1)].iloc[0]
    if twice == REFUSE:
        raise UserError(
            f"{row[WHERE]}: listener {row['listener']!r} took part twice: screen "
            f"{row['screen']!r} was answered already ({first[WHERE]}); remove one of the two, or "
            "keep the first by twice=first"
        )
    names = ", ".join(pd.unique(table["listener"][again]))
    notes.append(f"{int(again.sum())} answers of a second session are left out: of {names}.")
    return table[~again].reset_index(drop=True)


def _partial(test: ExportedTest, table: pd.DataFrame) -> list[str]:
    """Listeners who answered only a part of the screens of the group that fits them best."""
    notes = []
    groups = [set(group) for group in test.groups]
    if not groups:
        return []
    for listener, rows in table.groupby("listener", sort=True):
        seen = set(rows["screen"])
        name = str(rows["group"].iloc[0])
        if name.isdecimal() and int(name) < len(groups):
            group = groups[int(name)]
        else:
            group = max(groups, key=lambda g: (len(g & seen), -len(g)))
        missing = len(group - seen)
        if missing:
            notes.append(f"Listener {listener} answered {len(group) - missing} of {len(group)} "
                         "screens; what is there counts.")  # fmt: skip
    return notes

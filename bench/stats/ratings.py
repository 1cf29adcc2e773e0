"""Checks listeners' ratings against the run that was rated."""

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.results import ScoredRun

NEEDED = ("system", "trial_id", "listener", "rating")
QUESTIONS = ("question", "scale")  # names of the column that tells questions apart


def checked(
    run: ScoredRun, ratings: pd.DataFrame, source: str = "ratings"
) -> tuple[pd.DataFrame, list[str]]:
    """The ratings with the columns question, suite, system, trial_id, listener, rating; and notes.

    Raises:
        UserError: see `agreement`.
    """

    def refuse(bad: pd.Series, text: str, column: str, remedy: str) -> None:
        if bad.any():
            line = bad.index[int(np.argmax(bad.to_numpy()))]
            what = text.replace("{}", repr(table[column][line]))
            raise UserError(f"{source}:{line}: {what}; {remedy}")

    table = ratings.copy()
    if not table.index.is_unique:
        raise UserError(f"{source}: its index has a line twice; give each row another")
    asked = [name for name in QUESTIONS if name in table]
    if len(asked) == 2:
        raise UserError(f"{source} has the columns question and scale; keep one of them")
    for name in NEEDED:
        if name not in table:
            known = ", ".join((*NEEDED, "suite", *QUESTIONS))
            raise UserError(f"{source} has no column {name!r}; ratings have {known}")
    if table.empty:
        raise UserError(f"{source} has no rating")
    table["question"] = table[asked[0]] if asked else ""
    suites = list(map(str, run.facts["suites"]))
    if "suite" not in table:
        if len(suites) != 1:
            raise UserError(
                f"{source} has no column 'suite', and {run.folder} has {', '.join(suites)}; add it"
            )
        table["suite"] = suites[0]
    columns = ["question", "suite", "system", "trial_id", "listener", "rating"]
    unused = [str(c) for c in ratings.columns if c not in (*columns, *QUESTIONS)]
    notes = [f"Columns of {source} that are not used: {', '.join(unused)}."] if unused else []
    table = table[columns]
    for name in columns[:-1]:
        table[name] = table[name].fillna("").astype(str).str.strip()
    refuse(table["listener"] == "", "no listener ({})", "listener", "name who gave the rating")
    scores = run.scores
    for name, there in (("suite", suites), ("system", list(map(str, scores["system"].unique())))):
        bad = ~table[name].isin(there)
        first = table[name][bad].iloc[0] if bad.any() else ""
        refuse(bad, f"{run.folder} has no {name} {{}}", name, choose_one_of(first, there))
    ids = ["suite", "system", "trial_id"]
    status = scores.set_index(ids)["status"]
    of_rated = pd.Series(
        status.reindex(pd.MultiIndex.from_frame(table[ids])).to_numpy(), table.index
    )
    refuse(
        of_rated.isna(),
        f"{run.folder} has no trial {{}} of that system and suite",
        "trial_id",
        "give the trial_id of scores.csv",
    )
    refuse(
        of_rated != "ok",
        "trial {} has no sound in this run: its conversion failed or is absent",
        "trial_id",
        "remove the rating, or give the run that was rated",
    )
    values = pd.to_numeric(table["rating"], errors="coerce")
    finite = pd.Series(np.isfinite(values.to_numpy(float)), table.index)
    refuse(~finite, "the rating {} is not a number", "rating", "correct it")
    table["rating"] = values.astype(float)
    key = [*columns[:-1]]
    twice = table.duplicated(key)
    if twice.any():
        line = twice.index[int(np.argmax(twice.to_numpy()))]
        same = (table[key] == table.loc[line, key]).all(axis=1)
        row = table.loc[line]
        raise UserError(
            f"{source}:{line}: listener {row['listener']!r} rated trial {row['trial_id']!r} of "
            f"{row['system']!r} already in line {same.index[int(np.argmax(same.to_numpy()))]}; "
            "keep one of the ratings"
        )
    return table, notes

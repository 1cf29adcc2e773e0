"""Results of a listening test: who is what, scores per system, agreement between listeners."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.stats.alpha import INTERVAL, NOMINAL, ORDINAL, krippendorff_alpha
from bench.stats.listening import opinions, preferences
from reports.listening.ratings.exported import AB, ABX, MUSHRA, ExportedTest
from reports.listening.ratings.screening import Rules, Screened, screen
from reports.listening.ratings.table import read_table

FACTS = ("system", "suite", "trial_id", "source_speaker", "target_speaker", "gender_pair", "what")


@dataclass(frozen=True)
class TestResults:
    """The results of one listening test.

    Attributes:
        test: that was answered.
        screened: its answers.
        unblinded: the answers that count, with the facts of the key; `other_system` for pairs.
        scores: see `bench.stats.listening.opinions` (means) or `preferences`.
        differences: see `opinions`; empty for pairs.
        unscreened: system (or "a against b") → mean rating without screening.
        alpha: Krippendorff's alpha of the answers that count; NaN if it is not defined.
        alpha_scale: "ordinal", "interval" or "nominal".
        notes: what limits the numbers.
    """

    __test__ = False  # no test of pytest

    test: ExportedTest
    screened: Screened
    unblinded: pd.DataFrame
    scores: pd.DataFrame
    differences: pd.DataFrame
    unscreened: dict[str, float]
    alpha: float
    alpha_scale: str
    notes: list[str] = field(default_factory=list)


def read_results(
    folder: Path, ratings: Path, rules: Rules | None = None, by: Sequence[str] = ("gender_pair",)
) -> TestResults:
    """The results of an exported test and the file of its answers.

    Raises:
        UserError: if they do not belong together, or an answer is wrong.
    """
    test = ExportedTest.load(folder)
    return results_of(test, read_table(ratings, test), rules, by)


def results_of(
    test: ExportedTest,
    table: pd.DataFrame,
    rules: Rules | None = None,
    by: Sequence[str] = ("gender_pair",),
) -> TestResults:
    """The results of a test and its checked answers."""
    screened = screen(test, table, rules)
    unblinded = unblind(test, screened.kept)
    everything = unblind(test, screened.trials)
    if test.paired:
        scores, notes = preferences(_named(unblinded), by)
        differences = pd.DataFrame()
        all_scores, _ = preferences(_named(everything))
        unscreened = {
            f"{row.system} against {row.other}": float(row.mean) for row in all_scores.itertuples()
        }
    else:
        scores, differences, notes = opinions(unblinded, by)
        unscreened = everything.groupby("system")["rating"].mean().to_dict()
    scale = INTERVAL if test.kind == MUSHRA else NOMINAL if test.kind in (AB, ABX) else ORDINAL
    kept = screened.kept
    unit = kept["screen"] + "/" + kept["stimulus"] if test.paired else kept["stimulus"]
    alpha = krippendorff_alpha(unit.to_numpy(str), kept["rating"].to_numpy(float), scale)
    notes = [*screened.notes, *notes]
    return TestResults(
        test, screened, unblinded, scores, differences, unscreened, alpha, scale, notes
    )


def unblind(test: ExportedTest, table: pd.DataFrame) -> pd.DataFrame:
    """Answers with what the key says of their stimuli, for statistics and `vcbench agreement`.

    Columns: question (the kind), listener, screen, stimulus, rating, `FACTS`, and for pairs other
    and other_system.
    """
    of_rows = zip(table["stimulus"], table["screen"], strict=True)
    facts = pd.DataFrame([test.facts(*row) for row in of_rows], index=table.index)
    out = table[["listener", "screen", "stimulus", "rating"]].join(facts)
    out.insert(0, "question", test.kind)
    if test.paired:
        others = [test.facts(s)["system"] for s in table["other"]]
        out = out.assign(other=table["other"], other_system=others)
    return out


def _named(unblinded: pd.DataFrame) -> pd.DataFrame:
    """Answers to pairs as `bench.stats.listening.preferences` takes them."""
    return unblinded.drop(columns="other").rename(columns={"other_system": "other"})

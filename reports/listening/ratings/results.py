"""Results of a listening test: who is what, scores per system, agreement between listeners."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.results import ScoredRun
from bench.stats.alpha import INTERVAL, NOMINAL, ORDINAL, krippendorff_alpha
from bench.stats.listening import opinions, preferences
from reports.listening.format import AB, ABX, MUSHRA
from reports.listening.ratings.exported import ExportedTest
from reports.listening.ratings.screening import Screened, ScreeningRules, screen
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
    folder: Path,
    ratings: Path,
    rules: ScreeningRules | None = None,
    by: Sequence[str] = ("gender_pair",),
) -> TestResults:
    """The results of an exported test and the file of its answers.

    Raises:
        UserError: if they do not belong together, or an answer is wrong.
    """
    test = ExportedTest.load(folder)
    return results_of(test, read_table(ratings, test), rules, by)


class RatingsFiles:
    """Files of ratings and the exported tests that they answer, for reports.

    Args:
        ratings: a file of `vcbench ratings import`, or several.
        test: the folders of their exported tests, in the same order.

    Raises:
        UserError: if there are not as many folders as files.
    """

    def __init__(
        self, ratings: str | Sequence[str] | None, test: str | Sequence[str] | None
    ) -> None:
        self._files, self._folders = (
            [str(v) for v in ([value] if isinstance(value, str) else value or ())]
            for value in (ratings, test)
        )
        if len(self._files) != len(self._folders):
            raise UserError(
                f"ratings= names {len(self._files)} files and test= {len(self._folders)} folders; "
                "each file of ratings needs the folder of its exported test"
            )

    def read(self) -> dict[str, TestResults]:
        """Kind of each listening test → its results.

        Raises:
            UserError: if two are of one kind; see also `read_results`.
        """
        rated: dict[str, TestResults] = {}
        for file, folder in zip(self._files, self._folders, strict=True):
            results = read_results(Path(folder), Path(file))
            if results.test.kind in rated:
                raise UserError(f"{file}: a second test of kind {results.test.kind}; give one")
            rated[results.test.kind] = results
        return rated


def results_of(
    test: ExportedTest,
    table: pd.DataFrame,
    rules: ScreeningRules | None = None,
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
        limits = test.lowest, test.highest
        scores, differences, notes = opinions(unblinded, by, limits=limits)
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


def for_agreement(results: TestResults, run: ScoredRun) -> tuple[pd.DataFrame, list[str]]:
    """The answers that count as `bench.stats.agreement` takes them, and notes.

    Ratings of what the run did not make (anchors, hidden references) are left out.

    Raises:
        UserError: if the test compares pairs, or rated no system of the run.
    """
    if results.test.paired:
        raise UserError(
            f"{results.test.folder} is a test of kind {results.test.kind}: its answers are about "
            "pairs; agreement needs ratings of single utterances (nmos, smos, mushra)"
        )
    made = set(run.scores["system"])
    known = results.unblinded["system"].isin(made) & (results.unblinded["suite"] != "")
    if not known.any():
        raise UserError(
            f"{results.test.folder} rated {', '.join(sorted(set(results.unblinded['system'])))}, "
            f"and {run.folder} has {', '.join(sorted(made))}; give the run that was rated"
        )
    columns = ["question", "suite", "system", "trial_id", "listener", "rating"]
    # a listener may rate an utterance on several screens: their mean counts
    groups = results.unblinded[known].groupby(columns[:-1], sort=False, as_index=False)
    table = groups["rating"].mean()
    people = results.screened.listeners
    out = people["listener"][people["excluded_by"] != ""]
    notes = [f"Listeners excluded by screening: {', '.join(out)}."] if len(out) else []
    others = sorted(set(results.unblinded["system"][~known]))
    if others:
        notes.append(f"Ratings of what is not in the run are left out: {', '.join(others)}.")
    return table, notes


def of_suite(results: TestResults, suite: str, factor: Mapping[str, str] | None) -> pd.DataFrame:
    """The means of the systems over the trials of one suite: see `bench.stats.listening.opinions`.

    Args:
        results: of a test whose answers are about single stimuli.
        suite: its name.
        factor: trial → its value, to slice by as "factor=value"; None for no slices.
    """
    rows = results.unblinded[results.unblinded["suite"] == suite]
    if rows.empty:
        return pd.DataFrame(columns=["slice", "system", "mean", "low", "high", "listeners", "n"])
    limits = results.test.lowest, results.test.highest
    if factor is None:
        return opinions(rows, limits=limits)[0]
    values = rows["trial_id"].map(dict(factor)).fillna("")
    return opinions(rows.assign(factor=values), ["factor"], limits=limits)[0]


def _named(unblinded: pd.DataFrame) -> pd.DataFrame:
    """Answers to pairs as `bench.stats.listening.preferences` takes them."""
    return unblinded.drop(columns="other").rename(columns={"other_system": "other"})

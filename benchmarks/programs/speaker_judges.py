"""Compares speaker judges: over recordings whose speakers are known, or over a run's conversions.

    python -m benchmarks.programs.speaker_judges
    python -m benchmarks.programs.speaker_judges outputs/NAME [JUDGE JUDGE]

Without a run: each encoder's equal-error rate over all pairs of the 136 embedded recordings, of
all and of each corpus, and the correlation of the encoders' cosines.

With a scored run: Pearson's and Spearman's correlation of the SECS of two of its judges (by
default `secs_resemblyzer` and `secs_ecapa_small`) over the trials of each system, of all systems'
means where there are at least three, how often both order two systems alike in one trial, and the
conversions whose ranks differ most.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.errors import UserError, choose_one_of
from bench.judges.encoders.ecapa_small import SmallECAPA
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.judges.secs import SpeakerEncoder, calibrate
from bench.run.folder import read_run
from suites.build import MINI
from suites.corpora.table import utterances

JUDGES = ("secs_resemblyzer", "secs_ecapa_small")
ALL = "all"
MOST = 6  # conversions that are listed
FEWEST = 3  # systems whose means are correlated


def of_recordings(console: Console) -> None:
    """The encoders over recordings of known speakers."""
    recordings = utterances(MINI / "utterances.csv")
    speakers = np.array([r.speaker for r in recordings])
    corpora = np.array([r.corpus for r in recordings])
    encoders: dict[str, SpeakerEncoder] = {
        "ecapa_small": SmallECAPA(),
        "resemblyzer": Resemblyzer(),
    }
    waveforms = [r.load() for r in recordings]
    embedded = {name: encoder.embed(waveforms) for name, encoder in encoders.items()}
    table = Table("encoder", "recordings", "EER %", "same", "different", "threshold", "pairs")
    for name, embeddings in embedded.items():
        for corpus in (ALL, *dict.fromkeys(corpora)):
            chosen = (corpora == corpus) | (corpus == ALL)
            c = calibrate(embeddings[chosen], list(speakers[chosen]))
            values = (f"{100 * c.eer:.1f}", *(f"{v:.2f}" for v in (c.same, c.different)))
            pairs = f"{c.same_pairs} + {c.different_pairs}"
            table.add_row(name, corpus, *values, f"{c.threshold:.2f}", pairs)
    first, second = np.triu_indices(len(recordings), k=1)
    cosines = [np.sum(e[first] * e[second], axis=1) for e in embedded.values()]
    same = speakers[first] == speakers[second]
    console.print(table)
    for noun, pairs in (("of one speaker", same), ("of different speakers", ~same)):
        r = np.corrcoef(*(c[pairs] for c in cosines))[0, 1]
        console.print(f"Pearson over {pairs.sum()} pairs {noun}: {r:.2f}")


def secs_of(scores: pd.DataFrame, judges: tuple[str, str]) -> pd.DataFrame:
    """Columns system, suite, trial_id, and the SECS of each judge; rows that have both.

    Raises:
        UserError: if a judge did not score the run.
    """
    known = [str(c).removesuffix(".secs") for c in scores.columns if str(c).endswith(".secs")]
    for judge in judges:
        if judge not in known:
            raise UserError(f"{judge} scored no SECS in this run; {choose_one_of(judge, known)}")
    columns = scores[["system", "suite", "trial_id", *(f"{j}.secs" for j in judges)]]
    return columns.set_axis(["system", "suite", "trial_id", *judges], axis=1).dropna()


def agreement(table: pd.DataFrame, judges: tuple[str, str]) -> pd.DataFrame:
    """Correlations over the trials of each system, and of the systems' means.

    Args:
        table: of `secs_of`.
        judges: the two.

    Returns:
        Columns over, n, pearson, spearman, and the two means; the systems' means where there are at
        least three.
    """
    means = table.groupby("system", sort=False)[list(judges)].mean()
    groups = [(str(s), rows) for s, rows in table.groupby("system", sort=False)]
    if len(means) >= FEWEST:
        groups.append(("the systems' means", means))
    rows = []
    for name, values in groups:
        a, b = values[judges[0]], values[judges[1]]
        spearman = a.rank().corr(b.rank())
        rows.append((name, len(values), a.corr(b), spearman, a.mean(), b.mean()))
    return pd.DataFrame(rows, columns=["over", "n", "pearson", "spearman", *judges])


def ordered_alike(table: pd.DataFrame, judges: tuple[str, str]) -> tuple[int, int]:
    """In how many comparisons of two systems over one trial both judges prefer the same one, and
    how many comparisons there are."""
    alike = total = 0
    for _, rows in table.groupby(["suite", "trial_id"]):
        for (_, a), (_, b) in combinations(rows.iterrows(), 2):
            alike += int((a[judges[0]] > b[judges[0]]) == (a[judges[1]] > b[judges[1]]))
            total += 1
    return alike, total


def differ_most(table: pd.DataFrame, judges: tuple[str, str]) -> pd.DataFrame:
    """The conversions with the largest difference between their two ranks within their system, in
    shares of its trials: positive where the first judge ranks higher."""
    ranks = table.groupby("system")[list(judges)].rank(pct=True)
    table = table.assign(difference=ranks[judges[0]] - ranks[judges[1]])
    return table.sort_values("difference", key=lambda d: -d.abs(), kind="stable").head(MOST)


def of_run(console: Console, folder: Path, judges: tuple[str, str] = JUDGES) -> None:
    """The judges over the conversions of a scored run."""
    run = read_run(folder)
    table = secs_of(run.scores[~run.scores["system"].isin([*run.anchors])], judges)
    shown = Table("over", "trials", "Pearson", "Spearman", *judges)
    for row in agreement(table, judges).itertuples(index=False):
        shown.add_row(str(row[0]), str(row[1]), *(f"{value:.2f}" for value in row[2:]))
    console.print(shown)
    alike, total = ordered_alike(table, judges)
    if total:
        console.print(f"Two systems in one trial: both prefer the same in {alike} of {total}.")
    listed = Table("system", "trial", *judges, "rank of the first less that of the second")
    for row in differ_most(table, judges).itertuples(index=False):
        values = (f"{row[3]:.2f}", f"{row[4]:.2f}", f"{row[5]:+.2f}")
        listed.add_row(str(row[0]), str(row[2]), *values)
    console.print(listed)


def main(folder: str | None = None, *judges: str) -> None:
    """See the module."""
    console = Console()
    if folder is None:
        of_recordings(console)
    elif len(judges) in (0, 2):
        of_run(console, Path(folder), (judges[0], judges[1]) if judges else JUDGES)
    else:
        raise UserError(f"{len(judges)} judges: name two, or none for {' and '.join(JUDGES)}")


if __name__ == "__main__":
    main(*sys.argv[1:])

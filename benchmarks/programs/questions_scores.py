"""A judge and the tables for the questions of docs/model/questions.md.

    python -m benchmarks.programs.questions_scores RUN CONTROL [JUDGE.METRIC …]

Prints the metrics of each condition of a run (the factor `condition`, or else `reference_seconds`)
with 95% intervals over speakers, and their differences from the condition CONTROL, paired by slot:
see `benchmarks.programs.questions`. With an English control the conditions of other languages are
pooled too. Without metrics, all that were measured are shown.
"""

import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from bench.errors import UserError, choose_one_of
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.nn.batches import Once
from bench.judges.recognisers import Transcript
from bench.judges.recognisers.whisper import Whisper
from bench.judges.wer import error_counts
from bench.metrics import COUNT, INTELLIGIBILITY, METRICS, Measure, Metric
from bench.run.folder import read_run
from bench.stats.compare import benjamini_hochberg
from bench.stats.crossed import Crossed
from bench.stats.pooling import interval, judge_table, measures_in
from bench.trials import ENGLISH, Utterance
from bench.weights import Weights

FACTORS = ("factor.condition", "factor.reference_seconds")
SLOT = re.compile(r"L-\d+|\d+")  # with which a trial's id begins
OTHERS = "all other languages"


class Agreement:
    """Whether the conversion is recognised as the source is: CER between two transcripts.

    Whisper base transcribes both and is told the source's language. Letters, digits and combining
    marks of all scripts count; case, spaces and punctuation do not. An error that the recogniser
    makes in both is no difference.
    """

    reads = frozenset({"converted", "source", "language"})
    metrics = ("cer_agreement",)
    defines: ClassVar = {
        "cer_agreement": Metric(
            "CER to the source's transcript",
            False,
            "agreement_errors",
            "agreement_chars",
            unit="%",
            scale=100,
            decimals=1,
            about="character errors of the transcript against that of the source",
            limits=COUNT,
            family=INTELLIGIBILITY,
        )
    }
    needs_source_words = True

    def __init__(self) -> None:
        self.recogniser = Whisper("base", language=None)
        self.networks = self.recogniser.networks
        self.languages = self.recogniser.languages
        self._once: dict[str, Once[Transcript]] = {}  # language → transcripts of sounds

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self.recogniser.weights

    @property
    def fingerprint(self) -> str:
        settings = {"recogniser": self.recogniser.fingerprint}
        return identity("agreement", 1, self.weights, settings, ["jiwer"])

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """The two transcripts and their edit distance, one dict an item."""
        rows: list[dict[str, Value]] = []
        for item in items:
            assert item.source is not None
            assert item.converted is not None
            language = item.language or ENGLISH
            if language not in self._once:
                self._once[language] = Once(partial(self.recogniser.transcribe, language=language))
            transcripts = self._once[language]([item.source, item.converted])
            texts = [transcript.text for transcript in transcripts]
            counts = error_counts(texts[0], texts[1], letters)
            rows.append(
                {
                    "source_hypothesis": texts[0],
                    "hypothesis": texts[1],
                    "agreement_errors": counts["char_errors"],
                    "agreement_chars": counts["chars"],
                }
            )
        return rows

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Speech agrees with itself."""
        sounds = [r.load() for r in recordings[:2]]
        pairs = [Converted("", converted=s, source=s, language=ENGLISH) for s in sounds]
        errors = sum(int(row["agreement_errors"] or 0) for row in self.score(pairs))
        return SelfTest(errors == 0, {"errors of recordings against themselves": str(errors)})


def letters(text: str) -> str:
    """Letters, digits and combining marks, in lower case."""
    spread = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in spread if unicodedata.category(c)[0] in "LMN")


@dataclass(frozen=True)
class Row:
    """A metric in one condition.

    Attributes:
        condition: its name.
        n: measured trials; 0 for pooled conditions.
        value: pooled over the trials of the condition.
        low: of the 95% interval over speakers; NaN for pooled conditions.
        high: likewise.
        difference: from the control's value; NaN for the control.
        difference_low: of its 95% interval, paired by slot.
        difference_high: likewise.
        q: p of no difference after Benjamini and Hochberg over the conditions.
    """

    condition: str
    n: int
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    q: float


def rows_of(scores: pd.DataFrame, judge: str, metric: Metric, control: str) -> list[Row]:
    """A metric of one system in each condition, and its difference from the control.

    Args:
        scores: rows of one system in a score table.
        judge: the judge's name.
        metric: one of its metrics.
        control: the condition that the others are compared with.

    Raises:
        UserError: if there is no such condition.
    """
    factor = next((name for name in FACTORS if name in scores), "")
    if not factor:
        raise UserError(f"the trials have neither of the factors {', '.join(FACTORS)}")
    condition = scores[factor].astype(str)
    names = list(dict.fromkeys(condition))
    if control not in names:
        raise UserError(f"no condition {control!r}; {choose_one_of(control, names)}")
    slot = scores["trial_id"].map(lambda name: SLOT.match(name)[0])  # type: ignore[index]
    slots = list(dict.fromkeys(slot))
    table = judge_table(scores, judge)
    terms = metric.terms(table).reindex(scores.index)
    where = slot.map(slots.index).to_numpy(), condition.map(names.index).to_numpy()
    numerators, denominators = np.full((2, len(slots), len(names)), np.nan)
    numerators[where], denominators[where] = terms["numerator"], terms["denominator"]
    source = _clusters(scores["source_speaker"], slot)
    crossed = Crossed(source, _clusters(scores["target_speaker"], slot))
    weights = np.eye(len(names)) - np.eye(len(names))[names.index(control)]
    foreign = np.array([not name.startswith("English") for name in names])
    labels = list(names)
    if not foreign[names.index(control)] and foreign.sum() > 1:
        pooled = np.where(foreign, 1 / foreign.sum(), 0.0)
        weights = np.vstack([weights, pooled - np.eye(len(names))[names.index(control)]])
        labels.append(OTHERS)
    compared = [i for i, label in enumerate(labels) if label != control]
    unbounded = [metric.unbounded] * len(names)
    estimates = crossed.contrasts(numerators, denominators, weights[compared], unbounded)
    estimate_of = dict(zip(compared, estimates, strict=True))
    q = benjamini_hochberg(np.array([e.p_of_no_difference() for e in estimates]))
    of_q = dict(zip(compared, q, strict=True))
    values = np.nansum(numerators, axis=0) / np.nansum(denominators, axis=0)
    rows = []
    for i, label in enumerate(labels):
        here = table[condition == label]
        low, high = interval(metric, here) if len(here) else (np.nan, np.nan)
        value = values[i] if len(here) else float(values[foreign].mean())
        n = int(np.isfinite(numerators[:, i]).sum()) if len(here) else 0
        estimate = estimate_of.get(i)
        difference = (np.nan,) * 3 if estimate is None else (estimate.value, *estimate.interval())
        rows.append(Row(label, n, value, low, high, *difference, of_q.get(i, np.nan)))
    return rows


def _clusters(speakers: pd.Series, slot: pd.Series) -> list[str]:
    """One label a slot: its speaker, or the slot where the conditions have different speakers."""
    by_slot = speakers.astype(str).groupby(slot, sort=False)
    return [of.iloc[0] if of.nunique() == 1 else f"slot {name}" for name, of in by_slot]


def markdown(rows: Sequence[tuple[Measure, Metric, Sequence[Row]]]) -> str:
    """A table: a line for each condition, a column for each metric and for its difference."""
    heads = ["condition", "n"]
    lines = [[row.condition, str(row.n or "")] for row in rows[0][2]]
    for (judge, _), metric, of_metric in rows:
        heads += [f"{metric.label} ({judge})", "difference"]
        digits = max(metric.decimals, 1)
        for line, row in zip(lines, of_metric, strict=True):
            line.append(f"{row.value:.{digits}f}" + _between(row.low, row.high, digits))
            bounds = _between(row.difference_low, row.difference_high, digits + 1)
            difference = f"{row.difference:+.{digits + 1}f}{bounds} q {row.q:.2g}"
            line.append("" if np.isnan(row.difference) else difference)
    table = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _between(low: float, high: float, digits: int) -> str:
    return "" if np.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"


def main(arguments: Sequence[str]) -> int:
    """Prints a table for each system; 1 if that fails."""
    if len(arguments) < 2:
        print((__doc__ or "").strip())
        return 0 if {"-h", "--help"} & set(arguments) else 1
    folder, control, *wanted = arguments
    try:
        run = read_run(Path(folder))
        for system, scores in run.scores.groupby("system", sort=False):
            shown = []
            for judge, name in measures_in(scores.dropna(axis="columns", how="all").columns):
                if not wanted or f"{judge}.{name}" in wanted:
                    rows = rows_of(scores, judge, METRICS[name], control)
                    shown.append(((judge, name), METRICS[name], rows))
            if shown:
                print(f"{system}\n\n{markdown(shown)}\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

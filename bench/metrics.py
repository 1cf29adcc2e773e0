"""What is measured. Every metric is a ratio of two sums over trials: rates are not averaged.

A corpus word error rate is errors over words, a real-time factor computing seconds over speech
seconds, a mean similarity a sum over a count; which is which stands in `METRICS`, once. The one
exception are the rates named `…_mean`, since some papers average them.

Reports, flags, confounds, history and the gate choose metrics by their `family` and judge, never by
key: `leading` is the one rule for which metric of a family stands for it. A metric that is added
here or by a judge is shown, ranked, drawn and gated like the others of its family.
"""

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

SHARE = (0.0, 100.0)
COUNT = (0.0, math.inf)
OPINION = (1.0, 5.0)
COSINE = (-1.0, 1.0)

# What a metric can be a measure of.
SIMILARITY = "similarity"
LEAKAGE = "leakage"
INTELLIGIBILITY = "intelligibility"
NATURALNESS = "naturalness"
PROSODY = "prosody"
EXPOSURE = "exposure"
SPEED = "speed"
FAILURES = "failures"
FAMILIES = {
    SIMILARITY: "how similar the voice is to the target's",
    LEAKAGE: "how much of the source's voice is left",
    INTELLIGIBILITY: "how much of what the source says can be understood",
    NATURALNESS: "how natural it is predicted to sound",
    PROSODY: "how much of the source's intonation, loudness and timing is kept",
    EXPOSURE: "whether the system was trained on the speakers",
    SPEED: "how long computing takes",
    FAILURES: "how often there is no result",
}

# A metric by a judge: (judge, metric).
Measure = tuple[str, str]


@dataclass(frozen=True)
class Metric:
    """One column of a results table.

    Attributes:
        label: its name in a report.
        higher_is_better: the direction; None where neither is (a duration ratio's best is 1).
        numerator: the judge's column that is summed.
        denominator: the judge's column that divides it; None for the number of trials (a mean).
        unit: "" or what follows the number, such as "%".
        scale: factor from the ratio to `unit`.
        decimals: digits after the point in a report.
        about: one sentence for the report's legend.
        limits: no value can lie outside; an interval does not either.
        mean: whether it is the mean of each trial's ratio, not the ratio of the sums. A trial whose
            denominator is 0 then counts nowhere.
        family: what it measures, a key of `FAMILIES`; "" for a metric that only the full tables
            show.
        rank: its place in its family: where a judge measures several, the lowest rank leads (see
            `leading`). Metrics of one rank by one judge are variants of one measure, such as
            another reference, normalisation or pooling.
        near: a system that is less than this worse than a true recording, in the metric's unit, is
            called as good as that recording; None where no such claim is made.
    """

    label: str
    higher_is_better: bool | None
    numerator: str
    denominator: str | None = None
    unit: str = ""
    scale: float = 1.0
    decimals: int = 2
    about: str = ""
    limits: tuple[float, float] = (-math.inf, math.inf)
    mean: bool = False
    family: str = ""
    rank: int = 0
    near: float | None = None

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is, nothing where neither."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def pooling(self) -> str:
        """How trials become one number, for the record: two runs must agree on it."""
        return f"{self.scale:g} × Σ {self.numerator} / Σ {self.denominator or '1'}"

    def terms(self, table: pd.DataFrame) -> pd.DataFrame:
        """Columns `numerator` and `denominator` of the trials that have both."""
        ones = pd.Series(1.0, index=table.index)
        if self.mean:
            rates = self.per_trial(table).replace([np.inf, -np.inf], np.nan)
            return pd.DataFrame({"numerator": rates, "denominator": ones}).dropna()
        terms = pd.DataFrame(
            {
                "numerator": table[self.numerator].astype(float) * self.scale,
                "denominator": ones if self.denominator is None else table[self.denominator],
            }
        )
        return terms.dropna()

    def clip(self, interval: tuple[float, float]) -> tuple[float, float]:
        """The interval (low, high) without what no value can reach; NaN stays."""
        low, high = np.clip(interval, *self.limits)
        return float(low), float(high)

    def per_trial(self, table: pd.DataFrame) -> pd.Series:
        """The metric of each single trial (NaN where it was not measured)."""
        if self.denominator is None:
            return table[self.numerator].astype(float) * self.scale
        return table[self.numerator].astype(float) * self.scale / table[self.denominator]

    def pool(self, table: pd.DataFrame) -> float:
        """The metric over all trials of `table` that have it; NaN, never 0, where none has."""
        terms = self.terms(table)
        total = float(terms["denominator"].sum())
        return float(terms["numerator"].sum()) / total if total > 0 else float("nan")


def error_rate(kind: str, reference: str, normalisation: str, pooling: str) -> str:
    """The key in `METRICS` of a word or character error rate.

    Args:
        kind: wer or cer.
        reference: "text" of the source, or "asr_source", the recogniser's transcript of it.
        normalisation: "english" or "raw".
        pooling: "corpus" or "mean".
    """
    marks = {"asr_source": "_asr", "raw": "_raw", "mean": "_mean"}
    return kind + "".join(marks.get(choice, "") for choice in (reference, normalisation, pooling))


def _error_rates() -> dict[str, Metric]:
    """WER and CER, for each reference, normalisation and pooling."""
    rates = {}
    for reference, normalisation, pooling in product(
        ("text", "asr_source"), ("english", "raw"), ("corpus", "mean")
    ):
        for kind, unit, whole in (("wer", "word", "words"), ("cer", "char", "chars")):
            prefix = ("asr_" if reference == "asr_source" else "") + (
                "raw_" if normalisation == "raw" else ""
            )
            label = kind.upper() + "".join(
                mark
                for mark, told in (
                    (" vs ASR", reference == "asr_source"),
                    (" raw", normalisation == "raw"),
                    (" mean", pooling == "mean"),
                )
                if told
            )
            noun = "word" if kind == "wer" else "character"
            text = "what the recogniser hears in it" if reference == "asr_source" else "its text"
            about = (
                f"{noun} errors over {noun}s "
                + ("of all trials together" if pooling == "corpus" else "of each trial, averaged")
                + f", against the source: {text}"
                + ("; only case and punctuation are evened out" if normalisation == "raw" else "")
            )
            rates[error_rate(kind, reference, normalisation, pooling)] = Metric(
                label,
                False,
                f"{prefix}{unit}_errors",
                f"{prefix}{whole}",
                unit="%",
                scale=100,
                decimals=1,
                about=about,
                mean=pooling == "mean",
                limits=COUNT,
                family=INTELLIGIBILITY,
                rank=0 if kind == "wer" else 1,
                near=1.0 if kind == "wer" else 0.5,
            )
    return rates


ERROR_RATES = _error_rates()

METRICS = {
    "secs": Metric(
        "SECS",
        True,
        "secs",
        about="speaker similarity to enrolment speech of the target",
        limits=COSINE,
        family=SIMILARITY,
        near=0.02,
    ),
    "secs_reference": Metric(
        "SECS to reference",
        True,
        "secs_reference",
        about="speaker similarity to the very reference that the system was given",
        limits=COSINE,
        family=SIMILARITY,
        near=0.02,
    ),
    "secs_calibrated": Metric(
        "SECS calibrated",
        True,
        "secs_calibrated",
        about="where SECS lies between known different speakers (0) and one speaker (1)",
        family=SIMILARITY,
        rank=1,
    ),
    "secs_calibrated_reference": Metric(
        "SECS to reference calibrated",
        True,
        "secs_calibrated_reference",
        about="where SECS to reference lies between different speakers (0) and one speaker (1)",
        family=SIMILARITY,
        rank=1,
    ),
    "sv_accept": Metric(
        "accepted",
        True,
        "sv_accept",
        unit="%",
        scale=100,
        decimals=0,
        about="comparisons that a speaker verification at equal error would accept",
        limits=SHARE,
        family=SIMILARITY,
        rank=2,
    ),
    "sv_accept_reference": Metric(
        "accepted as reference",
        True,
        "sv_accept_reference",
        unit="%",
        scale=100,
        decimals=0,
        about="comparisons with the reference that a speaker verification would accept",
        limits=SHARE,
        family=SIMILARITY,
        rank=2,
    ),
    "source_secs": Metric(
        "SECS to source",
        False,
        "source_secs",
        about="speaker similarity to the source recording: how much of the old voice is left",
        limits=COSINE,
        family=LEAKAGE,
    ),
    "nearer_target": Metric(
        "nearer target",
        True,
        "nearer_target",
        unit="%",
        scale=100,
        decimals=0,
        about="share of trials more similar to the target than to the source",
        limits=SHARE,
        family=LEAKAGE,
        rank=1,
    ),
    **ERROR_RATES,
    "utmos": Metric(
        "UTMOS",
        True,
        "utmos",
        about="predicted naturalness, 1–5 (UTMOS22 strong)",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "dnsmos_ovrl": Metric(
        "OVRL",
        True,
        "ovrl",
        about="DNSMOS P.835 overall quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "dnsmos_sig": Metric(
        "SIG",
        True,
        "sig",
        about="DNSMOS P.835 speech signal quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "dnsmos_bak": Metric(
        "BAK",
        True,
        "bak",
        about="DNSMOS P.835 background quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "dnsmos_p808": Metric(
        "P.808",
        True,
        "p808",
        about="DNSMOS P.808 overall quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "f0_correlation": Metric(
        "F0 corr",
        True,
        "f0_correlation",
        about="Pearson correlation of log F0 with the source over frames voiced in both",
        limits=COSINE,
        family=PROSODY,
    ),
    "f0_rmse": Metric(
        "F0 RMSE",
        False,
        "f0_rmse",
        unit="st",
        decimals=1,
        about="difference of the F0 contours from the source's in semitones, each about its mean",
        limits=COUNT,
        family=PROSODY,
        rank=1,
    ),
    "energy_correlation": Metric(
        "energy corr",
        True,
        "energy_correlation",
        about="Pearson correlation of the energy contour in dB with the source's",
        family=PROSODY,
    ),
    "duration_ratio": Metric(
        "duration",
        None,
        "duration_ratio",
        about="converted over source duration; 1 keeps the timing",
        limits=COUNT,
        family=PROSODY,
        rank=2,
    ),
    "unseen": Metric(
        "unseen",
        None,
        "unseen",
        unit="%",
        scale=100,
        decimals=0,
        about="share of trials of whose speakers the system says that it has heard neither; "
        "n is what it says anything about",
        family=EXPOSURE,
    ),
    "rtf": Metric(
        "RTF",
        False,
        "elapsed_seconds",
        "audio_seconds",
        decimals=3,
        about="seconds of computing per second of generated speech; below 1 beats real time",
        limits=COUNT,
        family=SPEED,
    ),
    "failed": Metric(
        "failed",
        False,
        "failed",
        unit="%",
        scale=100,
        decimals=1,
        about="share of trials that could not be converted",
        limits=SHARE,
        family=FAILURES,
    ),
}


def leading(
    measures: Iterable[Measure], families: Sequence[str], variants: bool = False
) -> list[Measure]:
    """The leading metric of each family by each judge: the metric that stands for the family.

    Of the metrics of a family that a judge measures, the one of the lowest rank leads; among those
    of one rank, the first in `METRICS`.

    Args:
        measures: what was measured; metrics that are not in `METRICS` are left out.
        families: which families.
        variants: all metrics of the leading one's rank, in place of the leading one alone.

    Returns:
        By family in the order of `families`, then by rank, by place in `METRICS`, by the order in
        which the judges were given.
    """
    places = {name: place for place, name in enumerate(METRICS)}
    given = [pair for pair in dict.fromkeys(measures) if pair[1] in places]
    chosen: list[Measure] = []
    for family in families:
        of_family = sorted(
            (pair for pair in given if METRICS[pair[1]].family == family),
            key=lambda pair: (METRICS[pair[1]].rank, places[pair[1]]),
        )
        first: dict[str, str] = {}
        for judge, metric in of_family:
            first.setdefault(judge, metric)
        chosen += [
            (judge, metric)
            for judge, metric in of_family
            if metric == first[judge]
            or (variants and METRICS[metric].rank == METRICS[first[judge]].rank)
        ]
    return chosen


def held_to(margins: Container[str], measures: Iterable[Measure]) -> dict[Measure, str]:
    """Which margin holds for which measure.

    Args:
        margins: keys of `METRICS` and families. A key holds for that metric by every judge. A
            family holds for its leading metric by each judge (see `leading`; metrics of no
            direction never lead here), unless that metric has a margin by its key.
        measures: what was measured.

    Returns:
        Measure → the key or family that its margin goes by; measures without a margin are left out.
    """
    given = [pair for pair in dict.fromkeys(measures) if pair[1] in METRICS]
    directed = [pair for pair in given if METRICS[pair[1]].higher_is_better is not None]
    families = [f for f in dict.fromkeys(METRICS[m].family for _, m in directed) if f in margins]
    by_family = {pair: METRICS[pair[1]].family for pair in leading(directed, families)}
    return by_family | {pair: pair[1] for pair in given if pair[1] in margins}

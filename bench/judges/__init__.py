"""Judges: each turns converted speech into numbers. One file for each family of judges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from typing import Any, Protocol

from bench.audio import Waveform
from bench.errors import UserError, choose_one_of, shown
from bench.files import fingerprint
from bench.metrics import METRICS, register
from bench.trials import Utterance
from bench.weights import Weights

# A cell of the score table: a number, a text such as a transcript, or None for "not measurable".
Value = float | int | str | None


@dataclass(frozen=True)
class Converted:
    """One converted utterance and what a judge may compare it with.

    A judge receives only the parts that it names in `reads`; the others are None. A judge that uses
    a part that it does not declare, which its cache key would miss, fails at once.
    """

    trial_id: str
    converted: Waveform | None = None
    source: Waveform | None = None
    reference: Waveform | None = None
    enrolment: tuple[Waveform, ...] | None = None
    source_enrolment: tuple[Waveform, ...] | None = None
    text: str | None = None
    language: str | None = None


class Judge(Protocol):
    """Scores converted speech, a batch at a time. Its name is its key in the configuration.

    Attributes:
        reads: the fields of `Converted` that it uses: what its cached scores depend on.
        metrics: keys of `METRICS` that its columns fill.
        defines: optional, an attribute of the class: the metrics that this judge brings, key →
            `Metric`. Keys of `METRICS` need no definition. Reports, figures, history and the gate
            treat a metric that is defined here like the built-in ones of its family.
        needs_source_words: True where the score means nothing for speech with other words than the
            source's (the ceiling row of real recordings).
        networks: optional: names of the networks that it judges with (`bench.validity.kinship` has
            the known ones), empty where there is none; unknown by default. Reports mark the scores
            of systems that were made with them.
        languages: optional, of the class or the judge: the languages of the speech that it can
            judge, ISO 639 codes; None or no such attribute for any. A class whose settings decide
            it has a static method `languages_for(settings)` with the same result instead. A suite
            in another language is refused (see `bench.judges.checks.check_languages`).
        fingerprint: see `identity`: part of every cache key and of every result.
        weights: files of its models, with hash and licence.
    """

    reads: frozenset[str]
    metrics: tuple[str, ...]
    needs_source_words: bool

    @property
    def fingerprint(self) -> str: ...

    @property
    def weights(self) -> tuple[Weights, ...]: ...

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """One dict of columns per item, in order: counts, from which rates are pooled.

        The values do not depend on the batch: not on its size, its order or its other items.

        Raises:
            Exception: a judge that fails is a bug or a broken installation, never a low score; the
                run stops with the trial's name.
        """
        ...

    def self_test(self, recordings: Sequence[Utterance]) -> "SelfTest":
        """Checks itself on recordings whose answers are known (`vcbench doctor`)."""
        ...


@dataclass(frozen=True)
class SelfTest:
    """Result of a judge's check on known recordings.

    Attributes:
        passed: False where its answers on known recordings are wrong.
        findings: what was measured, name → text with unit and limit.
    """

    passed: bool
    findings: dict[str, str] = field(default_factory=dict)


def register_metrics_of(judge: Any, name: str, metrics: Sequence[str] | None = None) -> None:
    """Adds the metrics that a judge defines to `METRICS`, and checks that it measures known ones.

    Args:
        judge: a judge, or its class where it cannot be built.
        name: the judge's name, for the error.
        metrics: what it measures; None for its attribute `metrics`.

    Raises:
        UserError: if a definition has a fault, if another metric has its name, or if the judge
            measures what is no metric.
    """
    what = f"judge {name}"
    defined = getattr(judge, "defines", {})
    if not isinstance(defined, Mapping):
        raise UserError(
            f"{what}: defines = {shown(defined)}: must be a mapping of its class, key → Metric"
        )
    for key, metric in defined.items():
        register(key, metric, what)
    for metric in judge.metrics if metrics is None else metrics:
        if metric not in METRICS:
            raise UserError(
                f"{what} measures {metric!r}, which is no metric; "
                f"{choose_one_of(str(metric), METRICS)}; new ones belong into the judge's `defines`"
            )


# Every judge's sounds are resampled by it, the judge's or the suite's.
RESAMPLER = "soxr"


def identity(
    name: str,
    version: int,
    weights: Sequence[Weights] = (),
    settings: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
) -> str:
    """The fingerprint of a judge, an encoder or a recogniser: other values, another fingerprint.

    Args:
        name: what it is.
        version: of its code; rises with every change that moves a score.
        weights: what it computes with; the hashes of the files count, not their paths.
        settings: those that move a score, as JSON holds them; device and batch size are none.
        packages: distributions whose code its scores depend on; soxr is always one.

    Raises:
        UserError: if JSON cannot hold a setting.
    """
    return fingerprint(
        {
            "name": name,
            "version": version,
            "weights": [w.sha256 for w in weights],
            "settings": dict(settings or {}),
            "packages": [f"{p}=={metadata.version(p)}" for p in sorted({RESAMPLER, *packages})],
        }
    )


def only(item: Converted, reads: frozenset[str]) -> Converted:
    """`item` without the fields that are not in `reads`."""
    hidden = {f.name for f in fields(Converted)} - {"trial_id"} - reads
    nothing: dict[str, Any] = dict.fromkeys(hidden)
    return replace(item, **nothing)

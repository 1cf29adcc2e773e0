"""Builds the judges of a run, one at a time, and describes them for run.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.judges import Judge, register_metrics_of
from bench.judges.checks import check_settings, languages_of, networks_of
from bench.objects import TARGET, build, locate
from bench.results import TRAINED_ON
from bench.stages.cache import Columns
from bench.stages.convert import Entry
from bench.stages.score import Row
from bench.stats.pooling import Measured
from bench.validity.exposure import columns


@dataclass(frozen=True)
class DeclaredJudge:
    """A judge that is built only when it scores, so that one is in memory at a time.

    Attributes:
        settings: plain settings with `_target_`, or a Hydra configuration.
    """

    settings: Mapping[str, Any]

    def check(self, name: str) -> None:
        """Raises UserError if the settings are wrong, as far as can be checked without weights."""
        check_settings(
            plain(self.settings), f"judge.{name}", lambda path: locate(path, f"judge {name}")
        )

    def languages(self, name: str) -> frozenset[str] | None:
        """The languages that it can judge by its settings; None for any (see `Judge.languages`)."""
        return languages_of(plain(self.settings), lambda path: locate(path, f"judge {name}"))

    def build(self, name: str) -> Judge:
        """Builds the judge.

        Raises:
            WeightsMissing: if its weights are not on this machine.
            UserError: if its settings are wrong.
        """
        return build(self.settings, f"judge {name}")

    def measured(self, name: str, unavailable: str) -> Measured:
        """Describes, for the summary, a judge that cannot be built.

        Args:
            name: the judge's name.
            unavailable: why it cannot be built, such as "no weights: …".
        """
        judge: Any = locate(self.settings[TARGET], f"judge {name}")
        metrics = (
            judge.metrics_for(self.settings) if hasattr(judge, "metrics_for") else judge.metrics
        )
        register_metrics_of(judge, name, metrics)
        return Measured(tuple(metrics), bool(judge.needs_source_words), unavailable)


@dataclass
class JudgedRows:
    """The columns of every judge, and the facts about the judges.

    Attributes:
        columns: judge → columns of every row.
        measured: judge → its facts for the summary.
        judges: judge → its description in run.json.
    """

    columns: dict[str, list[Columns]] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metrics of all judges."""
        return [metric for measured in self.measured.values() for metric in measured.metrics]

    def add(self, name: str, judge: Judge, settings: Any) -> None:
        """Adds a judge that has scored."""
        self.measured[name] = Measured(judge.metrics, judge.needs_source_words)
        self.judges[name] = {
            "metrics": list(judge.metrics),
            "needs_source_words": judge.needs_source_words,
            "fingerprint": judge.fingerprint,
            "networks": networks_of(judge, name),
            "weights": [vars(weights) for weights in judge.weights],
            "settings": plain(settings),
        }

    def add_unavailable(self, name: str, measured: Measured) -> None:
        """Adds a judge whose weights are missing."""
        self.measured[name] = measured
        self.judges[name] = {
            "metrics": list(measured.metrics),
            "needs_source_words": measured.needs_source_words,
            "unavailable": measured.unavailable,
        }

    def add_exposure(self, entries: Sequence[Entry], rows: Sequence[Row]) -> None:
        """Adds whether each system was trained on the speakers of each trial."""
        trained_on = {e.name: None if e.facts.role else e.facts.trained_on for e in entries}
        self.columns[TRAINED_ON] = [
            {} if (corpora := trained_on[row.system]) is None else columns(row.trial, corpora)
            for row in rows
        ]
        self.measured[TRAINED_ON] = Measured(("unseen",))


def plain(settings: Any) -> Any:
    """Settings as plain Python values, interpolations resolved."""
    if isinstance(settings, dict):
        return settings
    from omegaconf import OmegaConf

    return OmegaConf.to_container(settings, resolve=True)

"""Scores conversions of held-out speech with the judges of the benchmark. Only this module and
`takin_vc.system` import `bench`.

Judges only measure: no gradient passes through a judge, and no score chooses a checkpoint or ends
a training. A model optimised for its judges could not be compared by a benchmark with the same
judges.
"""

import math
from collections.abc import Sequence

import pandas as pd

from bench import objects
from bench.audio import Waveform
from bench.cli.settings import load
from bench.errors import UserError
from bench.judges import Converted, Judge, only
from bench.metrics import METRICS
from takin_vc.inputs import Speech
from takin_vc.train.stage import TrainingError
from takin_vc.train.validation.trials import ValidationConversion


class Judges:
    """Judges of the benchmark, by name, with the benchmark's settings.

    Speaker judges are not calibrated: their calibration recordings are of speakers on whom the
    benchmark evaluates, and a training reads none of those.

    Args:
        names: as in `judge=[...]` of the benchmark: "secs_resemblyzer".

    Raises:
        TrainingError: if a judge is unknown, or its package or weights are missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TrainingError(f"conversion.judges={names}: write a list, [secs_resemblyzer]")
        self.judges: dict[str, Judge] = {}
        try:
            nodes = load([f"judge=[{','.join(names)}]"]).judge
            for name, node in nodes.items():
                if "calibration" in node:
                    node["calibration"] = []
                self.judges[str(name)] = objects.build(node, f"judge {name}")
        except UserError as error:
            raise TrainingError(f"conversion.judges: {error}") from error

    @property
    def reads(self) -> frozenset[str]:
        """The fields of a conversion that the judges need."""
        return frozenset().union(*(judge.reads for judge in self.judges.values()))

    def __call__(self, conversions: Sequence[ValidationConversion]) -> dict[str, float]:
        """Every metric of every judge, pooled as in the benchmark: "secs_resemblyzer/secs".

        Conversions that cannot be scored (silent, not finite) count in "failed", in percent, and in
        nothing else. Judges of words get only conversions whose text is known.

        Raises:
            TrainingError: if a judge fails.
        """
        items = [item for item in map(_item, conversions) if item is not None]
        failed = len(conversions) - len(items)
        scores = {"failed": METRICS["failed"].scale * failed / len(conversions)}
        for name, judge in self.judges.items():
            readable = [
                only(item, judge.reads) for item in items if item.text or "text" not in judge.reads
            ]
            if not readable:
                continue
            try:
                table = pd.DataFrame(judge.score(readable))
            except UserError as error:
                raise TrainingError(f"conversion.judges: {name}: {error}") from error
            for metric in judge.metrics:
                value = METRICS[metric].pool(table)
                if math.isfinite(value):
                    scores[f"{name}/{metric}"] = value
        return scores


def _item(conversion: ValidationConversion) -> Converted | None:
    """A conversion in the form that judges take; None if its sound cannot be scored."""
    converted = _waveform(conversion.converted)
    if converted.fault() is not None:
        return None
    return Converted(
        conversion.trial_id,
        converted=converted,
        source=_waveform(conversion.source),
        reference=_waveform(conversion.reference),
        enrolment=tuple(map(_waveform, conversion.enrolment)),
        source_enrolment=tuple(map(_waveform, conversion.source_enrolment)),
        text=conversion.text,
    )


def _waveform(speech: Speech) -> Waveform:
    return Waveform(speech.samples.float(), speech.sample_rate)

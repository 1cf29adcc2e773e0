"""The harness's judges over conversions of held-out speech. Beside `takin_vc.system`, the one
module here that knows `bench`.

They measure and nothing else: no gradient passes through a judge, and neither a checkpoint nor the
end of training is chosen by what one says. A model that had learnt to please its judges would be
worth nothing to a benchmark that asks the same ones.
"""

import math
from collections.abc import Sequence

import pandas as pd

from bench.audio import Waveform
from bench.cli import settings as config
from bench.errors import UserError
from bench.judges import Converted, Judge, only
from bench.metrics import METRICS
from takin_vc.model import Speech
from takin_vc.train.stage import TrainingError
from takin_vc.train.validation.trials import ValidationConversion


class Judges:
    """Judges of the harness, by their names, with its settings.

    A speaker judge isn't calibrated: the recordings that tell what its cosines mean are of speakers
    whom the benchmark evaluates on, and training opens none of theirs.

    Args:
        names: as in `judge=[...]` of the harness: "secs_resemblyzer".

    Raises:
        TrainingError: if a judge is unknown, or its package or weights are missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TrainingError(f"conversion.judges={names}: write a list, [secs_resemblyzer]")
        self.judges: dict[str, Judge] = {}
        try:
            nodes = config.load([f"judge=[{','.join(names)}]"]).judge
            for name, node in nodes.items():
                if "calibration" in node:
                    node["calibration"] = []
                self.judges[str(name)] = config.build(node, f"judge {name}")
        except UserError as error:
            raise TrainingError(f"conversion.judges: {error}") from error

    @property
    def reads(self) -> frozenset[str]:
        """What the judges need of a conversion."""
        return frozenset().union(*(judge.reads for judge in self.judges.values()))

    def __call__(self, conversions: Sequence[ValidationConversion]) -> dict[str, float]:
        """Every metric of every judge, pooled as the harness pools: "secs_resemblyzer/secs".

        Conversions that cannot be judged (silent, not finite) are in "failed", in percent, and in
        nothing else. Judges of words hear those whose text is known.

        Raises:
            TrainingError: if a judge cannot judge.
        """
        items = [item for item in map(_item, conversions) if item is not None]
        failed = len(conversions) - len(items)
        found = {"failed": METRICS["failed"].scale * failed / len(conversions)}
        for name, judge in self.judges.items():
            heard = [
                only(item, judge.reads) for item in items if item.text or "text" not in judge.reads
            ]
            if not heard:
                continue
            try:
                table = pd.DataFrame(judge.score(heard))
            except UserError as error:
                raise TrainingError(f"conversion.judges: {name}: {error}") from error
            for metric in judge.metrics:
                value = METRICS[metric].pool(table)
                if math.isfinite(value):
                    found[f"{name}/{metric}"] = value
        return found


def _item(conversion: ValidationConversion) -> Converted | None:
    """A conversion as judges take it; None where it is no sound to be judged."""
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

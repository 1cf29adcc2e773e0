"""The floor and the ceiling of every table: recordings that no system converted."""

from pathlib import Path

from bench.systems import CEILING, FLOOR
from bench.trials import Trial


class Source:
    """The source itself: the floor for SECS, and the ceiling for WER and naturalness."""

    role = FLOOR

    def path(self, suite: str, trial: Trial) -> Path:
        """See `bench.systems.Existing`."""
        return trial.source.path


class Target:
    """Another true utterance of the target speaker: the ceiling for SECS."""

    role = CEILING

    def path(self, suite: str, trial: Trial) -> Path | None:
        """See `bench.systems.Existing`."""
        return None if trial.target is None else trial.target.path

"""The interface through which a run reports its progress."""

from collections.abc import Callable
from typing import Protocol

# The stages of a run, and what each works on.
SUBJECTS = {
    "check": "suite",
    "convert": "system",
    "score": "judge",
    "merge": "folder",
    "report": "report",
}


class Progress(Protocol):
    """Receives the progress of tasks, and notes for the user."""

    def task(self, stage: str, subject: str, total: int) -> Callable[[int], None]:
        """Begins a task of `total` steps; the result is called with the number of steps done.

        Args:
            stage: one of `SUBJECTS`.
            subject: the name of what the stage works on.
            total: the number of steps.
        """
        ...

    def note(self, text: str, caution: bool = False) -> None:
        """Shows a sentence; a caution warns of results that may be misleading."""
        ...


class Silent:
    """Shows nothing."""

    def task(self, stage: str, subject: str, total: int) -> Callable[[int], None]:
        """See `Progress`."""
        return lambda steps: None

    def note(self, text: str, caution: bool = False) -> None:
        """See `Progress`."""

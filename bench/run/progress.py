"""How a run reports what it does."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Is told of tasks and of everything that the user should know at once."""

    def task(self, name: str, total: int) -> Callable[[int], None]:
        """Begins a task of `total` steps; the result is called with the number of steps done."""
        ...

    def note(self, text: str, caution: bool = False) -> None:
        """Shows a sentence; a caution is about results that may not be what they seem."""
        ...


class Silent:
    """Shows nothing."""

    def task(self, name: str, total: int) -> Callable[[int], None]:
        return lambda steps: None

    def note(self, text: str, caution: bool = False) -> None:
        pass

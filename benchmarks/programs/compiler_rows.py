"""Rows of `benchmarks.programs.compiler`, and the turns in which its processes measure them."""

import csv
import dataclasses
import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class OutOfTime(BaseException):
    """A variant took longer than `row_seconds`. No Exception: compilers catch those."""


@dataclass
class TimingRow:
    """A measurement; see the module."""

    model: str
    part: str
    seconds: float
    variant: str
    median_ms: float | None = None
    fastest_ms: float | None = None
    first_calls_s: float | None = None
    largest_difference: float | None = None
    relative_difference: float | None = None
    note: str = ""


@dataclass
class TimingTable:
    """Rows as they come, on the screen and in a CSV file."""

    out: Path | None
    names: list[str] = field(
        default_factory=lambda: [f.name for f in dataclasses.fields(TimingRow)]
    )

    def begin(self) -> None:
        """Writes the header; the file is made anew."""
        print(f"| {' | '.join(self.names)} |\n|{'---|' * len(self.names)}", flush=True)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.out.open("w", newline="") as file:
                csv.writer(file).writerow(self.names)

    def add(self, row: TimingRow) -> None:
        """Adds a row."""
        values = [getattr(row, name) for name in self.names]
        cells = [
            "" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in values
        ]
        print(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |", flush=True)
        if self.out is not None:
            with self.out.open("a", newline="") as file:
                csv.writer(file).writerow(cells)


class Turns:
    """Lets one process measure while no other computes or compiles.

    All hold a shared lock on a file but for those that measure or wait to measure.

    Args:
        path: of the file; None: there is one process.
    """

    def __init__(self, path: Path | None) -> None:
        self.file = None if path is None else path.open("rb")
        self._take(fcntl.LOCK_SH)

    def _take(self, kind: int) -> None:
        if self.file is not None:
            fcntl.flock(self.file, kind)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process computes within."""
        self._take(fcntl.LOCK_EX)
        try:
            yield
        finally:
            self._take(fcntl.LOCK_SH)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises OutOfTime where what is inside takes longer."""

    def ring(*_: Any) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

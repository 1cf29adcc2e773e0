"""Shows the progress of a run on stderr: bars, JSON lines, or notes alone.

If the reader of stderr goes away, nothing more is shown, and the run goes on.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from bench.cli.console import Printed, silence
from bench.run.progress import SUBJECTS

WINDOW = 60.0  # s; the rate is that of the last minute, so that results kept count for little
INTERVAL = 1.0  # s between two lines of one task


class Shown:
    """Shows notes only; see `bench.run.progress.Progress`. A context manager."""

    def __init__(self) -> None:
        self.console = Printed(stderr=True)

    def __enter__(self) -> "Shown":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def task(self, stage: str, subject: str, total: int) -> Callable[[int], None]:
        """See `bench.run.progress.Progress`."""
        return lambda steps: None

    def note(self, text: str, caution: bool = False) -> None:
        """See `bench.run.progress.Progress`."""
        mark = "[yellow]caution[/] " if caution else ""
        self.console.print(f"{mark}{escape(text)}", highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Ends what is shown, before something else is printed."""


class ShownAsBars(Shown):
    """Shows bars. Reports have none: they print while they are written."""

    def __init__(self) -> None:
        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._started = False

    def task(self, stage: str, subject: str, total: int) -> Callable[[int], None]:
        """See `bench.run.progress.Progress`."""
        if stage == "report":
            return lambda steps: None
        if not self._started:
            self._bars.start()
            self._started = True
        task: TaskID = self._bars.add_task(f"{stage} {subject}", total=total)
        return lambda steps: self._bars.advance(task, steps)

    def end(self) -> None:
        """Stops the bars and leaves them on the screen."""
        if self._started:
            self._bars.stop()
            self._started = False


class ShownAsJson(Shown):
    """Writes a JSON object a line: one a second for each task, its first and its last.

    {"stage": "convert", "system": "world", "done": 3, "total": 16, "rate": 0.8, "seconds_left": 16}
    where the second key is of `bench.run.progress.SUBJECTS`, `rate` is steps per second over the
    last minute, null before the first step, and `seconds_left` is null while it is unknown.
    Notes are {"note": text, "caution": true or false}.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock

    def task(self, stage: str, subject: str, total: int) -> Callable[[int], None]:
        """See `bench.run.progress.Progress`."""
        recent = deque([(self._clock(), 0)])  # (time, steps done)
        written = recent[0][0]

        def line(now: float, done: int) -> None:
            seconds = now - recent[0][0]
            rate = (done - recent[0][1]) / seconds if seconds > 0 and done else None
            left = 0.0 if done >= total else (total - done) / rate if rate else None
            _write(
                {
                    "stage": stage,
                    SUBJECTS[stage]: subject,
                    "done": done,
                    "total": total,
                    "rate": None if rate is None else round(rate, 3),
                    "seconds_left": None if left is None else round(left, 1),
                }
            )

        def advance(steps: int) -> None:
            nonlocal written
            now, done = self._clock(), recent[-1][1] + steps
            recent.append((now, done))
            while len(recent) > 2 and recent[0][0] < now - WINDOW:
                recent.popleft()
            if steps and (done >= total or now - written >= INTERVAL):
                written = now
                line(now, done)

        line(written, 0)
        return advance

    def note(self, text: str, caution: bool = False) -> None:
        """See `bench.run.progress.Progress`."""
        _write({"note": text, "caution": caution})


def shown_as(form: str) -> Shown:
    """What shows the progress in a form of `bench.cli.settings.PROGRESS`."""
    return {"bars": ShownAsBars, "json": ShownAsJson, "none": Shown}[form]()


def _write(record: dict[str, Any]) -> None:
    try:
        print(json.dumps(record, ensure_ascii=False), file=sys.stderr, flush=True)
    except BrokenPipeError:  # nobody reads any more; the run goes on
        silence(sys.stderr)

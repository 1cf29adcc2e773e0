"""The workers of one stage of a pipeline: what they do, and what happens if they end."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from bench.errors import UserError
from bench.stages.messages import Answer, check_hello

AHEAD = 2  # calls that a worker has at a time, so that it need not wait for the next
CALL_SECONDS = 2.0  # that a call should take
MOST_ITEMS = 1000  # of a call
PLACE_SECONDS = 20.0  # that a worker may take to start before others make room
MOST_DEATHS = 3  # workers that end in a row without a result, or on the same items


class WorkerEnded(Exception):
    """The process of a worker ended, or its machine; the message says why, if it is known."""


@dataclass(frozen=True)
class Needs:
    """What a worker needs of its machine.

    Attributes:
        cpus: processor cores; its numeric threads too.
        gpus: a number of GPUs; below 1 a share of one.
    """

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


@dataclass(frozen=True)
class Program:
    """What a worker runs.

    Attributes:
        target: the dotted path of a class.
        arguments: of the class, as JSON holds them.
        forks: whether it will start processes by `bench.stages.forkserver`.
    """

    target: str
    arguments: tuple[Any, ...]
    forks: bool = False


class Backend(Protocol):
    """Starts processes and calls them. A call is a value that can be a key."""

    def start(self, program: Program, needs: Needs) -> Any:
        """Begins to start a worker; the result stands for it."""
        ...

    def call(self, worker: Any, method: str, *arguments: Any, contents: Sequence[Any] = ()) -> Any:
        """Begins a call; calls of one worker run one after another.

        Args:
            worker: that is called.
            method: one of `bench.stages.messages.METHODS`.
            arguments: of the method, as JSON holds them.
            contents: what `put` has returned; the method gets them as a list of bytes, its last
                argument.
        """
        ...

    def put(self, content: bytes) -> Any:
        """Keeps bytes where all workers reach them, as long as the result lives."""
        ...

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """The calls that are done; waits for the first, at most so long."""
        ...

    def answer(self, call: Any) -> Answer:
        """The answer of a call that is done; its value is as JSON holds it.

        Raises:
            WorkerEnded: if the worker has ended.
            BrokenMessage: if it is no answer.
        """
        ...

    def end(self, worker: Any) -> None:
        """Ends a worker at once, whatever it does."""
        ...


@dataclass(frozen=True)
class Work:
    """A call that a worker makes.

    Attributes:
        method: of the program.
        arguments: of the call.
        count: the number of items; 0 for calls about the worker itself.
        contents: of files, as the backend's `put` has returned them.
        about: what the caller needs to use the answer.
        label: names the items in an error.
        deaths: workers that ended while they had it.
    """

    method: str
    arguments: tuple[Any, ...] = ()
    count: int = 0
    about: Any = None
    label: str = ""
    deaths: int = 0
    contents: tuple[Any, ...] = ()


@dataclass(eq=False)
class PoolWorker:
    """A worker of a pool.

    Attributes:
        handle: of the backend.
        placed: whether it runs, not only waits for a machine.
        calls: that it has, oldest first.
        started: when it was asked for, on the monotonic clock.
        seconds: that an item takes there; None while nothing is known.
    """

    handle: Any
    started: float = field(default_factory=time.monotonic)
    placed: bool = False
    calls: dict[Any, Work] = field(default_factory=dict)
    seconds: float | None = None


class Pool:
    """The workers of one stage.

    Args:
        backend: starts and calls them.
        name: of the stage, for messages.
        program: what each runs.
        needs: of each.
        count: most workers.
        note: receives a sentence where a worker has ended.
        first: a method that each worker calls once before any work; "" for none.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        program: Program,
        needs: Needs,
        count: int,
        note: Callable[[str], None] = lambda _: None,
        first: str = "",
    ) -> None:
        self.name = name
        self.needs = needs
        self.count = count
        self.workers: list[PoolWorker] = []
        self.waiting: deque[Work] = deque()  # work of workers that ended
        self.deaths = 0  # in all
        self.gpu_gib = 0.0  # the most that one worker has needed of a GPU; 0 if unknown
        self.card_gib = 0.0  # memory of the smallest GPU; 0 likewise
        self._backend = backend
        self._program = program
        self._note = note
        self._first = first
        self._in_a_row = 0

    @property
    def calls(self) -> list[Any]:
        """The calls in flight."""
        return [call for worker in self.workers for call in worker.calls]

    @property
    def placed(self) -> list[PoolWorker]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.placed]

    @property
    def has_work(self) -> bool:
        """Whether items are with workers, or wait for one."""
        return bool(self.waiting) or any(w.count for x in self.workers for w in x.calls.values())

    def start(self) -> None:
        """Starts the workers that are missing; does not wait for them."""
        while len(self.workers) < self.count:
            worker = PoolWorker(self._backend.start(self._program, self.needs))
            self.workers.append(worker)
            self._call(worker, Work("hello"))

    def is_starved(self) -> bool:
        """Whether it has asked for workers for a while and none runs."""
        asked = min((worker.started for worker in self.workers), default=time.monotonic())
        return not self.placed and time.monotonic() - asked > PLACE_SECONDS

    def room(self) -> bool:
        """Whether a worker can take another call."""
        return any(len(worker.calls) < AHEAD for worker in self.workers if worker.placed)

    def size(self, left: int | None = None) -> int:
        """How many items the next call should have; there must be `room`.

        Args:
            left: items that are left, so that the last ones are spread over the workers; None
                where it is not known.
        """
        seconds = self._next().seconds
        size = 1 if seconds is None else int(CALL_SECONDS / max(seconds, 1e-9))
        if left is not None:
            size = min(size, -(-left // (AHEAD * self.count)))
        return max(1, min(size, MOST_ITEMS))

    def give(self, work: Work) -> None:
        """Gives work to the worker with the fewest calls; there must be `room`."""
        self._call(self._next(), work)

    def retry(self) -> None:
        """Gives out the work of workers that ended."""
        while self.waiting and self.room():
            self.give(self.waiting.popleft())

    def take(self, call: Any) -> tuple[Work, Answer] | None:
        """The work and the answer of a call that is done; None if it is no result.

        Raises:
            UserError: if workers end again and again.
            BrokenMessage: if it is no answer.
        """
        worker = next((w for w in self.workers if call in w.calls), None)
        if worker is None:  # of a worker that was ended
            return None
        try:
            answer = self._backend.answer(call)
        except WorkerEnded as error:
            self._ended(worker, str(error))
            return None
        work = worker.calls.pop(call)
        if work.method == "hello":
            check_hello(answer.checked(self.name))
            worker.placed = True
            if self._first:
                self._call(worker, Work(self._first))
            return None
        if not answer.failure:
            self._in_a_row = 0
        self.gpu_gib = max(self.gpu_gib, answer.gpu_gib)
        if answer.card_gib:
            self.card_gib = min(answer.card_gib, self.card_gib or answer.card_gib)
        if work.count:
            one = answer.seconds / work.count
            worker.seconds = one if worker.seconds is None else 0.7 * worker.seconds + 0.3 * one
        return work, answer

    def end_idle(self) -> bool:
        """Ends one worker that has nothing to do; whether there was one."""
        for worker in self.workers:
            if worker.placed and not worker.calls:
                self._end(worker)
                return True
        return False

    def end(self) -> None:
        """Ends all workers; those without work close first."""
        idle = [worker for worker in self.workers if worker.placed and not worker.calls]
        closing = [self._backend.call(worker.handle, "close") for worker in idle]
        end = time.monotonic() + 5.0
        while closing and (seconds := end - time.monotonic()) > 0:
            done = self._backend.wait(closing, seconds)
            closing = [call for call in closing if call not in done]
        for worker in list(self.workers):
            self._end(worker)

    def _next(self) -> PoolWorker:
        """The worker with the fewest calls."""
        return min(self.placed, key=lambda worker: len(worker.calls))

    def _call(self, worker: PoolWorker, work: Work) -> None:
        options = {"contents": work.contents} if work.contents else {}
        call = self._backend.call(worker.handle, work.method, *work.arguments, **options)
        worker.calls[call] = work

    def _end(self, worker: PoolWorker) -> None:
        self.workers.remove(worker)
        self._backend.end(worker.handle)

    def _ended(self, worker: PoolWorker, reason: str) -> None:
        """Puts the work of a worker that has ended back."""
        self._end(worker)
        self.deaths += 1
        self._in_a_row += 1
        lost = [w for w in worker.calls.values() if w.count]
        # Its first call was being worked on; the others only waited.
        for number, work in enumerate(lost):
            deaths = work.deaths + (number == 0)
            if deaths >= MOST_DEATHS:
                raise UserError(
                    f"{self.name}: {deaths} workers ended on the same work ({work.label}); last: "
                    f"{reason}; what is finished is kept"
                )
            self.waiting.append(replace(work, deaths=deaths))
        if self._in_a_row >= MOST_DEATHS + self.count:
            raise UserError(
                f"{self.name}: {self._in_a_row} workers ended in a row without a result; last: "
                f"{reason}; what is finished is kept"
            )
        items = sum(work.count for work in lost)
        self._note(f"{self.name}: a worker ended ({reason}); {items} items are given to another")

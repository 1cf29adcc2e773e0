"""Runs a system in a separate process: the client of `bench.stages.worker`."""

import math
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.audio import Waveform
from bench.errors import UserError, shown
from bench.files import are_texts
from bench.stages.execute import Outcome, Streamed, one_line
from bench.stages.forkserver import ForkedProcess, fork_server
from bench.stages.worker import BrokenMessage, receive, send
from bench.systems import Facts

MOST_ENDS = 3  # after so many conversions in a row ended the process, no more are tried
BUILD_SECONDS = 1800.0  # enough for large checkpoints on slow disks
LONGEST_SECONDS = 1e9  # of any time in an answer
CLOSING_SECONDS = 5.0  # how long a process may take to end by itself


class Isolated:
    """A `bench.systems.System` whose `convert` runs in another process.

    The process is started when it is first needed, and again if it has ended: a crash, an exit or
    a conversion that takes too long fails one trial, not the run.

    Args:
        name: of the system, for messages.
        settings: its configuration with `_target_`.
        trial_seconds: how long one conversion may take; None for no limit.
        facts: what is known about the system already; None to ask its process.
        build_seconds: how long building the system may take.

    Attributes:
        trained_on: see `bench.systems.System`; empty until the facts are known.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        trial_seconds: float | None = None,
        facts: Facts | None = None,
        build_seconds: float = BUILD_SECONDS,
    ) -> None:
        self.name = name
        self.settings = settings
        self.trial_seconds = trial_seconds
        self.build_seconds = build_seconds
        self._facts = facts
        self.trained_on = frozenset() if facts is None else facts.trained_on
        self._process: ForkedProcess | None = None
        self._connection: socket.socket | None = None
        self._built = False
        self._busy = False  # converting, or stopped by Ctrl-C while it did
        self._ends = 0  # in a row

    @property
    def facts(self) -> Facts:
        """The facts of the system; it is built if they are not known yet.

        Raises:
            UserError: if it cannot be built.
        """
        if self._facts is None:
            self._build()
        assert self._facts is not None
        return self._facts

    @property
    def known(self) -> bool:
        """Whether `facts` are known without building the system."""
        return self._facts is not None

    def start(self) -> None:
        """Starts the process, which begins to build the system; `facts` waits for it."""
        if self._process is not None:
            return
        self._process = fork_server().fork("bench.stages.worker", 2)
        self._connection = self._process.connection
        send(self._connection, {"build": {"name": self.name, "settings": self.settings}})

    def outcome(self, source: Waveform, reference: Waveform, seed: int) -> Outcome:
        """Converts once; every error, also of the process, becomes an outcome.

        Args:
            source: gives the words.
            reference: gives the voice.
            seed: of this conversion.
        """
        if self._ends >= MOST_ENDS:
            return Outcome(
                error=f"not tried: {self._ends} conversions in a row ended the system's process"
            )
        try:
            self._build()
            self._busy = True
            start = time.monotonic()
            connection = self._connected()
            parts = {"source": source, "reference": reference}
            about = {k: {"rate": w.sample_rate, "count": len(w.samples)} for k, w in parts.items()}
            connection.settimeout(self.trial_seconds)
            send(connection, {"seed": seed, **about}, source.numpy(), reference.numpy())
            message, samples = receive(connection, self.trial_seconds)
            outcome = _outcome(message, samples, time.monotonic() - start)
        except UserError as error:  # built once, and not again
            return self._ended(str(error))
        except TimeoutError:
            return self._ended(
                f"no result after {self.trial_seconds:g} s; its process was ended "
                "(trial_seconds sets the limit)"
            )
        except BrokenMessage as error:
            return self._ended(f"its process sent {error}; it was ended")
        except (EOFError, OSError):
            return self._ended(f"its process {self._how_it_ended()}")
        self._busy = False
        self._ends = 0
        return outcome

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """See `bench.systems.System`.

        Raises:
            RuntimeError: with what went wrong in the other process.
        """
        outcome = self.outcome(source, reference, seed)
        if outcome.converted is None:
            raise RuntimeError(outcome.error)
        return outcome.converted

    def close(self) -> None:
        """Ends the process; a later conversion starts another."""
        if self._connection is not None:
            self._connection.close()  # an idle process then ends by itself
        if self._process is not None:
            self._process.exit_code(CLOSING_SECONDS if self._built and not self._busy else 0)
        self._kill()  # also the processes that it started

    def _build(self) -> None:
        if self._built:
            return
        self.start()
        what = f"system {self.name} ({self.settings.get('_target_')})"
        try:
            message, _ = receive(self._connected(), self.build_seconds)
            if isinstance(reason := message.get("refused"), str):
                self.close()
                raise UserError(reason)
            try:
                self._facts = Facts.from_json(message.get("built"))
            except ValueError as error:
                raise BrokenMessage(str(error)) from error
            self.trained_on = self._facts.trained_on
        except TimeoutError:
            self._kill()
            raise UserError(
                f"{what}: it was not ready after {self.build_seconds:g} s; its process was ended"
            ) from None
        except BrokenMessage as error:
            self._kill()
            raise UserError(f"{what}: its process sent {error}") from error
        except (EOFError, OSError):
            how = self._how_it_ended()
            raise UserError(f"{what}: its process {how} while the system was built") from None
        self._built = True

    def _connected(self) -> socket.socket:
        assert self._connection is not None
        return self._connection

    def _ended(self, error: str) -> Outcome:
        self._kill()
        self._ends += 1
        return Outcome(error=error, process_ended=True)

    def _how_it_ended(self) -> str:
        """How a process whose connection broke has ended; if it still runs, it is ended now."""
        assert self._process is not None
        code = self._process.exit_code(1.0)
        self._kill()
        if code is None:
            return "closed its connection and was ended"
        if code >= 0:
            return f"ended itself with exit code {code}"
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"

    def _kill(self) -> None:
        """Ends the process and the processes that it started."""
        if self._process is not None:
            self._process.close()
        self._process = self._connection = None
        self._built = self._busy = False


def _outcome(message: Mapping[str, Any], samples: np.ndarray, limit: float) -> Outcome:
    """The outcome in an untrusted answer.

    Args:
        message: as `bench.stages.worker` sends it.
        samples: the samples that came with it, (T,).
        limit: seconds since the request was sent; no time in the answer can be longer.

    Raises:
        BrokenMessage: if a part is missing, has a wrong type, or is impossible.
    """
    error, elapsed = message.get("error"), message.get("elapsed_seconds")
    stages, remarks = message.get("stages"), message.get("remarks")
    streamed = _streamed(message.get("streamed"), limit)
    origin, about = message.get("origin"), message.get("converted")
    if not (isinstance(error, str) and isinstance(origin, str) and are_texts(remarks)):
        raise BrokenMessage("an answer without its parts")
    if not isinstance(stages, dict):
        raise BrokenMessage("stages that are no table")
    for seconds in (*stages.values(), *(() if elapsed is None else (elapsed,))):
        check_time(seconds, limit)
    converted = None
    if about is not None:
        if not isinstance(about, dict) or about.get("count") != len(samples) or elapsed is None:
            raise BrokenMessage("samples that do not fit their description")
        try:
            rate: Any = about.get("rate")
            converted = Waveform.from_numpy(samples, rate)
            if fault := converted.fault():
                raise ValueError(f"converted speech is {fault}")
        except (TypeError, ValueError) as wrong:
            converted, error = None, one_line(wrong)
    elif not error:
        raise BrokenMessage("neither speech nor an error")
    return Outcome(
        converted, error, elapsed, stages, origin, tuple(remarks or ()), streamed=streamed
    )


def _streamed(value: Any, limit: float) -> Streamed | None:
    """The times of a streamed conversion in an untrusted answer.

    Raises:
        BrokenMessage: if a part is missing or impossible.
    """
    if value is None:
        return None
    try:
        streamed = Streamed(**value)
    except TypeError:
        raise BrokenMessage("times of a stream without their parts") from None
    check_time(streamed.stream_seconds, limit)
    check_time(streamed.first_chunk_seconds, streamed.stream_seconds)
    check_time(streamed.streamed_seconds, math.inf)
    if not streamed.streamed_seconds:
        raise BrokenMessage("a stream without samples")
    return streamed


def check_time(seconds: Any, limit: float) -> None:
    """Raises BrokenMessage unless `seconds` is a number from 0 to `limit`."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    longest = min(limit, LONGEST_SECONDS)
    if not number or not 0 <= seconds <= longest:
        raise BrokenMessage(f"a time that cannot be ({shown(seconds)} s of {longest:.3f} s)")

"""Processes that have imported torch already: a server imports it once and is forked.

A process that imports torch itself takes 2 to 3 s of processor time, a fork of one that has done so
a few milliseconds. `python -m bench.stages.forkserver FD` is the server: it imports torch and the
harness, starts no thread, computes nothing and never initialises CUDA, so that its children may.
A child leads a session of its own, with the environment, search path and working directory that the
client names, and other random states than its siblings. What is equal in all children of a server:
the seed of the hashes of strings and the addresses of the libraries. Two servers differ in both.

Messages are those of `bench.stages.worker`; descriptors travel beside them. The client numbers its
questions and the processes:

    {"fork": process, "program", "environment", "search_path", "folder"} and descriptors
    (connection, output): no answer;
    {"wait": process, "question"} → {"code", "question"}: negative for a signal, null while it runs;
    {"end": process, "question"} → the same, after it and those that it started were killed.
"""

import atexit
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.stages.worker import receive, send

# Libraries read these when they are loaded: with other values, another server is needed.
READ_WHEN_LOADED = (
    "CUDA",
    "GOMP_",
    "KMP_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NUMBA_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
    "PYTORCH",
    "TORCH",
)
POLL_SECONDS = 0.01


class ForkServer:
    """A process that has imported torch, and forks others.

    It is for one thread of this process, and ends with it or at `close`.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._control, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                # -P: a folder `bench` where the user happens to be is not this package
                [sys.executable, "-P", "-m", "bench.stages.forkserver", str(other.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def fork(
        self, program: str, output: int, variables: Mapping[str, str] | None = None
    ) -> "ForkedProcess":
        """A new process that runs `main(descriptor)` of a module; it is not waited for.

        Args:
            program: dotted name of the module; the descriptor is that of a connected socket.
            output: descriptor of a file that its standard output and error go to.
            variables: of its environment, besides those of this process.

        Raises:
            OSError: if the server has ended.
        """
        connection, other = socket.socketpair()
        number = next(self._numbers)
        request = {
            "fork": number,
            "program": program,
            "environment": {**os.environ, **(variables or {})},
            "search_path": [str(Path(p).resolve()) for p in sys.path],
            "folder": str(Path.cwd()),
        }
        with other:
            send(self._control, request)
            socket.send_fds(self._control, [b"\0"], [other.fileno(), output])
        return ForkedProcess(self, number, connection)

    def exit_code(self, process: int, end: bool) -> int | None:
        """The exit code of a process; None while it runs.

        Args:
            process: its number.
            end: whether to kill it first, and those that it started.

        Raises:
            EOFError, OSError: if the server has ended.
        """
        question = next(self._numbers)
        send(self._control, {"end" if end else "wait": process, "question": question})
        while True:
            answer, _ = receive(self._control)
            if answer["question"] == question:  # not one that Ctrl-C left unread
                return None if answer["code"] is None else int(answer["code"])

    def close(self) -> None:
        """Ends the server and the processes that it forked."""
        self._control.close()
        self._process.wait()


class ForkedProcess:
    """A process that a `ForkServer` made.

    Attributes:
        connection: the socket to its program.
    """

    def __init__(self, server: ForkServer, number: int, connection: socket.socket) -> None:
        self.connection = connection
        self._server, self._number = server, number
        self._code: int | None = None

    def exit_code(self, seconds: float = 0.0) -> int | None:
        """Its exit code, negative for a signal; None if it still runs after `seconds`."""
        end = time.monotonic() + seconds
        while self._code is None:
            self._code = self._asked(end=False)
            if time.monotonic() >= end:
                break
            if self._code is None:
                time.sleep(POLL_SECONDS)
        return self._code

    def close(self) -> None:
        """Ends it and the processes that it started."""
        self.connection.close()
        code = self._asked(end=True)
        self._code = code if self._code is None else self._code

    def _asked(self, end: bool) -> int | None:
        try:
            return self._server.exit_code(self._number, end)
        except (EOFError, OSError):  # the server was killed: its children end themselves
            return -signal.SIGKILL


_servers: dict[tuple[Any, ...], ForkServer] = {}


def fork_server(number: int = 0) -> ForkServer:
    """The server of this number in this process; it is started when it is first needed.

    Args:
        number: of one of several servers.
    """
    loaded = {k: v for k, v in os.environ.items() if k.startswith(READ_WHEN_LOADED)}
    key = (os.getpid(), number, *sorted(loaded.items()))
    server = _servers.get(key)
    if server is None or not server.alive:
        server = _servers[key] = ForkServer()
        atexit.register(server.close)
    return server


def main(descriptor: int) -> None:
    """Serves until the client closes the connection; in a child, runs its program.

    Args:
        descriptor: file descriptor of the connected socket.
    """
    import bench.stages.execute  # noqa: F401 (torch comes with it)

    gc.freeze()  # a collection in a child would copy all that was imported
    control = socket.socket(fileno=descriptor)
    children: dict[int, _Child] = {}
    while True:
        try:
            message, _ = receive(control)
            if "fork" not in message:
                end = "end" in message
                code = children[message["end" if end else "wait"]].exit_code(end)
                send(control, {"code": code, "question": message["question"]})
                continue
            _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        except (EOFError, OSError):
            break
        if (pid := os.fork()) == 0:
            control.close()
            _become(message, *descriptors)
            # The interpreter's own end would take half a second: it frees, and so copies, all that
            # the server has imported.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        children[message["fork"]] = _Child(pid)
        for each in descriptors:
            os.close(each)
    for child in children.values():
        child.exit_code(end=True)


class _Child:
    """A child of the server; what it started belongs to its session."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.ended = False

    def exit_code(self, end: bool) -> int | None:
        """Its exit code; None while it runs. `end` kills it and what it started first."""
        if end and not self.ended:
            self.ended = True
            if self.code is None:
                os.kill(self.pid, signal.SIGKILL)  # also if it leads no session yet
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.code is None:
            done, status = os.waitpid(self.pid, 0 if end else os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code


def _become(request: Mapping[str, Any], connection: int, output: int) -> None:
    """Runs a program in this process, which was just forked."""
    import importlib

    import numpy as np

    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:] = request["search_path"]
    importlib.invalidate_caches()
    tempfile.tempdir = None  # may be that of the server
    np.random.seed()
    importlib.import_module(request["program"]).main(connection)


if __name__ == "__main__":
    with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits for the answer any more
        main(int(sys.argv[1]))

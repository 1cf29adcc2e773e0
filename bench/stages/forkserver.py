"""Processes that have imported torch already: a server imports it once and is forked.

A process that imports torch itself takes 2 to 3 s of processor time, a fork of one that has done so
a few milliseconds. `python -m bench.stages.forkserver FD` is the server: it imports torch and the
harness, starts no thread, computes nothing and never initialises CUDA, so that its children may.
A child leads a session of its own, with the environment, search path and working directory that the
client names, and other random states than its siblings. What is equal in all children of a server:
the seed of the hashes of strings and the addresses of the libraries. Two servers differ in both.

Messages are those of `bench.stages.worker`; descriptors travel beside them:

    {"fork": {"program", "environment", "search_path", "folder"}} and descriptors (connection,
    output) → {"pid"};
    {"wait": pid} → {"code"}, negative for a signal, null while it runs;
    {"end": pid} → {"code"}; the process and those that it started are killed.
"""

import atexit
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
from typing import Any, BinaryIO

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

    def fork(self, program: str, output: BinaryIO, variables: Mapping[str, str]) -> "ForkedProcess":
        """A new process that runs `main(descriptor)` of a module.

        Args:
            program: dotted name of the module; the descriptor is that of a connected socket.
            output: where its standard output and error go.
            variables: of its environment, besides those of this process.

        Raises:
            EOFError, OSError: if the server has ended.
        """
        connection, other = socket.socketpair()
        request = {
            "program": program,
            "environment": {**os.environ, **variables},
            "search_path": [str(Path(p).resolve()) for p in sys.path],
            "folder": str(Path.cwd()),
        }
        with other:
            send(self._control, {"fork": request})
            socket.send_fds(self._control, [b"\0"], [other.fileno(), output.fileno()])
        message, _ = receive(self._control)
        return ForkedProcess(self, int(message["pid"]), connection)

    def ask(self, message: Mapping[str, Any]) -> int | None:
        """The exit code in the answer to a message about a process.

        Raises:
            EOFError, OSError: if the server has ended.
        """
        send(self._control, message)
        answer, _ = receive(self._control)
        return None if answer["code"] is None else int(answer["code"])

    def close(self) -> None:
        """Ends the server and the processes that it forked."""
        self._control.close()
        self._process.wait()


class ForkedProcess:
    """A process that a `ForkServer` made.

    Attributes:
        pid: its number, which is also that of its session.
        connection: the socket to its program.
    """

    def __init__(self, server: ForkServer, pid: int, connection: socket.socket) -> None:
        self.pid, self.connection = pid, connection
        self._server = server
        self._code: int | None = None

    def exit_code(self, seconds: float = 0.0) -> int | None:
        """Its exit code, negative for a signal; None if it still runs after `seconds`."""
        end = time.monotonic() + seconds
        while self._code is None:
            self._code = self._asked("wait")
            if time.monotonic() >= end:
                break
            if self._code is None:
                time.sleep(POLL_SECONDS)
        return self._code

    def close(self) -> None:
        """Ends it and the processes that it started."""
        self.connection.close()
        code = self._asked("end")
        self._code = code if self._code is None else self._code

    def _asked(self, what: str) -> int | None:
        try:
            return self._server.ask({what: self.pid})
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

    control = socket.socket(fileno=descriptor)
    running: set[int] = set()
    while True:
        try:
            message, _ = receive(control)
        except (EOFError, OSError):
            break
        if (request := message.get("fork")) is not None:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
            pid = os.fork()
            if pid == 0:
                control.close()
                _become(request, *descriptors)
                return
            for each in descriptors:
                os.close(each)
            running.add(pid)
            send(control, {"pid": pid})
        else:
            ((what, pid),) = message.items()
            send(control, {"code": _code(running, pid, end=what == "end")})
    for pid in list(running):
        _code(running, pid, end=True)


def _code(running: set[int], pid: int, end: bool) -> int | None:
    """The exit code of a child; None while it runs."""
    if end:
        with suppress(ProcessLookupError):  # those that it started remain when it has ended
            os.killpg(pid, signal.SIGKILL)
    if pid not in running:
        return None
    if end:
        os.kill(pid, signal.SIGKILL)  # also if it leads no session yet
    done, status = os.waitpid(pid, 0 if end else os.WNOHANG)
    if not done:
        return None
    running.discard(pid)
    return os.waitstatus_to_exitcode(status)


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

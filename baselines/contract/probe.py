"""Runs a system and watches it: the program of a process of the contract checks.

`main` runs in a fork of `bench.stages.forkserver`. It serves one system over a connected socket, in
the messages of `bench.stages.worker`. The client (`baselines.contract.process`) sends

    {"build": {"name", "settings", "folder"}}    once, then any number of
    {"seed", "global_seed", "count", "source": {"rate", "count"}, "reference": {…}}

each followed by both waveforms. The answers are {"built": {…}} or {"refused": "why"}, and the parts
of `baselines.contract.process.Call`. Unlike the worker of a run, this program passes on whatever
the system returns, and after each call it sets the process state back to that before the call.
"""

import os
import random
import resource
import socket
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of Python's audit hooks that change a file or a folder → the positions of their paths.
CHANGING = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "sqlite3.connect": (0,),
}
DEVICES = ("/dev/", "/proc/", "/sys/")
SHARED_MEMORY = "/dev/shm/"  # noqa: S108 (a path to look for, not to write to)


class WriteLog:
    """The files and folders that this process changes through Python.

    What a library in C writes by itself, and what a child process writes, is not seen.
    """

    def __init__(self) -> None:
        self._paths: dict[str, None] = {}
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        with suppress(Exception):  # an error here would become the system's
            if event == "open":
                path, _, flags = arguments
                if isinstance(flags, int) and flags & WRITING:
                    self._add(path)
            elif event in CHANGING:
                for position in CHANGING[event]:
                    self._add(arguments[position])

    def _add(self, path: Any) -> None:
        if isinstance(path, int) or path in (None, ":memory:"):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (pathlib's has no bytes)
        device = name.startswith(DEVICES) and not name.startswith(SHARED_MEMORY)
        if not device and "__pycache__" not in name:
            self._paths[name] = None

    def take(self) -> list[str]:
        """The paths since the last call, in order."""
        paths = list(self._paths)
        self._paths.clear()
        return paths


def main(descriptor: int) -> None:
    """Serves one system until the client closes the connection.

    Args:
        descriptor: file descriptor of the connected socket.
    """
    from bench.stages.worker import end_with_parent, receive, send

    connection = socket.socket(fileno=descriptor)
    end_with_parent()
    message, _ = receive(connection)
    request = message["build"]
    import bench.stages.execute  # noqa: F401 (torch comes with it, before the state is recorded)
    from bench.guard import ProcessState

    before, filters = ProcessState.now(), list(warnings.filters)
    log = WriteLog()
    built = _build(request)
    if "refused" in built:
        send(connection, built)
        return
    system = built.pop("system")
    changes = [*before.changes(), *_filters(filters)]
    os.chdir(request["folder"])
    send(connection, {"built": {**built, "changes": changes, "writes": log.take()}})
    while True:
        try:
            message, samples = receive(connection)
        except EOFError:
            return
        answer, converted = _call(system, message, samples)
        send(connection, {**answer, "writes": log.take()}, *converted)


def _build(request: Mapping[str, Any]) -> dict[str, Any]:
    """The system and what it declares, or why it cannot be built."""
    from bench.errors import UserError
    from bench.objects import build
    from bench.stages.execute import one_line
    from bench.systems import EXISTING, facts_of

    what = f"system {request['name']}"
    try:
        system = build(request["settings"], what)
        if facts_of(system, what, request["settings"]).kind == EXISTING:
            return {"refused": f"{what} is audio that exists already; it converts nothing"}
    except UserError as error:
        return {"refused": str(error)}
    except (Exception, SystemExit, GeneratorExit) as error:
        return {"refused": f"{what}: {one_line(error)}"}
    declared = getattr(system, "reference_seconds", None)
    number = isinstance(declared, int | float) and not isinstance(declared, bool)
    seconds = float(declared) if number else None  # type: ignore[arg-type]
    return {"system": system, "reference_seconds": seconds}


def _call(
    system: Any, message: Mapping[str, Any], samples: Any
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """One conversion: what happened, and the samples if there are any."""
    import numpy as np
    import torch

    from bench.audio import Waveform
    from bench.guard import ProcessState
    from bench.stages.execute import one_line, seed_all
    from bench.stages.timing import now

    parts = np.split(samples, [message["source"]["count"]])
    source, reference = (
        Waveform.from_numpy(part, message[name]["rate"])
        for part, name in zip(parts, ("source", "reference"), strict=True)
    )
    seed_all(message["global_seed"])
    before, filters, seeded = ProcessState.now(), list(warnings.filters), _generators()
    result, error, exits = None, "", False
    calls: dict[tuple[int, int, str], int] = {}
    with _counting(calls, message["count"]):
        start = now()
        try:
            with torch.no_grad():
                result = system.convert(source, reference, seed=message["seed"])
        except (Exception, SystemExit, GeneratorExit) as failure:
            error, exits = one_line(failure), not isinstance(failure, Exception)
        elapsed = time.perf_counter() - start
        synchronised = now() - start
    generators = _generators()
    answer = {
        "error": error,
        "exits": exits,
        "elapsed_seconds": elapsed,
        "synchronised_seconds": synchronised,
        "uses_gpu": torch.cuda.is_initialized(),
        "changes": [*before.changes(), *_filters(filters)],
        "generators": {k: v for k, v in generators.items() if v != seeded[k]},
        "calls": sorted([size, name, count] for (_, size, name), count in calls.items()),
        "memory_bytes": _memory(),
        "gpu_bytes": torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0,
    }
    before.restore()
    warnings.filters[:] = filters  # type: ignore[index]
    if error:
        return answer, ()
    if not isinstance(result, Waveform):
        shape = getattr(result, "shape", None)
        of_shape = "" if shape is None else f" of shape {tuple(shape)}"
        return {**answer, "returned": f"{type(result).__name__}{of_shape}"}, ()
    converted = result.numpy()
    return {**answer, "rate": result.sample_rate, "count": len(converted)}, (converted,)


class _counting:
    """Counts the calls of each torch module inside the block: (id, parameters, class) → calls."""

    def __init__(self, calls: dict[tuple[int, int, str], int], wanted: bool) -> None:
        self.calls, self.wanted = calls, wanted
        self._sizes: dict[int, int] = {}

    def __enter__(self) -> None:
        if self.wanted:
            from torch.nn.modules.module import register_module_forward_pre_hook

            self._handle = register_module_forward_pre_hook(self._count)

    def _count(self, module: Any, arguments: Any) -> None:
        size = self._sizes.get(id(module))
        if size is None:
            size = self._sizes[id(module)] = sum(p.numel() for p in module.parameters())
        key = (id(module), size, type(module).__name__)
        self.calls[key] = self.calls.get(key, 0) + 1

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            self._handle.remove()


def _generators() -> dict[str, str]:
    """The state of each global source of randomness, as a hash."""
    import hashlib

    import numpy as np
    import torch

    _, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "random": repr(random.getstate()).encode(),
        "numpy": np.asarray(keys).tobytes() + repr(rest).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    return {name: hashlib.sha256(state).hexdigest() for name, state in states.items()}


def _filters(before: list[Any]) -> list[str]:
    return ["added filters of warnings"] if list(warnings.filters) != before else []


def _memory() -> int:
    """Bytes in memory of this process and of those that it started; the peak where /proc is not."""
    pages, waiting = 0, [os.getpid()]
    try:
        while waiting:
            process = Path("/proc") / str(waiting.pop())
            with suppress(FileNotFoundError, ProcessLookupError):
                pages += int((process / "statm").read_text().split()[1])
                for children in process.glob("task/*/children"):
                    waiting += map(int, children.read_text().split())
        if pages:
            return pages * resource.getpagesize()
    except (OSError, ValueError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

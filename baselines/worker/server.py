"""Serves one adapter in another interpreter. Needs only the standard library, numpy, Python 3.8.

    python server.py FD

FD is a connected socket. `baselines.worker.client` sends JSON objects, one a line:

    {"adapter": path, "folder", "device", "options", "scratch", "parent"}            once, then
    {"id", "source": path, "reference": path, "seed"}                                any number

and gets, one a line:

    {"ready": {"name", "sample_rate", "device", "versions", "licence"}}  or  {"refused": why}
    {"id", "count", "elapsed_seconds", "stages"} and `count` float32 samples, little-endian,
    or {"id", "error"}.

The process that is started only guards: it forks the process that loads the adapter. When the
client has ended, however that happened, it ends that process and all that it started. What the
adapter prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import platform
import random
import shutil
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

LONGEST_ERROR = 2000  # characters
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(descriptor: int) -> int:
    """Forks the process that converts, and guards it; the exit code of the guard."""
    connection = socket.socket(fileno=descriptor)
    lines = connection.makefile("rb")
    begin = json.loads(lines.readline())
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()
        _end_with(guard)
        sys.path.pop(0)  # the files beside this one are not modules of the environment
        os.chdir(begin["scratch"])
        os.dup2(2, 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has ended
            serve(connection, lines, begin)
        sys.stderr.flush()
        os._exit(0)
    lines.close()
    connection.close()
    return _guard(child, begin["parent"], begin["scratch"])


def _guard(child: int, parent: int, scratch: str) -> int:
    """Waits until the child or the client has ended, then ends what is left and removes `scratch`.

    Returns:
        The child's exit code, or 128 and the number of the signal that ended it.
    """
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    status: int | None = None
    while status is None and not stopped and os.getppid() == parent:
        ended, code = os.waitpid(child, os.WNOHANG)
        if ended:
            status = code
        else:
            time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if status is None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # before its setsid, the group does not exist yet
        _, status = os.waitpid(child, 0)
    shutil.rmtree(scratch, ignore_errors=True)
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def _end_with(guard: int) -> None:
    """The kernel ends this process with its guard, which has one thread alone (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)


def serve(connection: socket.socket, lines: BinaryIO, begin: dict[str, Any]) -> None:
    """Loads the adapter, then answers requests until the client closes the connection."""
    try:
        module = _module(Path(begin["adapter"]))
        device = _device(begin["device"])
        adapter = module.Adapter(device, Path(begin["folder"]), **begin["options"])
        recipe = getattr(module, "ENVIRONMENT", {})
        ready = {
            "name": Path(begin["adapter"]).stem,
            "sample_rate": int(adapter.sample_rate),
            "device": device,
            "versions": _versions(recipe.get("packages", ())),
            "licence": ", ".join(recipe.get("licences", {}).values()),
        }
    except BaseException as error:
        _send(connection, {"refused": one_line(error)})
        return
    _send(connection, {"ready": ready})
    for line in lines:
        request = json.loads(line)
        try:
            message, samples = _converted(adapter, request)
        except (Exception, SystemExit) as error:
            message, samples = {"error": one_line(error)}, b""
        _send(connection, {"id": request["id"], **message}, samples)


def _converted(adapter: Any, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The answer to one request, and its samples as bytes."""
    import numpy

    _seed_all(request["seed"])
    stages: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        begun = _now()
        try:
            yield
        finally:
            stages[str(name)] = stages.get(str(name), 0.0) + _now() - begun

    start = _now()
    result = adapter.convert(request["source"], request["reference"], request["seed"], stage)
    elapsed = _now() - start
    for method in ("detach", "cpu", "numpy"):  # of a torch tensor
        result = getattr(result, method)() if hasattr(result, method) else result
    samples = numpy.asarray(result)
    if samples.dtype.kind not in "iuf":
        raise TypeError(f"convert returned {type(result).__name__}, not samples")
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise ValueError(f"convert returned an array of shape {samples.shape}, not (T,)")
    answer = {"count": len(samples), "elapsed_seconds": elapsed, "stages": stages}
    return answer, samples.astype("<f4").tobytes()


def _send(connection: socket.socket, message: dict[str, Any], samples: bytes = b"") -> None:
    connection.sendall(json.dumps(message).encode() + b"\n" + samples)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _device(wanted: str) -> str:
    """The device to use; "auto" is the first GPU that torch has, where there is torch."""
    if wanted != "auto":
        return wanted
    if importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _seed_all(seed: int) -> None:
    import numpy

    random.seed(seed)
    numpy.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _now() -> float:
    """Seconds on a monotonic clock, after all work queued on the GPU is done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    from importlib import metadata

    versions = {"python": platform.python_version()}
    for name in ("numpy", "torch", *packages):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def one_line(error: BaseException) -> str:
    """The error's type and message on one line of valid UTF-8, cut after `LONGEST_ERROR`."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    reason = " ".join(f"{type(error).__name__}: {text}".split())[:LONGEST_ERROR]
    return reason.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

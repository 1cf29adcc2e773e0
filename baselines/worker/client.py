"""Runs an adapter in another interpreter: the client of `baselines/worker/server.py`."""

import json
import math
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.audio import Waveform
from bench.stages.isolated import check_time
from bench.stages.worker import BrokenMessage

SERVER = Path(__file__).parent / "server.py"
LONGEST_LINE = 1 << 20  # bytes of one answer, without samples
MOST_SAMPLES = 1 << 29
LONGEST_LOG = 1 << 22  # bytes of stderr that are kept of one process
TAIL = 600  # bytes of stderr that an error message quotes
CLOSING_SECONDS = 5.0  # how long a process may take to end by itself
RATES = range(1000, 384001)  # Hz


class WorkerFailed(RuntimeError):
    """The worker's process ended, was ended, or sent something that is no answer."""


@dataclass(frozen=True)
class Handshake:
    """What a worker says about itself once its model is loaded.

    Attributes:
        name: of the adapter.
        sample_rate: of what it converts, in Hz.
        device: that it uses.
        versions: "python" and packages → version.
        licence: of the code and the weights.
    """

    name: str
    sample_rate: int
    device: str
    versions: Mapping[str, str]
    licence: str

    @classmethod
    def from_json(cls, value: Any) -> "Handshake":
        """The handshake in an untrusted value.

        Raises:
            BrokenMessage: if a part is missing or impossible.
        """
        value = value if isinstance(value, dict) else {}
        rate, versions = value.get("sample_rate"), value.get("versions")
        texts = [value.get(key) for key in ("name", "device", "licence")]
        if type(rate) is not int or rate not in RATES:
            raise BrokenMessage(f"a sample rate that cannot be ({rate!r} Hz)")
        if not isinstance(versions, dict):
            raise BrokenMessage("a handshake without its parts")
        if not all(isinstance(t, str) and len(t) <= 1000 for t in (*texts, *versions.values())):
            raise BrokenMessage("a handshake without its parts")
        return cls(texts[0], rate, texts[1], versions, texts[2])


class Worker:
    """One process with an adapter and its model.

    Args:
        python: the interpreter of the adapter's environment.
        adapter: its file.
        folder: with what the environment has besides packages.
        device: "auto", "cpu", "cuda", "cuda:1".
        options: further arguments of the adapter.
        log: the file to which its stderr is appended; at most `LONGEST_LOG` bytes.
        load_seconds: how long loading may take.

    Attributes:
        handshake: what it says about itself.

    Raises:
        WorkerFailed: if it does not get ready, with the end of its stderr.
    """

    def __init__(
        self,
        python: Path,
        adapter: Path,
        folder: Path,
        device: str,
        options: Mapping[str, Any],
        log: Path,
        load_seconds: float,
    ) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="vcbench-"))
        self._asked = 0
        self._tail = b""
        self._received = bytearray()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._connection, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [str(python), str(SERVER), str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[other.fileno()],
                env=_environment(self._scratch),
                start_new_session=True,
            )
        assert self._process.stderr is not None
        self._reader = threading.Thread(
            target=self._keep, args=(self._process.stderr, log), daemon=True
        )
        self._reader.start()
        begin = {
            "adapter": str(adapter.resolve()),
            "folder": str(folder.resolve()),
            "device": device,
            "options": dict(options),
            "scratch": str(self._scratch),
            "parent": os.getpid(),
        }
        answer = self._exchange(begin, time.monotonic() + load_seconds, "loading")
        if isinstance(reason := answer.get("refused"), str):
            raise self._failed(f"it could not be loaded: {reason[:2000]}")
        try:
            self.handshake = Handshake.from_json(answer.get("ready"))
        except BrokenMessage as error:
            raise self._failed(f"its process sent {error}") from error

    def convert(
        self, source: Waveform, reference: Waveform, seed: int, seconds: float | None
    ) -> tuple[Waveform, dict[str, float]]:
        """Converts once.

        Args:
            source: gives the words.
            reference: gives the voice.
            seed: of this conversion.
            seconds: how long it may take; None for no limit.

        Returns:
            The converted speech, and seconds by stage on the worker's clock.

        Raises:
            RuntimeError: the adapter's error; the worker goes on.
            WorkerFailed: if the worker has to be started again.
        """
        self._asked += 1
        request: dict[str, Any] = {"id": self._asked, "seed": seed}
        # A new name each time: file systems wait for the disk when a file is written over.
        paths = [self._scratch / f"{name}{self._asked}.wav" for name in ("source", "reference")]
        for path, waveform in zip(paths, (source, reference), strict=True):
            path.write_bytes(wav_bytes(waveform))
        request["source"], request["reference"] = map(str, paths)
        start = time.monotonic()
        end = math.inf if seconds is None else start + seconds
        answer = self._exchange(request, end, "converting")
        for path in paths:
            path.unlink(missing_ok=True)
        if isinstance(error := answer.get("error"), str) and error:
            raise RuntimeError(error[:2000])
        try:
            return self._checked(answer, time.monotonic() - start, end)
        except BrokenMessage as error:
            raise self._failed(f"its process sent {error}") from error

    def close(self) -> None:
        """Ends the process and all that it started."""
        self._connection.close()
        if self._process.poll() is None:
            try:
                self._process.wait(CLOSING_SECONDS)  # it reads the end of its input
            except subprocess.TimeoutExpired:
                self._kill()
        self._reader.join(1.0)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _exchange(self, message: Mapping[str, Any], end: float, doing: str) -> dict[str, Any]:
        """Sends a message and returns the answer to it; what answers earlier ones is skipped."""
        begun = time.monotonic()
        try:
            self._connection.settimeout(_left(end))
            self._connection.sendall(json.dumps(message).encode() + b"\n")
            while True:
                answer = self._line(end)
                if answer.get("id") == message.get("id"):
                    return answer
                raise BrokenMessage("an answer to no question")
        except TimeoutError:
            after = f"{time.monotonic() - begun:.0f} s of {doing}"
            raise self._failed(f"no answer after {after}; its process was ended") from None
        except BrokenMessage as error:
            raise self._failed(f"its process sent {error}; it was ended") from error
        except (EOFError, OSError):
            raise self._failed(f"its process {self._how_it_ended()} while {doing}") from None

    def _line(self, end: float) -> dict[str, Any]:
        """The next line of the worker, as an object.

        Raises:
            BrokenMessage: if it is none, or too long.
            EOFError: if the worker has closed its side.
            TimeoutError: if it is not complete at `end`.
        """
        while (length := self._received.find(b"\n")) < 0:
            if len(self._received) > LONGEST_LINE:
                raise BrokenMessage("a line that is too long")
            self._receive(end)
        line = bytes(self._received[:length])
        del self._received[: length + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BrokenMessage(f"a line that is not JSON ({line[:80]!r})") from error
        if not isinstance(message, dict):
            raise BrokenMessage(f"a line that is no object ({line[:80]!r})")
        return message

    def _receive(self, end: float) -> None:
        self._connection.settimeout(_left(end))
        part = self._connection.recv(1 << 20)
        if not part:
            raise EOFError
        self._received += part

    def _checked(
        self, answer: Mapping[str, Any], limit: float, end: float
    ) -> tuple[Waveform, dict[str, float]]:
        """The speech and the stages of an untrusted answer, whose samples are still to be read.

        Raises:
            BrokenMessage: if a part is missing or impossible.
            RuntimeError: if the speech cannot be judged.
        """
        count, stages = answer.get("count"), answer.get("stages")
        if type(count) is not int or not 0 <= count <= MOST_SAMPLES:
            raise BrokenMessage(f"a number of samples that cannot be ({count!r})")
        if not isinstance(stages, dict):
            raise BrokenMessage("stages that are no table")
        check_time(answer.get("elapsed_seconds"), limit)
        for seconds in stages.values():
            check_time(seconds, limit)
        try:
            while len(self._received) < 4 * count:
                self._receive(end)
        except (EOFError, OSError) as error:
            raise BrokenMessage("fewer samples than announced") from error
        samples = np.frombuffer(bytes(self._received[: 4 * count]), dtype="<f4")
        del self._received[: 4 * count]
        if self._received or select.select([self._connection], [], [], 0)[0]:
            raise BrokenMessage("more than one answer")
        converted = Waveform.from_numpy(samples, self.handshake.sample_rate)
        if fault := converted.fault():
            raise RuntimeError(f"ValueError: converted speech is {fault}")
        return converted, stages

    def _failed(self, reason: str) -> WorkerFailed:
        """Ends the process; the error with the end of its stderr."""
        self._kill()
        self._reader.join(1.0)
        shutil.rmtree(self._scratch, ignore_errors=True)
        tail = " ".join(self._tail.decode("utf-8", "replace").split())
        return WorkerFailed(f"{reason}; the end of its stderr: {tail}" if tail else reason)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its connection and was ended"
        number = -code if code < 0 else code - 128
        with suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
        return f"ended with exit code {code}"

    def _kill(self) -> None:
        """Ends the guard, which ends the rest; without mercy if it does not."""
        self._connection.close()
        self._process.terminate()
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then ends the process that it guards
            self._process.wait()

    def _keep(self, stream: BinaryIO, log: Path) -> None:
        """Reads stderr to its end: the beginning goes into the log, the end is kept for errors."""
        left = LONGEST_LOG
        with suppress(OSError, ValueError), stream, log.open("ab") as file:
            while part := stream.read1(1 << 16):  # type: ignore[attr-defined]
                self._tail = (self._tail + part)[-TAIL:]
                file.write(part[:left])
                file.flush()
                left = max(0, left - len(part))


def wav_bytes(waveform: Waveform) -> bytes:
    """A mono wav file of 32-bit floats: nothing is rounded or clipped.

    Source: RIFF WAVE, format 3 (IEEE float), with the chunk `fact` that it requires.
    """
    samples = waveform.numpy().astype("<f4").tobytes()
    rate = waveform.sample_rate
    header = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, 1, rate, 4 * rate, 4, 32, 0)
    header += struct.pack("<4sII4sI", b"fact", 4, len(samples) // 4, b"data", len(samples))
    return (
        struct.pack("<4sI4s", b"RIFF", 4 + len(header) + len(samples), b"WAVE") + header + samples
    )


def _left(end: float) -> float | None:
    """Seconds until `end`; None for no limit.

    Raises:
        TimeoutError: if it has passed.
    """
    if math.isinf(end):
        return None
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _environment(scratch: Path) -> dict[str, str]:
    """The variables of a worker: none of them leads to this interpreter's packages."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "TMPDIR": str(scratch), "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}

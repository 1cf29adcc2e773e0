"""Runs a system in a separate process: the program of that process, and its messages.

`main` runs in a fork of `bench.stages.forkserver` and serves one system over a connected socket.
What the system does to its process (threads, dtype, working directory, a crash, an endless loop)
affects no other.

A message is a header of 8 bytes (length of the JSON part, length of the samples), a JSON object in
UTF-8 and float32 samples, little-endian. Nothing is pickled: messages of a worker are untrusted.
The client (`bench.stages.isolated`) sends

    {"build": {"name", "settings"}}    once, then any number of
    {"seed", "source": {"rate", "count"}, "reference": {…}}          followed by both waveforms;

the worker answers each: {"built": facts} (see `bench.systems.Facts.to_json`; without what the
settings declare themselves) or {"refused": "why"};
{"converted": {"rate", "count"}, "error", "elapsed_seconds", "stages", "origin", "remarks",
"streamed"}.
"""

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

HEADER = struct.Struct("<II")
MOST_JSON = 1 << 24  # bytes
MOST_SAMPLES = 1 << 31  # bytes


class BrokenMessage(Exception):
    """The bytes that came over the socket are not a valid message."""


def send(connection: socket.socket, message: Mapping[str, Any], *samples: np.ndarray) -> None:
    """Sends one message with the samples of any number of waveforms, each (T,).

    Raises:
        OSError: if the other side has closed, or does not read within the socket's timeout.
        ValueError: if the message contains NaN or an infinity.
    """
    text = json.dumps(message, allow_nan=False).encode()
    parts = [np.ascontiguousarray(s, dtype="<f4").tobytes() for s in samples]
    connection.sendall(HEADER.pack(len(text), sum(map(len, parts))) + text)
    for part in parts:
        connection.sendall(part)


def receive(
    connection: socket.socket, seconds: float | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """The next message and its samples, float32 of shape (T,).

    Args:
        connection: to read from.
        seconds: how long the whole message may take; None for no limit.

    Raises:
        BrokenMessage: if it is not valid, or too long.
        EOFError: if the other side has closed.
        TimeoutError: if it takes longer than `seconds`.
    """
    end = None if seconds is None else time.monotonic() + seconds
    text_length, samples_length = HEADER.unpack(_exactly(connection, HEADER.size, end))
    if text_length > MOST_JSON or samples_length > MOST_SAMPLES or samples_length % 4:
        raise BrokenMessage("a header that no message has")
    text = _exactly(connection, text_length, end)
    samples = np.frombuffer(_exactly(connection, samples_length, end), dtype="<f4")
    return json_object(text), samples.astype(np.float32)


def json_object(text: bytes | bytearray) -> dict[str, Any]:
    """The object in an untrusted JSON text.

    Raises:
        BrokenMessage: if it is none, or has NaN or an infinity.
    """
    try:
        message = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BrokenMessage(f"a message that is not JSON ({error})") from error
    if not isinstance(message, dict):
        raise BrokenMessage("a message that is no object")
    return message


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _exactly(connection: socket.socket, length: int, end: float | None) -> bytearray:
    received = bytearray()
    while len(received) < length:
        if end is not None:
            connection.settimeout(max(end - time.monotonic(), 1e-3))
        part = connection.recv(min(1 << 20, length - len(received)))
        if not part:
            raise EOFError
        received += part
    return received


def main(descriptor: int) -> None:
    """Serves one system until the client closes the connection.

    Args:
        descriptor: file descriptor of the connected socket.
    """
    connection = socket.socket(fileno=descriptor)
    end_with_parent()
    message, _ = receive(connection)

    from bench.guard import ProcessState  # torch comes with it

    before = ProcessState.now()
    system = _build(connection, message["build"])
    if system is None:
        return
    from bench.audio import Waveform
    from bench.stages.execute import Outcome, call, one_line

    while True:
        try:
            message, samples = receive(connection)
        except EOFError:
            return
        counts = [message[part]["count"] for part in ("source", "reference")]
        rates = [message[part]["rate"] for part in ("source", "reference")]
        source, reference = (
            Waveform.from_numpy(part, rate)
            for part, rate in zip(np.split(samples, counts[:1]), rates, strict=True)
        )
        try:
            outcome = call(system, source, reference, message["seed"], before)
        except BaseException as error:  # Ctrl-C is for the process that started this one
            outcome = Outcome(error=one_line(error))
        answer = {
            "error": outcome.error,
            "elapsed_seconds": outcome.elapsed_seconds,
            "stages": outcome.stages,
            "origin": outcome.origin,
            "remarks": outcome.remarks,
            "streamed": None if outcome.streamed is None else asdict(outcome.streamed),
        }
        if outcome.converted is None:
            send(connection, answer)
        else:
            about = {
                "rate": outcome.converted.sample_rate,
                "count": len(outcome.converted.samples),
            }
            send(connection, {**answer, "converted": about}, outcome.converted.numpy())


def _build(connection: socket.socket, request: Mapping[str, Any]) -> Any:
    """Builds the system and sends its facts; sends the reason and returns None if that fails."""
    from dataclasses import replace

    from bench.errors import UserError
    from bench.objects import TARGET, build
    from bench.provenance import loaded_code
    from bench.stages.execute import one_line
    from bench.systems import facts_of

    what = f"system {request['name']}"
    try:
        system = build(request["settings"], what)
        facts = facts_of(system, what, request["settings"])
        code = loaded_code(request["settings"][TARGET], whole_process=True)
    except UserError as error:
        send(connection, {"refused": str(error)})
    except (Exception, SystemExit, GeneratorExit) as error:
        send(connection, {"refused": f"{what}: {one_line(error)}"})
    else:
        send(connection, {"built": replace(facts, code=code).to_json()})
        return system
    return None


def end_with_parent() -> None:
    """Ends this process soon after its parent has ended, also if the parent was killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

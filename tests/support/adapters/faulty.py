"""An adapter that goes wrong in one conversion, in one of many ways."""

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ENVIRONMENT = {"packages": ["numpy"], "licences": {"code": "MIT"}}


class Adapter:
    """Halves the source; at the conversion `at`, counted over restarts, the fault happens first.

    Args:
        fault: a method of this class.
        at: 1 for the first conversion.
        counter: a file that counts conversions.
    """

    sample_rate = 16000

    def __init__(self, device, folder, fault, at, counter):
        self.fault, self.at, self.counter = fault, at, Path(counter)
        if fault == "cannot_load":
            raise FileNotFoundError("no checkpoint")
        if fault == "senseless_rate":
            self.sample_rate = 1

    def convert(self, source, reference, seed, stage):
        with self.counter.open("ab") as file:
            file.write(b".")
        samples = np.frombuffer(Path(source).read_bytes()[58:], dtype="<f4") / 2
        if self.counter.stat().st_size == self.at:
            result = getattr(self, self.fault)(stage)
            return samples if result is None else result
        return samples

    def dies(self, stage):
        print("about to die", file=sys.stderr)
        os._exit(3)

    def crashes(self, stage):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hangs(self, stage):
        time.sleep(600)

    def hangs_in_c(self, stage):
        ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock

    def answers_late(self, stage):
        time.sleep(3)

    def floods(self, stage):
        for _ in range(200):
            sys.stderr.write("x" * 99_999 + "\n")

    def floods_and_dies(self, stage):
        self.floods(stage)
        sys.stderr.write("the last words\n")
        sys.stderr.flush()
        os._exit(1)

    def prints(self, stage):
        print('{"id": 1, "error": "not an answer"}')
        os.write(1, b"\xff\x00 rubbish\n" * 1000)

    def exits(self, stage):
        sys.exit(0)

    def raises(self, stage):
        raise ValueError("too short")

    def answers_text(self, stage):
        return "no samples"

    def answers_stereo(self, stage):
        return np.ones((2, 16000))

    def answers_nan(self, stage):
        return np.full(16000, np.nan)

    def answers_silence(self, stage):
        return np.zeros(16000)

    def answers_nothing(self, stage):
        return np.zeros(0)

    def sends_rubbish(self, stage):
        _connection().sendall(b"\xff rubbish\n")

    def sends_without_end(self, stage):
        connection = _connection()
        while True:
            connection.sendall(b"x" * 65536)

    def sends_another_answer(self, stage):
        _connection().sendall(b'{"id": 999, "count": 0, "elapsed_seconds": 0, "stages": {}}\n')

    def takes_negative_time(self, stage):
        _connection().sendall(
            b'{"id": %d, "count": 0, "elapsed_seconds": -1, "stages": {}}\n' % self.at
        )

    def claims_too_much(self, stage):
        _connection().sendall(
            b'{"id": %d, "count": 99999999999, "elapsed_seconds": 0, "stages": {}}\n' % self.at
        )

    def closes_its_connection(self, stage):
        _connection().shutdown(socket.SHUT_RDWR)
        time.sleep(600)

    def leaves_a_process(self, stage):
        left = subprocess.Popen(["sleep", "600"])
        self.counter.with_suffix(".pid").write_text(str(left.pid))


def _connection():
    """The socket to the client."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                return socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
    raise AssertionError("no socket")

"""Systems that harm the process they run in, each in one way."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bench.audio import Waveform


class Calm:
    """Half of the source: what every hostile system returns where it returns at all."""

    trained_on = frozenset()

    def convert(self, source, reference, *, seed):
        self.harm(source, reference)
        return Waveform(torch.as_tensor(source.numpy() * 0.5, dtype=torch.float32), 16000)

    def harm(self, source, reference):
        """Does nothing here."""


class Dtype(Calm):
    def harm(self, source, reference):
        torch.set_default_dtype(torch.bfloat16)


class Device(Calm):
    def harm(self, source, reference):
        torch.set_default_device("meta")


class Threads(Calm):
    def harm(self, source, reference):
        torch.set_num_threads(3)


class Directory(Calm):
    def harm(self, source, reference):
        os.chdir("/")


class Environment(Calm):
    def harm(self, source, reference):
        os.environ["OMP_NUM_THREADS"] = "7"


class Seeds(Calm):
    def harm(self, source, reference):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)


class NumpyErrors(Calm):
    def harm(self, source, reference):
        np.seterr(all="raise")


class Modes(Calm):
    def harm(self, source, reference):
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")


class Mutates(Calm):
    """Writes into what it is given."""

    def convert(self, source, reference, *, seed):
        quiet = Waveform(source.samples * 0.5, source.sample_rate)
        source.samples.zero_()
        reference.samples.fill_(1.0)
        return quiet


class Exits(Calm):
    def harm(self, source, reference):
        sys.exit(0)


class ExitsAtOnce(Calm):
    def harm(self, source, reference):
        os._exit(0)


class ExitsWhenBuilt(Calm):
    def __init__(self):
        sys.exit(0)


class Crashes(Calm):
    def harm(self, source, reference):
        os.kill(os.getpid(), signal.SIGSEGV)


class CrashesOnce(Calm):
    """Crashes in the very first conversion."""

    def __init__(self, marker):
        self.marker = marker

    def harm(self, source, reference):
        if not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(Calm):
    def harm(self, source, reference):
        time.sleep(3600)


class HangsWhenBuilt(Calm):
    def __init__(self):
        time.sleep(3600)


class Interrupts(Calm):
    def harm(self, source, reference):
        raise KeyboardInterrupt


class SenselessRate(Calm):
    def convert(self, source, reference, *, seed):
        return Waveform(source.samples * 0.5, 1)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class RaisesUnprintable(Calm):
    def harm(self, source, reference):
        raise Unprintable


class LongError(Calm):
    def harm(self, source, reference):
        raise RuntimeError("x" * 2_000_000)


class Prints(Calm):
    def harm(self, source, reference):
        print("printed by a system")


class Asks(Calm):
    def harm(self, source, reference):
        input("a question? ")


class Liar(Waveform):
    """A waveform that lies about itself."""

    def save(self, path):
        raise RuntimeError("it does not want to be saved")

    def fault(self):
        return None


class Subclasses(Calm):
    def convert(self, source, reference, *, seed):
        return Liar(source.samples * 0.5, source.sample_rate)


class Letters(Calm):
    trained_on = "LibriTTS"


class Numbers(Calm):
    trained_on = (1, 2)


class Untrained(Calm):
    trained_on = None


class NoSystem:
    """Has nothing that a system has."""


class WritesPid(Calm):
    """Writes its process id to a file, then takes its time."""

    def __init__(self, path):
        self.path = path

    def harm(self, source, reference):
        Path(self.path).write_text(str(os.getpid()))
        time.sleep(3600)


class Paths(Calm):
    """Declares the search path that a process which it starts would get."""

    def __init__(self):
        self.trained_on = frozenset({str(os.environ.get("PYTHONPATH"))})

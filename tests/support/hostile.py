"""Systems that harm their process, each in one way."""

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
    """Returns the source at half its level, after `harm`, which the other systems override."""

    trained_on = frozenset()

    def convert(self, source, reference, *, seed):
        self.harm(source, reference)
        return Waveform(torch.as_tensor(source.numpy() * 0.5, dtype=torch.float32), 16000)

    def harm(self, source, reference):
        """Harms the process; does nothing in this class."""


class Dtype(Calm):
    """Sets torch's default dtype."""

    def harm(self, source, reference):
        torch.set_default_dtype(torch.bfloat16)


class Device(Calm):
    """Sets torch's default device."""

    def harm(self, source, reference):
        torch.set_default_device("meta")


class Threads(Calm):
    """Sets torch's number of threads."""

    def harm(self, source, reference):
        torch.set_num_threads(3)


class Directory(Calm):
    """Changes the working directory."""

    def harm(self, source, reference):
        os.chdir("/")


class Environment(Calm):
    """Sets an environment variable."""

    def harm(self, source, reference):
        os.environ["OMP_NUM_THREADS"] = "7"


class Seeds(Calm):
    """Seeds every global source of randomness."""

    def harm(self, source, reference):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)


class NumpyErrors(Calm):
    """Makes numpy raise on floating-point errors."""

    def harm(self, source, reference):
        np.seterr(all="raise")


class Modes(Calm):
    """Sets torch's deterministic mode and matmul precision."""

    def harm(self, source, reference):
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")


class Mutates(Calm):
    """Writes into its inputs."""

    def convert(self, source, reference, *, seed):
        quiet = Waveform(source.samples * 0.5, source.sample_rate)
        source.samples.zero_()
        reference.samples.fill_(1.0)
        return quiet


class Exits(Calm):
    """Calls sys.exit."""

    def harm(self, source, reference):
        sys.exit(0)


class ExitsAtOnce(Calm):
    """Ends the process without clean-up."""

    def harm(self, source, reference):
        os._exit(0)


class ExitsWhenBuilt(Calm):
    """Calls sys.exit in its constructor."""

    def __init__(self):
        sys.exit(0)


class Crashes(Calm):
    """Crashes with a segmentation fault."""

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
    """Takes an hour for a conversion."""

    def harm(self, source, reference):
        time.sleep(3600)


class HangsWhenBuilt(Calm):
    """Takes an hour to build."""

    def __init__(self):
        time.sleep(3600)


class Interrupts(Calm):
    """Raises KeyboardInterrupt."""

    def harm(self, source, reference):
        raise KeyboardInterrupt


class SenselessRate(Calm):
    """Returns a sample rate of 1 Hz."""

    def convert(self, source, reference, *, seed):
        return Waveform(source.samples * 0.5, 1)


class Unprintable(Exception):
    """An error whose message cannot be read."""

    def __str__(self):
        raise RuntimeError("no words")


class RaisesUnprintable(Calm):
    """Raises an error whose message cannot be read."""

    def harm(self, source, reference):
        raise Unprintable


class LongError(Calm):
    """Raises an error with a message of 2 MB."""

    def harm(self, source, reference):
        raise RuntimeError("x" * 2_000_000)


class Prints(Calm):
    """Prints to the standard output."""

    def harm(self, source, reference):
        print("printed by a system")


class Asks(Calm):
    """Reads the standard input."""

    def harm(self, source, reference):
        input("a question? ")


class Liar(Waveform):
    """A waveform with wrong overrides: it cannot be saved and reports no fault."""

    def save(self, path):
        raise RuntimeError("it does not want to be saved")

    def fault(self):
        return None


class Subclasses(Calm):
    """Returns a subclass of Waveform."""

    def convert(self, source, reference, *, seed):
        return Liar(source.samples * 0.5, source.sample_rate)


class Letters(Calm):
    """Declares a text as training data."""

    trained_on = "LibriTTS"


class Numbers(Calm):
    """Declares numbers as training data."""

    trained_on = (1, 2)


class Untrained(Calm):
    """Declares None as training data."""

    trained_on = None


class NoSystem:
    """Has none of a system's members."""


class WritesPid(Calm):
    """Writes its process id to a file, then waits for an hour."""

    def __init__(self, path):
        self.path = path

    def harm(self, source, reference):
        Path(self.path).write_text(str(os.getpid()))
        time.sleep(3600)


class Paths(Calm):
    """Declares, as training data, the search path that its child processes get."""

    def __init__(self):
        self.trained_on = frozenset({str(os.environ.get("PYTHONPATH"))})

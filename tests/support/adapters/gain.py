"""A good adapter: the source at a fraction of its level. Runs with numpy and Python 3.8 alone."""

import random
from pathlib import Path

ENVIRONMENT = {"packages": ["numpy"], "licences": {"code": "MIT"}}


class Adapter:
    sample_rate = 16000

    def __init__(self, device, folder, gain=0.5, noise=0.0):
        self.gain = gain
        self.noise = noise

    def convert(self, source, reference, seed, stage):
        import numpy

        with stage("read"):
            samples = numpy.frombuffer(chunk(source, b"data"), dtype="<f4")
        with stage("scale"):
            drawn = numpy.random.uniform(-1, 1, len(samples)) * random.random()
            return samples * self.gain + numpy.float32(self.noise) * drawn.astype("f")


def chunk(path, name):
    """A chunk of a wav file (module `wave` reads no floats)."""
    data = Path(path).read_bytes()
    at = 12
    while data[at : at + 4] != name:
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]

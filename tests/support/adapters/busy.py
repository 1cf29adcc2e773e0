"""An adapter that computes for a while: Fourier transforms, as many as the source is long."""

from pathlib import Path

import numpy as np

ENVIRONMENT = {"packages": ["numpy"], "licences": {"code": "MIT"}}


class Adapter:
    sample_rate = 16000

    def __init__(self, device, folder, rounds=1500):
        self.rounds = rounds

    def convert(self, source, reference, seed, stage):
        samples = np.frombuffer(Path(source).read_bytes()[58:], dtype="<f4")
        with stage("compute"):
            for _ in range(self.rounds):
                spectrum = np.fft.rfft(samples[:16000])
                samples = np.concatenate([np.fft.irfft(spectrum), samples[16000:]])
        return samples

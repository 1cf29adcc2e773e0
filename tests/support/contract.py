"""Systems for the checks of the wrapper contract: a good one, and others with one fault each."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.audio import Waveform


class Good:
    """Tilts the spectrum of the source by a number that it takes from the whole reference."""

    trained_on: frozenset[str] = frozenset()
    cut_seconds: float | None = None

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        return Waveform.from_numpy(self.samples(source, reference, seed), source.sample_rate)

    def samples(self, source: Waveform, reference: Waveform, seed: int) -> np.ndarray:
        voice = reference.numpy().astype(np.float64)
        if self.cut_seconds is not None:
            voice = voice[: round(self.cut_seconds * reference.sample_rate)]
        tilt = 0.5 * np.dot(voice[1:], voice[:-1]) / max(np.dot(voice, voice), 1e-9)
        x = source.numpy().astype(np.float64)
        return x - tilt * np.concatenate([[0.0], x[:-1]])


class WrongRate(Good):
    def convert(self, source, reference, *, seed):
        return Waveform.from_numpy(self.samples(source, reference, seed), 24000)


class Stereo(Good):
    def convert(self, source, reference, *, seed):
        samples = torch.from_numpy(self.samples(source, reference, seed)).float()
        return Waveform(torch.stack([samples, samples]), source.sample_rate)


class Array(Good):
    def convert(self, source, reference, *, seed):
        return self.samples(source, reference, seed)


class Interleaved(Good):
    def samples(self, source, reference, seed):
        return np.repeat(super().samples(source, reference, seed), 2)


class Clipped(Good):
    def samples(self, source, reference, seed):
        return np.clip(8 * super().samples(source, reference, seed), -1, 1)


class BeyondFullScale(Good):
    def samples(self, source, reference, seed):
        return 8 * super().samples(source, reference, seed)


class Offset(Good):
    def samples(self, source, reference, seed):
        return super().samples(source, reference, seed) + 0.05


class Unseeded(Good):
    def samples(self, source, reference, seed):
        samples = super().samples(source, reference, seed)
        return samples + 1e-3 * np.random.default_rng().standard_normal(len(samples))


class OrderOfASet(Good):
    """Depends on the order of a set of strings, which is another in each interpreter."""

    def samples(self, source, reference, seed):
        order = "".join({f"unit {n}" for n in range(100)})
        gain = 0.5 + 0.5 * np.random.default_rng(list(order.encode())).random()
        return gain * super().samples(source, reference, seed)


class Leaking(Good):
    """Mixes the last conversion into the next one."""

    last = np.zeros(1)

    def samples(self, source, reference, seed):
        samples = super().samples(source, reference, seed)
        mixed = samples.copy()
        count = min(len(samples), len(self.last))
        mixed[:count] += 0.01 * self.last[:count]
        self.last = samples
        return mixed


class KeepsFirstReference(Good):
    """Caches the voice of the first reference for all others, but only on a path that is rare."""

    voice: Waveform | None = None

    def samples(self, source, reference, seed):
        if 3.9 < reference.seconds < 4.1:
            self.voice = reference = self.voice or reference
        return super().samples(source, reference, seed)


class Hanging(Good):
    def samples(self, source, reference, seed):
        time.sleep(3600)


class HangsOnShort(Good):
    def samples(self, source, reference, seed):
        if source.seconds < 0.5:
            time.sleep(3600)
        return super().samples(source, reference, seed)


class Watermarked(Good):
    def samples(self, source, reference, seed):
        samples = super().samples(source, reference, seed)
        mark = np.random.default_rng(7).standard_normal(len(samples))
        return samples + 10 ** (-60 / 20) * mark


class Cutting(Good):
    cut_seconds = 10.0


class DeclaredCut(Cutting):
    reference_seconds = 10.0


class WrongDeclaration(Cutting):
    reference_seconds = 15.0


class IgnoresReference(Good):
    def samples(self, source, reference, seed):
        return 0.5 * source.numpy()


class WritesHere(Good):
    def samples(self, source, reference, seed):
        Path("out.txt").write_text("x")
        return super().samples(source, reference, seed)


class WritesHome(Good):
    def samples(self, source, reference, seed):
        (Path.home() / "converted.txt").write_text("x")
        return super().samples(source, reference, seed)


class ChildWrites(Good):
    """What another program writes is seen in the listing of the folders only."""

    def samples(self, source, reference, seed):
        os.system("echo x > of_a_child.txt")
        return super().samples(source, reference, seed)


class LeavesTemporary(Good):
    def samples(self, source, reference, seed):
        os.close(tempfile.mkstemp()[0])
        return super().samples(source, reference, seed)


class KeepsScratch(Good):
    """Has one temporary file as long as it lives: worth knowing, no fault."""

    def samples(self, source, reference, seed):
        (Path(tempfile.gettempdir()) / "scratch").write_text("x")
        return super().samples(source, reference, seed)


class ChangesDtype(Good):
    def samples(self, source, reference, seed):
        torch.set_default_dtype(torch.float64)
        return super().samples(source, reference, seed)


class ChangesThreads(Good):
    """Sets a global value when it is built."""

    def __init__(self) -> None:
        torch.set_num_threads(3)


class Growing(Good):
    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def samples(self, source, reference, seed):
        self.kept.append(np.ones(250_000))  # 2 MB
        return super().samples(source, reference, seed)


class NaNOnSilence(Good):
    def samples(self, source, reference, seed):
        return super().samples(source, reference, seed) / np.abs(source.numpy()).max() * 0.3


class ExitsOnNoise(Good):
    def samples(self, source, reference, seed):
        x = source.numpy()
        if np.corrcoef(x[1:], x[:-1])[0, 1] < 0.1 and len(x) > 1 and np.ptp(x) > 0:
            os._exit(7)
        return super().samples(source, reference, seed)


class CutsSource(Good):
    """Converts the first 20 seconds of a source and leaves the rest out."""

    def samples(self, source, reference, seed):
        return super().samples(source, reference, seed)[: 20 * source.sample_rate]


class Padding(Good):
    """Pads to blocks of 1280 samples: worth knowing, no fault."""

    def samples(self, source, reference, seed):
        samples = super().samples(source, reference, seed)
        return np.pad(samples, (0, -len(samples) % 1280))


class FixedLoudness(Good):
    """Sets the level to -20 dBFS: worth knowing, no fault."""

    def samples(self, source, reference, seed):
        samples = super().samples(source, reference, seed)
        return np.clip(samples * 0.1 / max(float(samples.std()), 1e-4), -1, 1)


class Steps(Good):
    """Iterates a network, twice as often as its setting says."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps = 10 if steps is None else steps
        self.network = torch.nn.Linear(4, 4)

    def samples(self, source, reference, seed):
        x = torch.zeros(4)
        for _ in range(2 * self.steps):
            x = self.network(x)
        return super().samples(source, reference, seed)


class Raises(Good):
    def samples(self, source, reference, seed):
        raise RuntimeError("no weights")

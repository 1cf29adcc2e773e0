"""Systems and judges with known answers."""

import os
import time
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from bench.audio import Waveform
from bench.devices import torch_device
from bench.errors import UserError
from bench.files import fingerprint
from bench.judges import SelfTest
from bench.metrics import NATURALNESS, OPINION, Metric
from bench.weights.find import WeightsMissing


class Louder:
    """Scales the source by a quarter of `gain`, and records its calls."""

    trained_on = frozenset()

    def __init__(self, gain=2.0):
        self.gain = gain
        self.calls = []

    def convert(self, source, reference, *, seed):
        self.calls.append((source.sha256, reference.seconds, seed))
        return Waveform(source.samples * self.gain * 0.25, source.sample_rate)


class OnGpu(Louder):
    """Halves the source on a GPU."""

    def __init__(self, device):
        super().__init__()
        self.factor = torch.tensor(0.5, device=torch_device(device))
        assert self.factor.is_cuda

    def convert(self, source, reference, *, seed):
        samples = source.samples.to(self.factor.device) * self.factor
        return Waveform(samples.cpu(), source.sample_rate)


class Checkpointed(Louder):
    """A system with a checkpoint."""

    def __init__(self, checkpoint):
        super().__init__()
        self.checkpoint = checkpoint


class Noise(Louder):
    """Draws from every global source of randomness and from its seed."""

    def convert(self, source, reference, *, seed):
        import random

        import torch

        random.random()
        drawn = np.random.rand(8000) + torch.rand(8000).numpy()
        seeded = np.random.default_rng(seed).random(8000)
        return Waveform.from_numpy((drawn + seeded + random.random()) / 8, 16000)


class Faulty(Louder):
    """Fails with this `fault` on every trial whose source is in `victims`; on all if it is None."""

    def __init__(self, fault, victims=None, message="out of memory"):
        super().__init__()
        self.message = message
        self.fault = fault
        self.victims = victims

    def convert(self, source, reference, *, seed):
        good = super().convert(source, reference, seed=seed)
        if self.victims is not None and source.sha256 not in self.victims:
            return good
        if self.fault == "raises":
            raise RuntimeError(self.message)
        if self.fault == "nan":
            return Waveform(good.samples * float("nan"), 16000)
        if self.fault == "empty":
            return good.first(0)
        if self.fault == "silent":
            return Waveform(good.samples * 0, 16000)
        return good.samples  # not a Waveform


class Streaming(Louder):
    """Streams a second of speech as two chunks, each after a pause.

    Args:
        fault: what is wrong with the stream: "empty", "raises" or "type".
        wait: called with the seconds of each pause.
    """

    PAUSES = (0.25, 0.5)  # seconds

    def __init__(self, fault=None, wait=time.sleep):
        super().__init__()
        self.fault = fault
        self.wait = wait

    def stream(self, source, reference, *, seed):
        if self.fault == "empty":
            yield source.first(0)
            return
        for chunk, pause in enumerate(self.PAUSES):
            self.wait(pause)
            if self.fault == "raises" and chunk:
                raise RuntimeError("out of memory")
            yield source.first(0)  # a chunk without samples is not the first
            yield source.samples if self.fault == "type" else source.first(0.5)


class Slow(Louder):
    """Takes `seconds` for every conversion, in two stages.

    Args:
        seconds: of a conversion.
        wait: called with the seconds of each stage.
    """

    def __init__(self, seconds, wait=time.sleep):
        super().__init__()
        self.seconds = seconds
        self.wait = wait

    def convert(self, source, reference, *, seed):
        from bench.stages.timing import stage

        with stage("encode"):
            self.wait(self.seconds / 4)
        with stage("vocode"):
            self.wait(self.seconds * 3 / 4)
        return super().convert(source, reference, seed=seed)


class FixedTimes(Louder):
    """Takes a quarter of a second by the clock of its process, which it replaces."""

    def __init__(self):
        super().__init__()
        from bench.stages import execute

        ticks = count()
        execute.now = lambda: next(ticks) / 4


class SlowInOneProcess(Slow):
    """Takes ten times as long in the process that converts first, and counts its conversions.

    Args:
        seconds: of a conversion in the other processes.

    The environment variable VCBENCH_TEST_CALLS names a folder that gets a file for each process,
    with a character for each conversion. (Settings that name files are part of what conversions
    depend on.)
    """

    def __init__(self, seconds):
        super().__init__(seconds)
        self.counter = None

    def convert(self, source, reference, *, seed):
        if self.counter is None:
            folder = Path(os.environ["VCBENCH_TEST_CALLS"])
            folder.mkdir(exist_ok=True)
            try:
                (folder / "slow").touch(exist_ok=False)
                self.counter, self.seconds = folder / "slow", 10 * self.seconds
            except FileExistsError:
                self.counter = folder / f"fast-{os.getpid()}"
        with self.counter.open("a") as file:
            file.write("x")
        return super().convert(source, reference, seed=seed)


class Length:
    """A judge that measures the converted speech's seconds and records the ids of its items."""

    reads = frozenset({"converted"})
    metrics = ("duration_ratio",)
    needs_source_words = False
    weights = ()

    def __init__(self, version=1, fails_on=None, value=None):
        self.version = version
        self.fails_on = fails_on
        self.value = value
        self.items = []

    @property
    def fingerprint(self):
        return fingerprint(["length", self.version])

    def score(self, items):
        self.items += [item.trial_id for item in items]
        for item in items:
            if item.trial_id == self.fails_on:
                raise RuntimeError("the model is broken")
        return [
            {"duration_ratio": item.converted.seconds if self.value is None else self.value}
            for item in items
        ]

    def self_test(self, recordings):
        return SelfTest(passed=False, findings={"length": "unknown"})


class ReadsAll(Length):
    """A judge that reads every sound and text; it measures how long the sounds are together."""

    reads = frozenset(
        {"converted", "source", "reference", "enrolment", "source_enrolment", "text", "language"}
    )

    def score(self, items):
        return [{"duration_ratio": self.seconds(item)} for item in items]

    @staticmethod
    def seconds(item):
        assert item.text
        assert item.language
        sounds = [item.converted, item.source, item.reference]
        return sum(s.seconds for s in (*sounds, *item.enrolment, *item.source_enrolment)) / 100


class Greedy(Length):
    """A judge that runs out of memory above a number of sounds at once.

    Args:
        most: sounds that fit.
        batch_size: of its model; None for a judge that computes all items at once.
    """

    def __init__(self, most, batch_size=None):
        super().__init__()
        self.most = most
        self.sizes = []
        if batch_size is not None:
            self.model = type("Model", (), {"batch_size": batch_size})()

    def score(self, items):
        size = len(items) if not hasattr(self, "model") else self.model.batch_size
        self.sizes.append(size)
        if size > self.most:
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().score(items)


class MosNet:
    """A third party's judge: a column and a metric that this project does not know."""

    reads = frozenset({"converted"})
    metrics = ("mos_net",)
    defines: ClassVar = {
        "mos_net": Metric(
            "MOS net",
            True,
            "mos_net",
            about="naturalness predicted by MOS net, 1–5",
            limits=OPINION,
            family=NATURALNESS,
            near=0.1,
        )
    }
    needs_source_words = False
    weights = ()

    def __init__(self, mos=3.5):
        self.mos = mos

    @property
    def fingerprint(self):
        return fingerprint(["mos_net", self.mos])

    def score(self, items):
        return [{"mos_net": self.mos} for _ in items]

    def self_test(self, recordings):
        return SelfTest(passed=True, findings={"MOS": str(self.mos)})


class Fetched(Length):
    """A judge whose weights are a file with one word, which can be downloaded."""

    def __init__(self, path):
        super().__init__()
        if not Path(path).is_file():
            raise WeightsMissing("no weights; get them", Download(Path(path)))
        self.word = Path(path).read_text()

    def self_test(self, recordings):
        return SelfTest(passed=self.word == "right", findings={"word": self.word})


class Download:
    """Copies the word from `path` with the ending .published; fails if there is no such file."""

    how = "hf download owner/name"
    size = 5_000_000

    def __init__(self, path):
        self.path = path

    def fetch(self):
        published = self.path.with_suffix(".published")
        if not published.is_file():
            raise UserError("owner/name: no download (no route)")
        self.path.write_text(published.read_text())


class FetchedSystem(Louder):
    """A system whose weights are a file with one word; building it is an error."""

    def __init__(self, path):
        raise AssertionError("the doctor builds no system")

    @staticmethod
    def missing_weights(path):
        if Path(path).is_dir():
            raise UserError(f"{path}: a folder, no word")
        missing = WeightsMissing("no word; get it", Download(Path(path)))
        return [] if Path(path).is_file() else [missing]

"""What isolation costs: one conversion in this process and through a worker, 5 s of speech.

`pytest benchmarks/test_isolation.py`: compare the medians. "gain" does next to nothing, so its
difference is the cost of a trial; "busy" computes, so its ratio is that of the real-time factors.
"""

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from baselines.worker.client import wav_bytes
from baselines.worker.system import IsolatedBaseline
from bench.audio import Waveform

ADAPTERS = Path(__file__).parents[1] / "tests" / "support" / "adapters"
SPEECH = Waveform.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, 5 * 16000), 16000)


@pytest.mark.parametrize("name", ["gain", "busy"])
def test_a_conversion_in_this_process(benchmark, name, tmp_path):
    spec = importlib.util.spec_from_file_location(name, ADAPTERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    adapter = module.Adapter("cpu", tmp_path)
    path = tmp_path / "source.wav"
    path.write_bytes(wav_bytes(SPEECH))
    benchmark(adapter.convert, str(path), str(path), 1, lambda _: nullcontext())


@pytest.mark.parametrize("name", ["gain", "busy"])
def test_a_conversion_through_a_worker(benchmark, name, tmp_path, monkeypatch):
    monkeypatch.setenv("VCBENCH_ENVIRONMENTS", str(tmp_path))
    system = IsolatedBaseline(str(ADAPTERS / f"{name}.py"), python=sys.executable, device="cpu")
    try:
        benchmark(system.convert, SPEECH, SPEECH, seed=1)
    finally:
        system.close()

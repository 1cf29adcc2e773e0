"""The harness: systems convert the trials of suites, judges score the results, reports show them.

The public names are imported on first use, since torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.audio import Waveform
    from bench.judges import Judge
    from bench.metrics import Metric
    from bench.run.run import Run
    from bench.stats.compare import compare
    from bench.systems import Existing, System
    from bench.trials import Suite, Trial

__all__ = [
    "Existing",
    "Judge",
    "Metric",
    "Run",
    "Suite",
    "System",
    "Trial",
    "Waveform",
    "compare",
]

_MODULES = {
    "Existing": "bench.systems",
    "Judge": "bench.judges",
    "Metric": "bench.metrics",
    "Run": "bench.run.run",
    "Suite": "bench.trials",
    "System": "bench.systems",
    "Trial": "bench.trials",
    "Waveform": "bench.audio",
    "compare": "bench.stats.compare",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

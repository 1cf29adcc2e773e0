from types import SimpleNamespace

import numpy


def yaapt(signal, **kwargs):
    """100 Hz and 120 Hz by turns; 0 in the first tenth."""
    values = numpy.tile([100.0, 120.0], len(signal.data) // 160)
    values[: len(values) // 10] = 0
    return SimpleNamespace(samp_values=values)

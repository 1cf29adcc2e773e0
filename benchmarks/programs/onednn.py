"""Times matrix products by MKL and by oneDNN: `python -m benchmarks.programs.onednn`.

Seconds are of processor time, of one thread; the shapes are those of Whisper base and Takin-VC.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.onednn import OneDNNLinear

SHAPES = ((1500, 512, 2048), (1500, 512, 512), (808, 1152, 384), (32, 512, 512))
REPEATS = 20


def seconds(call: Callable[[], Tensor]) -> float:
    """Processor time of one call."""
    call()
    start = time.process_time()
    for _ in range(REPEATS):
        call()
    return (time.process_time() - start) / REPEATS


@torch.inference_mode()
def main() -> None:
    """Prints a line for every shape."""
    torch.set_num_threads(1)
    print(f"{'rows x in x out':>18} {'MKL':>10} {'oneDNN':>10}  GFLOP/s")
    for rows, inputs, outputs in SHAPES:
        x, layer = torch.randn(rows, inputs), nn.Linear(inputs, outputs)
        work = 2e-9 * rows * inputs * outputs
        mkl = work / seconds(lambda x=x, layer=layer: layer(x))  # type: ignore[misc]
        by = OneDNNLinear.in_place_of(layer)
        other = work / seconds(lambda x=x, by=by: by(x))  # type: ignore[misc]
        print(f"{f'{rows} x {inputs} x {outputs}':>18} {mkl:10.0f} {other:10.0f}")


if __name__ == "__main__":
    main()

"""Tests the intervals of `vcbench agreement` on simulated listeners with planted agreement.

    python -m benchmarks.programs.agreement [SIMULATIONS]

For each listening test of `tests.support.listeners`: the true coefficient of the metric (in closed
form; from large samples where ratings are rounded), the mean of its estimates, and how often the
95% interval contains the truth, with the standard error of that share. 1000 simulations by default.
"""

import sys

import numpy as np

from tests.support.listeners import TESTS, shares


def main(simulations: int = 1000) -> None:
    """Prints the table; see the module."""
    print(f"{'test':40}{'level':11}{'coefficient':12}{'truth':>7}{'mean':>8}{'covered':>15}")
    for name, test in TESTS.items():
        for row in shares(test, simulations, np.random.default_rng(0)).itertuples():
            error = np.sqrt(row.covered * (1 - row.covered) / simulations)
            covered = f"{100 * row.covered:.1f} ± {100 * error:.1f}%"
            numbers = f"{row.truth:7.3f}{row.mean:8.3f}{covered:>15}"
            print(f"{name:40}{row.level:11}{row.coefficient:12}{numbers}", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        sys.exit()
    if len(arguments) > 1 or not all(a.isdecimal() and int(a) for a in arguments):
        sys.exit(f"error: {' '.join(arguments)!r} is not one number of simulations")
    main(*map(int, arguments))

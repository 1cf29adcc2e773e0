"""Programs without settings answer -h and wrong arguments before they do anything."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        ("benchmarks.programs.inference", "no part 'nope'; there are coverage"),
        ("benchmarks.programs.agreement", "'nope' is not one number of simulations"),
        ("suites.build", ""),
    ],
)
def test_help_is_the_modules_and_a_slip_is_refused(module, wrong):
    def called(argument):
        command = [sys.executable, "-m", module, argument]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    helped, slipped = called("--help"), called("nope")
    assert helped.returncode == 0
    assert f"python -m {module}" in helped.stdout
    assert slipped.returncode == 1
    assert wrong in slipped.stderr
    assert "Traceback" not in slipped.stderr

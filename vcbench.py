"""Starts the command line, if the packages that Python finds are those of this project.

`bench`, `suites` and `reports` are names that other packages have too. This module has a name of
its own, so that it can say which package is in the way.
"""

import base64
import hashlib
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "takin-vc-bench"
PACKAGES = ("bench", "baselines", "suites", "reports", "takin_vc")
ROOT = Path(__file__).resolve().parent
SPINS = "10000"  # as fast as the default on idle cores, faster on shared ones
WAY_OUT = f"install {DISTRIBUTION} into an environment of its own"


def clash() -> str | None:
    """Why another package would be used in place of one of this project's; None if none is.

    Nothing is imported.
    """
    for name in PACKAGES:
        ours = ROOT / name / "__init__.py"
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # a module of that name that is broken
            spec = None
        origin = None if spec is None else spec.origin
        if not ours.is_file():
            return f"the package {name} is missing at {ours.parent}; install {DISTRIBUTION} again"
        if origin is None or Path(origin).resolve() != ours:
            where = origin or getattr(sys.modules.get(name), "__file__", None) or "unknown"
            return (
                f"{where} is used as the package {name} in place of {ours}; remove it from "
                f"Python's path (PYTHONPATH, current folder), or {WAY_OUT}"
            )
    return _replaced()


def _replaced() -> str | None:
    """Says which package another distribution has written over in the same folder."""
    try:
        files = metadata.distribution(DISTRIBUTION).files or ()
    except metadata.PackageNotFoundError:
        return None
    wanted = {f"{name}/__init__.py" for name in PACKAGES}
    for file in files:
        if file.as_posix() not in wanted or file.hash is None:
            continue
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            others = metadata.packages_distributions().get(file.parts[0], [])
            by = " and ".join(sorted({*others} - {DISTRIBUTION})) or "something else"
            return (
                f"{path} was replaced by {by}; uninstall that and install {DISTRIBUTION} again, "
                f"or {WAY_OUT}"
            )
    return None


def main() -> None:
    """Runs `vcbench`; exits with 2 and one line if another package is in the way."""
    if problem := clash():
        print(f"vcbench: {problem}", file=sys.stderr)
        sys.exit(2)
    _spin_briefly()
    from bench.__main__ import main as run

    run()


def _spin_briefly() -> None:
    """Lets threads that wait for each other sleep sooner, unless the user chose how they wait.

    libgomp, which torch computes by, reads this when it is loaded. By default its threads spin
    300,000 times before they sleep, also on a core that another program needs.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


if __name__ == "__main__":
    main()

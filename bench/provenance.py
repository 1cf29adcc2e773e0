"""Describes the code, the packages and the machine that produced a number."""

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.files import sha256_of

ROOT = Path(__file__).parent.parent.resolve()
PROJECT = ("bench", "baselines", "suites", "reports", "takin_vc")  # packages of this project
# Packages that a score can depend on.
PACKAGES = (
    "takin-vc-bench",
    "torch",
    "torchaudio",
    "transformers",
    "openai-whisper",
    "speechbrain",
    "webrtcvad-wheels",
    "speechmos",
    "librosa",
    "pyworld-prebuilt",
    "jiwer",
    "numpy",
    "scipy",
    "pandas",
    "soundfile",
    "soxr",
    "hydra-core",
)


def describe() -> dict[str, Any]:
    """Time, commit, packages and machine of this process, for run.json."""
    commit, dirty = _commit()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "packages": dict(_packages()),
        "machine": machine(),
        "origin": origin(),
    }


def origin(versions: str = "") -> str:
    """Code and machine of this process in a line, stored with every conversion.

    "c566c5212af3+9f86d081 on AMD EPYC, 2 cores, 2 threads": the commit; after + a hash of the
    uncommitted changes to tracked files; after "on" the machine (see `machine_line`).

    Args:
        versions: of packages of another environment that convert; they follow the commit.
    """
    code = f"{_code_in_short()}, {versions}" if versions else _code_in_short()
    return f"{code} on {machine_line(machine())}"


def machine_line(machine: Mapping[str, Any]) -> str:
    """The properties of a machine (see `machine`) that times depend on, in a line.

    "AMD EPYC, 2 cores, 2 threads", then the GPUs and the version of CUDA; ? for what is unknown.
    """
    cores, threads = (machine.get(key, "?") for key in ("cores", "torch_threads"))
    parts = [machine.get("processor", "?"), f"{cores} cores", f"{threads} threads"]
    if machine.get("gpus"):
        parts += [*machine["gpus"], f"CUDA {machine.get('cuda') or '?'}"]
    return ", ".join(parts)


def machine_of(origin: str) -> str:
    """The machine in an `origin`, as `machine_line` writes it; "" if the origin names none."""
    return origin.partition(" on ")[2]


def without_versions(origin: str) -> str:
    """An `origin` without the versions of another environment."""
    code, on, where = origin.partition(" on ")
    return code.partition(", ")[0] + on + where


def machine() -> Mapping[str, Any]:
    """Describes the machine of this process: processor, cores, threads, GPUs, versions."""
    import torch  # takes seconds

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
    }


@cache
def _packages() -> Mapping[str, str]:
    return {name: version for name in PACKAGES if (version := _version(name))}


@lru_cache(maxsize=8)
def _distributions(search_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    """Package → the distributions that have it, of all that are installed on `sys.path`."""
    return metadata.packages_distributions()


@cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def loaded_code(target: str, whole_process: bool = False) -> dict[str, str] | None:
    """Identifies the code of a third party's class that this process has imported.

    Args:
        target: dotted path of the class.
        whole_process: whether all modules from outside of this project belong to the class, as in
            a process that runs it alone; else only its module and the packages that contain it.

    Returns:
        Path → sha256 of every such module outside of the installed packages, and name → version of
        the installed package that contains the class. Empty for a class of this project (see
        `origin`); None if the code cannot be located. Modules that are imported later are missing.
    """
    parts = target.split(".")
    if parts[0] in PROJECT:
        return {}
    around = [".".join(parts[:n]) for n in range(1, len(parts))]
    modules = list(sys.modules.values()) if whole_process else map(sys.modules.get, around)
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    skipped = [Path(path).resolve() for path in paths if path]
    skipped += [ROOT / package for package in PROJECT]
    files = {path for module in modules if (path := _file(module)) is not None}
    code = {
        str(path): sha256_of(path)
        for path in sorted(files)
        if path.is_file()
        and "site-packages" not in path.parts
        and not any(path.is_relative_to(folder) for folder in skipped)
    }
    for package in _distributions(tuple(sys.path)).get(parts[0], ()):
        code[package] = metadata.version(package)
    return code or None


def code_changed(code: Mapping[str, str]) -> str | None:
    """The first file or package that differs from the result of `loaded_code`, or None."""
    for name, known in code.items():
        path = Path(name)
        if path.is_absolute():
            if not path.is_file() or sha256_of(path) != known:
                return name
        elif _version(name) != known:
            return name
    return None


def _file(module: Any) -> Path | None:
    name = getattr(module, "__file__", None)
    return Path(name).resolve() if isinstance(name, str) else None


@cache
def _code_in_short() -> str:
    commit, dirty = _commit()
    changes = _git("diff", "HEAD") if commit and dirty else None
    changed = (
        f"+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else "+" * bool(dirty)
    )
    return f"{(commit or 'no commit')[:12]}{changed}"


@cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of this checkout, and whether it had uncommitted changes at the first call.

    Both are None outside of a checkout.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT.resolve():
        return None, None
    status = _git("status", "--porcelain")
    return _git("rev-parse", "HEAD"), None if status is None else bool(status)


def _git(*arguments: str) -> str | None:
    """The output of a git command in this checkout; None if it fails."""
    try:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

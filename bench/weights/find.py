"""Finds model weights on disk, and downloads missing ones on request.

Only `vcbench doctor --fetch` makes that request; it prints the size first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError

from bench.errors import UserError
from bench.files import sha256_of
from bench.weights import Weights
from bench.weights.download import download, offline

MEGABYTE = 10**6


class Download(Protocol):
    """Weights that can be downloaded.

    Attributes:
        how: the command that downloads them.
        size: in bytes, about; 0 where unknown.
    """

    @property
    def how(self) -> str: ...

    @property
    def size(self) -> int: ...

    def fetch(self) -> None:
        """Downloads them to the path where the judge searches.

        Raises:
            UserError: if there is no connection, or offline mode is on.
        """
        ...


class WeightsMissing(UserError):
    """Weights that are not on this machine; the message says how to get them.

    A judge raises it from its constructor. The run continues without that judge and reports it.

    Attributes:
        download: what `vcbench doctor --fetch` downloads; None where it cannot.
    """

    def __init__(self, message: str, download: Download | None = None) -> None:
        super().__init__(message)
        self.download = download


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository on the Hugging Face hub, stored in the hub's cache.

    Attributes:
        repository: "owner/name".
        files: all of them are needed.
        either: one of them is needed, best first: the same tensors in several formats.
        revision: a commit; None for the newest.
        size: of all in bytes, about; 0 where unknown.
    """

    repository: str
    files: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    revision: str | None = None
    size: int = 0

    @property
    def how(self) -> str:
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repository} {' '.join(self.files + self.either[:1])}{revision}"

    def cached(self, file: str) -> Path | None:
        """The file in the hub's cache, looked up without a connection; None if missing."""
        path = try_to_load_from_cache(self.repository, file, revision=self.revision)
        return Path(path) if isinstance(path, str) else None

    def fetch(self) -> None:
        for file in self.files:
            self._fetch(file)
        for file in self.either:
            try:
                self._fetch(file)
                return
            except RemoteEntryNotFoundError:
                continue
        if self.either:
            raise UserError(f"{self.repository} has none of {', '.join(self.either)}")

    def _fetch(self, file: str) -> None:
        if offline():
            raise UserError(f"{self.repository}: HF_HUB_OFFLINE is set; unset it to download")
        try:
            hf_hub_download(self.repository, file, revision=self.revision)
        except RemoteEntryNotFoundError:
            if file in self.either:
                raise
            raise UserError(f"{self.repository} has no {file}") from None
        except (OSError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.repository}/{file}: no download ({reason})") from error


@dataclass(frozen=True)
class WebFile:
    """A file at a fixed address.

    Attributes:
        url: its address.
        path: where it is stored.
        sha256: its hash; None where no hash is published.
        size: in bytes, about; 0 where unknown.
    """

    url: str
    path: Path
    sha256: str | None = None
    size: int = 0

    @property
    def how(self) -> str:
        return f"curl -L --create-dirs -o {short(self.path)} {self.url}"

    def fetch(self) -> None:
        if offline():
            raise UserError(f"{self.url}: HF_HUB_OFFLINE is set; unset it to download")
        download(self.url, self.path, sha256=self.sha256, size=self.size or None)


def find(
    name: str,
    *,
    given: str | Path | None,
    candidates: Iterable[Path],
    how: str | Download,
    sha256: str | None,
    licence: str,
) -> Weights:
    """The first of `given` (alone, where it is set) or `candidates` that exists.

    Args:
        name: the authors' name of the weights.
        given: a file that the user named.
        candidates: their usual paths, best first.
        how: how to get them: a command, an address and a path, or a download.
        sha256: the hash that they must have; None where no hash is published.
        licence: under which they may be used.

    Raises:
        WeightsMissing: if there is no file among the candidates; the message ends with `how`.
        UserError: if `given` does not exist, or the file has another hash than `sha256`.
    """
    offer = None if isinstance(how, str) else how
    way = how if isinstance(how, str) else f"get them: {how.how}"
    paths = [Path(given).expanduser()] if given is not None else list(candidates)
    for path in paths:
        if path.is_file():
            return _checked(name, path, sha256, licence, way)
    if given is not None:
        raise UserError(f"{name}: no file at {paths[0]}; correct `weights`, or set it to null")
    searched = ", ".join(map(short, paths)) or "the cache of the hub"
    raise WeightsMissing(f"{name}: no weights (looked at {searched}); {way}", offer)


def find_folder(
    name: str,
    hub: HubFiles,
    *,
    given: str | Path | None,
    licence: str,
    sha256: Mapping[str, str] | None = None,
) -> tuple[Path, tuple[Weights, ...]]:
    """The folder that contains a model's files: the one given, or the hub's cache.

    Args:
        name: the authors' name of the weights.
        hub: the files, and where they are published.
        given: a folder that the user named.
        licence: under which they may be used.
        sha256: file → the hash that it must have; checked only in the hub's cache.

    Returns:
        The folder, and its files with their hashes: those of `hub.files`, then the first of
        `hub.either` that exists.

    Raises:
        WeightsMissing: if the cache lacks one.
        UserError: if the given folder lacks one, or a file has another hash.
    """
    if given is not None:
        folder = Path(given).expanduser()
        paths = {f: folder / f for f in hub.files + hub.either if (folder / f).is_file()}
    else:
        paths = {f: path for f in hub.files + hub.either if (path := hub.cached(f)) is not None}
    missing: Sequence[str] = [f for f in hub.files if f not in paths]
    either = next((f for f in hub.either if f in paths), None)
    if hub.either and either is None:
        missing = [*missing, " or ".join(hub.either)]
    if missing and given is not None:
        raise UserError(
            f"{name}: {Path(given).expanduser()} holds no {missing[0]}; correct `weights`, or set "
            "it to null"
        )
    if missing:
        raise WeightsMissing(
            f"{name}: no {missing[0]} of {hub.repository} in the cache of the hub; get them: "
            f"{hub.how}",
            hub,
        )
    wanted = [*hub.files, *([either] if either else [])]
    known = {} if sha256 is None or given is not None else sha256
    way = f"get it: {hub.how}"
    weights = [_checked(name, paths[file], known.get(file), licence, way) for file in wanted]
    return paths[wanted[0]].parent, tuple(weights)


def _checked(name: str, path: Path, sha256: str | None, licence: str, way: str) -> Weights:
    actual = sha256_of(path)
    if sha256 is not None and actual != sha256:
        raise UserError(
            f"{name}: {path} has sha256 {actual[:12]}…, not the published {sha256[:12]}…; "
            f"remove it and get it again: {way}"
        )
    return Weights(name, str(path), actual, licence)


def missing(*looks: Callable[[], object]) -> list[WeightsMissing]:
    """What is not on this machine, of weights that the functions look for."""
    errors = []
    for look in looks:
        try:
            look()
        except WeightsMissing as error:
            errors.append(error)
    return errors


def short(path: Path) -> str:
    """The path for a message, with `~` for the user's home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)

"""Where weights are found, and how they are got where they are not.

Nothing here downloads by itself: `vcbench doctor --fetch` does, and says how much first.
"""

import os
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.files import replacing, sha256_of
from bench.judges import Weights

MEGABYTE = 10**6


class Download(Protocol):
    """Weights that can be fetched.

    Attributes:
        how: the command that gets them.
        size: in bytes, about.
    """

    @property
    def how(self) -> str: ...

    @property
    def size(self) -> int: ...

    def fetch(self) -> None:
        """Downloads them to where the judge looks.

        Raises:
            UserError: if there is no connection, or offline mode is on.
        """
        ...


class WeightsMissing(UserError):
    """Weights that are not on this machine; the message names the way to get them.

    A judge raises it from its constructor; the run goes on without that judge, and says so.

    Attributes:
        download: how `vcbench doctor --fetch` gets them; None where it cannot.
    """

    def __init__(self, message: str, download: Download | None = None) -> None:
        super().__init__(message)
        self.download = download


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository on the Hugging Face hub, kept in its usual cache.

    Attributes:
        repository: "owner/name".
        files: all are needed.
        either: of these one is needed, best first: the same tensors in several formats.
        revision: a commit; None for the newest.
        size: of all in bytes, about.
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
        """The file in the cache of the hub, looked up without a connection."""
        found = try_to_load_from_cache(self.repository, file, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

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
        url: where it is published.
        path: where it is kept.
        sha256: its hash; None where it is not known.
        size: in bytes, about.
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
        if not self.url.startswith("https://"):
            raise UserError(f"{self.url}: only https:// addresses are fetched")
        try:
            with (
                replacing(self.path) as temporary,
                urllib.request.urlopen(self.url, timeout=60) as response,  # noqa: S310
                temporary.open("wb") as file,
            ):
                while block := response.read(MEGABYTE):
                    file.write(block)
                file.flush()
                if self.sha256 is not None and (actual := sha256_of(temporary)) != self.sha256:
                    raise UserError(
                        f"{self.url} has sha256 {actual[:12]}…, not the published "
                        f"{self.sha256[:12]}…; nothing was kept"
                    )
        except OSError as error:
            raise UserError(f"{self.url}: no download ({error})") from error


def offline() -> bool:
    """Whether the user has told every tool to stay off the network."""
    return os.getenv("HF_HUB_OFFLINE", "0") not in ("", "0")


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
        name: what the weights are, as their authors call them.
        given: a file that the user named.
        candidates: where they are usually kept, best first.
        how: what to do to get them: a command, an address and a place, or a download.
        sha256: what their hash must be; None where no hash is published.
        licence: under which they may be used.

    Raises:
        WeightsMissing: if there is no file among the candidates; the message ends with `how`.
        UserError: if `given` does not exist, or the file has another hash than `sha256`.
    """
    download = None if isinstance(how, str) else how
    way = how if isinstance(how, str) else f"get them: {how.how}"
    places = [Path(given).expanduser()] if given is not None else list(candidates)
    for path in places:
        if path.is_file():
            return _checked(name, path, sha256, licence, way)
    if given is not None:
        raise UserError(f"{name}: no file at {places[0]}; correct `weights`, or set it to null")
    looked = ", ".join(map(short, places)) or "the cache of the hub"
    raise WeightsMissing(f"{name}: no weights (looked at {looked}); {way}", download)


def find_folder(
    name: str,
    hub: HubFiles,
    *,
    given: str | Path | None,
    licence: str,
    sha256: Mapping[str, str] | None = None,
) -> tuple[Path, tuple[Weights, ...]]:
    """The folder that holds a model's files: the one given, or the hub's cache.

    Args:
        name: what the weights are, as their authors call them.
        hub: the files, and where they are published.
        given: a folder that the user named.
        licence: under which they may be used.
        sha256: file → what its hash must be; checked only for what the hub's cache holds.

    Returns:
        The folder, and its files with their hashes: those of `hub.files`, then the first of
        `hub.either` that is there.

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
    found = [_checked(name, paths[f], known.get(f), licence, f"get it: {hub.how}") for f in wanted]
    return paths[wanted[0]].parent, tuple(found)


def _checked(name: str, path: Path, sha256: str | None, licence: str, way: str) -> Weights:
    actual = sha256_of(path)
    if sha256 is not None and actual != sha256:
        raise UserError(
            f"{name}: {path} has sha256 {actual[:12]}…, not the published {sha256[:12]}…; "
            f"remove it and get it again: {way}"
        )
    return Weights(name, str(path), actual, licence)


def read_state(path: str | Path, name: str, how: str) -> dict[str, Any]:
    """What a file of weights holds (.safetensors, or PyTorch's own format); nothing in it is run.

    Args:
        path: the file.
        name: what it should be, for the error.
        how: what to do to get it, for the error.

    Raises:
        UserError: if it cannot be read as named tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of another kind makes of the reader
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is not {name}: it cannot be read as tensors ({reason}); {how}"
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{path} is not {name}: it holds a {type(state).__name__}, no state dict; {how}"
        )
    return state


def load_state(
    model: nn.Module,
    state: Mapping[str, Any],
    path: str | Path,
    name: str,
    how: str,
    published: Callable[[str], str] = str,
) -> None:
    """Gives `model` exactly the tensors of `state`: none missing, none left over.

    Args:
        model: may be on the meta device; takes the tensors themselves.
        state: by published name.
        path: where they come from, for the error.
        name: what they should be, for the error.
        how: what to do to get them, for the error.
        published: our name → the published one.

    Raises:
        UserError: naming the first tensor that differs.
    """
    ours = model.state_dict()
    names = {published(own): own for own in ours}
    for theirs, own in names.items():
        expected = _describe(ours[own])
        found = _describe(state[theirs]) if theirs in state else "missing"
        if found != expected:
            raise UserError(f"{path} is not {name}: {theirs} is {found}, not {expected}; {how}")
    for theirs in state:
        if theirs not in names:
            raise UserError(f"{path} is not {name}: it has a tensor {theirs!r} too many; {how}")
    model.load_state_dict({names[key]: value for key, value in state.items()}, assign=True)


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def short(path: Path) -> str:
    """The path as people write it: `~` for their home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, found without importing it; None where not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))

"""Where weights are found, and what to do where they are not."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from bench.errors import UserError
from bench.files import sha256_of
from bench.judges import Weights


class WeightsMissing(UserError):
    """Weights that are not on this machine; the message names the way to get them.

    A judge raises it from its constructor; the run goes on without that judge, and says so.
    """


def find(
    name: str,
    *,
    given: str | Path | None,
    candidates: Iterable[Path],
    how: str,
    sha256: str | None,
    licence: str,
) -> Weights:
    """The first of `given` (alone, where it is set) or `candidates` that exists.

    Args:
        name: what the weights are, as their authors call them.
        given: a file that the user named.
        candidates: where they are usually kept, best first.
        how: what to do to get them: a command, or an address and a place.
        sha256: what their hash must be; None where no hash is published.
        licence: under which they may be used.

    Raises:
        WeightsMissing: if there is no file among the candidates; the message ends with `how`.
        UserError: if `given` does not exist, or the file has another hash than `sha256`.
    """
    places = [Path(given).expanduser()] if given is not None else list(candidates)
    for path in places:
        if path.is_file():
            actual = sha256_of(path)
            if sha256 is not None and actual != sha256:
                raise UserError(
                    f"{name}: {path} has sha256 {actual[:12]}…, not the published {sha256[:12]}…; "
                    f"remove it and get it again: {how}"
                )
            return Weights(name, str(path), actual, licence)
    if given is not None:
        raise UserError(f"{name}: no file at {places[0]}; correct `weights`, or set it to null")
    looked = ", ".join(map(short, places))
    raise WeightsMissing(f"{name}: no weights (looked at {looked}); {how}")


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

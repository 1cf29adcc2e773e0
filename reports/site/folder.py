"""The folder of a site: written whole under a temporary name, then exchanged with the old one."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError
from bench.files import exchange, sha256_of, write_json

MARKER = "site.json"  # lists the files of a site, so that no other folder is ever replaced
KIND = "vcbench site"
FORMAT = 1


def check_replaceable(out: Path) -> None:
    """Checks that `out` is missing, empty, or an unchanged site.

    Raises:
        UserError: names what else it holds.
    """
    way_out = "give another folder: out=…"
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; {way_out}")
    if not any(out.iterdir()):
        return
    files = _listed(out / MARKER)
    if files is None:
        raise UserError(f"{out} holds files that vcbench site did not write; {way_out}")
    present = {p.relative_to(out).as_posix() for p in out.rglob("*") if not _is_folder(p)}
    if foreign := sorted(present - {*files, MARKER}):
        raise UserError(
            f"{out / foreign[0]} was not written by vcbench site and would be lost; move it, or "
            f"{way_out}"
        )
    for name in sorted(present & files.keys()):
        if (out / name).is_symlink() or sha256_of(out / name) != files[name]:
            raise UserError(
                f"{out / name} was changed since vcbench site wrote it, and the change would be "
                f"lost; move it, or {way_out}"
            )


@contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Yields a new folder beside `out` that takes its place if the block succeeds.

    An interrupted call leaves `out` as it was, and removes the new folder.

    Raises:
        UserError: if `out` holds anything but an unchanged site.
    """
    check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
        write_json(folder / MARKER, {"made_by": KIND, "format": FORMAT, "files": hashes})
        check_replaceable(out)  # someone may have written there meanwhile
        if out.exists():
            exchange(folder, out)
        else:
            folder.rename(out)


def _listed(marker: Path) -> dict[str, str] | None:
    """Name → sha256 of the files of a site; None if this is no site's marker."""
    try:
        contents = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(contents, dict) or contents.get("made_by") != KIND:
        return None
    files = contents.get("files")
    return files if isinstance(files, dict) else None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()

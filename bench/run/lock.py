"""Locks a run's folder for one process."""

import errno
import fcntl
import fnmatch
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system without file locks


@contextmanager
def locked_folder(folder: Path, shards: str, caution: Callable[[str], None]) -> Iterator[None]:
    """Locks the folder, and removes the temporary files of a killed process in it.

    Args:
        folder: created if it does not exist.
        shards: the name of the folder inside it that has the shards: they have their own locks, and
            their temporary files may be in use.
        caution: receives a sentence where the file system has no locks; the block then runs
            without one.

    Raises:
        UserError: if another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another vcbench works in {folder}; wait for it, or take another name=…"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            caution(
                f"{folder}: this file system has no locks; do not start the same run or shard "
                "twice at a time"
            )
        _remove_torn(folder, shards)
        yield


def _remove_torn(folder: Path, shards: str) -> None:
    for place, folders, files in os.walk(folder):
        if Path(place) == folder and shards in folders:
            folders.remove(shards)
        for name in fnmatch.filter(files, ".*.part"):
            (Path(place) / name).unlink()

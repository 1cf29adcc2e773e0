"""Scores kept by content: what was judged, by which judge, whatever the files are called."""

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.errors import UserError
from bench.judges import Value

Columns = dict[str, Value]


class ScoreCache:
    """A table of key → columns in one SQLite file, safe to share between processes and to kill.

    Args:
        path: the file; made where it does not exist.

    Raises:
        UserError: if the file is not a cache, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, columns TEXT NOT NULL)"
            )
        except sqlite3.OperationalError as error:
            raise UserError(f"{path}: the score cache cannot be opened ({error})") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a usable score cache ({error}); remove it") from error

    def get(self, keys: Iterable[str]) -> dict[str, Columns]:
        """The columns of every key that is known."""
        found = {}
        for key in set(keys):
            row = self._database.execute("SELECT columns FROM scores WHERE key = ?", (key,))
            if (value := row.fetchone()) is not None:
                found[key] = json.loads(value[0])
        return found

    def put(self, scores: Mapping[str, Columns]) -> None:
        """Adds scores; on disk when this returns.

        Raises:
            OSError: with ENOSPC where the disk is full.
        """
        rows = [(key, json.dumps(c, allow_nan=False)) for key, c in scores.items()]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error

    def close(self) -> None:
        self._database.close()

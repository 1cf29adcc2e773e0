"""Caches scores by content: keys consist of hashes of what was judged and of the judge."""

import errno
import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from bench.errors import UserError
from bench.files import encoded, json_text
from bench.judges import Value

Columns = dict[str, Value]

LOCK_SECONDS = 60  # how long another process may hold the file
# Keys are hashes: the rows of one commit lie on as many pages of the file. The write-ahead log
# collects some commits (64 MiB) before their pages are written to the file.
CHECKPOINT_PAGES = 16_384
CACHE_KIB = 65_536  # of pages in memory; with SQLite's 2 MiB nearly every new row reads a page
KEYS_AT_ONCE = 500  # of one SELECT; SQLite takes 999 at least

# `scores`, the table of earlier versions, has no checksums: it is neither read nor changed.
TABLE = "CREATE TABLE IF NOT EXISTS checked_scores (key PRIMARY KEY, columns, checksum)"
SELECT = "SELECT key, columns, checksum FROM checked_scores"
SAMPLES = "CREATE TABLE IF NOT EXISTS decoded (file PRIMARY KEY, samples, checksum)"
INSERT = "INSERT OR REPLACE INTO checked_scores (key, columns, checksum) VALUES (?, ?, ?)"
INSERT_SAMPLES = "INSERT OR REPLACE INTO decoded VALUES (?, ?, ?)"

NO_ACCESS = frozenset(
    (
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
        *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR),
    )
)


class ScoreCache:
    """A table of key → columns in one SQLite file, safe to share between processes and to kill.

    Every row has a checksum. A row whose checksum is wrong, or whose content does not describe
    columns, counts as unknown: its score is computed again and replaces it.

    Args:
        path: the file; created if it does not exist.
        alone: whether this process is the only one that opens the file. SQLite then uses neither
            file locks nor shared memory, which network file systems may lack.

    Raises:
        UserError: here and in `get` and `put`, if the file is not a cache, damaged, read-only, or
            held by another process for over `LOCK_SECONDS`; names the file and the way out.
        OSError: with ENOSPC if the disk is full.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"{path}: no folder for the score cache ({error.strerror}); "
                "set cache= to another file"
            ) from error
        with self._errors():
            options = "?nolock=1" if alone else ""
            self._database = sqlite3.connect(
                f"file:{quote(str(path.absolute()), errors='surrogateescape')}{options}",
                timeout=LOCK_SECONDS,
                uri=True,
            )
            self._database.text_factory = bytes  # damaged text need not be UTF-8
            self._database.execute(f"PRAGMA journal_mode={'TRUNCATE' if alone else 'WAL'}")
            self._database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")  # fails at once where it is read-only
                self._database.execute(TABLE)
                self._database.execute(f"{SELECT} LIMIT 0")  # fails where it has other columns
                self._database.execute(SAMPLES)

    def get(self, keys: Iterable[str]) -> dict[str, Columns]:
        """The columns of every known key; unknown keys are left out."""
        known = {}
        wanted = list(dict.fromkeys(keys))
        for part in _parts(wanted):
            with self._errors():
                query = f"{SELECT} WHERE key IN ({_marks(part)})"
                rows = self._database.execute(query, part).fetchall()
            for key, text, checksum in rows:
                if (columns := _columns(key, text, checksum)) is not None:
                    known[key.decode()] = columns
        return known

    def put(self, scores: Mapping[str, Columns]) -> None:
        """Adds scores, key → columns; they are on disk when this returns."""
        rows = []
        for key, columns in scores.items():
            text = encoded(json_text(columns))
            rows.append((key, text, _checksum(key.encode(), text)))
        with self._errors(), self._database:
            self._database.executemany(INSERT, rows)

    def samples_of(self, files: Iterable[str]) -> dict[str, str]:
        """The hashes of decoded samples, by the hash of their file; unknown files are left out."""
        known = {}
        wanted = list(dict.fromkeys(files))
        query = "SELECT file, samples, checksum FROM decoded WHERE file IN"
        for part in _parts(wanted):
            with self._errors():
                rows = self._database.execute(f"{query} ({_marks(part)})", part).fetchall()
            for file, samples, checksum in rows:
                if isinstance(samples, bytes) and checksum == _checksum(file, samples):
                    known[file.decode()] = samples.decode()
        return known

    def put_samples(self, hashes: Mapping[str, str]) -> None:
        """Adds hashes of decoded samples by the hash of their file."""
        rows = [(f, s, _checksum(f.encode(), s.encode())) for f, s in hashes.items()]
        with self._errors(), self._database:
            self._database.executemany(INSERT_SAMPLES, rows)

    def add(self, path: Path) -> int:
        """Adds the undamaged rows of another cache file, which no process may be writing.

        Returns:
            How many scores were added.
        """
        count = 0
        other = ScoreCache(path, alone=True)
        try:
            for rows in other._in_parts(SELECT):
                good = [(k.decode(), t, c) for k, t, c in rows if _columns(k, t, c) is not None]
                count += len(good)
                with self._errors(), self._database:
                    self._database.executemany(INSERT, good)
            for rows in other._in_parts("SELECT file, samples, checksum FROM decoded"):
                known = [
                    (f.decode(), s.decode(), c)
                    for f, s, c in rows
                    if isinstance(f, bytes) and isinstance(s, bytes) and c == _checksum(f, s)
                ]
                with self._errors(), self._database:
                    self._database.executemany(INSERT_SAMPLES, known)
        finally:
            other.close()
        return count

    def _in_parts(self, query: str) -> Iterator[list[tuple[bytes, ...]]]:
        """The rows of a query, `KEYS_AT_ONCE` at a time."""
        with self._errors():
            cursor = self._database.execute(query)
            while rows := cursor.fetchmany(KEYS_AT_ONCE):
                yield rows

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns SQLite's errors into messages that say what the user can do."""
        try:
            yield
        # Of a damaged file even the text of an error need not be UTF-8.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                fault = f"another process has held the score cache for {LOCK_SECONDS} s"
                way_out = "wait for it, or set cache= to another file"
            elif code in NO_ACCESS:
                fault = f"the score cache cannot be opened or written ({reason})"
                way_out = "make it a writable file, or set cache= to another file"
            else:
                fault = f"not a usable score cache ({reason})"
                way_out = "remove it: scores are computed anew"
            raise UserError(f"{self._path}: {fault}; {way_out}") from error


def _parts(wanted: list[str]) -> list[list[str]]:
    return [wanted[i : i + KEYS_AT_ONCE] for i in range(0, len(wanted), KEYS_AT_ONCE)]


def _marks(part: list[str]) -> str:
    return ", ".join("?" * len(part))


def _checksum(key: bytes, text: bytes) -> bytes:
    return hashlib.sha256(key + b"\0" + text).digest()[:8]


def _columns(key: object, text: object, checksum: object) -> Columns | None:
    """The columns of a row, or None where it is damaged."""
    if not isinstance(key, bytes) or not isinstance(text, bytes):
        return None
    if checksum != _checksum(key, text):
        return None
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(columns, dict) or not all(map(_is_value, columns.values())):
        return None
    return columns


def _is_value(value: object) -> bool:
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, int | str | None)

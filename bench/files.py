"""Writes files atomically, hashes them, and keeps append-only logs that survive a kill."""

import ctypes
import errno
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from shutil import copyfile
from typing import Any, BinaryIO

from bench.errors import UserError, shown

# Of Linux's renameat2, which Python does not have.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
DEEPEST = 100  # levels of lists and mappings in what is stored as JSON
LONGEST_NUMBER = 10_000  # bits of an integer: Python converts at most 4300 digits


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; several threads may replace one path.

    It replaces `path` if the block succeeds, and is removed if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders of one file system.

    Returns:
        Whether it was done in one step. Where the system cannot, a reader finds no folder `other`
        for a moment, between two renames.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if hasattr(libc, "renameat2"):
        if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
            return True
        if (code := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
            raise OSError(code, os.strerror(code), str(other))
    aside = one.with_name(f"{one.name}.old")
    other.rename(aside)
    try:
        one.rename(other)
    except OSError:
        aside.rename(other)
        raise
    aside.rename(one)
    return False


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file by a hard link, or a copy where there are no hard links.

    It replaces `target` at once; an interrupted call changes nothing.
    """
    with replacing(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), temporary)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENOSPC:
                raise
            copyfile(source, temporary)


def read_text(path: Path, newline: str | None = None) -> str:
    """Reads a UTF-8 file without its byte order mark; `newline` as in `open`.

    Raises:
        UserError: if it is not UTF-8.
        OSError: if it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    if "\0" in text:  # UTF-16 without a byte order mark, or a damaged file
        raise UserError(f"{path}: not UTF-8 text (it has NUL bytes); save it as UTF-8")
    return text


def encoded(text: str) -> bytes:
    """The text as UTF-8; half a surrogate pair, which UTF-8 cannot encode, as the escape \\udXXX.

    Such halves come from file names that are not UTF-8. JSON has the same escape, so the text that
    is read back equals the text that was written.
    """
    return text.encode("utf-8", "backslashreplace")


@lru_cache
def _encoder(**options: Any) -> json.JSONEncoder:
    """An encoder for JSON; to make one takes as long as to encode a record."""
    return json.JSONEncoder(ensure_ascii=False, allow_nan=False, **options)


def json_text(value: Any, prefix: str = "", **options: Any) -> str:
    """The value as JSON with characters beyond ASCII; `options` as in `json.dumps`.

    Raises:
        UserError: begins with `prefix` and names the key and the value that JSON cannot store.
    """
    try:
        return _encoder(**options).encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{prefix}{_not_json(value)}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file (see `encoded`); an interrupted write changes nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(text))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON.

    Raises:
        UserError: names the key and the value that JSON cannot hold, such as NaN.
    """
    write_text(path, json_text(value, f"{path}: ", indent=2) + "\n")


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, computed once per process unless the file changes.

    A change is detected by the size and the time of modification (in nanoseconds).
    """
    status = path.stat()
    return _sha256(path.absolute(), status.st_mtime_ns, status.st_size)


def joined_sha256(paths: Sequence[Path]) -> str:
    """sha256 of the bytes of several files, one after the other; computed once as `file_sha256`."""
    states = [(path.absolute(), path.stat()) for path in paths]
    return _joined_sha256(tuple((path, s.st_mtime_ns, s.st_size) for path, s in states))


@lru_cache(maxsize=1 << 17)
def _sha256(path: Path, modified: int, size: int) -> str:
    return sha256_of(path)


@lru_cache(maxsize=64)
def _joined_sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def same_file(one: Path, other: Path) -> bool:
    """Whether both exist and are one file, or have the same content."""
    if not (one.is_file() and other.is_file()):
        return False
    return one.samefile(other) or file_sha256(one) == file_sha256(other)


def fingerprint(value: Any) -> str:
    """sha256 of a value that JSON can store; the order of keys does not matter.

    Raises:
        UserError: names the key and the value that JSON cannot hold, such as NaN.
    """
    return hashlib.sha256(encoded(json_text(value, sort_keys=True))).hexdigest()


def are_texts(value: Any) -> bool:
    """Whether a value of parsed JSON is a list of texts."""
    return isinstance(value, list) and set(map(type, value)) <= {str}


def _not_json(value: Any) -> str:
    """The part of the value that JSON cannot store: its dotted path, itself, and what to give."""
    keys = []
    pending = [("", value, 0)]
    while pending:
        path, part, depth = pending.pop()
        label = f"{path} = {shown(part)}" if path else shown(part)
        if depth > DEEPEST:
            return f"{path[:80]}…: nested over {DEEPEST} levels deep, or in itself; make it flatter"
        if isinstance(part, dict):
            keys += [f"{path or 'a mapping'}: key {shown(k)}" for k in part if type(k) is not str]
            inner = [(f"{path}.{k}" if path else f"{k}", v, depth + 1) for k, v in part.items()]
            pending += reversed(inner)
        elif isinstance(part, list | tuple):
            pending += reversed([(f"{path}[{i}]", v, depth + 1) for i, v in enumerate(part)])
        elif isinstance(part, float) and not math.isfinite(part):
            return f"{label}: not a finite number; give a finite one, or null for none"
        elif isinstance(part, int) and part.bit_length() > LONGEST_NUMBER:
            return f"{label}: too long a number; give it as text"
        elif not isinstance(part, str | int | float | None):
            return f"{label}: a {type(part).__name__}; give text, numbers, lists or mappings"
    return f"{keys[0] if keys else shown(value)}: not text; only texts can be keys"


class JsonLog:
    """An append-only JSON Lines file: one record a line, each on disk before the next is written.

    A process that is killed while it writes leaves an incomplete last line. It is not read, and the
    next `append` removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._reader: BinaryIO | None = None

    def read(self) -> list[dict[str, Any]]:
        """Every complete record, oldest first.

        Raises:
            UserError: names the line that is not a record.
        """
        return [record for _, record in self.stream()]

    def stream(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every complete record with where it begins in the file, in bytes; one is in memory.

        Raises:
            UserError: names the line that is not a record.
        """
        if not self.path.exists():
            return
        begins = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and line.strip():
                    yield begins, self._record(number, line)
                begins += len(line)

    def record_at(self, begins: int) -> dict[str, Any]:
        """The record that begins at this byte.

        Raises:
            UserError: if there is none.
        """
        if self._reader is None:
            self._reader = self.path.open("rb")
        self._reader.seek(begins)
        return self._record(begins, self._reader.readline())

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            reason = str(error)
        else:
            if isinstance(record, dict):
                return record
            reason = f"a {type(record).__name__}, not an object"
        raise UserError(
            f"{self.path}:{number}: a damaged record ({reason}); "
            "delete that line; its trial is converted again"
        )

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record and flushes it to disk.

        Raises:
            UserError: names the key and the value that JSON cannot hold, such as NaN.
        """
        self.extend([record])

    def extend(self, records: Sequence[Mapping[str, Any]]) -> list[int]:
        """Adds records; they are on disk when this returns.

        Returns:
            Where in the file each begins, in bytes (see `record_at`).

        Raises:
            UserError: names the key and the value that JSON cannot hold, such as NaN.
        """
        lines = [encoded(json_text(record, f"{self.path}: ") + "\n") for record in records]
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                whole = _whole_lines(self.path)
                if whole < self.path.stat().st_size:
                    os.truncate(self.path, whole)
            self._file = self.path.open("ab")
        first = self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())
        return list(accumulate(map(len, lines[:-1]), initial=first)) if lines else []

    def __enter__(self) -> "JsonLog":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._file, self._reader):
            if file is not None:
                file.close()
        self._file = self._reader = None


def _whole_lines(path: Path) -> int:
    """How many bytes of a file are complete lines; reads no more than its end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - (1 << 16))
            file.seek(begin)
            if (last := file.read(end - begin).rfind(b"\n")) >= 0:
                return begin + last + 1
            end = begin
    return 0


def package_folder(package: str) -> Path | None:
    """The folder of a package, located without importing it; None if it is not installed."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))

"""Files for workers that do not see the run's folder: `executor.files=store`.

The process that drives the run puts each file into the backend's object store, and a call names
those that it needs. A worker writes them to a temporary folder, named by their hashes, and removes
them after the call. What it converts comes back in its answer and is written by the driver.
"""

import base64
import binascii
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.files import file_sha256, replacing
from bench.stages.convert import Conversion
from bench.stages.pool import Work
from bench.stages.sounds import Row, files_of
from bench.stages.worker import BrokenMessage
from bench.trials import Trial

SHARED, STORE = "shared", "store"  # values of `executor.files`
MOST_ITEMS = 8  # trials or rows of a call that carries files
MOST_FILE = 16 << 20  # bytes: 5 minutes at 24 kHz in 16 bits
MOST_KEPT = 128 << 20  # bytes in the object store that no call in flight needs
RECEIVED = "vcbench-received-"  # folders of workers begin so; each is locked while its worker lives


class FileStore:
    """The files of a run in the object store of a backend, those that were used last.

    Args:
        backend: has `put`.
        folder: of the run.
    """

    def __init__(self, backend: Any, folder: Path) -> None:
        self._backend = backend
        self._folder = folder
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()  # hash → handle, bytes
        self._bytes = 0

    def of_trials(self, work: Work, trials: Sequence[Trial]) -> Work:
        """The work with the recordings that systems read.

        Raises:
            UserError: if a file is larger than `MOST_FILE`.
        """
        used = [u for t in trials for u in (t.source, *t.references, t.target) if u is not None]
        return self._with(work, {str(u.path): u.path for u in used})

    def of_rows(self, work: Work, rows: Sequence[Row], reads: frozenset[str]) -> Work:
        """The work with the recordings and sounds that a judge with these `reads` reads.

        Raises:
            UserError: if a file is larger than `MOST_FILE`.
        """
        files: dict[str, Path] = {}
        for row in rows:
            for name, paths in files_of(row, self._folder, reads).items():
                is_sound = name == "converted"
                files |= {row.conversion.wav if is_sound else path: Path(path) for path in paths}
        return self._with(work, files)

    def _with(self, work: Work, files: Mapping[str, Path]) -> Work:
        """The work with files, by the names that the worker knows them by."""
        names, handles = [], []
        for name, path in files.items():
            digest = file_sha256(path)
            names.append([name, digest])
            handles.append(self._handle(path, digest))
        while self._bytes > MOST_KEPT:
            _, (_, size) = self._kept.popitem(last=False)
            self._bytes -= size
        return replace(work, arguments=(*work.arguments, names), contents=tuple(handles))

    def _handle(self, path: Path, digest: str) -> Any:
        if digest not in self._kept:
            check_size(path)
            content = path.read_bytes()
            self._kept[digest] = self._backend.put(content), len(content)
            self._bytes += len(content)
        self._kept.move_to_end(digest)
        return self._kept[digest][0]

    def write(self, value: Mapping[str, Any], records: Sequence[Conversion]) -> None:
        """Writes the converted sounds in an untrusted answer into the run's folder.

        Args:
            value: of `convert`; "sounds" has the content of each file in base64 by its sha256.
            records: those of the answer, checked.

        Raises:
            BrokenMessage: unless there is exactly the sound of each record.
        """
        sounds = value.get("sounds")
        wanted = {record.wav_sha256: record.wav for record in records if record.wav}
        if not isinstance(sounds, dict) or set(sounds) != set(wanted):
            raise BrokenMessage("other sounds than it has converted")
        contents = {}
        for digest, text in sounds.items():
            try:
                contents[digest] = base64.b64decode(text, validate=True)
            except (TypeError, ValueError, binascii.Error) as error:
                raise BrokenMessage("a sound that is no base64") from error
            if hashlib.sha256(contents[digest]).hexdigest() != digest:
                raise BrokenMessage(f"another sound for {wanted[digest]}")
        for record in records:
            if record.wav:
                with replacing(self._folder / record.wav) as temporary:
                    temporary.write_bytes(contents[record.wav_sha256])


class ReceivedFiles:
    """The folder of a worker that does not see the run's.

    This process holds a lock on it, which ends with the process: `remove_abandoned` then removes
    the folder. Where the file system has no locks, only `close` does.

    Attributes:
        folder: in the temporary folder of this machine.
    """

    def __init__(self) -> None:
        remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix="vcbench-new-"))
        self._lock: int | None = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Only now, so that no other process can find it without its lock.
            name = self.folder.name.replace("vcbench-new-", RECEIVED)
            self.folder = self.folder.rename(self.folder.with_name(name))

    @contextmanager
    def received(
        self, files: Sequence[Sequence[str]], contents: Sequence[bytes]
    ) -> Iterator[dict[str, Path]]:
        """Writes files for the time of a block; yields where each is, by its name.

        Args:
            files: the name and the sha256 of each.
            contents: of these files.

        Raises:
            UserError: if a content has another hash.
        """
        local: dict[str, Path] = {}
        try:
            for (name, digest), content in zip(files, contents, strict=True):
                if hashlib.sha256(content).hexdigest() != digest:
                    raise UserError(f"{name}: it was changed while the run read it; run it again")
                # By its hash, so that what is cached by path stays right.
                local[name] = self.folder / f"{digest}{Path(name).suffix}"
                local[name].write_bytes(content)
            yield local
        finally:
            for path in local.values():
                path.unlink(missing_ok=True)

    def taken(self, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Removes the sounds of records from the folder.

        Returns:
            See `FileStore.write`.

        Raises:
            UserError: if one is larger than `MOST_FILE`.
        """
        sounds = {}
        for record in records:
            if record["wav"]:
                path = self.folder / record["wav"]
                check_size(path)
                sounds[record["wav_sha256"]] = base64.b64encode(path.read_bytes()).decode()
                path.unlink()
        return sounds

    def close(self) -> None:
        """Removes the folder."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def remove_abandoned() -> None:
    """Removes the folders of this user's workers on this machine that have ended without `close`.

    A lock shows that a worker lives, also in another container or under a process id that was used
    again.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{RECEIVED}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # removed meanwhile, of another user, or a link
            continue
        with suppress(OSError):  # locked: its worker lives
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def check_size(path: Path) -> None:
    """Raises UserError if a file is too large for a message."""
    size = path.stat().st_size
    if size > MOST_FILE:
        raise UserError(
            f"{path}: {size >> 20} MiB; executor.files=store carries files of {MOST_FILE >> 20} "
            "MiB at most; cut it, or put outputs= and the recordings on a shared folder and take "
            "executor.files=shared"
        )

"""Downloads of corpora: resumed where they stopped, checked, unpacked safely."""

import errno
import tarfile
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bench.errors import UserError, choose_one_of
from bench.files import sha256_of
from suites.corpora.catalogue import CORPORA, Archive, Corpus

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without an answer


def fetch(what: str, to: Path, console: Console) -> list[Path]:
    """Downloads and unpacks a corpus or one part of it.

    What was downloaded half stays and is gone on with; what is unpacked already is left alone.

    Args:
        what: "librispeech" or "librispeech/test-clean".
        to: the folder of all corpora.
        console: for the progress.

    Returns:
        The corpus's folder.

    Raises:
        UserError: names what to download by hand, how large it is and where to put it, where there
            is no connection; or what is wrong with the download.
    """
    name, _, part = what.partition("/")
    if name not in CORPORA:
        raise UserError(f"unknown corpus {name!r}; {choose_one_of(name, CORPORA)}")
    corpus = CORPORA[name]
    if not corpus.archives:
        raise UserError(
            f"{name} cannot be fetched ({corpus.licence}): get it from {corpus.home} and unpack it "
            f"to {to / corpus.folder}"
        )
    if part and part not in corpus.archives:
        raise UserError(f"unknown part {part!r} of {name}; {choose_one_of(part, corpus.archives)}")
    for own in [part] if part else corpus.archives:
        _fetch(f"{name}/{own}", corpus, corpus.archives[own], own, to, console)
    return [to / corpus.folder]


def _fetch(
    what: str, corpus: Corpus, archive: Archive, part: str, to: Path, console: Console
) -> None:
    folder = to / corpus.folder
    mark = folder / f".{part}.fetched"
    if mark.is_file():
        console.print(f"{what} is in {folder} already", highlight=False)
        return
    file = to / f"{what.replace('/', '-')}{''.join(Path(archive.url).suffixes[-2:])}"
    if file.suffix == ".zip":
        file = file.with_name(f"{what.replace('/', '-')}.zip")
    try:
        download(archive, file, console)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        if error_of_disk(error):
            raise
        reason = getattr(error, "reason", error)
        check = f" (sha256 {archive.sha256})" if archive.sha256 else ""
        raise UserError(
            f"{what}: cannot download ({reason}); get {archive.url}, {size(archive.bytes)}{check}, "
            f"and unpack it so that {folder} holds it; or run this again where there is a "
            "connection: it goes on where it stopped"
        ) from error
    console.print(f"unpacking {file}", highlight=False)
    unpack(file, folder if corpus.below else to)
    if not folder.is_dir():
        raise UserError(f"{file} holds no folder {corpus.folder}; unpack it to {folder} by hand")
    mark.touch()
    file.unlink()


def download(archive: Archive, file: Path, console: Console) -> None:
    """Downloads to `file`, which appears only when it is whole and its hash is right.

    Raises:
        UserError: if the hash is wrong; the download is removed.
        OSError: if there is no connection; what has come is kept.
    """
    if file.is_file():
        return
    if not archive.url.startswith(("https://", "http://")):
        raise UserError(f"{archive.url}: only http and https addresses are fetched")
    part = file.with_name(f"{file.name}.part")
    file.parent.mkdir(parents=True, exist_ok=True)
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url)  # noqa: S310
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:  # all of it is here already
            raise
        answer = None
    if answer is not None:
        with answer:
            if answer.status != 206:  # the server begins anew
                done = 0
            length = int(answer.headers.get("Content-Length") or 0)
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            with (
                Progress(*columns, console=console) as progress,
                part.open("ab" if done else "wb") as target,
            ):
                total = length + done if length else archive.bytes
                task = progress.add_task(file.name, total=total, completed=done)
                while chunk := answer.read(CHUNK):
                    target.write(chunk)
                    progress.advance(task, len(chunk))
            if length and part.stat().st_size < length + done:
                raise HTTPException(
                    f"the connection broke off after {size(part.stat().st_size)} of "
                    f"{size(length + done)}"
                )
    if archive.sha256 and (actual := sha256_of(part)) != archive.sha256:
        part.unlink()
        raise UserError(
            f"{archive.url}: what came has sha256 {actual[:12]}…, not the published "
            f"{archive.sha256[:12]}…; it was removed, run this again"
        )
    part.replace(file)


def unpack(file: Path, to: Path) -> None:
    """Unpacks a tar or zip archive; nothing in it reaches outside of `to`.

    Raises:
        UserError: if the archive is broken or tries to.
    """
    to.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if not (to / member.filename).resolve().is_relative_to(to.resolve()):
                        raise UserError(f"{file}: {member.filename!r} leaves the folder")
                archive.extractall(to)  # noqa: S202
        else:
            with tarfile.open(file) as tar:
                tar.extractall(to, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{file}: cannot be unpacked ({error}); remove it and fetch again"
        ) from error


def error_of_disk(error: Exception) -> bool:
    """Whether it is about this machine's files, not about the network."""
    if not isinstance(error, OSError) or isinstance(error, urllib.error.URLError):
        return False
    return error.errno == errno.ENOSPC or bool(error.filename)


def size(count: int | None) -> str:
    """Bytes as people say them."""
    if count is None:
        return "size unknown"
    for unit, worth in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= worth:
            return f"{count / worth:.3g} {unit}"
    return f"{count} bytes"

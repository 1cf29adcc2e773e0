"""Downloads files over HTTP: resumed, with progress, checked, and only ever complete at their path.

This is the only code of the project that opens a web address. Files of the Hugging Face hub are
downloaded by its client (`bench.weights.find.HubFiles`).
"""

import errno
import os
import urllib.error
import urllib.request
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

from bench.errors import UserError
from bench.files import sha256_of

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer
NOT_SATISFIABLE = 416  # HTTP status: nothing is left to send
PARTIAL = 206  # HTTP status: the rest of the file


class ConnectionFailed(UserError):
    """There is no connection, or it broke; what was downloaded so far is kept.

    Attributes:
        reason: what the network says, in a few words.
    """

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"{url}: no download ({reason}); run this again where there is a connection: "
            "it resumes where it stopped"
        )
        self.reason = reason


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    console: Console | None = None,
) -> None:
    """Downloads a file to `path`, where it appears only when it is complete and checked.

    Until then it is in PATH.part in the same folder. If that file exists, the download resumes
    after it. If `path` exists, nothing is done.

    Args:
        url: its address: https, or http where `sha256` is known.
        path: where to store it; missing folders are created.
        sha256: its hash; None where no hash is published.
        size: in bytes, for the progress bar where the server does not say.
        console: for the progress; None for stderr.

    Raises:
        ConnectionFailed: if there is no connection or it breaks.
        UserError: if the address cannot be used, or the file has another hash; it is removed.
        OSError: if the disk is full or the file cannot be written.
    """
    if path.is_file():
        return
    scheme = url.partition("://")[0]
    if scheme != "https" and not (scheme == "http" and sha256):
        raise UserError(
            f"{url}: only https:// addresses are fetched, and http:// ones with a known sha256"
        )
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _receive(url, part, size, console or Console(stderr=True))
    except (HTTPException, OSError) as error:
        if _is_about_the_disk(error):
            raise
        raise ConnectionFailed(url, getattr(error, "reason", None) or error) from error
    if sha256 and (actual := sha256_of(part)) != sha256:
        part.unlink()
        raise UserError(
            f"{url}: the downloaded file has sha256 {actual[:12]}…, not the published "
            f"{sha256[:12]}…; it was removed, run this again"
        )
    part.replace(path)


def _receive(url: str, part: Path, size: int | None, console: Console) -> None:
    """Appends to `part` what it lacks of the file."""
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url)  # noqa: S310 (the scheme is checked)
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == NOT_SATISFIABLE and done:  # all of it is here already
            return
        raise
    with answer:
        if answer.status != PARTIAL:  # the server sends it from the beginning
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
            total = length + done if length else size
            task = progress.add_task(part.stem, total=total, completed=done)
            while chunk := answer.read(CHUNK):
                target.write(chunk)
                progress.advance(task, len(chunk))
            target.flush()
            os.fsync(target.fileno())
        if length and part.stat().st_size < length + done:
            raise HTTPException(
                f"the connection broke off after {size_in_words(part.stat().st_size)} of "
                f"{size_in_words(length + done)}"
            )


def _is_about_the_disk(error: Exception) -> bool:
    """Whether the error is about this machine's files, not about the network."""
    if not isinstance(error, OSError) or isinstance(error, urllib.error.URLError):
        return False
    return error.errno == errno.ENOSPC or bool(error.filename)


def offline() -> bool:
    """Whether the user keeps every tool off the network by HF_HUB_OFFLINE."""
    return os.getenv("HF_HUB_OFFLINE", "0") not in ("", "0")


def size_in_words(count: int | None) -> str:
    """A number of bytes for a reader: "346 MB"; "size unknown" for None."""
    if count is None:
        return "size unknown"
    for unit, bytes_of_unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_of_unit:
            return f"{count / bytes_of_unit:.3g} {unit}"
    return f"{count} bytes"

"""Downloads corpora and unpacks them safely."""

import tarfile
import zipfile
from pathlib import Path

from rich.console import Console

from bench.errors import UserError, choose_one_of
from bench.weights.download import ConnectionFailed, download, size_in_words
from suites.corpora.catalogue import DOWNLOADS, CorpusDownload


def fetch(what: str, to: Path, console: Console) -> list[Path]:
    """Downloads and unpacks a corpus or one part of it.

    Partial downloads are resumed; archives that are already unpacked are skipped.

    Args:
        what: "librispeech" or "librispeech/test-clean".
        to: the folder of all corpora.
        console: for the progress.

    Returns:
        The corpus's folder.

    Raises:
        UserError: if there is no connection, with address, size and folder for a download by
            hand; or if the download is damaged.
    """
    name, _, part = what.partition("/")
    if name not in DOWNLOADS:
        raise UserError(f"unknown corpus {name!r}; {choose_one_of(name, DOWNLOADS)}")
    wanted = DOWNLOADS[name]
    if not wanted.archives:
        raise UserError(
            f"{name} cannot be fetched ({wanted.corpus.licence}): get it from "
            f"{wanted.corpus.home} and unpack it to {to / wanted.folder}"
        )
    if part and part not in wanted.archives:
        raise UserError(f"unknown part {part!r} of {name}; {choose_one_of(part, wanted.archives)}")
    for archive_name in [part] if part else wanted.archives:
        _fetch(name, wanted, archive_name, to, console)
    return [to / wanted.folder]


def _fetch(name: str, wanted: CorpusDownload, part: str, to: Path, console: Console) -> None:
    archive = wanted.archives[part]
    folder = to / wanted.folder
    mark = folder / f".{part}.fetched"
    if mark.is_file():
        console.print(f"{name}/{part} is in {folder} already", highlight=False)
        return
    ending = ".zip" if archive.url.endswith(".zip") else "".join(Path(archive.url).suffixes[-2:])
    file = to / f"{name}-{part}{ending}"
    try:
        download(
            archive.url, file, sha256=archive.sha256 or None, size=archive.bytes, console=console
        )
    except ConnectionFailed as error:
        check = f" (sha256 {archive.sha256})" if archive.sha256 else ""
        raise UserError(
            f"{name}/{part}: cannot download ({error.reason}); get {archive.url}, "
            f"{size_in_words(archive.bytes)}{check}, and unpack it so that {folder} holds it; or "
            "run this again where there is a connection: it resumes where it stopped"
        ) from error
    console.print(f"unpacking {file}", highlight=False)
    unpack(file, folder if wanted.unpack_inside else to)
    if not folder.is_dir():
        raise UserError(f"{file} holds no folder {wanted.folder}; unpack it to {folder} by hand")
    mark.touch()
    file.unlink()


def unpack(file: Path, to: Path) -> None:
    """Unpacks a tar or zip archive; no file is written outside of `to`.

    Raises:
        UserError: if the archive is damaged, or names a file outside of `to`.
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

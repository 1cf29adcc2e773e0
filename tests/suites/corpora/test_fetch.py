"""Corpora from a local server: downloaded, resumed, unpacked, refused."""

import hashlib
import io
import socket
import tarfile
import zipfile

import pytest
from rich.console import Console

from bench.errors import UserError
from bench.validity.corpora import PublicCorpus, public_corpus
from suites.corpora import catalogue, fetch
from suites.corpora.catalogue import Archive, CorpusDownload
from tests.support.file_server import serving

CONSOLE = Console(quiet=True)
LIBRIX = PublicCorpus("X", licence="CC BY 4.0", home="https://example.org")


def tar_of(names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
    return data.getvalue()


TAR = tar_of(["LibriX/test-clean/1/2/1-2-0000.flac", "LibriX/SPEAKERS.TXT"])


@pytest.fixture
def server():
    with serving({"/x.tar.gz": TAR}) as running:
        yield running


@pytest.fixture
def corpus(server, monkeypatch):
    archive = Archive(f"{server.address}/x.tar.gz", len(TAR), hashlib.sha256(TAR).hexdigest())
    known = CorpusDownload(LIBRIX, "LibriX", {"test-clean": archive})
    monkeypatch.setattr(fetch, "DOWNLOADS", {"librix": known})
    return known


def test_a_corpus_is_downloaded_checked_unpacked_and_then_left_alone(corpus, server, tmp_path):
    assert fetch.fetch("librix", tmp_path, CONSOLE) == [tmp_path / "LibriX"]
    assert (tmp_path / "LibriX" / "test-clean/1/2/1-2-0000.flac").read_bytes() == b"hello"
    assert not list(tmp_path.glob("*.tar.gz*"))
    fetch.fetch("librix/test-clean", tmp_path, CONSOLE)
    assert server.requests == [None]


def test_a_broken_download_resumes(corpus, server, tmp_path):
    server.breaks_after = 50
    with pytest.raises(UserError, match=r"resumes where it stopped"):
        fetch.fetch("librix", tmp_path, CONSOLE)
    part = tmp_path / "librix-test-clean.tar.gz.part"
    assert part.read_bytes() == TAR[:50]
    server.breaks_after = None
    fetch.fetch("librix", tmp_path, CONSOLE)
    assert server.requests == [None, "bytes=50-"]
    assert (tmp_path / "LibriX" / "SPEAKERS.TXT").is_file()


def test_offline_it_says_what_to_get_how_large_and_where_to_put_it(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    archive = Archive(f"http://127.0.0.1:{port}/x.tar.gz", 1230670113, "ab" * 32)
    known = CorpusDownload(LIBRIX, "LibriX", {"test-clean": archive})
    monkeypatch.setattr(fetch, "DOWNLOADS", {"librix": known})
    with pytest.raises(UserError) as caught:
        fetch.fetch("librix/test-clean", tmp_path, CONSOLE)
    for part in (archive.url, "1.23 GB", "ab" * 32, str(tmp_path / "LibriX")):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("librispech", "did you mean 'librispeech'"),
        ("librispeech/test-cleen", "did you mean 'test-clean'"),
        ("esd", "cannot be fetched .*hltsingapore"),
    ],
)
def test_what_cannot_be_fetched_is_named(what, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fetch.fetch(what, tmp_path, CONSOLE)


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tar_of(["../outside.txt"]))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../outside.txt", "hello")
    for name in ("a.tar.gz", "a.zip"):
        with pytest.raises(UserError):
            fetch.unpack(tmp_path / name, tmp_path / "to")
    assert not (tmp_path / "outside.txt").exists()


def test_a_torn_archive_is_named(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(TAR[:60])
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch.unpack(tmp_path / "a.tar.gz", tmp_path / "to")


def test_every_corpus_with_a_special_reader_is_in_the_catalogue():
    from suites.corpora.layouts import READERS

    assert set(catalogue.DOWNLOADS) == set(READERS) - {"folder", "kaldi", "lhotse"}
    for name, known in catalogue.DOWNLOADS.items():
        assert known.corpus is public_corpus(name)
        assert known.corpus.licence
        assert known.corpus.home.startswith("https://")
        for archive in known.archives.values():
            assert archive.url.startswith("https://")
            assert len(archive.sha256) in (0, 64)

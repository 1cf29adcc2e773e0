"""Downloads from a server of our own: whole, resumed, broken, wrong, absent."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile

import pytest
from rich.console import Console

from bench.errors import UserError
from suites.corpora import catalogue, fetch
from suites.corpora.catalogue import Archive, Corpus

CONSOLE = Console(quiet=True)


def tar_of(names):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
    return data.getvalue()


TAR = tar_of(["LibriX/test-clean/1/2/1-2-0000.flac", "LibriX/SPEAKERS.TXT"])


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `files`; knows ranges unless told not to; can break off after some bytes."""

    def do_GET(self):
        server = self.server
        data = server.files[self.path]
        asked = self.headers.get("Range")
        server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and server.ranges:
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            start = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + server.breaks_after if server.breaks_after else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files = {"/x.tar.gz": TAR}
        running.ranges, running.breaks_after, running.asked = True, None, []
        running.address = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def corpus(server, monkeypatch):
    archive = Archive(f"{server.address}/x.tar.gz", len(TAR), hashlib.sha256(TAR).hexdigest())
    known = Corpus("https://example.org", "CC BY 4.0", "LibriX", {"test-clean": archive})
    monkeypatch.setattr(fetch, "CORPORA", {"librix": known})
    return known


def test_a_corpus_is_downloaded_checked_unpacked_and_then_left_alone(corpus, server, tmp_path):
    assert fetch.fetch("librix", tmp_path, CONSOLE) == [tmp_path / "LibriX"]
    assert (tmp_path / "LibriX" / "test-clean/1/2/1-2-0000.flac").read_bytes() == b"hello"
    assert not list(tmp_path.glob("*.tar.gz*"))
    fetch.fetch("librix/test-clean", tmp_path, CONSOLE)
    assert server.asked == [None]


def test_a_broken_download_goes_on_where_it_stopped(corpus, server, tmp_path):
    server.breaks_after = 50
    with pytest.raises(UserError, match=r"goes on where it stopped"):
        fetch.fetch("librix", tmp_path, CONSOLE)
    part = tmp_path / "librix-test-clean.tar.gz.part"
    assert part.read_bytes() == TAR[:50]
    server.breaks_after = None
    fetch.fetch("librix", tmp_path, CONSOLE)
    assert server.asked == [None, "bytes=50-"]
    assert (tmp_path / "LibriX" / "SPEAKERS.TXT").is_file()


def test_a_server_without_ranges_is_read_from_the_beginning(corpus, server, tmp_path):
    (tmp_path / "librix-test-clean.tar.gz.part").write_bytes(TAR[:50])
    server.ranges = False
    fetch.fetch("librix", tmp_path, CONSOLE)
    assert (tmp_path / "LibriX" / "SPEAKERS.TXT").is_file()


def test_a_download_that_was_whole_already_is_only_checked(corpus, server, tmp_path):
    (tmp_path / "librix-test-clean.tar.gz.part").write_bytes(TAR)
    fetch.fetch("librix", tmp_path, CONSOLE)
    assert (tmp_path / "LibriX" / "SPEAKERS.TXT").is_file()


def test_another_file_than_published_is_removed_and_named(corpus, server, tmp_path):
    server.files["/x.tar.gz"] = tar_of(["LibriX/other"])
    with pytest.raises(UserError, match=r"sha256 .*not the published"):
        fetch.fetch("librix", tmp_path, CONSOLE)
    assert not list(tmp_path.iterdir())


def test_offline_it_says_what_to_get_how_large_and_where_to_put_it(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    archive = Archive(f"http://127.0.0.1:{port}/x.tar.gz", 1230670113, "ab" * 32)
    known = Corpus("https://example.org", "CC BY 4.0", "LibriX", {"test-clean": archive})
    monkeypatch.setattr(fetch, "CORPORA", {"librix": known})
    with pytest.raises(UserError) as caught:
        fetch.fetch("librix/test-clean", tmp_path, CONSOLE)
    for part in (archive.url, "1.23 GB", "ab" * 32, str(tmp_path / "LibriX")):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("librispech", "did you mean 'librispeech'"),
        ("librispeech/test-cleen", "did you mean 'test-clean'"),
        ("esd", "cannot be fetched .*hltsingapore"),
    ],
)
def test_what_cannot_be_fetched_is_said(what, said, tmp_path):
    with pytest.raises(UserError, match=said):
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


def test_only_web_addresses_are_fetched(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    with pytest.raises(UserError, match="only http"):
        fetch.download(Archive(secret.as_uri()), tmp_path / "out", CONSOLE)


def test_every_corpus_with_a_reader_of_its_own_is_in_the_catalogue():
    from suites.corpora.layouts import READERS

    assert set(catalogue.CORPORA) == set(READERS) - {"folder", "kaldi", "lhotse"}
    for known in catalogue.CORPORA.values():
        for archive in known.archives.values():
            assert archive.url.startswith("https://")
            assert len(archive.sha256) in (0, 64)


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "size unknown"), (999, "999 bytes"), (346 * 10**6, "346 MB"), (11 * 10**9, "11 GB")],
)
def test_sizes_as_people_say_them(count, text):
    assert fetch.size(count) == text

"""Downloads from a local server: complete, resumed, broken off, wrong, impossible."""

import errno
import hashlib
import io
import socket

import pytest
from rich.console import Console

from bench.errors import UserError
from bench.weights import download as module
from bench.weights.download import ConnectionFailed, download, size_in_words
from tests.support.file_server import serving

DATA = bytes(range(256)) * 20
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with serving({"/w.pt": DATA}) as running:
        yield running


def fetch(server, path, sha256=SHA256, **more):
    download(f"{server.address}/w.pt", path, sha256=sha256, **more)


def test_a_file_appears_complete_in_new_folders_and_is_not_downloaded_twice(server, tmp_path):
    path = tmp_path / "a" / "b" / "w.pt"
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == DATA
    assert server.requests == [None]
    assert list(path.parent.iterdir()) == [path]


def test_progress_is_printed_to_stderr_or_the_console_that_is_given(server, tmp_path, capsys):
    fetch(server, tmp_path / "w.pt")
    printed = capsys.readouterr()
    assert "w.pt" in printed.err
    assert printed.out == ""
    text = io.StringIO()
    fetch(server, tmp_path / "v.pt", console=Console(file=text))
    assert "v.pt" in text.getvalue()
    assert capsys.readouterr().err == ""


def test_a_broken_download_resumes(server, tmp_path):
    server.breaks_after = 50
    with pytest.raises(ConnectionFailed, match=r"broke off after 50 bytes of 5\.12 kB.*resumes"):
        fetch(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt.part").read_bytes() == DATA[:50]
    assert not (tmp_path / "w.pt").exists()
    server.breaks_after = None
    fetch(server, tmp_path / "w.pt")
    assert server.requests == [None, "bytes=50-"]
    assert (tmp_path / "w.pt").read_bytes() == DATA


def test_a_server_without_ranges_is_read_from_the_beginning(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(DATA[:50])
    server.ranges = False
    fetch(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == DATA


def test_a_download_that_was_complete_is_only_checked(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(DATA)
    fetch(server, tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == DATA


@pytest.mark.parametrize("part", [None, b"x" * 50, b"x" * 9000])
def test_another_file_than_the_published_one_is_removed(part, server, tmp_path):
    if part:
        (tmp_path / "w.pt.part").write_bytes(part)
    else:
        server.files["/w.pt"] = b"other"
    with pytest.raises(UserError, match=r"sha256 .*not the published .*; it was removed") as error:
        fetch(server, tmp_path / "w.pt")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_connection_and_a_missing_file_are_one_line(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/w.pt"
    for address, reason in ((url, "refused"), (f"{server.address}/gone", "Not Found")):
        with pytest.raises(ConnectionFailed, match=reason) as error:
            download(address, tmp_path / "w.pt", sha256=SHA256)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "w.pt").exists()


def test_a_full_disk_is_not_called_a_connection_error(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        fetch(server, tmp_path / "w.pt")
    assert error.value.errno == errno.ENOSPC


def test_only_web_addresses_are_fetched_and_http_only_with_a_hash(tmp_path):
    (tmp_path / "secret").write_text("x")
    for url, sha256 in (
        ((tmp_path / "secret").as_uri(), SHA256),
        ("ftp://example.org/w.pt", SHA256),
        ("http://example.org/w.pt", None),
    ):
        with pytest.raises(UserError, match="only https:// addresses are fetched"):
            download(url, tmp_path / "out", sha256=sha256)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "size unknown"), (999, "999 bytes"), (346 * 10**6, "346 MB"), (11 * 10**9, "11 GB")],
)
def test_sizes_in_words(count, text):
    assert size_in_words(count) == text

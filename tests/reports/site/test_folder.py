"""The folder of a site is replaced whole, and no other folder ever is."""

import subprocess
import sys

import pytest

from bench.errors import UserError
from bench.files import exchange
from reports.site.folder import MARKER, replaced_folder


def write(out, text="one"):
    with replaced_folder(out) as folder:
        (folder / "index.html").write_text(text)
        (folder / "runs").mkdir()
        (folder / "runs" / f"{text}.html").write_text(text)


def files(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_a_second_site_replaces_the_first_whole(tmp_path):
    out = tmp_path / "site"
    write(out, "one")
    write(out, "two")
    assert (out / "index.html").read_text() == "two"
    assert files(out) == ["index.html", "runs/two.html", MARKER]
    assert [p.name for p in tmp_path.iterdir()] == ["site"]  # nothing temporary is left
    (tmp_path / "other").mkdir()
    assert out.stat().st_mode == (tmp_path / "other").stat().st_mode  # others may read it


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "site").mkdir()
    write(tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()


def test_an_interrupted_site_changes_nothing(tmp_path):
    out = tmp_path / "site"
    write(out)

    def killed():
        with replaced_folder(out) as folder:
            (folder / "index.html").write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert (out / "index.html").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "mine", "notes.txt was not written by vcbench site"),
        (".git/config", "mine", ".git/config was not written by vcbench site"),
        ("index.html", "mine", "index.html was changed since vcbench site wrote it"),
        (MARKER, "{}", "holds files that vcbench site did not write"),
    ],
)
def test_what_a_user_added_or_changed_is_not_lost(tmp_path, name, text, message):
    out = tmp_path / "site"
    write(out)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text(text)
    with pytest.raises(UserError, match=message):
        write(out, "two")
    assert (out / name).read_text() == text


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="did not write"):
        write(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "file")


READ = """
import sys
from pathlib import Path
index = Path(sys.argv[1]) / "index.html"
print("ready", flush=True)
seen = set()
while len(seen) < 2:
    seen.add(index.read_bytes())  # fails if the folder is ever missing
"""


@pytest.fixture
def pair(tmp_path):
    """Two folders with an index.html of one character: 1 and 2."""
    folders = tmp_path / "one", tmp_path / "two"
    for folder, text in zip(folders, "12", strict=True):
        folder.mkdir()
        (folder / "index.html").write_text(text)
    return folders


def test_a_reader_never_finds_the_folder_missing(pair):
    if not exchange(*pair):
        pytest.skip("this system cannot exchange two folders in one step")
    command = [sys.executable, "-c", READ, str(pair[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"ready\n"
        while reader.poll() is None:
            exchange(*pair)
    assert reader.returncode == 0


def test_folders_are_exchanged_without_the_systems_help(pair, monkeypatch):
    monkeypatch.setattr("bench.files.ctypes.CDLL", lambda *_, **__: object())
    assert exchange(*pair) is False
    assert [(folder / "index.html").read_text() for folder in pair] == ["2", "1"]
    assert len(list(pair[0].parent.iterdir())) == 2

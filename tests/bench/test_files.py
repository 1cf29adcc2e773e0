"""Atomic writes, JSON, hashes and logs that survive a kill."""

import errno
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.files import JsonLog, fingerprint, read_text, replacing, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_with_the_files_name(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bench.files.os.fsync", full)
    waveform = Waveform(torch.ones(8), 16000)
    with pytest.raises(OSError, match="No space left") as caught:
        waveform.save(tmp_path / "a.wav")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1 << 15, (1 << 16) - 12, 1 << 16, 200_000])
def test_a_line_torn_by_a_kill_counts_as_never_written(tmp_path, size):
    path = tmp_path / "log.jsonl"
    with JsonLog(path) as log:
        log.append({"n": 1})
        log.append({"n": 2})
    path.write_bytes(path.read_bytes() + b'{"n": 3, "te' + b"x" * size)
    assert [r["n"] for r in JsonLog(path).read()] == [1, 2]
    with JsonLog(path) as log:
        log.append({"n": 4})
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2, 4]


@pytest.mark.parametrize(
    "line",
    [b'{"n": 2, "te', b"\0" * 12, b"[2]", b"2", b"null", b'{"n": \xff}', b"[" * 100_000],
    ids=["cut", "zeroed", "list", "number", "null", "not UTF-8", "nested"],
)
def test_a_damaged_line_of_a_log_is_named_with_the_way_out(line, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n\n' + line + b'\n{"n": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:3: .*delete that line") as caught:
        JsonLog(path).read()
    assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes().replace(line + b"\n", b""))
    assert [r["n"] for r in JsonLog(path).read()] == [1, 3]


def test_a_log_of_nul_bytes_without_an_end_is_empty(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n' + b"\0" * 4096)
    assert JsonLog(path).read() == [{"n": 1}]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def circle():
    value = {}
    value["me"] = value
    return value


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"model": {"gain": float("nan")}}, r"model\.gain = nan: not a finite number"),
        ({"gain": float("inf")}, r"gain = inf: not a finite number"),
        ({"lengths": [1.0, -float("inf")]}, r"lengths\[1\] = -inf: not a finite number"),
        ({"x": np.float32(1.5)}, r"x = .*1\.5.*: a float32; give"),
        ({"x": {1, 2}}, r"x = \{1, 2\}: a set; give"),
        ({"x": b"raw"}, r"x = b'raw': a bytes; give"),
        ({"x": {(1, 2): 3}}, r"x: key \(1, 2\): not text"),
        ({"x": 10**5000}, r"x = a int: too long a number"),
        ({"x": nested(100_000)}, r"x\[0\].*nested over 100 levels"),
        (circle(), r"me\.me.*nested over 100 levels"),
        (float("nan"), r"^nan: not a finite number"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
@pytest.mark.parametrize(
    "write",
    [
        lambda _, value: fingerprint(value),
        write_json,
        lambda path, value: JsonLog(path).append(value),
    ],
    ids=["fingerprint", "json", "log"],
)
def test_what_json_cannot_hold_is_named_by_key_and_value(value, named, write, tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError) as caught:
        write(path, value)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert re.search(named, message.removeprefix(f"{path}: "))
    assert not path.exists()


def test_half_a_surrogate_pair_is_written_and_comes_back(tmp_path):
    """As in Python's form of file names that are not UTF-8."""
    value = {"folder": "caf\udce9", "text": r"\udce9"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with JsonLog(tmp_path / "log.jsonl") as log:
        log.append(value)
    assert JsonLog(tmp_path / "log.jsonl").read() == [value]
    assert fingerprint(value) != fingerprint({**value, "folder": r"caf\udce9"})
    write_text(tmp_path / "a.html", value["folder"])
    assert (tmp_path / "a.html").read_text() == r"caf\udce9"


def test_a_text_file_is_utf8_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "list.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("é,1\r\n", encoding=encoding, newline="")
        assert read_text(path) == "é,1\n"
        assert read_text(path, newline="") == "é,1\r\n"
    for encoding in ("utf-16", "utf-16-le", "latin-1", "utf-32"):
        path.write_text("é,1", encoding=encoding)
        with pytest.raises(UserError, match=r"list\.csv: not UTF-8 text .*; save it as UTF-8"):
            read_text(path)


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})
    with pytest.raises(UserError, match="key 1: not text"):  # they have no order
        fingerprint({1: 2, "b": 3})


def test_threads_that_replace_one_file_do_not_disturb_one_another(tmp_path):
    both = threading.Barrier(2)

    def write(text: str) -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text(text)
            both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one", "two"]))
    assert (tmp_path / "a").read_text() in ("one", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

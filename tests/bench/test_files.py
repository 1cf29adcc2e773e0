import errno
import json

import pytest
import torch

from bench.audio import Waveform
from bench.cache import ScoreCache
from bench.files import JsonLog, fingerprint, replacing, write_json


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


def test_a_full_disk_is_said_with_the_files_name(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bench.files.os.fsync", full)
    waveform = Waveform(torch.ones(8), 16000)
    with pytest.raises(OSError, match="No space left") as caught:
        waveform.save(tmp_path / "a.wav")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_on_a_full_disk_says_so(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put({"a": {"x": 1.0}})
    cache._database.execute("PRAGMA max_page_count = 4")  # SQLite's own way to run full
    with pytest.raises(OSError, match="No space left") as caught:
        cache.put({str(n): {"text": "x" * 4096} for n in range(9)})
    assert caught.value.errno == errno.ENOSPC
    assert cache.get(["a", "0"]) == {"a": {"x": 1.0}}


def test_a_line_torn_by_a_kill_counts_as_never_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonLog(path) as log:
        log.append({"n": 1})
        log.append({"n": 2})
    path.write_bytes(path.read_bytes() + b'{"n": 3, "te')
    assert [r["n"] for r in JsonLog(path).read()] == [1, 2]
    with JsonLog(path) as log:
        log.append({"n": 4})
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 2, 4]


def test_nan_never_becomes_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1, "b": [1, 2]}) != fingerprint({"a": 1, "b": [2, 1]})

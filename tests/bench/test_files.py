import json

import pytest

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

"""The score cache: damage gives unknown scores or a one-line error, never a wrong score."""

import errno
import random
import sqlite3
from contextlib import closing

import pytest

from bench.errors import UserError
from bench.stages import cache as module
from bench.stages.cache import ScoreCache

SCORES = {
    f"{n:064x}": {"secs": n / 7, "errors": n, "hypothesis": f"heard “{n}”", "utmos": None}
    for n in range(1200)
}


@pytest.fixture
def path(tmp_path):
    """A cache with `SCORES` in it, closed."""
    path = tmp_path / "scores.sqlite"
    with closing(ScoreCache(path)) as cache:
        cache.put(SCORES)
    return path


def test_what_was_put_comes_back_and_what_was_not_is_unknown(path):
    with closing(ScoreCache(path)) as cache:
        assert cache.get([*SCORES, "other", *SCORES]) == SCORES
        assert cache.get([]) == {}
        key = next(iter(SCORES))
        cache.put({key: {"secs": 0.5, "hypothesis": "caf\udce9"}})
        assert cache.get([key]) == {key: {"secs": 0.5, "hypothesis": "caf\udce9"}}


def test_many_keys_are_few_queries(path):
    with closing(ScoreCache(path)) as cache:
        statements = []
        cache._database.set_trace_callback(statements.append)
        cache.get(SCORES)
        assert len(statements) == 3


def test_a_cache_on_a_full_disk_says_so(tmp_path):
    cache = ScoreCache(tmp_path / "scores.sqlite")
    cache.put({"a": {"x": 1.0}})
    cache._database.execute("PRAGMA max_page_count = 4")  # makes SQLite report a full disk
    with pytest.raises(OSError, match="No space left") as caught:
        cache.put({str(n): {"text": "x" * 4096} for n in range(9)})
    assert caught.value.errno == errno.ENOSPC
    assert cache.get(["a", "0"]) == {"a": {"x": 1.0}}


def damaged(path, sql, *values):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(sql, values)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[1, 2]",
        '{"secs": [1]}',
        '{"secs": NaN}',
        "null",
        b"\xff",
        7,
        None,
        '{"secs": 1}',
    ],
    ids=str,
)
def test_a_damaged_row_is_unknown_and_replaced(text, path):
    key, other = list(SCORES)[:2]
    damaged(path, "UPDATE checked_scores SET columns = ? WHERE key = ?", text, key)
    with closing(ScoreCache(path)) as cache:
        assert cache.get([key, other]) == {other: SCORES[other]}
        cache.put({key: SCORES[key]})
        assert cache.get([key]) == {key: SCORES[key]}


@pytest.mark.parametrize("text", ["[1, 2]", '{"secs": [1]}', '{"secs": NaN}', "2"])
def test_columns_of_another_kind_are_unknown_whatever_their_checksum(text, path):
    key = next(iter(SCORES))
    checksum = module._checksum(key.encode(), text.encode())
    damaged(path, "UPDATE checked_scores SET columns = ?, checksum = ?", text.encode(), checksum)
    with closing(ScoreCache(path)) as cache:
        assert cache.get([key]) == {}


def test_a_row_is_not_taken_for_another(path):
    first, second, *_ = SCORES
    damaged(path, "DELETE FROM checked_scores WHERE key = ?", second)
    damaged(path, "UPDATE checked_scores SET key = ? WHERE key = ?", second, first)
    with closing(ScoreCache(path)) as cache:
        assert cache.get([first, second]) == {}


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_anywhere_never_give_a_wrong_score(seed, path):
    rng = random.Random(seed)
    whole = path.read_bytes()
    for _ in range(15):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            with closing(ScoreCache(path)) as cache:
                known = cache.get(SCORES)
                cache.put({"new": {"secs": 1.0}})
        except UserError:
            continue
        assert known.items() <= SCORES.items()


def spoil(kind, path):
    if kind == "not SQLite":
        path.write_text("a letter " * 500)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "pages of zeros":
        data = path.read_bytes()
        path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    elif kind == "other columns":
        damaged(path, "DROP TABLE checked_scores")
        damaged(path, "CREATE TABLE checked_scores (key TEXT, score REAL)")
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("a file in place of the folder")


@pytest.mark.parametrize(
    ("kind", "way_out"),
    [
        ("not SQLite", "remove it: scores are computed anew"),
        ("cut", "remove it: scores are computed anew"),
        ("pages of zeros", "remove it: scores are computed anew"),
        ("other columns", "remove it: scores are computed anew"),
        ("a folder", "set cache= to another file"),
        ("no folder", "set cache= to another file"),
    ],
)
def test_a_file_that_is_no_cache_is_one_line_with_the_way_out(kind, way_out, tmp_path):
    path = tmp_path / "cache" / "scores.sqlite"
    with closing(ScoreCache(path)) as cache:
        cache.put(SCORES)
    spoil(kind, path)
    with pytest.raises(UserError, match=way_out) as caught, closing(ScoreCache(path)) as cache:
        cache.get(SCORES)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_cache_held_by_another_process_says_so(path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    with closing(ScoreCache(path)) as cache, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        held = r"another process has held the score cache for 0\.05 s; wait for it"
        with pytest.raises(UserError, match=held):
            cache.put({"new": {"secs": 1.0}})
        with pytest.raises(UserError, match=held):
            ScoreCache(path)
        other.rollback()
        cache.put({"new": {"secs": 1.0}})


def test_a_read_only_cache_says_so(path):
    with closing(ScoreCache(path)) as cache:
        cache._database.execute("PRAGMA query_only = ON")  # file modes do not stop root
        assert cache.get(SCORES) == SCORES
        with pytest.raises(UserError, match=r"cannot be opened or written .*set cache= to another"):
            cache.put({"new": {"secs": 1.0}})


def test_what_no_column_can_hold_is_named(path):
    with (
        closing(ScoreCache(path)) as cache,
        pytest.raises(UserError, match="secs = nan: not a finite number"),
    ):
        cache.put({"new": {"secs": float("nan")}})


def test_a_cache_of_an_earlier_version_is_used_on_and_its_unchecked_rows_are_not(tmp_path):
    path = tmp_path / "scores.sqlite"
    key = next(iter(SCORES))
    damaged(path, "CREATE TABLE scores (key TEXT PRIMARY KEY, columns TEXT NOT NULL)")
    damaged(path, "INSERT INTO scores VALUES (?, ?)", key, '{"secs": 0.9}')
    with closing(ScoreCache(path)) as cache:
        assert cache.get([key]) == {}
        cache.put({key: SCORES[key]})
        assert cache.get([key]) == {key: SCORES[key]}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT columns FROM scores").fetchall() == [('{"secs": 0.9}',)]


def test_the_rows_of_another_cache_are_added_without_its_damaged_ones(tmp_path):
    shard = ScoreCache(tmp_path / "a?#%20b.sqlite", alone=True)
    shard.put({"good": {"x": 1.5, "n": 2}, "bad": {"x": 1}})
    shard.put_samples({"file": "samples"})
    shard.close()
    assert (tmp_path / "a?#%20b.sqlite").is_file()
    with closing(sqlite3.connect(tmp_path / "a?#%20b.sqlite")) as database, database:
        database.execute("UPDATE checked_scores SET columns = '{}' WHERE key = 'bad'")
    shared = ScoreCache(tmp_path / "shared.sqlite")
    shared.put({"known": {"x": 3}})
    assert shared.add(tmp_path / "a?#%20b.sqlite") == 1
    assert shared.get(["good", "bad", "known"]) == {"good": {"x": 1.5, "n": 2}, "known": {"x": 3}}
    assert shared.samples_of(["file"]) == {"file": "samples"}
    shared.close()

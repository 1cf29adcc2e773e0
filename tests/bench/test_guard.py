"""What the guard of the process state remarks and restores of the environment."""

import os

from bench.guard import guarded


def test_a_variable_is_remarked_and_taken_back_but_not_the_folder_of_a_librarys_cache(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("KEPT", "1")
    with guarded() as remarks:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = "folder"
    assert remarks == []
    assert os.environ.pop("TORCHINDUCTOR_CACHE_DIR") == "folder"
    with guarded() as remarks:
        os.environ["ADDED"] = "2"
        del os.environ["KEPT"]
    assert [remark.partition(" (")[0] for remark in remarks] == ["set the environment"]
    assert "ADDED" not in os.environ
    assert os.environ["KEPT"] == "1"

"""A full disk: the message names the file that is written."""

import errno

import pytest

from bench.__main__ import main


def test_a_full_disk_names_the_file_that_is_written_not_the_one_that_is_copied(
    tmp_path, monkeypatch, capsys
):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr("bench.run.recordings.copyfile", full)
    where = [f"outputs={tmp_path}", "name=a", "suite=mini_cross_gender", "limit=1"]
    with pytest.raises(SystemExit) as ended:
        main(["run", *where, "system=[source]", "judge=[integrity]", "report=[]"])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"the disk is full while writing {tmp_path / 'a' / 'recordings'}" in error

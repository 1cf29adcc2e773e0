"""The settings `executor.*` are checked; without Ray one line says what to install."""

import sys

import pytest

from bench.__main__ import main
from bench.cli.executor import executor_of
from bench.cli.settings import load
from bench.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["executor=dask"], "unknown executor 'dask'; known: local, ray"),
        (["executor.workers=2"], "executor"),
        (["+executor.gpus=1"], "executor=local has no such setting; .*executor=ray"),
        (["executor=ray", "executor.convert.workers=0"], "workers=0: must be a positive whole"),
        (["executor=ray", "executor.convert.workers=1.5"], "workers=1.5: must be a positive whole"),
        (["executor=ray", "executor.judge.gpus=1.5"], "gpus=1.5: must be a whole number, a share"),
        (["executor=ray", "executor.judge.gpus=-1"], "gpus=-1: must be a whole number, a share"),
        (["executor=ray", "executor.judge.cpus=0"], "cpus=0: must be a positive number"),
        (["executor=ray", "+executor.convert.gpu=1"], "executor.convert.gpu: .*gpus"),
        (["executor=ray", "executor.files=s3"], "executor.files='s3': must be shared or store"),
        (["executor=ray", "executor.files=null"], "executor.files=None: must be shared or store"),
        (["executor=ray", "+executor.adress=auto"], "executor.adress: .*address"),
        (["executor=ray", "+executor.judges.wer.gpus=1"], "executor.judges.wer: .*wer_whisper"),
        (
            ["executor=ray", "+executor.judges.dnsmos.gpus=two"],
            "executor.judges.dnsmos.gpus='two': must be a whole number, a share",
        ),
    ],
)
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(UserError, match=message) as error:
        load(overrides)
    assert "\n" not in str(error.value)


def test_right_settings_have_their_types():
    config = load(
        [
            "executor=ray",
            "executor.convert.gpus=0.5",
            "+executor.judges.dnsmos.gpus=0",
            "executor.files=store",
            "executor.memory=40",
            "device=cpu",
        ]
    )
    assert config.executor.convert.gpus == 0.5
    assert config.executor.memory == 40.0
    assert config.executor.judges.dnsmos == {"workers": None, "gpus": 0.0, "cpus": 1.0}
    assert config.executor.files == "store"
    assert executor_of(load([])) is None


def test_without_ray_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "executor=ray", "limit=1"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "vcbench: executor=ray: Ray is not installed; pip install 'takin-vc-bench[ray]', or take "
        "executor=local\n"
    )
    assert not (tmp_path / "outputs").exists()


def test_ls_shows_the_executors(capsys):
    with pytest.raises(SystemExit):
        main(["ls", "executors"])
    shown = capsys.readouterr().out
    assert "local  Converts and scores on this machine" in shown
    assert "ray    Converts and scores on the machines of a Ray cluster" in shown

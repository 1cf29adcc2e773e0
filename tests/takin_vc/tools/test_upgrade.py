"""Checkpoints of format 2 are refused with the way out, and one command rewrites them."""

import shutil
from pathlib import Path

import pytest
import yaml

from takin_vc.checkpoint import load_checkpoint
from takin_vc.parts import PARTS
from takin_vc.tensors import WeightsError
from takin_vc.tools.upgrade import PATHS, main

MINI = Path(__file__).parents[3] / "takin_vc" / "weights" / "mini"


def old(node):
    """The settings as format 2 had them."""
    names = {name: path for path, name in PATHS.items()}
    if isinstance(node, dict):
        values = {key: old(value) for key, value in node.items() if key != "part"}
        return {"_target_": names[node["part"]], **values} if "part" in node else values
    return [old(value) for value in node] if isinstance(node, list) else node


@pytest.fixture
def folder(tmp_path):
    """The shipped checkpoint as format 2 had it."""
    shutil.copytree(MINI, tmp_path / "mini")
    config = yaml.safe_load((MINI / "config.yaml").read_text())
    config |= {"format": 2, "model": old(config["model"])}
    (tmp_path / "mini" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return tmp_path / "mini"


def test_every_part_of_format_2_has_a_name():
    assert set(PATHS.values()) <= set(PARTS)
    assert len(set(PATHS.values())) == len(PATHS)
    assert not any(".frontends." in path for path in PATHS)  # that folder is younger than format 2


def test_a_checkpoint_of_format_2_is_refused_with_the_way_out(folder):
    with pytest.raises(WeightsError, match=r"format 2; this version reads 3; run python -m takin"):
        load_checkpoint(folder)


def test_an_upgraded_checkpoint_is_the_one_that_it_was(folder, capsys):
    assert main([str(folder)]) == 0
    assert "format 3" in capsys.readouterr().out
    upgraded, shipped = (yaml.safe_load((f / "config.yaml").read_text()) for f in (folder, MINI))
    assert upgraded == shipped
    load_checkpoint(folder)


def test_what_cannot_be_upgraded_is_one_line(folder, capsys):
    assert main([str(MINI)]) == 1
    assert "reads 2" in capsys.readouterr().err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["mel"]["_target_"] = "os.system"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = (folder / "config.yaml").read_bytes()
    assert main([str(folder)]) == 1
    assert "'os.system' is no part" in capsys.readouterr().err
    assert (folder / "config.yaml").read_bytes() == before
    assert main([str(folder / "nothing")]) == 1
    assert main([]) == 1

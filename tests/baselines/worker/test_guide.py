"""docs/guide/isolated-baselines.md works as it is written."""

import re
import shlex
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.run.folder import read_table
from bench.stages.convert import read_conversions

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "isolated-baselines.md"


def run(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_the_guide_from_its_first_line_to_a_report(tmp_path, monkeypatch, capsys):
    text = GUIDE.read_text()
    (adapter,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    install, convert = re.findall(r"```bash\nvcbench (.*?)\n```", text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VCBENCH_ENVIRONMENTS", raising=False)
    Path("psola.py").write_text(adapter)

    assert run(["baseline", "install", "psola.py"]) == 2
    assert "read GPL-3.0" in capsys.readouterr().err
    if run(shlex.split(install)) == 2:
        reason = capsys.readouterr().err
        if "uv pip install failed" in reason:
            pytest.skip(f"no package index: {reason}")
        raise AssertionError(reason)

    assert run(shlex.split(convert)) == 0
    records = read_conversions(Path("outputs/psola"), "psola", "mini_cross_gender")
    assert [r.status for r in records.values()] == ["ok"] * 4
    for record in records.values():
        assert "praat-parselmouth 0.4.7" in record.origin
        assert set(record.stages) == {"pitch", "synthesis"}
        assert record.sample_rate == 24000
    scores = read_table(Path("outputs/psola/scores.csv"))
    moved = scores[scores["system"] == "psola"]
    (contour,) = [c for c in scores.columns if c.endswith("f0_correlation")]
    assert (moved[contour] > 0.6).all()  # the source's melody, at another pitch

"""The program that compares the fast path with torch.compile, at its smallest on the CPU."""

import csv

import pytest
import torch

from benchmarks.programs import compiler
from benchmarks.programs.compiler_rows import OutOfTime, Turns, within
from takin_vc import timbre
from takin_vc.fast import kernels
from takin_vc.fast.graphs import Replayed

TINY = ["model=tiny", "device=cpu", "backend=eager", "repeats=1", "reference_seconds=0.5"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_parts_are_measured_and_compared_with_the_plain_ones(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    before = kernels._runs_triton, Replayed.__call__, timbre._check_lengths
    settings = ["parts=memory,vocoder,kernels", "seconds=0.3", "modes=default", "jobs=0"]
    compiler.main([*TINY, *settings, f"out={out}"])
    assert (kernels._runs_triton, Replayed.__call__, timbre._check_lengths) == before
    table = rows(out)
    assert {row["part"] for row in table} >= {"memory", "vocoder", "kernel normalize"}
    assert all(float(row["median_ms"]) > 0 and row["note"] == "" for row in table)
    assert all(float(row["relative_difference"]) < 0.05 for row in table)
    variants = [row["variant"] for row in table if row["part"] == "vocoder"]
    assert variants == [
        "eager, bfloat16",
        "fast",
        "fast, no graph",
        "default, bfloat16",
        "default + graph, bfloat16",
        "rewritten + graph",
        "graph, bfloat16",
    ]
    assert capsys.readouterr().out.count("\n| tiny |") == len(table)


def test_whole_conversions_run_in_a_process_of_their_own(tmp_path):
    out = tmp_path / "rows.csv"
    compiler.main([*TINY, "parts=end", "end_seconds=0.3", "modes=", "jobs=1", f"out={out}"])
    table = rows(out)
    assert [row["variant"] for row in table[:3]] == ["eager, float32", "eager, mixed", "fast"]
    assert all(row["median_ms"] and row["note"] == "" for row in table)


def test_a_part_that_fails_or_takes_too_long_is_a_row_with_the_reason():
    settings = compiler.CompilerSettings(device="cpu", repeats=1, row_seconds=0.2)
    row = compiler.TimingRow("tiny", "vocoder", 1.0, "default")

    def fails():
        raise RuntimeError("no\ncompiler")

    compiler.measured(compiler.Variant("default", fails), row, torch.ones(1), settings, Turns(None))
    assert row.note == "RuntimeError: no compiler"
    assert row.median_ms is None
    row = compiler.TimingRow("tiny", "vocoder", 1.0, "default")

    def spins():
        while True:
            pass

    compiler.measured(compiler.Variant("default", spins), row, torch.ones(1), settings, Turns(None))
    assert row.note == "took over 0.2 s"
    with pytest.raises(OutOfTime), within(0.05):
        spins()


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("parts=nope", "no part 'nope'; there are content, ssl"),
        ("modes=fast", "no mode 'fast'; there are default"),
        ("repeats=x", "repeats=x: not a value of repeats"),
        ("speed=3", "speed=3 is no setting; there are model=, parts="),
    ],
)
def test_a_slip_is_one_line(slip, message):
    with pytest.raises(SystemExit) as ended:
        compiler.main([slip])
    assert message in str(ended.value.code)


def test_help_is_what_the_module_says(capsys):
    compiler.main(["--help"])
    assert "python -m benchmarks.programs.compiler" in capsys.readouterr().out

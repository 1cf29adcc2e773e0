"""The tables of a report agree with the score table."""

import dataclasses
import io
import math

import pandas as pd
import pytest
from rich.console import Console

from bench.metrics import SIMILARITY
from bench.results import ScoredRun
from bench.run.folder import read_table, write_table
from bench.stats.pooling import Measured, summarise
from reports.html.cards import listing
from reports.slices import slice_tables, slices
from reports.tables import (
    DASH,
    HEADLINE,
    label,
    number,
    summary_table,
    systems_of,
)
from reports.text.terminal import TerminalReport, terminal_table
from tests.support.made_up import JUDGES, NO_WEIGHTS, RECORDINGS, make_results


def cell(table, system, head):
    row = next(row for row in table.rows if row.system == system)
    return row.cells[[column.head for column in table.columns].index(head)]


def printed(results, width):
    console = Console(width=width, file=io.StringIO())
    console.print(terminal_table(results))
    return console.file.getvalue()


def test_arrows_show_the_better_direction():
    assert label("secs") == "SECS ↑"
    assert label("wer") == "WER ↓ %"
    assert label("duration_ratio") == "duration"


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_what_was_not_measured_is_a_dash_and_never_a_zero(missing):
    assert number("secs", missing) == DASH
    assert number("secs", 0.0) == "0.00"


def test_a_tiny_negative_value_has_no_sign():
    assert number("secs", -0.001) == "0.00"


def test_floor_comes_first_and_ceiling_last(results):
    table = summary_table(results, "mini_cross_gender")
    assert [(r.system, r.role) for r in table.rows] == [
        ("source", "floor"),
        ("world", ""),
        ("target", "ceiling"),
    ]
    assert any("source is the floor" in line for line in table.legend)
    assert any("target is the ceiling" in line for line in table.legend)


def test_every_column_stands_under_its_judge(results):
    table = summary_table(results, "mini_cross_gender")
    judges = results.summary.drop_duplicates(["judge", "metric"])["judge"]
    assert [column.group for column in table.columns] == list(judges)
    assert table.groups == [
        ("secs_resemblyzer", 3),
        ("wer_whisper_base", 2),
        ("dnsmos", 4),
        ("prosody", 3),
        ("utmos", 1),
        ("timing", 1),
    ]


def test_the_head_of_a_report_has_these_columns_in_this_order(results):
    table = summary_table(results, "mini_cross_gender", HEADLINE)
    assert [c.head for c in table.columns] == ["SECS ↑", "WER ↓ %", "UTMOS ↑", "OVRL ↑", "RTF ↓"]
    rest = summary_table(results, "mini_cross_gender", without=HEADLINE)
    every = summary_table(results, "mini_cross_gender").columns
    assert set(rest.columns) == set(every) - set(table.columns)


def test_a_value_stands_with_its_interval(results):
    summary = results.summary.set_index(["suite", "system", "metric"])
    row = summary.loc[("mini_cross_gender", "world", "secs")]
    text = cell(summary_table(results, "mini_cross_gender"), "world", "SECS ↑").text
    assert text == f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def test_what_does_not_apply_is_a_dash(results):
    table = summary_table(results, "mini_cross_gender")
    assert cell(table, "target", "WER ↓ %").text == DASH  # it says other words
    assert cell(table, "target", "duration").text == DASH
    assert cell(table, "source", "RTF ↓").text == DASH  # nobody computed it
    assert cell(table, "target", "SECS ↑").text != DASH


def test_a_judge_without_weights_says_so_and_how_to_get_them(results):
    table = summary_table(results, "mini_cross_gender")
    assert cell(table, "world", "UTMOS ↑").text == "no weights"
    assert table.notes == (f"utmos did not judge: {NO_WEIGHTS}",)


def test_a_failure_is_counted_and_unequal_n_is_shown(failed):
    table = summary_table(failed, "mini_cross_gender")
    world = next(row for row in table.rows if row.system == "world")
    assert (world.n, world.failed, world.trials) == ("7/8", 1, 8)
    assert "source 8 of 8, world 7 of 8, target 8 of 8" in table.notes[0]
    other = summary_table(failed, "mini_reference_length")
    assert not any("comparable" in note for note in other.notes)


def test_a_number_over_fewer_trials_shows_its_n(results):
    scores = results.scores.copy()
    first = scores.index[(scores["system"] == "world") & (scores["suite"] == "mini_cross_gender")][
        0
    ]
    scores.loc[first, "prosody.f0_rmse"] = math.nan
    changed = dataclasses.replace(
        results, scores=scores, summary=summarise(scores, JUDGES, RECORDINGS)
    )
    table = summary_table(changed, "mini_cross_gender")
    assert cell(table, "world", "F0 RMSE ↓ st").n == 7
    assert cell(table, "world", "F0 corr ↑").n is None
    assert any("n=…" in note for note in table.notes)


def test_a_slice_holds_only_its_trials(results):
    scores = results.scores.query("suite == 'mini_cross_gender' and system == 'world'")
    f2m = scores.loc[scores["factor.gender_pair"] == "F2M", "secs_resemblyzer.secs"]
    tables = {t.caption.split(" (")[0]: t for t in slice_tables(results, slices(results))}
    table = tables["mini_cross_gender by gender_pair"]
    position = [(c.group, c.head) for c in table.columns].index(
        ("SECS ↑ · secs_resemblyzer", "F2M")
    )
    world = next(row for row in table.rows if row.system == "world")
    assert world.cells[position].value == f"{f2m.mean():.2f}"


def test_slices_ascend_by_number(results):
    scores = results.scores.copy()
    scores["factor.reference_seconds"] = scores["factor.reference_seconds"].replace("8", "10")
    tables_of_slices = slices(dataclasses.replace(results, scores=scores))
    summary = tables_of_slices["mini_reference_length", "reference_seconds"]
    assert list(summary["factor.reference_seconds"].unique()) == ["1", "2", "4", "10"]


def test_tables_are_the_same_after_a_round_trip_through_csv(failed, tmp_path):
    write_table(failed.scores, tmp_path / "scores.csv")
    write_table(failed.summary, tmp_path / "summary.csv")
    loaded = dataclasses.replace(
        failed,
        scores=read_table(tmp_path / "scores.csv"),
        summary=read_table(tmp_path / "summary.csv"),
    )
    for suite in failed.suites:
        assert summary_table(loaded, suite) == summary_table(failed, suite)
    assert slice_tables(loaded, slices(loaded)) == slice_tables(failed, slices(failed))


def test_systems_keep_their_order_between_the_recordings(tmp_path):
    two_systems = make_results(
        tmp_path, 2, {"zeta": "world", "alpha": "world"}, ["mini_cross_gender"]
    )
    assert systems_of(two_systems) == ["source", "zeta", "alpha", "target"]


def test_the_terminal_shows_every_headline_number(failed):
    text = printed(failed, 110)
    for suite in failed.suites:
        for row in summary_table(failed, suite, HEADLINE).rows:
            for one in row.cells:
                assert one.value in text
                assert one.interval in text
    assert "SECS ↑" in text
    assert "secs_resemblyzer" in text
    assert "(floor)" in text
    assert "(ceiling)" in text
    assert "7/8" in text
    assert NO_WEIGHTS.split(";")[0] in text


def test_a_narrow_terminal_loses_no_character(failed):
    """What does not fit is folded, not cut: no ellipsis."""
    assert "…" not in printed(failed, 60).replace("n=…", "")


def test_a_name_is_no_markup_in_the_terminal(results):
    def rename(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(system=table["system"].replace("world", "[red]x[/red]"))

    renamed = dataclasses.replace(
        results, scores=rename(results.scores), summary=rename(results.summary)
    )
    assert "[red]x[/red]" in printed(renamed, 110)


def test_the_terminal_report_writes_no_file(results: ScoredRun, capsys):
    assert TerminalReport().render(results) is None
    assert "mini_cross_gender: 8 trials" in capsys.readouterr().out


def test_two_judges_of_one_metric_never_share_a_column(results):
    scores = results.scores.rename(columns=lambda c: c.replace("dnsmos.ovrl", "secs_other.secs"))
    judges = {"secs_resemblyzer": JUDGES["secs_resemblyzer"], "secs_other": Measured(("secs",))}
    both = dataclasses.replace(
        results, scores=scores, summary=summarise(scores, judges, RECORDINGS)
    )
    table = summary_table(both, "mini_cross_gender", [SIMILARITY])
    assert [(c.group, c.head) for c in table.columns] == [
        ("secs_resemblyzer", "SECS ↑"),
        ("secs_other", "SECS ↑"),
    ]
    card = listing(both, "mini_cross_gender", embed_trials=0, max_bytes=0).cards[0]
    names = [name for name, _ in card.sounds[0].measures]
    assert names[:2] == ["SECS (secs_resemblyzer)", "SECS (secs_other)"]


def test_a_run_of_other_judges_shows_their_metrics_in_the_terminal(results):
    summary = results.summary[results.summary["judge"].isin(["prosody", "timing"])]
    text = printed(dataclasses.replace(results, summary=summary), 110)
    assert "F0 corr ↑" in text
    assert "duration" in text
    assert "SECS" not in text


def test_as_many_trials_are_not_the_same_trials(results):
    def failing(system: str, trial: int) -> pd.Series:
        of_world = results.scores[
            (results.scores["system"] == system) & (results.scores["suite"] == "mini_cross_gender")
        ]
        return results.scores.index == of_world.index[trial]

    scores = results.scores.copy()
    scores.loc[failing("world", 0) | failing("source", 1), "status"] = "failed"
    table = summary_table(dataclasses.replace(results, scores=scores), "mini_cross_gender")
    assert any("different trials" in note for note in table.notes)
    same = results.scores.copy()
    same.loc[same["trial_id"] == same["trial_id"].iloc[0], "status"] = "failed"
    table = summary_table(dataclasses.replace(results, scores=same), "mini_cross_gender")
    assert not any("different trials" in note for note in table.notes)

"""Figures are whole SVG documents that need nothing else."""

import dataclasses
import warnings
from xml.etree import ElementTree

import pytest

from reports.figures import ANCHOR, PALETTE, colours, draw
from reports.slices import slices
from tests.support.made_up import make_results


@pytest.fixture(scope="module")
def drawn(results):
    return draw(results, slices(results))


def test_each_suite_has_its_figures(drawn):
    assert [(f.suite, f.name.split("-")[0]) for f in drawn] == [
        ("mini_cross_gender", "secs"),
        ("mini_cross_gender", "tradeoff"),
        ("mini_cross_gender", "gender"),
        ("mini_cross_gender", "wer"),
        ("mini_cross_gender", "rtf"),
        ("mini_cross_gender", "strips"),
        ("mini_reference_length", "secs"),
        ("mini_reference_length", "length"),
        ("mini_reference_length", "tradeoff"),  # its first eight trials are of two gender pairs
        ("mini_reference_length", "wer"),
        ("mini_reference_length", "rtf"),
        ("mini_reference_length", "strips"),
    ]


def test_steps_are_drawn_where_the_settings_name_them(tmp_path):
    made = make_results(
        tmp_path, 8, {"five": "world", "ten": "world"}, suites=["mini_cross_gender"]
    )
    systems = {"five": {"settings": {"steps": 5}}, "ten": {"settings": {"steps": 10}}}
    swept = dataclasses.replace(made, facts={**made.facts, "systems": systems})
    names = [f.name for f in draw(swept, {}) if f.name.startswith("steps")]
    assert names == [
        "steps-secs-secs_resemblyzer-mini_cross_gender",
        "steps-wer-wer_whisper_base-mini_cross_gender",
        "steps-dnsmos_ovrl-dnsmos-mini_cross_gender",
        "steps-rtf-timing-mini_cross_gender",
    ]
    assert not any(f.name.startswith("steps") for f in draw(made, {}))


def test_strips_show_a_trial_that_everyone_converted(failed, drawn):
    first = failed.suites["mini_cross_gender"].trials[0].trial_id
    whole = next(f for f in drawn if f.name == "strips-mini_cross_gender")
    assert whole.caption.startswith(first)
    found = draw(failed, {})
    assert not next(f for f in found if f.name == "strips-mini_cross_gender").caption.startswith(
        first
    )


def test_figures_are_svg_that_loads_nothing(drawn):
    for figure in drawn:
        root = ElementTree.fromstring(figure.svg)
        assert root.tag.endswith("}svg")
        for element in root.iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:"))
            assert not element.tag.endswith("}script")


def test_captions_name_the_judge(drawn):
    for figure in drawn:
        if not figure.name.startswith("strips"):
            judges = ("secs_resemblyzer", "wer_whisper_base", "timing")
            assert any(judge in figure.caption for judge in judges)


def test_a_figure_is_the_same_bytes_every_time(results, drawn):
    assert [f.svg for f in draw(results, slices(results))] == [f.svg for f in drawn]


def test_recordings_are_grey_and_systems_keep_one_colour(results):
    assert colours(results) == {"source": ANCHOR, "world": PALETTE[0], "target": ANCHOR}


def test_names_that_mean_something_to_matplotlib_are_only_names(results):
    def rename(table, name):
        return table.assign(system=table["system"].replace("world", name))

    suites = {"mini_reference_length": results.suites["mini_reference_length"]}
    for name in (r"_$\frac{1}$<b>", "very_long_name_" * 20):
        renamed = dataclasses.replace(
            results,
            scores=rename(results.scores, name),
            summary=rename(results.summary, name),
            suites=suites,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as a figure that a long name left no room for
            for figure in draw(renamed, slices(renamed)):
                ElementTree.fromstring(figure.svg)


def test_without_any_judge_there_is_still_something_to_see(results):
    summary = results.summary.assign(n=0, value=float("nan"))
    drawn = draw(dataclasses.replace(results, summary=summary), {})
    assert {f.name.split("-")[0] for f in drawn} == {"strips"}


def test_figures_are_written_whole(drawn, tmp_path):
    path = drawn[0].write(tmp_path / "figures")
    assert path.name == "secs-secs_resemblyzer-mini_cross_gender.svg"
    assert path.read_text(encoding="utf-8") == drawn[0].svg

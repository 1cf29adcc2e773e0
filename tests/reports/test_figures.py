"""Figures are whole SVG documents that need nothing else."""

import dataclasses
import warnings
from xml.etree import ElementTree

import pytest

from reports.figures import ANCHOR, PALETTE, colours, draw
from reports.tables import slices


@pytest.fixture(scope="module")
def drawn(results):
    return draw(results, slices(results))


def test_each_suite_has_its_figures(drawn):
    assert [(f.suite, f.name.split("-")[0]) for f in drawn] == [
        ("mini_cross_gender", "secs"),
        ("mini_cross_gender", "tradeoff"),
        ("mini_cross_gender", "gender"),
        ("mini_reference_length", "secs"),
        ("mini_reference_length", "length"),
        ("mini_reference_length", "tradeoff"),  # its first eight trials are of two gender pairs
    ]


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
    assert all("secs_resemblyzer" in figure.caption for figure in drawn)


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


def test_without_a_speaker_judge_there_are_no_such_figures(results):
    summary = results.summary.assign(n=0, value=float("nan"))
    assert draw(dataclasses.replace(results, summary=summary), {}) == []


def test_figures_are_written_whole(drawn, tmp_path):
    path = drawn[0].write(tmp_path / "figures")
    assert path.name == "secs-secs_resemblyzer-mini_cross_gender.svg"
    assert path.read_text(encoding="utf-8") == drawn[0].svg

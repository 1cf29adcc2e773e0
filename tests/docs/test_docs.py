"""The generated pages are up to date, and say what the code does."""

import re

import pytest

import bench
from bench.cli import VERBS
from bench.cli.settings import FOLDER, options
from bench.metrics import METRICS
from bench.run.folder import CONTENTS, FACTS, FORMAT, RUN, SCORES, SUMMARY
from docs.generator.__main__ import generated, lead, records, slug
from docs.generator.navigation import ROOT, navigation, title
from docs.generator.reference import PAGES
from docs.generator.sources import code, entries, escaped, keys_of, summary, table

GENERATED = [f"docs/reference/{name}.md" for name in PAGES]


@pytest.fixture(scope="module")
def texts():
    """Path of each generated file, relative to the project → its text."""
    return {path.relative_to(ROOT).as_posix(): text for path, text in generated()}


@pytest.fixture(scope="module")
def reference(texts):
    """Name of each page of the reference → its text."""
    return {name: texts[f"docs/reference/{name}.md"] for name in PAGES}


@pytest.mark.parametrize("path", [*GENERATED, "docs/decisions/index.md", "llms.txt"])
def test_a_generated_file_is_up_to_date(path, texts):
    file = ROOT / path
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    assert text == texts[path], "run: python -m docs.generator"


def test_every_generated_file_is_compared(texts):
    assert {*texts} == {*GENERATED, "docs/decisions/index.md", "llms.txt"}


def headings(page):
    return re.findall(r"^## (.+)$", page, re.MULTILINE)


def test_every_name_has_a_section(reference):
    assert headings(reference["cli"]) == list(VERBS)
    assert [h for h in headings(reference["judges"]) if not h.startswith("Class ")] == list(
        options("judge")
    )
    for group in ("system", "suite", "preset"):
        names = options(group)
        assert headings(reference[f"{group}s"])[: len(names)] == list(names)
    assert set(headings(reference["python"])) == set(bench.__all__)
    assert all(f"| `{key}` |" in reference["metrics"] for key in METRICS)


def test_every_verb_has_its_settings(reference):
    for verb in VERBS:
        section = reference["cli"].partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        known = "| setting | value | meaning |" in section or "(settings.md)" in section
        assert known or verb == "ls", (
            f"the module of {verb} has no SETTINGS: see bench.cli.arguments"
        )


def test_every_setting_has_a_meaning():
    for group in ("system", "judge", "report", "executor"):
        for name in options(group):
            path = FOLDER / group / f"{name}.yaml"
            unclear = [key.name for key in keys_of(path, group, name) if not key.meaning]
            assert unclear == [], path
    for file in ("config.yaml", "gate.yaml"):
        unclear = [k.name for k in keys_of(FOLDER / file) if not k.meaning and k.value != "{}"]
        assert unclear == [], file


def test_a_page_shows_defaults_and_meanings_of_the_yaml_and_the_docstring(reference):
    assert "| `frame_period` | `5.0` | ms |" in reference["systems"]
    assert "| `limit` | `8` | only the first so many trials" in reference["settings"]
    device = "| `device` | `${device}` | where torch runs it; see `bench.devices.torch_device` |"
    assert device in reference["judges"].partition("## utmos")[2]


def test_the_suites_have_the_counts_of_their_lists(reference):
    section = reference["suites"].partition("## mini_cross_gender")[2].partition("\n## ")[0]
    assert "| trials | 72 |" in section
    assert "18 × `F2F`, 18 × `F2M`, 18 × `M2F`, 18 × `M2M`" in section


def test_run_json_is_described_whole(reference):
    assert {*FACTS, "format", "sha256"} <= set(CONTENTS)
    assert str(FORMAT) in CONTENTS["format"]
    assert all(f"| `{name}` |" in reference["run-folder"] for name in (RUN, SCORES, SUMMARY))


def test_every_page_of_the_docs_is_in_the_navigation_once():
    listed = [path for paths in navigation().values() for path in paths]
    assert len(listed) == len(set(listed))
    assert {*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")} - {ROOT / "README.md"} == {
        path for path in listed if path.parent == ROOT or path.is_relative_to(ROOT / "docs")
    }


def test_a_record_without_a_date_or_a_part_is_refused():
    whole = (
        "## A b, c\n\n*2026-11-29*\n\n**Context.** x\n\n**Decision.** y\n\n**Consequences.** z\n"
    )
    assert records(f"# T\n\nAbout.\n\n{whole}") == [("A b, c", "2026-11-29")]
    for part in ("*2026-11-29*\n", "**Context.** x", "**Decision.** y", "**Consequences.** z"):
        with pytest.raises(ValueError, match="A b, c: a record has"):
            records(whole.replace(part, ""))
    alone = whole.replace("*2026-11-29*", "9 November 2026")
    assert records(alone) == [("A b, c", "2026-11-09")]
    assert slug("`wavs=` reads every file, again") == "wavs-reads-every-file-again"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# A\n\nOne. Two.\n", "One"),
        (
            "---\na: b\n---\n# A\n\n```\ncode\n```\n\nSee [x](y.md), now: more.\n",
            "See x, now: more",
        ),
        ("# A\n\n## B\n\n| t |\n\n**Bold**\n\nText of `1.5` s.\nNext.\n", "Text of `1.5` s"),
        ("# A\n", ""),
    ],
)
def test_the_lead_is_the_first_sentence(text, sentence):
    assert lead(text) == sentence


def test_a_page_without_a_heading_is_refused():
    with pytest.raises(ValueError, match="heading"):
        title("text\n")


def example(first, second, third):
    """Does something.

    Two lines
    of `<text>` with <name>.

    Args:
        first: in seconds.
        second, third: long
            text. And more.

    Raises:
        ValueError: never.
    """


def test_docstrings_are_read():
    assert summary(example) == "Does something.\n\nTwo lines of `<text>` with \\<name>."
    assert entries(example) == {
        "first": "in seconds",
        "second": "long text. And more.",
        "third": "long text. And more.",
    }
    assert entries(example, "Raises") == {"ValueError": "never"}


def test_tables_escape_what_would_end_a_cell_or_begin_a_tag():
    assert table(("a", "b"), [("x|y", "")]) == "| a | b |\n|---|---|\n| x\\|y | – |\n"
    assert table(("a",), []) == ""
    assert escaped("<a> `<b>`") == "\\<a> `<b>`"
    assert code("") == ""


def test_settings_are_read_with_their_comments(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "# about\nworld:\n  _target_: baselines.world.World\n  frame_period: 5.0  # ms\n"
        '  f0_floor: 71.0\n  # above\n  other: "#1"\n  # outer\n  nested:\n    key: [1, 2]\n'
        "  commented:  # inner\n    key: 3\n",
        encoding="utf-8",
    )
    keys = [(k.name, k.value, k.meaning) for k in keys_of(path, "system", "world")]
    assert keys[0] == ("frame_period", "5.0", "ms")
    assert keys[1][:2] == ("f0_floor", "71.0")
    assert keys[2] == ("other", '"#1"', "above")
    assert keys[3:] == [("nested.key", "[1, 2]", "outer"), ("commented.key", "3", "inner")]

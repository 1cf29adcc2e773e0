"""The comments before blocks are read, and a mistake in a block that is not run is detected."""

import pytest

from bench.errors import UserError
from tests.support import documents
from tests.support.documents import blocks, changed, fault
from tests.support.parsed import check

PAGE = """\
# A page

<!-- run: limit=1 exit=3 -->
```bash
vcbench run limit=8 \\
    name=a
# a comment
vcbench ls
```

<!-- run -->
A line between.

```bash
vcbench ls
```

- An item:

  <!-- file: a.yaml -->

  ```yaml
  a:
    b: 1
  ```

```text
printed
```
```
unnamed
```
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return list(blocks(path))


def test_a_comment_belongs_to_the_block_that_follows_it(read):
    marks = [(b.line, b.language, b.mark, b.detail) for b in read]
    assert marks == [
        (4, "bash", "run", "limit=1 exit=3"),
        (14, "bash", "", ""),
        (22, "yaml", "file", "a.yaml"),
        (27, "text", "", ""),
        (30, "", "", ""),
    ]
    assert read[0].commands == ["vcbench run limit=8      name=a", "vcbench ls"]
    assert read[2].text == "a:\n  b: 1\n"


def test_a_block_without_a_comment_or_a_language_is_a_fault(read):
    faults = [fault(block) or "" for block in read]
    assert [bool(f) for f in faults] == [False, True, False, False, True]
    assert "has no comment" in faults[1]
    assert "names no language" in faults[4]


@pytest.mark.parametrize(
    ("language", "mark", "expected"),
    [
        ("sh", ("run", ""), "is called sh"),
        ("bash", ("not run", ""), "without a reason"),
        ("yaml", ("run", ""), "cannot be run"),
        ("bash", ("run by", "tests/none.py"), "is not run by tests/none.py"),
        ("bash", ("run by", "tests/test_layers.py"), "does not name docs/guide.md"),
    ],
)
def test_a_comment_that_cannot_be_kept_is_a_fault(language, mark, expected):
    block = documents.Block("docs/guide.md", 2, language, "a\n", *mark)
    assert expected in str(fault(block))


def test_a_block_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("```bash\nvcbench ls\n")
    with pytest.raises(ValueError, match=r"page\.md:1: the block has no end"):
        list(blocks(tmp_path / "page.md"))


def test_settings_of_a_comment_replace_those_of_the_command():
    given = ["report", "limit=8", "name=a"]
    assert changed(given, {"limit": "1", "trials": "4"}, ()) == ["report", "name=a", "limit=1"]
    assert changed(["run"], {"limit": "1"}, ["limit"]) == ["run", "limit=1"]


@pytest.mark.parametrize(
    "command",
    [
        "vcbench run limt=3",
        "vcbench run preset=takin",
        "vcbench run system.world.frame_perod=5",
        "vcbench doctor --fetch system=wrold",
        "vcbench gate outputs/a outputs/b junti=x",
        "vcbench stimuli run=outputs/a test=mos out=b",
        "vcbench suite build cross_gendr corpus=libritts root=a out=b",
        "vcbench merge outputs/a",
        "vcbench baseline check world cheks=seed",
        "vcbench rnu",
    ],
)
def test_a_slip_in_a_command_that_is_not_run_is_detected(command):
    with pytest.raises(UserError):
        check(command)


@pytest.mark.parametrize("command", ["make bnech", "python -m benchmarks.programs.inferense"])
def test_an_unknown_target_or_module_is_detected(command):
    with pytest.raises(AssertionError):
        check(command)


def test_a_command_that_is_right_is_parsed_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        "vcbench run name=a shard=1/2 preset=seed_vc  # a comment",
        "vcbench run -m name=sweep system.takin_vc.checkpoint=a,b",
        "vcbench baseline check world checks=seed",
        "vcbench corpus fetch librispeech/test-clean",
        "make bench",
        "python -m takin_vc.train recipe=mini stage=vocoder data=a.csv",
    ):
        check(command)
    assert not list(tmp_path.iterdir())

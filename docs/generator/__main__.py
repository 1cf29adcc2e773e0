"""Writes the pages that follow from the code and from the other pages.

    python -m docs.generator

They are docs/reference/*.md, docs/decisions/index.md and llms.txt; a test compares them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from docs.generator.navigation import ROOT, navigation, title
from docs.generator.reference import PAGES

GENERATED = "<!-- Written by `python -m docs.generator`; change the code that it describes. -->\n\n"
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def llms() -> str:
    """llms.txt: the title and the summary of the project, and every page in a line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    summary = " ".join(readme.partition("\n\n")[2].partition("\n\n")[0].split())
    blocks = [f"# {title(readme)}", f"> {summary}"]
    for caption, paths in navigation().items():
        blocks += [f"## {caption}", "\n".join(map(_line, paths))]
    return "\n\n".join(blocks) + "\n"


def _line(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    link = f"- [{title(text)}]({path.relative_to(ROOT).as_posix()})"
    return f"{link}: {about}" if (about := lead(text)) else link


def lead(text: str) -> str:
    """The first sentence of a page's first paragraph on one line, without links; "" if none."""
    body = re.sub(r"\A---\n.*?\n---\n|<!--.*?-->", "", text, flags=re.DOTALL)
    blocks = (b.strip() for b in body.split("\n\n"))
    block = next((b for b in blocks if re.match(r"(?!```|\*\*[^*]+\*\*$)[\w`\[(*\"]", b)), "")
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
    return re.split(r"(?<=[.:?!]) (?=[A-Z`\"(])", plain)[0].rstrip(".:")


def decisions() -> str:
    """The index of the decisions: the records of each area, in the order of their dates."""
    parts = [
        "# Decisions",
        "Each record has a date, the context, the decision and its consequences. A new decision is "
        "a new file in the folder of its area, and `python -m docs.generator` adds it here. A "
        "record that no longer holds is removed.",
    ]
    for area in sorted(p for p in (ROOT / "docs" / "decisions").iterdir() if p.is_dir()):
        records = sorted(map(_record, area.glob("*.md")))
        lines = [f"- {date} [{name}]({link})" for date, name, link in records]
        parts += [f"## {area.name.replace('-', ' ').capitalize()}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _record(path: Path) -> tuple[str, str, str]:
    """Date, title and link of a record.

    Raises:
        ValueError: if it has no date.
    """
    text = path.read_text(encoding="utf-8")
    if (date := DATE.search(text)) is None:
        raise ValueError(f"{path}: a record needs its date, such as 2026-11-29")
    return date[0], title(text), f"{path.parent.name}/{path.name}"


def generated() -> Iterator[tuple[Path, str]]:
    """Every generated file with its text; llms.txt is last, since it reads the others."""
    for name, page in PAGES.items():
        yield ROOT / "docs" / "reference" / f"{name}.md", GENERATED + page()
    yield ROOT / "docs" / "decisions" / "index.md", GENERATED + decisions()
    yield ROOT / "llms.txt", llms()


def main() -> None:
    """Writes the files that differ, and names them."""
    for path, text in generated():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()

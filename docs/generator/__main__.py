"""Writes the pages that follow from the code and from the other pages.

    python -m docs.generator

They are docs/reference/*.md, docs/decisions/index.md and llms.txt; a test compares them.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from bench.cli.settings import options
from docs.generator.navigation import ROOT, navigation, title
from docs.generator.reference import PAGES

GENERATED = "<!-- Written by `python -m docs.generator`; change the code that it describes. -->\n\n"
RECORD = ("Context", "Decision", "Consequences")


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
    systems = options("system") if path.parent.name == "systems" else {}
    about = systems.get(path.stem) or lead(text)
    return f"{link}: {about}" if about else link


def lead(text: str) -> str:
    """The first sentence of a page's first paragraph on one line, without links; "" if none."""
    body = re.sub(r"\A---\n.*?\n---\n|<!--.*?-->", "", text, flags=re.DOTALL)
    blocks = (b.strip() for b in body.split("\n\n"))
    block = next(
        (b for b in blocks if re.match(r"(?!```|\d{4}-|\*\*[^*]+\*\*$)[\w`\[(*\"]", b)), ""
    )
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
    return re.split(r"(?<=[.:?!]) (?=[A-Z`\"(])", plain)[0].rstrip(".:")


def decisions() -> str:
    """The index of the decisions: the records of each page with their dates."""
    parts = [
        "# Decisions",
        "Each record has a date, the context, the decision and its consequences. A new decision is "
        "a new section of a page, or a page of its own where it is long; `python -m "
        "docs.generator` adds it here. A record that no longer holds is removed.",
    ]
    alone = []
    for path in navigation()["Decisions"]:
        text = path.read_text(encoding="utf-8") if path.stem != "index" else ""
        if "\n## " in text:
            caption = title(text).removeprefix("Decisions: ")
            lines = [f"- {d} [{name}]({path.name}#{slug(name)})" for name, d in records(text)]
            parts += [f"## {caption[0].upper()}{caption[1:]}", "\n".join(lines)]
        elif text:
            alone += [f"- {d} [{name}]({path.name})" for name, d in records(f"#{text.lstrip()}")]
    return (
        "\n\n".join([*parts, *(["## Pages of one record", "\n".join(alone)] if alone else [])])
        + "\n"
    )


def records(text: str) -> list[tuple[str, str]]:
    """Title and date of each record of a page, whose headings are of the second level.

    Raises:
        ValueError: if one has no date under its title, or lacks a part.
    """
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        date = re.match(r"\s*\*?(\d{4}-\d\d-\d\d|\d+ [A-Z][a-z]+ \d{4})\*?\n", body)
        if date is None or not all(f"**{part}.** " in body for part in RECORD):
            raise ValueError(f"{name}: a record has *2026-11-29*, then {', '.join(RECORD)}")
        day = date[1] if "-" in date[1] else datetime.strptime(date[1], "%d %B %Y").date()
        found.append((name.strip(), str(day)))
    return found


def slug(heading: str) -> str:
    """The anchor that code hosts and the site give to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


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

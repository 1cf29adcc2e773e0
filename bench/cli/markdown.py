"""Text and tables of GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """The text with everything that Markdown or HTML would take for its own made inert."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|~$])|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(), text)


def grid(heads: Sequence[str], align: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines. Cells are Markdown: escape what is not.

    Args:
        heads: of the columns.
        align: "---" (left) or "---:" (right) for each column.
        rows: of cells.
    """
    return [f"| {' | '.join(line)} |" for line in (heads, align, *rows)]

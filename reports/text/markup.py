"""Text and tables of GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """Escapes every character of the text that Markdown or HTML would interpret."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|~$])|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(), text)


def grid(heads: Sequence[str], align: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. Heads and cells are Markdown: escape other text first.

    Args:
        heads: one for each column.
        align: "---" (left) or "---:" (right) for each column.
        rows: each with a cell for each column.
    """
    return [f"| {' | '.join(line)} |" for line in (heads, align, *rows)]

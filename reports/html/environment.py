"""The templates of the HTML pages: how they are loaded, and what they may print unescaped."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> jinja2.Environment:
    """Templates escape everything that they print: names, errors and transcripts are untrusted."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    # Keeps an arrow and a unit on the line of their metric.
    made.filters["keep_arrow"] = lambda head: re.sub(r" (?=[↑↓])|(?<=[↑↓]) ", "\u00a0", head)
    made.filters["breakable"] = _breakable
    made.tests["records"] = _are_records
    return made


def inlined(styles: Sequence[str], script: str) -> dict[str, Any]:
    """What a page holds of its styles and its script.

    Args:
        styles: names of files in `TEMPLATES`.
        script: the name of one.

    Returns:
        The variables `style` and `script`, which a template prints as they are, and `script_hash`,
        by which the page's policy allows this script and no other.
    """
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    code = (TEMPLATES / script).read_text(encoding="utf-8")
    return {
        "style": Markup(style),  # noqa: S704
        "script": Markup(code),  # noqa: S704
        "script_hash": base64.b64encode(hashlib.sha256(code.encode()).digest()).decode(),
    }


def _breakable(name: object) -> Markup:
    """The name, escaped; a line may break after each "_"."""
    return Markup("_<wbr>").join(str(name).split("_"))


def _are_records(value: Any) -> bool:
    """Whether the value is a list of mappings: shown as a table with their keys as columns."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, Mapping) for item in value)
    )

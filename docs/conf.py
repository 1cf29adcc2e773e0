"""Sphinx's settings. The source folder is the repository: a link that works there works here too.

Pages are Markdown files of the repository. A link to another file becomes a download of it, a link
to a folder becomes text. A link to something that does not exist is a warning, which stops the
build, and so is a page that is not in the navigation.
"""

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs.generator.navigation import PATTERNS, navigation  # noqa: E402

project = "takin-vc-bench"
html_title = project
extensions = ["myst_parser", "sphinx.ext.githubpages"]
root_doc = "README"
include_patterns = ["README.md", "docs/**.md", *PATTERNS]
exclude_patterns = [".*", "build", "corpora", "environments", "outputs", "tests"]
nitpicky = True
smartquotes = False
myst_heading_anchors = 4  # as code hosts make them

html_theme = "furo"  # with the system's fonts: pages load nothing from elsewhere
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_permalinks_icon = "#"
templates_path: list[str] = []

LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)\)")


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Adds the navigation to the front page."""
    if docname == root_doc:
        for caption, paths in navigation().items():
            source[0] += _toctree(caption, [p.relative_to(ROOT).as_posix() for p in paths])


def _toctree(caption: str, pages: list[str]) -> str:
    lines = "".join(f"/{page}\n" for page in pages)
    return f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}```\n"


def without_folders(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces each link to a folder, for which the site has no page, by its text."""
    here = (ROOT / docname).parent
    source[0] = LINK.sub(lambda m: m[1] if (here / m[2]).is_dir() else m[0], source[0])


def accessible(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Lets the keyboard scroll code, and gives the captions of the navigation their level."""
    for part, old, new in (
        ("body", "<pre>", '<pre tabindex="0">'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
    ):
        if part in context:
            context[part] = context[part].replace(old, new)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", without_folders)
    app.connect("html-page-context", accessible, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}

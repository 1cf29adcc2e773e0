"""The order of the pages: the site's navigation and llms.txt follow it. Imports no other code."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Folders in the order of the navigation → title, and the pages that come first; the others of the
# folder follow by name. A page that does not exist is left out.
FOLDERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "docs/guide": (
        "Guide",
        (
            *("tour", "reading-a-report", "your-system", "your-trials", "finished-wavs", "corpora"),
            *("paper-tables", "gate-in-ci", "training-callback", "listening-test"),
            *("isolated-baselines", "many-machines", "leaderboard", "docker", "notebook"),
        ),
    ),
    "docs/reference": (
        "Reference",
        (
            *("cli", "settings", "metrics", "judges", "systems", "presets", "suites", "executors"),
            *("manifest", "run-folder", "scores"),
        ),
    ),
    "docs/methods": ("Methods", ("statistics", "validity", "kinship")),
    "docs/model": (
        "Takin-VC",
        ("takin-vc", "open-choices", "training", "card", "inference-speed"),
    ),
    "docs/systems": ("Systems", ("README",)),
    "docs/decisions": ("Decisions", ("index",)),
}
# Pages outside of docs/ that are part of the site.
CARDS = (
    "takin_vc/README.md",
    "takin_vc/weights/*/README.md",
    "baselines/*/weights/README.md",
    "bench/judges/data/*/README.md",
    "suites/data/README.md",
    "suites/data/*/README.md",
)
OTHERS: Mapping[str, tuple[str, ...]] = {
    "Cards of weights and data": CARDS,
    "Project": ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"),
}


def navigation() -> dict[str, list[Path]]:
    """Title of each part of the site → its pages in their order."""
    parts = {}
    for folder, (caption, order) in FOLDERS.items():
        rank = {name: number for number, name in enumerate(order)}
        paths = sorted((ROOT / folder).glob("*.md"))
        parts[caption] = sorted(paths, key=lambda path: rank.get(path.stem, len(rank)))
    for caption, patterns in OTHERS.items():
        parts[caption] = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return parts


def title(text: str) -> str:
    """The first heading of a page.

    Raises:
        ValueError: if it has none.
    """
    heading = re.search(r"^# (.*)$", text, re.MULTILINE)
    if heading is None:
        raise ValueError("a page needs a heading: # Title")
    return heading[1].strip()

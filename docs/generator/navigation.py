"""The order of the pages: the site's navigation and llms.txt follow it. Imports no other code."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Parts of the site in the order of the navigation: title → patterns of the pages' paths, and the
# names of the pages that come first; the others follow by path. A name may have no page.
PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Guide": (
        ("docs/guide/*.md",),
        (
            *("tour", "reading-a-report", "your-system", "your-trials", "finished-wavs", "corpora"),
            *("paper-tables", "gate-in-ci", "github-action", "training-callback", "listening-test"),
            *(
                "isolated-baselines",
                "check-a-baseline",
                "many-machines",
                "scaling",
                "leaderboard",
                "docker",
            ),
        ),
    ),
    "Reference": (
        ("docs/reference/*.md",),
        (
            *("cli", "settings", "metrics", "judges", "systems", "presets", "suites", "executors"),
            *("flags", "python", "manifest", "run-folder", "scores"),
        ),
    ),
    "Methods": (
        ("docs/methods/*.md",),
        ("statistics", "validity", "kinship", "naturalness", "prosody"),
    ),
    "Takin-VC": (
        ("docs/model/*.md", "takin_vc/README.md", "takin_vc/weights/*/README.md"),
        ("takin-vc", "open-choices", "questions", "training", "reproduce", "inference-speed"),
    ),
    "Systems": (("docs/systems/*.md", "baselines/*/weights/README.md"), ()),
    "Decisions": (
        ("docs/decisions/*.md",),
        ("index", "code", "trials", "runs", "baselines", "judges", "statistics", "listening"),
    ),
    "Project": (
        (
            *("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"),
            *("bench/judges/data/*/README.md", "suites/data/README.md", "suites/data/*/README.md"),
        ),
        ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"),
    ),
}
PATTERNS = tuple(pattern for patterns, _ in PARTS.values() for pattern in patterns)


def navigation() -> dict[str, list[Path]]:
    """Title of each part of the site → its pages in their order."""
    parts = {}
    for caption, (patterns, order) in PARTS.items():
        rank = {name: number for number, name in enumerate(order)}
        paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
        parts[caption] = sorted(paths, key=lambda path: rank.get(path.stem, len(rank)))
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

"""Writes a listening test as one HTML file that needs no server and makes no network request."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench.files import write_text
from reports.listening.wording import Wording

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "page"  # the folder to give to listeners: index.html and audio/, without the key


def write_page(
    folder: Path, test: Mapping[str, Any], wording: Wording, code: str, headphones: bool
) -> Path:
    """Writes `page/index.html` and `page/audio/`.

    Args:
        folder: of the test, with `audio/`.
        test: the contents of test.json.
        wording: the words.
        code: the completion code; "" for one made of the test's id.
        headphones: whether the page begins with the headphone check.

    Returns:
        The path of index.html.
    """
    words = {**wording.page, "instructions": wording.instructions, "question": wording.question}
    data = {
        "test": test,
        "words": words,
        "code": code or completion_code(test["test_id"]),
        "headphones": headphones,
    }
    # "<" could end the script element: as an escape it is the same JSON.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    script = (TEMPLATES / "test.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((TEMPLATES / "index.html.j2").read_text(encoding="utf-8"))
    style = (TEMPLATES / "test.css").read_text(encoding="utf-8")
    path = folder / PAGE / "index.html"
    write_text(
        path,
        template.render(
            language=wording.language,
            title=wording.page["title"],
            noscript=wording.page["no_script"],
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=Markup(style),  # noqa: S704 our files; the data is escaped above
            script=Markup(script),  # noqa: S704
            data=Markup(text),  # noqa: S704
        ),
    )
    for sound in sorted((folder / "audio").glob("*.wav")):
        linked(sound, folder / PAGE / "audio" / sound.name)
    return path


def completion_code(test_id: str) -> str:
    """What a listener shows to be paid, made of the test's id. It is readable in the page."""
    return hashlib.sha256(f"completed {test_id}".encode()).hexdigest()[:8].upper()


def linked(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the disk has no links; once."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

"""Records which reports of a run are up to date, so that they are not rendered again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.files import fingerprint, sha256_of, write_json
from bench.objects import TARGET
from bench.results import ScoredRun

RECORD = ".rendered.json"
RENDERERS = "reports."  # the package of this project's reports; run.json identifies its code


class Rendered:
    """The record of the reports in a run's folder.

    A report is up to date if run.json and the report's settings are those that it was rendered
    from, and its file is as it was written. run.json has the hashes of the tables and identifies
    the project's code, so another version renders again. Reports of third parties are always
    rendered: their code is not identified.

    Args:
        results: the scored run.
    """

    def __init__(self, results: ScoredRun) -> None:
        self._folder = results.folder
        self._run = results.facts.get("sha256")
        self._record = _read(results.folder / RECORD)

    def path(self, name: str, settings: Mapping[str, Any]) -> Path | None:
        """The file of a report that is up to date; None if it is to be rendered."""
        if not str(settings.get(TARGET)).startswith(RENDERERS):
            return None
        entry = self._record.get(name)
        if not isinstance(entry, dict) or entry.get("key") != self._key(settings):
            return None
        path = self._folder / Path(str(entry.get("file"))).name
        return path if path.is_file() and sha256_of(path) == entry.get("sha256") else None

    def add(self, name: str, settings: Mapping[str, Any], path: Path) -> None:
        """Records a report that was just rendered to `path`."""
        if path.parent == self._folder:
            entry = {"key": self._key(settings), "file": path.name, "sha256": sha256_of(path)}
            self._record[name] = entry
            write_json(self._folder / RECORD, self._record)

    def _key(self, settings: Mapping[str, Any]) -> str:
        return fingerprint({"run": self._run, "settings": dict(settings)})


def _read(path: Path) -> dict[str, Any]:
    """The record; empty if there is none or it is damaged."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}

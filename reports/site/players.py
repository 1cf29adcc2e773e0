"""The page of a run in the site: its tables, the players of its worst trials, its provenance.

A report.html in the run's folder is not copied: no hash in run.json covers it, and it may hold any
script. The page is rendered from the tables and the sounds that run.json vouches for.
"""

import base64
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.files import write_text
from bench.validity.flags import FLAGS
from reports import figures
from reports.html.cards import Card, Listing, listing
from reports.html.clips import Clip
from reports.html.environment import environment, inlined
from reports.site.runs import ShownRun
from reports.tables import summary_table

SOUNDS = "sounds"  # the site's folder of sounds and spectrograms; each is stored once
ABOVE = "../../"  # from a run's page to the site's folder
DATA = 4 / 3  # characters of base64 for each byte


@dataclass
class Sounds:
    """The sounds of a site: MP3 files and spectrograms, each stored once under its hash.

    Attributes:
        folder: of the site.
        limit: bytes that all files together may have.
        size: bytes that they have.
    """

    folder: Path
    limit: float
    size: int = 0

    @property
    def left(self) -> float:
        """Bytes that may be added."""
        return max(self.limit - self.size, 0.0)

    def stored(self, clip: Clip) -> Clip:
        """The clip with relative addresses of files in place of embedded data."""
        return replace(
            clip,
            audio=self._file(clip.audio, "mp3"),
            spectrogram=self._file(clip.spectrogram, "png"),
        )

    def _file(self, address: str, ending: str) -> str:
        data = base64.b64decode(address.partition(",")[2])
        path = Path(SOUNDS) / f"{hashlib.sha256(data).hexdigest()[:24]}.{ending}"
        if not (self.folder / path).is_file():
            (self.folder / SOUNDS).mkdir(exist_ok=True)
            (self.folder / path).write_bytes(data)
            self.size += len(data)
        return f"{ABOVE}{path.as_posix()}"


def write_run_page(shown: ShownRun, sounds: Sounds, trials: int, share: float) -> None:
    """Writes the page of a run into the site's folder.

    Args:
        shown: the run.
        sounds: where its sounds are stored.
        trials: number of trials of each suite, the worst first, that get players.
        share: bytes that the sounds of this run may have.
    """
    run = shown.run
    suites = [
        {
            "name": name,
            "table": summary_table(run, name, notes=_suspicious(shown, name)),
            "listing": _listing(shown, name, sounds, trials, share / len(run.suites)),
            "trials": len(suite.trials),
        }
        for name, suite in run.suites.items()
    ]
    page = (
        environment()
        .get_template("site_run.html.j2")
        .render(
            shown=shown,
            name=run.name,
            suites=suites,
            provenance=run.facts,
            colours=figures.colours(run),
            above=ABOVE,
            **inlined(["report.css", "site.css"], "report.js"),
        )
    )
    write_text(sounds.folder / shown.page, page)


def _listing(
    shown: ShownRun, suite: str, sounds: Sounds, trials: int, share: float
) -> Listing | None:
    """The worst trials of a suite with players; None if there is none."""
    if not trials:
        return None
    flagged: dict[str, list[tuple[str, str]]] = {}
    for row in shown.flags[shown.flags["suite"] == suite].itertuples():
        if row.system not in shown.run.anchors:
            text = f"{FLAGS[str(row.flag)].label}: {row.reason}"
            flagged.setdefault(str(row.trial_id), []).append((str(row.system), text))
    listed = listing(shown.run, suite, trials, min(share, sounds.left) * DATA, flagged)
    cards = tuple(_stored(card, sounds) for card in listed.cards if card.size)
    return replace(listed, cards=cards) if cards else None


def _stored(card: Card, sounds: Sounds) -> Card:
    return replace(
        card,
        sounds=tuple(
            replace(sound, clip=sounds.stored(sound.clip), wav="")
            if sound.clip
            else replace(sound, wav="")
            for sound in card.sounds
        ),
    )


def _suspicious(shown: ShownRun, suite: str) -> list[str]:
    """A note on each suspicious system: which flags it has."""
    notes: list[str] = []
    rows: Any = shown.flags[shown.flags["suite"] == suite]
    for system, of_system in rows.groupby("system", sort=False):
        if (suite, str(system)) in shown.suspicious:
            counts = of_system["flag"].value_counts()
            reasons = ", ".join(f"{FLAGS[str(f)].label} ({n})" for f, n in counts.items())
            notes.append(f"{system} is suspicious, its numbers mean little: {reasons}.")
    return notes

"""Corpora: tables of recordings with speaker, gender and text."""

import csv
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.files import sha256_of
from bench.trials import Utterance

COLUMNS = ("utterance_id", "speaker", "gender", "path", "text", "seconds", "corpus", "split")


@dataclass(frozen=True)
class Recording:
    """An utterance with what a builder chooses by.

    Attributes:
        utterance: as it will stand in the manifest.
        seconds: its duration.
        split: the part of the corpus that it comes from.
    """

    utterance: Utterance
    seconds: float
    split: str

    @property
    def speaker(self) -> str:
        return self.utterance.speaker


def read_csv(path: Path) -> list[Recording]:
    """Reads a corpus from a CSV with the columns `COLUMNS`; paths are relative to the CSV.

    Raises:
        UserError: if a column is missing or an audio file does not exist.
    """
    root = path.parent
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if missing := set(COLUMNS) - set(rows.fieldnames or ()):
            raise UserError(
                f"{path}: no column {sorted(missing)[0]!r}; it needs {', '.join(COLUMNS)}"
            )
        recordings = []
        for row in rows:
            audio = root / row["path"]
            if not audio.is_file():
                raise UserError(
                    f"{path}:{rows.line_num}: {row['utterance_id']}: no file at {audio}"
                )
            utterance = Utterance(
                row["utterance_id"],
                row["speaker"],
                row["gender"],
                audio,
                row["text"],
                sha256_of(audio),
            )
            recordings.append(Recording(utterance, float(row["seconds"]), row["split"]))
    return sorted(recordings, key=lambda r: r.utterance.utterance_id)


def utterances(path: str | Path) -> list[Utterance]:
    """The utterances of a corpus in a CSV (see `read_csv`), ordered by id."""
    return [recording.utterance for recording in read_csv(Path(path))]

"""Corpora as tables of recordings with speaker, gender and text, and the faults in them."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from bench import audio
from bench.errors import UserError
from bench.files import read_text, sha256_of, write_text
from bench.manifest import LANGUAGE, has_words, string_fault
from bench.trials import Utterance

COLUMNS = ("utterance_id", "speaker", "gender", "path", "text", "seconds", "corpus", "split")
MORE_COLUMNS = ("language", "emotion")
SHOWN_FAULTS = 3  # of each kind, in a message


@dataclass(frozen=True)
class CorpusRecording:
    """An utterance of a corpus, with the properties by which builders choose.

    Attributes:
        utterance: as it is written to the manifest.
        seconds: its duration.
        split: its part of the corpus.
        language: "en", "zh", …; "" where the corpus does not say.
        emotion: "neutral", "angry", …; "" where the corpus does not say.
    """

    utterance: Utterance
    seconds: float
    split: str
    language: str = ""
    emotion: str = ""

    @property
    def speaker(self) -> str:
        return self.utterance.speaker


class Faults:
    """The faults of a corpus, collected by kind. Recordings with a fault are left out.

    Attributes:
        stop: whether the first fault raises an error instead.
        by_kind: kind → the recordings or files with this fault.
    """

    def __init__(self, stop: bool = False) -> None:
        self.stop = stop
        self.by_kind: dict[str, list[str]] = {}

    def add(self, kind: str, what: object) -> None:
        """Records a fault.

        Args:
            kind: its heading: "transcript without audio".
            what: the recording or file.

        Raises:
            UserError: if `stop` is set.
        """
        if self.stop:
            raise UserError(
                f"{kind}: {what}; mend the corpus, or leave such recordings out with bad=skip"
            )
        self.by_kind.setdefault(kind, []).append(str(what))

    def __len__(self) -> int:
        return sum(map(len, self.by_kind.values()))

    def lines(self) -> list[str]:
        """One line for each kind: the count, and the names of the first few."""
        return [
            f"{kind}: {len(what)} ({', '.join(what[:SHOWN_FAULTS])}"
            f"{', …' if len(what) > SHOWN_FAULTS else ''})"
            for kind, what in self.by_kind.items()
        ]


# Reads the recordings of a corpus from its folder; `seconds` is 0 if the layout has no durations.
Reader = Callable[[Path, frozenset[str], Faults], Iterable[CorpusRecording]]


def gather(
    reader: Reader,
    root: Path,
    faults: Faults,
    splits: frozenset[str] = frozenset(),
    workers: int = 4,
) -> list[CorpusRecording]:
    """The usable recordings of a corpus, ordered by id, with their durations.

    Args:
        reader: of the corpus's layout.
        root: the corpus folder.
        faults: where unusable recordings are recorded: no word in the transcript, an id that
            another recording has, a file that is missing or not audio.
        splits: the parts to read; empty for all.
        workers: threads that read the files' headers; their number does not change the result.

    Raises:
        UserError: if there is no such folder or no usable recording in it.
    """
    if not root.is_dir():
        raise UserError(f"no corpus folder at {root}; see `vcbench corpus ls`")
    known: dict[str, CorpusRecording] = {}
    recordings = sorted(
        reader(root, splits, faults), key=lambda r: (r.utterance.utterance_id, r.utterance.path)
    )
    for recording in recordings:
        utterance = recording.utterance
        if not has_words(utterance.text):
            faults.add("audio without transcript", utterance.utterance_id)
        elif fault := string_fault({**vars(utterance), "path": _below(utterance.path, root)}):
            faults.add("name or text that no list can hold", fault)
        elif utterance.utterance_id in known:
            first = known[utterance.utterance_id].utterance.path
            faults.add(
                "two recordings with one id",
                f"{utterance.utterance_id} at {utterance.path} and {first}",
            )
        elif (language := recording.language) and not LANGUAGE.fullmatch(language):
            faults.add("language that is no ISO 639 code", f"{utterance.utterance_id} ({language})")
        else:
            known[utterance.utterance_id] = _spoken(recording)
    unmeasured = [r for r in known.values() if not r.seconds]
    with ThreadPoolExecutor(workers) as threads:
        measured = threads.map(lambda r: _seconds(r.utterance.path), unmeasured)
        for recording, seconds in zip(unmeasured, measured, strict=True):
            name = recording.utterance.utterance_id
            if isinstance(seconds, str):
                faults.add(seconds, f"{name} at {recording.utterance.path}")
                del known[name]
            else:
                known[name] = replace(recording, seconds=seconds)
    if not known:
        reason = (
            "; ".join(faults.lines()) or "is it the folder of this corpus, and the right split?"
        )
        raise UserError(f"{root}: no usable recording; {reason}")
    return list(known.values())


def _spoken(recording: CorpusRecording) -> CorpusRecording:
    """The recording with its language in its utterance too, where the corpus says it."""
    if not recording.language:
        return recording
    return replace(recording, utterance=replace(recording.utterance, language=recording.language))


def _below(path: Path, root: Path) -> str:
    return path.as_posix().removeprefix(root.as_posix())


def _seconds(path: Path) -> float | str:
    """Duration from the file's header, or the kind of fault."""
    if seconds := audio.seconds_of(path):
        return seconds
    return "corrupt file" if path.is_file() else "transcript without audio"


def write_index(recordings: Sequence[CorpusRecording], path: Path, root: Path) -> None:
    """Writes a table that `read_index` reads; paths are relative to `root`.

    Raises:
        UserError: if a file is outside of `root`.
    """
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow((*COLUMNS, *MORE_COLUMNS))
    for r in recordings:
        u = r.utterance
        if not u.path.absolute().is_relative_to(root.absolute()):
            raise UserError(f"{u.path} is outside of {root}; set root to a folder that holds it")
        path_in_root = u.path.absolute().relative_to(root.absolute()).as_posix()
        name, _, split = u.corpus.partition("/")
        rows.writerow(
            (
                *(u.utterance_id, u.speaker, u.gender, path_in_root, u.text, f"{r.seconds:.6g}"),
                *(name, r.split or split, r.language, r.emotion),
            )
        )
    write_text(path, text.getvalue())


def read_index(
    path: Path, root: Path, splits: frozenset[str] = frozenset()
) -> list[CorpusRecording]:
    """Reads a table of recordings; the files under `root` are not opened.

    Raises:
        UserError: names file and line of what is wrong.
    """
    recordings = []
    for line, row in rows_of(path, COLUMNS):
        if splits and row["split"] not in splits:
            continue
        corpus = "/".join(part for part in (row["corpus"], row["split"]) if part)
        utterance = Utterance(
            row["utterance_id"],
            row["speaker"],
            row["gender"],
            root / row["path"],
            row["text"],
            corpus=corpus,
        )
        seconds = _duration(path, line, row)
        language, emotion = row.get("language") or "", row.get("emotion") or ""
        recording = CorpusRecording(utterance, seconds, row["split"], language, emotion)
        recordings.append(_spoken(recording))
    return sorted(recordings, key=lambda r: r.utterance.utterance_id)


def read_csv(path: Path) -> list[CorpusRecording]:
    """Reads a corpus from a CSV with the columns `COLUMNS`; paths are relative to the CSV.

    Every file is hashed.

    Raises:
        UserError: if a column is missing or an audio file does not exist.
    """
    recordings = []
    for line, row in rows_of(path, COLUMNS):
        audio = path.parent / row["path"]
        if not audio.is_file():
            raise UserError(f"{path}:{line}: {row['utterance_id']}: no file at {audio}")
        utterance = Utterance(
            row["utterance_id"],
            row["speaker"],
            row["gender"],
            audio,
            row["text"],
            sha256_of(audio),
            f"{row['corpus']}/{row['split']}",
        )
        seconds, language = _duration(path, line, row), row.get("language") or ""
        recordings.append(_spoken(CorpusRecording(utterance, seconds, row["split"], language)))
    return sorted(recordings, key=lambda r: r.utterance.utterance_id)


def utterances(path: str | Path) -> list[Utterance]:
    """The utterances of a corpus in a CSV (see `read_csv`), ordered by id."""
    return [recording.utterance for recording in read_csv(Path(path))]


def rows_of(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row of a CSV.

    Raises:
        UserError: if it is not UTF-8 or no CSV, a column is missing, or a row has too few cells.
    """
    rows = csv.DictReader(StringIO(read_text(path, newline=""), newline=""))
    try:
        if missing := [name for name in needed if name not in (rows.fieldnames or ())]:
            raise UserError(f"{path}: no column {missing[0]!r}; it needs {', '.join(needed)}")
        for row in rows:
            if short := [name for name in needed if row[name] is None]:
                raise UserError(
                    f"{path}:{rows.line_num}: no {short[0]}; a row has a cell for every column"
                )
            yield rows.line_num, {name: value or "" for name, value in row.items() if name}
    except csv.Error as error:
        raise UserError(
            f"{path}:{rows.reader.line_num}: no CSV ({error}); save it as CSV"
        ) from error


def _duration(path: Path, line: int, row: Mapping[str, str]) -> float:
    try:
        return float(row["seconds"])
    except ValueError as error:
        raise UserError(f"{path}:{line}: seconds {row['seconds']!r} is not a number") from error

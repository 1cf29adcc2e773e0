"""The manifest of a suite: JSON Lines, read with all checks, and written.

One trial a line:

    {"trial_id": "F2M-000", "source": {…}, "references": [{…}], "enrolment": [{…}, …],
     "source_enrolment": [{…}, …], "target": {…}, "reference_seconds": 4.0,
     "factors": {"gender_pair": "F2M"}}

where each {…} is an utterance: `utterance_id, speaker, gender, path, text` and, where known,
`sha256, corpus, seconds`. Paths are relative to the corpus root and may not leave it. In place of a
{…} the id of an utterance that stood on an earlier line will do: long lists name each in full once.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from bench.errors import choose_one_of
from bench.files import sha256_of
from bench.trials import ENROLMENT, REFERENCE, ManifestError, Trial, Utterance

TRIAL_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,119}")


def read_trials(manifest: Path, root: Path, files: bool = True) -> Iterator[Trial]:
    """The trials of a manifest one after another; only recordings and ids are kept in memory.

    Args:
        manifest: a JSON Lines file.
        root: the corpus folder.
        files: whether the audio must be there; without it a recording's hash may be unknown.

    Raises:
        ManifestError: names the file, line and key of what is wrong.
    """
    reader = _Reader(manifest, root.resolve(), files)
    try:
        with manifest.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield reader.trial(number, line)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{manifest}: not UTF-8 text ({error}); save it as UTF-8") from error


def trial_to_json(trial: Trial, root: Path, known: set[str] | None = None) -> str:
    """The trial's line in a manifest, paths relative to `root`.

    Args:
        trial: the trial.
        root: the corpus folder.
        known: ids of the utterances that earlier lines hold: they are named by their id alone, and
            this line's are added. None: every utterance in full.
    """
    root = root.absolute()

    def plain(utterance: Utterance) -> dict[str, Any] | str:
        if known is not None:
            if utterance.utterance_id in known:
                return utterance.utterance_id
            known.add(utterance.utterance_id)
        try:
            path = utterance.path.absolute().relative_to(root)
        except ValueError:
            if not utterance.path.resolve().is_relative_to(root.resolve()):
                raise ManifestError(
                    f"{utterance.path} is outside of the corpus root {root}; a manifest's paths "
                    "stay inside: set root to a folder that holds all of it"
                ) from None
            path = utterance.path.resolve().relative_to(root.resolve())
        record: dict[str, Any] = {**asdict(utterance), "path": path.as_posix()}
        for key, unknown in (("corpus", ""), ("seconds", None)):
            if record[key] == unknown:
                del record[key]
        return record

    return json.dumps(
        {
            "trial_id": trial.trial_id,
            "source": plain(trial.source),
            "references": [plain(u) for u in trial.references],
            "enrolment": [plain(u) for u in trial.enrolment],
            "source_enrolment": [plain(u) for u in trial.source_enrolment],
            "target": None if trial.target is None else plain(trial.target),
            "reference_seconds": trial.reference_seconds,
            "factors": dict(trial.factors),
        },
        ensure_ascii=False,
    )


class _Reader:
    """Turns manifest lines into trials, remembering what earlier lines said."""

    def __init__(self, manifest: Path, root: Path, files: bool = True) -> None:
        self.manifest = manifest
        self.root = root
        self.files = files
        self.lines: dict[str, int] = {}  # trial_id -> line
        self.utterances: dict[str, Utterance] = {}  # as written
        self.by_id: dict[str, Utterance] = {}  # with its hash
        self.seen: dict[str, Utterance] = {}  # record -> utterance, so that each is checked once
        # What many trials share is held once: a million trials fit into a few hundred megabytes.
        self.shared: dict[Any, Any] = {}

    def trial(self, number: int, line: str) -> Trial:
        where = f"{self.manifest}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{where}: not JSON ({error}); one trial a line") from error
        _check_keys(where, record, Trial, "trial")
        trial_id = record["trial_id"]
        if not isinstance(trial_id, str) or not TRIAL_ID.fullmatch(trial_id):
            raise ManifestError(
                f"{where}: trial_id {trial_id!r} names a file: 1 to 120 letters, digits "
                "and . _ + -, not beginning with a dot; no slashes"
            )
        if trial_id in self.lines:
            raise ManifestError(
                f"{where}: trial_id {trial_id!r} stands on line {self.lines[trial_id]} too; "
                "give each trial its own"
            )
        self.lines[trial_id] = number
        where = f"{where}: trial {trial_id}"
        source = self.utterance(f"{where}: source", record["source"])
        if not source.text.strip():
            raise ManifestError(
                f"{where}: source {source.utterance_id} has an empty transcript; "
                "WER needs at least one word"
            )
        references = self.several(f"{where}: references", record["references"])
        enrolment = self.several(f"{where}: enrolment", record["enrolment"])
        own = record.get("source_enrolment", [])
        source_enrolment = self.several(f"{where}: source_enrolment", own) if own else ()
        for utterance in source_enrolment:
            if utterance.speaker != source.speaker:
                raise ManifestError(
                    f"{where}: source_enrolment {utterance.utterance_id} is by speaker "
                    f"{utterance.speaker}, but the source is by {source.speaker}"
                )
            if _same_recording(utterance, source):
                raise ManifestError(
                    f"{where}: source_enrolment {utterance.utterance_id} is the source itself; "
                    "leakage would be measured against the very recording"
                )
        target = record.get("target")
        held_out = None if target is None else self.utterance(f"{where}: target", target)
        speaker = references[0].speaker
        for utterance in (*references, *enrolment, *([held_out] if held_out else [])):
            if utterance.speaker != speaker:
                raise ManifestError(
                    f"{where}: {utterance.utterance_id} is by speaker {utterance.speaker}, "
                    f"but the references are by {speaker}"
                )
        factors = record.get("factors", {})
        if not isinstance(factors, dict) or not all(isinstance(v, str) for v in factors.values()):
            raise ManifestError(f"{where}: factors must map names to strings, not {factors!r}")
        to_reference = factors.get(ENROLMENT) == REFERENCE
        if to_reference and enrolment != references:
            raise ManifestError(
                f"{where}: factor {ENROLMENT} is {REFERENCE!r}, but enrolment and references differ"
            )
        for utterance in (
            *(() if to_reference else enrolment),
            *([held_out] if held_out else []),
        ):
            if any(_same_recording(utterance, heard) for heard in (source, *references)):
                raise ManifestError(
                    f"{where}: enrolment or target {utterance.utterance_id} is also source or "
                    "reference; SECS would compare a recording with what the system was given "
                    f'(a list that means this says so: "factors": {{"{ENROLMENT}": "{REFERENCE}"}})'
                )
        if held_out and any(_same_recording(held_out, utterance) for utterance in enrolment):
            raise ManifestError(
                f"{where}: target {held_out.utterance_id} is also enrolment; "
                "the ceiling would be compared with itself"
            )
        seconds = record.get("reference_seconds")
        if seconds is not None and not (
            isinstance(seconds, int | float) and 0 < seconds < float("inf")
        ):
            raise ManifestError(
                f"{where}: reference_seconds ({seconds!r}) must be positive or null"
            )
        return Trial(
            trial_id,
            source,
            references,
            enrolment,
            source_enrolment,
            held_out,
            seconds,
            self.shared.setdefault(tuple(sorted(factors.items())), factors),
        )

    def several(self, where: str, records: Any) -> tuple[Utterance, ...]:
        if not isinstance(records, list) or not records:
            raise ManifestError(f"{where}: must be a list of at least one utterance")
        utterances = tuple(self.utterance(where, record) for record in records)
        return self.shared.setdefault(tuple(u.utterance_id for u in utterances), utterances)

    def utterance(self, where: str, record: Any) -> Utterance:
        if isinstance(record, str):
            if record not in self.by_id:
                raise ManifestError(
                    f"{where}: {record!r} names an utterance that no earlier line describes; "
                    "write its first mention in full"
                )
            return self.by_id[record]
        _check_keys(where, record, Utterance, "utterance")
        content = json.dumps(record, sort_keys=True)
        if content in self.seen:
            return self.seen[content]
        where = f"{where} {record['utterance_id']}"
        for key, value in record.items():
            if key != "seconds" and not isinstance(value, str):
                raise ManifestError(f"{where}: {key} must be a string, not {value!r}")
        length = record.get("seconds")
        if length is not None and not (isinstance(length, int | float) and 0 < length < 1e6):
            raise ManifestError(f"{where}: seconds ({length!r}) must be a positive number")
        path = (self.root / record["path"]).resolve()
        if not path.is_relative_to(self.root):
            raise ManifestError(
                f"{where}: path {record['path']!r} leaves the corpus root {self.root}"
            )
        utterance = Utterance(**{**record, "path": path})
        if utterance.utterance_id not in self.utterances:
            if self.files and not path.is_file():
                raise ManifestError(
                    f"{where}: no audio file at {path}; is `root` the folder of this corpus?"
                )
            self.utterances[utterance.utterance_id] = utterance
        known = self.utterances[utterance.utterance_id]
        if known != utterance:
            differs = next(
                f.name
                for f in fields(Utterance)
                if getattr(known, f.name) != getattr(utterance, f.name)
            )
            raise ManifestError(
                f"{where}: its {differs} is {getattr(utterance, differs)!r} here and "
                f"{getattr(known, differs)!r} on an earlier line; one id is one recording"
            )
        if (
            self.files and not known.sha256
        ):  # what is converted and scored is known by its content, always
            known = replace(known, sha256=sha256_of(path))
        self.by_id[known.utterance_id] = known
        return self.seen.setdefault(content, known)


def _same_recording(one: Utterance, other: Utterance) -> bool:
    """Whether they are one recording, whatever their ids."""
    return (
        one.utterance_id == other.utterance_id
        or one.path == other.path
        or (one.sha256 != "" and one.sha256 == other.sha256)
    )


def _check_keys(where: str, record: Any, kind: type, noun: str) -> None:
    """Raises ManifestError unless `record` has `kind`'s required fields and no others."""
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: must be a JSON object ({noun}), not {record!r}")
    known = [f.name for f in fields(kind)]
    optional = {"source_enrolment", "target", "reference_seconds", "factors"}
    optional |= {"sha256", "corpus", "seconds"}
    for key in record:
        if key not in known:
            raise ManifestError(
                f"{where}: unknown key {key!r} in {noun}; {choose_one_of(key, known)}"
            )
    for key in known:
        if key not in record and key not in optional:
            raise ManifestError(f"{where}: no {key!r} in {noun}; it needs {', '.join(known)}")

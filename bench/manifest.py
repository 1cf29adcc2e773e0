"""Reads and checks the manifest of a suite, a JSON Lines file, and writes it.

One trial a line:

    {"trial_id": "F2M-000", "source": {…}, "references": [{…}], "enrolment": [{…}, …],
     "source_enrolment": [{…}, …], "target": {…}, "reference_seconds": 4.0,
     "factors": {"gender_pair": "F2M"}}

where each {…} is an utterance: `utterance_id, speaker, gender, path, text` and, if known,
`sha256, corpus, seconds`, and `language`, which is English where it is left out. Paths are relative
to the corpus root and stay inside it. An utterance of an earlier line may be written as its id
alone: long lists describe each utterance once.

A text may have several lines; the source's text has at least one word. Other strings have no
control characters. Durations are over 0 and at most a million seconds. No list names a recording
twice.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.errors import choose_one_of, shown
from bench.files import replacing, sha256_of
from bench.trials import ENGLISH, ENROLMENT, REFERENCE, ManifestError, Trial, Utterance

TRIAL_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,119}")
MOST_SECONDS = 1_000_000
LANGUAGE = re.compile(r"[a-z]{2,3}")  # ISO 639
# UTF-8 cannot encode half a surrogate pair, and a CSV file does not keep control characters.
# A text may have several lines.
NO_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")


def has_words(text: str) -> bool:
    """Whether the text has a letter or a digit of any script."""
    return any(c.isalnum() for c in text)


def string_fault(strings: Mapping[str, Any]) -> str | None:
    """Why a manifest cannot store one of the strings (key → value), or None."""
    for key, value in strings.items():
        if not isinstance(value, str):
            continue
        if wrong := (NO_TEXT if key == "text" else NO_NAME).search(value):
            what = "half of a surrogate pair" if wrong[0] > "\x7f" else "a control character"
            return f"{key} {shown(value)} has {what} ({wrong[0]!a})"
    return None


def read_trials(manifest: Path, root: Path, files: bool = True) -> Iterator[Trial]:
    """Yields the trials of a manifest; only utterances and ids stay in memory.

    Args:
        manifest: a JSON Lines file.
        root: the corpus folder.
        files: whether the audio files must exist. If not, hashes that the manifest lacks stay
            unknown, and recordings are distinguished by id and path only: in a run that accepted a
            changed corpus two recordings may have become equal.

    Raises:
        ManifestError: names the file, line and key of what is wrong.
    """
    reader = _Reader(manifest, root.resolve(), files)
    try:
        with manifest.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield reader.trial(number, line)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{manifest}: not UTF-8 text ({error}); save it as UTF-8") from error


def write_trials(
    trials: Iterable[Trial], path: Path, root: str | Path = "/", *, in_full: bool = False
) -> int:
    """Writes a manifest from which `read_trials` returns equal trials; needs no audio files.

    Args:
        trials: the list; it may be a generator.
        path: of the manifest; it is replaced only when the new one is complete.
        root: the corpus folder, to which paths are relative; read them back with the same one.
        in_full: describe every utterance on every line, not only on its first one.

    Returns:
        How many trials were written.

    Raises:
        ManifestError: if an utterance is outside of `root`, a string cannot be read back, or two
            different utterances have one id.
    """
    known: dict[str, Utterance] | None = None if in_full else {}
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for trial in trials:
            file.write(trial_to_json(trial, Path(root), known) + "\n")
            count += 1
    return count


def trial_to_json(trial: Trial, root: Path, known: dict[str, Utterance] | None = None) -> str:
    """The trial's line in a manifest, paths relative to `root`.

    Args:
        trial: the trial.
        root: the corpus folder.
        known: the utterances of earlier lines, by id: they are written as their id alone, and this
            line's utterances are added. None: every utterance is described in full.

    Raises:
        ManifestError: if an utterance is outside of `root`, a string cannot be read back, or an
            utterance differs from the one in `known`.
    """
    root = root.absolute()

    def plain(utterance: Utterance) -> dict[str, Any] | str:
        if known is not None:
            if (earlier := known.get(utterance.utterance_id)) is not None:
                if earlier != utterance:
                    raise ManifestError(
                        f"trial {trial.trial_id}: two different utterances are called "
                        f"{shown(utterance.utterance_id)}; one id is one recording"
                    )
                return utterance.utterance_id
            known[utterance.utterance_id] = utterance
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
        if fault := string_fault(record):
            raise ManifestError(f"trial {trial.trial_id}: {fault}; write it without")
        for key, default in (("corpus", ""), ("seconds", None), ("language", ENGLISH)):
            if record[key] == default:
                del record[key]
        return record

    if fault := _factors_fault(trial.factors):
        raise ManifestError(f"trial {trial.trial_id}: factors: {fault}; write it without")
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
    """Turns manifest lines into trials and remembers the utterances that later lines refer to."""

    def __init__(self, manifest: Path, root: Path, files: bool = True) -> None:
        self.manifest = manifest
        self.root = root
        self.files = files
        self.lines: dict[str, int] = {}  # trial_id -> line
        self.utterances: dict[str, Utterance] = {}  # as written
        self.by_id: dict[str, Utterance] = {}  # with its hash
        self.seen: dict[str, Utterance] = {}  # record -> utterance, so that each is checked once
        # Parts that many trials share are stored once: a million trials take a few hundred MB.
        self.shared: dict[Any, Any] = {}

    def trial(self, number: int, line: str) -> Trial:
        where = f"{self.manifest}:{number}"
        record = _parsed(where, line)
        _check_keys(where, record, Trial, "trial")
        trial_id = record["trial_id"]
        if not isinstance(trial_id, str) or not TRIAL_ID.fullmatch(trial_id):
            raise ManifestError(
                f"{where}: trial_id {shown(trial_id)} names a file: 1 to 120 letters, digits "
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
        if not has_words(source.text):
            text = f"no word in its text ({shown(source.text)})"
            raise ManifestError(
                f"{where}: source {source.utterance_id} has "
                f"{text if source.text.strip() else 'an empty transcript'}; "
                "WER needs at least one word"
            )
        references = self.several(f"{where}: references", record["references"])
        enrolment = self.several(f"{where}: enrolment", record["enrolment"])
        others = record.get("source_enrolment", [])
        source_enrolment = (
            () if others == [] else self.several(f"{where}: source_enrolment", others)
        )
        for utterance in source_enrolment:
            if utterance.speaker != source.speaker:
                raise ManifestError(
                    f"{where}: source_enrolment {utterance.utterance_id} is by speaker "
                    f"{utterance.speaker}, but the source is by {source.speaker}"
                )
            if self.same(utterance, source):
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
        factors = self.factors(where, record.get("factors", {}))
        to_reference = factors.get(ENROLMENT) == REFERENCE
        if to_reference and enrolment != references:
            raise ManifestError(
                f"{where}: factor {ENROLMENT} is {REFERENCE!r}, but enrolment and references differ"
            )
        for utterance in (
            *(() if to_reference else enrolment),
            *([held_out] if held_out else []),
        ):
            if any(self.same(utterance, given) for given in (source, *references)):
                raise ManifestError(
                    f"{where}: enrolment or target {utterance.utterance_id} is also source or "
                    "reference; SECS would compare a recording with what the system was given "
                    f'(a list that means this says so: "factors": {{"{ENROLMENT}": "{REFERENCE}"}})'
                )
        if held_out and any(self.same(held_out, utterance) for utterance in enrolment):
            raise ManifestError(
                f"{where}: target {held_out.utterance_id} is also enrolment; "
                "the ceiling would be compared with itself"
            )
        seconds = record.get("reference_seconds")
        if seconds is not None and not _is_duration(seconds):
            raise ManifestError(
                f"{where}: reference_seconds ({shown(seconds)}) must be a positive number of "
                f"seconds, at most {MOST_SECONDS}, or null"
            )
        return Trial(
            trial_id,
            source,
            references,
            enrolment,
            source_enrolment,
            held_out,
            seconds,
            factors,
        )

    def same(self, one: Utterance, other: Utterance) -> bool:
        """Whether they are one recording, whatever their ids."""
        return (
            one.utterance_id == other.utterance_id
            or one.path == other.path
            or (self.files and one.sha256 != "" and one.sha256 == other.sha256)
        )

    def factors(self, where: str, record: Any) -> dict[str, str]:
        if not isinstance(record, dict) or not all(isinstance(v, str) for v in record.values()):
            raise ManifestError(f"{where}: factors must map names to strings, not {shown(record)}")
        key = tuple(sorted(record.items()))
        if key not in self.shared and (fault := _factors_fault(record)):
            raise ManifestError(f"{where}: factors: {fault}; write it without")
        return self.shared.setdefault(key, record)

    def several(self, where: str, records: Any) -> tuple[Utterance, ...]:
        if not isinstance(records, list) or not records:
            raise ManifestError(f"{where}: must be a list of at least one utterance")
        utterances = tuple(self.utterance(where, record) for record in records)
        key = tuple(u.utterance_id for u in utterances)
        if key not in self.shared:
            for later, earlier in combinations(reversed(utterances), 2):
                if self.same(later, earlier):
                    names = dict.fromkeys((earlier.utterance_id, later.utterance_id))
                    raise ManifestError(
                        f"{where}: lists one recording twice ({' and '.join(names)}); "
                        "it would count twice"
                    )
        return self.shared.setdefault(key, utterances)

    def utterance(self, where: str, record: Any) -> Utterance:
        if isinstance(record, str):
            if record not in self.by_id:
                raise ManifestError(
                    f"{where}: {shown(record)} names an utterance that no earlier line describes; "
                    "write its first mention in full"
                )
            return self.by_id[record]
        _check_keys(where, record, Utterance, "utterance")
        for key, value in record.items():
            if key != "seconds" and not isinstance(value, str):
                raise ManifestError(f"{where}: {key} must be a string, not {shown(value)}")
        length = record.get("seconds")
        if length is not None and not _is_duration(length):
            raise ManifestError(
                f"{where}: seconds ({shown(length)}) must be a positive number, "
                f"at most {MOST_SECONDS}"
            )
        language = record.get("language", ENGLISH)
        if not LANGUAGE.fullmatch(language):
            raise ManifestError(
                f"{where}: language {shown(language)} must be an ISO 639 code of two or three "
                "small letters, such as en or zh"
            )
        content = json.dumps(record, sort_keys=True)
        if content in self.seen:
            return self.seen[content]
        if fault := string_fault(record):
            raise ManifestError(f"{where}: {fault}; write it without")
        for key in ("utterance_id", "path"):
            if not record[key].strip():
                raise ManifestError(f"{where}: {key} is empty; it names the recording")
        where = f"{where} {record['utterance_id'][:80]}"
        with _path_errors(where, record["path"]):
            path = (self.root / record["path"]).resolve()
        if not path.is_relative_to(self.root):
            raise ManifestError(
                f"{where}: path {shown(record['path'])} leaves the corpus root {self.root}"
            )
        utterance = Utterance(**{**record, "path": path})
        if utterance.utterance_id not in self.utterances:
            with _path_errors(where, record["path"]):
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
                f"{where}: its {differs} is {shown(getattr(utterance, differs))} here and "
                f"{shown(getattr(known, differs))} on an earlier line; one id is one recording"
            )
        if self.files and not known.sha256:
            # Conversions and scores are always cached by content.
            with _path_errors(where, record["path"]):
                known = replace(known, sha256=sha256_of(path))
        self.by_id[known.utterance_id] = known
        return self.seen.setdefault(content, known)


def _parsed(where: str, line: str) -> Any:
    """The JSON value of a line; raises ManifestError if an object has a key twice."""
    if "\0" in line:  # UTF-16 without a byte order mark, or a damaged file
        raise ManifestError(f"{where}: not UTF-8 text (it has NUL bytes); save it as UTF-8")
    try:
        return DECODER.decode(line)
    except ManifestError as error:
        raise ManifestError(f"{where}: {error}; keep one of them") from error
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON ({error}); one trial a line") from error
    except RecursionError as error:
        raise ManifestError(f"{where}: lists in lists in lists; a trial is one object") from error


def _factors_fault(factors: Mapping[str, str]) -> str | None:
    faults = (string_fault({"a name": name, name: value}) for name, value in factors.items())
    return next(filter(None, faults), None)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ManifestError(f"key {shown(twice)} stands in one object more than once")
    return record


def _whole(digits: str) -> int | float:
    """The number; over 19 digits become a float, perhaps infinity, which every key refuses."""
    return int(digits) if len(digits) < 20 else float(digits)


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole)


def _is_duration(value: Any) -> bool:
    """Whether the value is a positive number of seconds; true and false are not numbers."""
    return type(value) in (int, float) and 0 < value <= MOST_SECONDS


@contextmanager
def _path_errors(where: str, path: str) -> Iterator[None]:
    """Raises the operating system's errors about a path as ManifestError with line and key."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(f"{where}: path {shown(path)} cannot be opened ({reason})") from error


def _check_keys(where: str, record: Any, kind: type, noun: str) -> None:
    """Raises ManifestError unless `record` has `kind`'s required fields and no others."""
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: must be a JSON object ({noun}), not {shown(record)}")
    known = [f.name for f in fields(kind)]
    for key in record:
        if key not in known:
            raise ManifestError(
                f"{where}: unknown key {shown(key)} in {noun}; {choose_one_of(key, known)}"
            )
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    for key in needed:
        if key not in record:
            raise ManifestError(f"{where}: no {key!r} in {noun}; it needs {', '.join(needed)}")

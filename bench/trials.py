"""Trials and suites: whose words in whose voice, and what the result is held against.

A suite on disk is a JSON Lines manifest, one trial a line:

    {"trial_id": "F2M-000", "source": {…}, "references": [{…}], "enrolment": [{…}, …],
     "source_enrolment": [{…}, …], "target": {…}, "reference_seconds": 4.0,
     "factors": {"gender_pair": "F2M"}}

where each {…} is an utterance: `utterance_id, speaker, gender, path, text` and, where known,
`sha256, corpus, seconds`. Paths are relative to the corpus root and may not leave it. In place of a
{…} the id of an utterance that stood on an earlier line will do: long lists name each in full once.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import soundfile

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError, choose_one_of
from bench.files import fingerprint, sha256_of

TRIAL_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,119}")
SECONDS_TOLERANCE = 0.011  # durations in corpora's own lists are rounded to 10 ms

# The factor of trials whose enrolment is the reference itself, as in most published lists: there
# the corpus has nothing else of the speaker, and a copy of the reference would win.
ENROLMENT, REFERENCE = "enrolment", "reference"


class ManifestError(UserError):
    """A manifest that cannot be used; the message names the file, the line and the key."""


@dataclass(frozen=True)
class Utterance:
    """One recording of one speaker.

    Attributes:
        utterance_id: its name in the corpus.
        speaker: its speaker's name in the corpus.
        gender: F or M, or "" where the corpus does not say.
        path: the audio file.
        text: what is said.
        sha256: hash of the audio file's bytes, or "" where unknown.
        corpus: with its split, "LibriSpeech/test-clean", or "" where unknown: what a system's
            `trained_on` is held against.
        seconds: its duration, or None where unknown.
    """

    utterance_id: str
    speaker: str
    gender: str
    path: Path
    text: str
    sha256: str = ""
    corpus: str = ""
    seconds: float | None = None

    def load(self) -> Waveform:
        """Its audio.

        Raises:
            AudioError: if the file cannot be used.
        """
        return audio.load(self.path)

    def difference(self) -> str | None:
        """How its file differs from what is known of the recording, or None where it does not."""
        if self.sha256:
            actual = sha256_of(self.path)
            if actual != self.sha256:
                return f"sha256 {actual[:12]}…, not {self.sha256[:12]}…"
        if self.seconds is not None:
            try:
                seconds = soundfile.info(self.path).duration
            except soundfile.LibsndfileError:
                return None  # `load` says what is wrong with it
            if abs(seconds - self.seconds) > SECONDS_TOLERANCE:
                return f"{seconds:.2f} s long, not {self.seconds:.2f} s"
        return None


@dataclass(frozen=True)
class Trial:
    """One conversion: the words of `source` in the voice of `references`.

    Attributes:
        trial_id: unique in its suite; the seed of the conversion is drawn from it.
        source: gives the words.
        references: give the voice: joined in this order, then cut to `reference_seconds`.
        enrolment: OTHER utterances of the target speaker, which SECS compares with.
        source_enrolment: other utterances of the source speaker, which leakage is measured against;
            empty where the suite has none.
        target: one more true utterance of the target speaker, neither reference nor enrolment:
            what a speaker judge gives a perfect conversion. None where the corpus has none.
        reference_seconds: how much of the joined references the system hears; None for all.
        factors: what the report slices by: {"gender_pair": "F2M", "reference_seconds": "4"}.
    """

    trial_id: str
    source: Utterance
    references: tuple[Utterance, ...]
    enrolment: tuple[Utterance, ...]
    source_enrolment: tuple[Utterance, ...] = ()
    target: Utterance | None = None
    reference_seconds: float | None = None
    factors: Mapping[str, str] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """The target speaker."""
        return self.references[0].speaker

    def reference(self) -> Waveform:
        """What the system hears of the target speaker, at the first reference's sample rate."""
        joined = audio.concatenate([utterance.load() for utterance in self.references])
        return joined if self.reference_seconds is None else joined.first(self.reference_seconds)

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All that it names: source, references, enrolments, target."""
        target = () if self.target is None else (self.target,)
        return (
            self.source,
            *self.references,
            *self.enrolment,
            *self.source_enrolment,
            *target,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that a conversion or a score could depend on.

        Paths do not count, nor where a recording comes from, nor its duration (its hash says more).
        """

        def essential(value: Any) -> Any:
            if isinstance(value, dict):
                about = ("path", "corpus", "seconds")
                return {k: essential(v) for k, v in value.items() if k not in about}
            return [essential(v) for v in value] if isinstance(value, tuple) else value

        return fingerprint(essential(asdict(self)))


@dataclass(frozen=True)
class Suite:
    """A frozen list of trials.

    Attributes:
        name: as in `vcbench run suite=NAME`.
        trials: in the manifest's order, which builders interleave: beginnings are balanced.
        sha256: hash of the manifest file.
        changed: ids of the recordings that are not those that the manifest was made with.
    """

    name: str
    trials: tuple[Trial, ...]
    sha256: str
    changed: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        name: str,
        manifest: str | Path,
        root: str | Path,
        sha256: str | None = None,
        limit: int | None = None,
    ) -> "Suite":
        """Reads and checks a manifest.

        Args:
            name: the suite's name.
            manifest: a JSON Lines file, one trial a line.
            root: the corpus folder; the manifest's paths are relative to it and stay inside it.
            sha256: what the manifest's hash must be: a frozen suite never changes unnoticed.
            limit: only the first so many trials.

        Raises:
            ManifestError: names the file, line and key of what is wrong.
        """
        manifest, root = Path(manifest), Path(root)
        if not manifest.is_file():
            raise ManifestError(f"suite {name}: no manifest at {manifest}; check `manifest`")
        actual = sha256_of(manifest)
        if sha256 is not None and actual != sha256:
            raise ManifestError(
                f"suite {name}: {manifest} has sha256 {actual[:12]}…, not the frozen "
                f"{sha256[:12]}…; restore it, or save your changes as another suite"
            )
        if not root.is_dir():
            raise ManifestError(
                f"suite {name}: no corpus folder at {root}; set `root` to it, or see "
                "`vcbench corpus ls` for those that can be fetched"
            )
        trials = tuple(islice(read_trials(manifest, root), limit))
        if not trials:
            raise ManifestError(f"{manifest}: no trials in it; a suite needs at least one")
        return cls(name, trials, actual)

    @property
    def utterances(self) -> dict[str, Utterance]:
        """Every utterance that a trial names, once, by its id."""
        return {u.utterance_id: u for trial in self.trials for u in trial.utterances}

    def check_audio(self) -> list[str]:
        """Checks that every audio file is the one that the manifest was made with.

        Returns:
            Cautions about files that can be used but lower scores, one line each.

        Raises:
            ManifestError: if a file's hash differs from the manifest's.
            AudioError: if a file is not usable audio.
        """
        cautions = []
        for utterance in self.utterances.values():
            if difference := utterance.difference():
                raise ManifestError(
                    f"suite {self.name}: {utterance.path} is not the recording that the manifest "
                    f"was made with ({utterance.utterance_id}: {difference}); get the corpus in "
                    "that release, or add allow_changed=true: the report will say so"
                )
            utterance.load()
            if caution := audio.caution(utterance.path):
                cautions.append(caution)
        return cautions

    def as_found(self) -> "Suite":
        """The suite with the recordings as they are now, and what differs in `changed`."""
        known = self.utterances
        found = {
            name: replace(utterance, sha256=sha256_of(utterance.path), seconds=None)
            for name, utterance in known.items()
            if utterance.difference() is not None
        }

        def now(utterances: tuple[Utterance, ...]) -> tuple[Utterance, ...]:
            return tuple(found.get(u.utterance_id, u) for u in utterances)

        trials = tuple(
            replace(
                trial,
                source=found.get(trial.source.utterance_id, trial.source),
                references=now(trial.references),
                enrolment=now(trial.enrolment),
                source_enrolment=now(trial.source_enrolment),
                target=None if trial.target is None else now((trial.target,))[0],
            )
            for trial in self.trials
        )
        return replace(self, trials=trials, changed=tuple(sorted(found)))


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

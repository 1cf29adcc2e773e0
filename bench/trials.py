"""Trials and suites: whose words in whose voice, and what the result is held against.

A suite on disk is a JSON Lines manifest, one trial a line:

    {"trial_id": "F2M-000", "source": {…}, "references": [{…}], "enrolment": [{…}, …],
     "source_enrolment": [{…}, …], "target": {…}, "reference_seconds": 4.0,
     "factors": {"gender_pair": "F2M"}}

where each {…} is an utterance: `utterance_id, speaker, gender, path, text, sha256`. Paths are
relative to the corpus root and may not leave it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError, choose_one_of
from bench.files import fingerprint, sha256_of

TRIAL_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,119}")


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
    """

    utterance_id: str
    speaker: str
    gender: str
    path: Path
    text: str
    sha256: str = ""

    def load(self) -> Waveform:
        """Its audio.

        Raises:
            AudioError: if the file cannot be used.
        """
        return audio.load(self.path)


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
        """Hash of everything that a conversion or a score could depend on; paths do not count."""

        def without_paths(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: without_paths(v) for k, v in value.items() if k != "path"}
            return [without_paths(v) for v in value] if isinstance(value, tuple) else value

        return fingerprint(without_paths(asdict(self)))


@dataclass(frozen=True)
class Suite:
    """A frozen list of trials.

    Attributes:
        name: as in `vcbench run suite=NAME`.
        trials: in the manifest's order, which builders interleave: beginnings are balanced.
        sha256: hash of the manifest file.
    """

    name: str
    trials: tuple[Trial, ...]
    sha256: str

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
        if not root.is_dir():
            raise ManifestError(f"suite {name}: no corpus folder at {root}; set `root` to it")
        actual = sha256_of(manifest)
        if sha256 is not None and actual != sha256:
            raise ManifestError(
                f"suite {name}: {manifest} has sha256 {actual[:12]}…, not the frozen "
                f"{sha256[:12]}…; restore it, or save your changes as another suite"
            )
        reader = _Reader(manifest, root.resolve())
        try:
            lines = manifest.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ManifestError(
                f"{manifest}: not UTF-8 text ({error}); save it as UTF-8"
            ) from error
        trials = tuple(
            reader.trial(number, line) for number, line in enumerate(lines, 1) if line.strip()
        )
        if not trials:
            raise ManifestError(f"{manifest}: no trials in it; a suite needs at least one")
        return cls(name, trials[:limit], actual)

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
            if utterance.sha256 and (actual := sha256_of(utterance.path)) != utterance.sha256:
                raise ManifestError(
                    f"suite {self.name}: {utterance.path} is not the recording that the manifest "
                    f"was made with (sha256 {actual[:12]}…, not {utterance.sha256[:12]}…)"
                )
            utterance.load()
            if caution := audio.caution(utterance.path):
                cautions.append(caution)
        return cautions


def trial_to_json(trial: Trial, root: Path) -> str:
    """The trial's line in a manifest, paths relative to `root`."""

    def plain(utterance: Utterance) -> dict[str, str]:
        path = utterance.path.resolve().relative_to(root.resolve()).as_posix()
        return {**asdict(utterance), "path": path}

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

    def __init__(self, manifest: Path, root: Path) -> None:
        self.manifest = manifest
        self.root = root
        self.lines: dict[str, int] = {}  # trial_id -> line
        self.utterances: dict[str, Utterance] = {}
        self.seen: dict[str, Utterance] = {}  # record -> utterance, so that each is checked once

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
        for utterance in (*enrolment, *([held_out] if held_out else [])):
            if any(_same_recording(utterance, heard) for heard in (source, *references)):
                raise ManifestError(
                    f"{where}: enrolment or target {utterance.utterance_id} is also source or "
                    "reference; SECS would compare a recording with what the system was given"
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
        factors = record.get("factors", {})
        if not isinstance(factors, dict) or not all(isinstance(v, str) for v in factors.values()):
            raise ManifestError(f"{where}: factors must map names to strings, not {factors!r}")
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

    def several(self, where: str, records: Any) -> tuple[Utterance, ...]:
        if not isinstance(records, list) or not records:
            raise ManifestError(f"{where}: must be a list of at least one utterance")
        return tuple(self.utterance(where, record) for record in records)

    def utterance(self, where: str, record: Any) -> Utterance:
        _check_keys(where, record, Utterance, "utterance")
        content = json.dumps(record, sort_keys=True)
        if content in self.seen:
            return self.seen[content]
        where = f"{where} {record['utterance_id']}"
        for key, value in record.items():
            if not isinstance(value, str):
                raise ManifestError(f"{where}: {key} must be a string, not {value!r}")
        path = (self.root / record["path"]).resolve()
        if not path.is_relative_to(self.root):
            raise ManifestError(
                f"{where}: path {record['path']!r} leaves the corpus root {self.root}"
            )
        utterance = Utterance(**{**record, "path": path})
        if utterance.utterance_id not in self.utterances:
            if not path.is_file():
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
        if not known.sha256:  # what is converted and scored is known by its content, always
            known = replace(known, sha256=sha256_of(path))
        return self.seen.setdefault(content, known)


def _same_recording(one: Utterance, other: Utterance) -> bool:
    """Whether they are one recording, whatever their ids."""
    return (
        one.utterance_id == other.utterance_id
        or one.path == other.path
        or one.sha256 == other.sha256
    )


def _check_keys(where: str, record: Any, kind: type, noun: str) -> None:
    """Raises ManifestError unless `record` has `kind`'s required fields and no others."""
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: must be a JSON object ({noun}), not {record!r}")
    known = [f.name for f in fields(kind)]
    optional = {"source_enrolment", "target", "reference_seconds", "factors", "sha256"}
    for key in record:
        if key not in known:
            raise ManifestError(
                f"{where}: unknown key {key!r} in {noun}; {choose_one_of(key, known)}"
            )
    for key in known:
        if key not in record and key not in optional:
            raise ManifestError(f"{where}: no {key!r} in {noun}; it needs {', '.join(known)}")

"""The first stage: every system converts every trial. Audio and records go into the run folder.

A system that fails is a result: its error is recorded and counted. Errors of the harness (a corpus
file that cannot be read, a full disk) stop the run; finished conversions stay.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench import audio
from bench.errors import UserError
from bench.files import JsonLog, file_sha256, fingerprint
from bench.guard import ProcessState, guarded
from bench.objects import DECLARATIONS
from bench.stages.execute import Outcome, call, one_line
from bench.stages.isolated import Isolated
from bench.systems import EXISTING, SYSTEM, Existing, Facts, System, facts_of
from bench.trials import Suite, Trial

WARM_UPS = 2  # untimed conversions before a system's first timed one


@dataclass(frozen=True)
class Entry:
    """A row of the results: a system with its name, settings and facts.

    Attributes:
        name: its key in the configuration.
        system: converts, or has the audio already; None if nothing is to be converted.
        settings: its configuration, which its conversions depend on.
        facts: what is known about it; by default the system is asked.
    """

    name: str
    system: System | Existing | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Facts = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.facts is None:
            what = f"system {self.name}"
            facts = facts_of(self.system, what, self.settings).declared_in(self.settings, what)
            object.__setattr__(self, "facts", facts)


@dataclass
class WarmUps:
    """The untimed conversions before a system's first timed one: once for all of its suites."""

    done: bool = False


@dataclass(frozen=True)
class Conversion:
    """The record of one trial in one system.

    Attributes:
        status: "ok"; "failed" (see `error`); "absent" if the corpus has no such recording.
        error: what the system raised, or what is wrong with its audio; "" unless failed.
        wav: path of the audio relative to the run folder; "" unless ok.
        wav_sha256: hash of that file.
        seed: the seed that the system was given.
        elapsed_seconds: time in `convert`, I/O and warm-ups excluded; None for recordings.
        audio_seconds: duration of the converted speech.
        stages: seconds by stage, if the system names its stages.
        first_chunk_seconds, stream_seconds, streamed_seconds: see `bench.stages.execute.Streamed`;
            None if the system does not stream.
        sample_rate: of the converted speech, Hz.
        peak: largest magnitude before the 16-bit file was written.
        clipped: share of samples outside [-1, 1] before that, 0 to 1.
        trial: fingerprint of the trial.
        settings: fingerprint of the system's settings and code and of the seed of the run.
        origin: code and machine that converted (`bench.provenance.origin`); "" for recordings, for
            conversions that existed already, and in records of earlier versions.
        remarks: what the system changed in its process, such as "set torch's default dtype to
            torch.bfloat16"; "" if nothing.
    """

    trial_id: str
    status: str
    trial: str
    settings: str
    seed: int
    error: str = ""
    wav: str = ""
    wav_sha256: str = ""
    elapsed_seconds: float | None = None
    audio_seconds: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    sample_rate: int | None = None
    peak: float | None = None
    clipped: float | None = None
    origin: str = ""
    remarks: str = ""
    first_chunk_seconds: float | None = None
    stream_seconds: float | None = None
    streamed_seconds: float | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Conversion":
        """The record with all these fields, in a tenth of the time that `__init__` takes.

        Args:
            fields: a value for every field, and nothing else.
        """
        record = object.__new__(cls)
        record.__dict__.update(fields)
        return record

    def to_json(self) -> dict[str, Any]:
        """Its fields, as the log holds them."""
        return {**vars(self), "stages": dict(self.stages)}


RECORD_FIELDS = {f.name for f in fields(Conversion)}


def trial_seed(trial_id: str, seed: int) -> int:
    """The seed of one conversion, 32 bits: a hash of the trial's id and the run's seed alone."""
    digest = hashlib.sha256(f"{seed}:{trial_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def log_path(folder: Path, system: str, suite: str) -> Path:
    """Where the conversions of one system over one suite are recorded."""
    return folder / "conversions" / system / f"{suite}.jsonl"


def wav_of(system: str, suite: str, trial_id: str) -> str:
    """Where the sound of a conversion is, relative to the run folder."""
    return f"wav/{system}/{suite}/{trial_id}.wav"


def read_conversions(folder: Path, system: str, suite: str) -> dict[str, Conversion]:
    """The latest record of every trial, by trial id.

    Raises:
        UserError: if a record is damaged, is of another version, or names a file outside of
            `folder`.
    """
    path = log_path(folder, system, suite)
    records = (conversion_of(fields, path) for fields in JsonLog(path).read())
    return {record.trial_id: record for record in records}


def conversion_of(fields: Mapping[str, Any], path: Path) -> Conversion:
    """The record that a line of a log holds.

    Args:
        fields: of the line.
        path: of the log, for errors.

    Raises:
        UserError: if it is of another version, or names a file outside of the run's folder.
    """
    try:
        record = Conversion.of(fields) if fields.keys() == RECORD_FIELDS else Conversion(**fields)
    except TypeError as error:
        raise UserError(
            f"{path} has a record of another version ({error}); delete the file, and its "
            "trials are converted again"
        ) from error
    wav = str(record.wav)
    if wav.startswith("/") or ".." in wav.split("/"):
        raise UserError(f"{path}: {record.wav!r} leaves the run's folder; delete the record")
    return record


def convert_suite(
    entry: Entry,
    suite: Suite,
    folder: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    advance: Callable[[], None] = lambda: None,
    warm_ups: WarmUps | None = None,
) -> dict[str, Conversion]:
    """Converts what is not yet converted and returns the record of every trial of the suite.

    Finished conversions are kept, even if somebody has changed the wav since: such a file is scored
    as it is. Failed conversions are tried again. Existing audio is copied again.

    Args:
        entry: the system and its name.
        suite: the trials.
        folder: the run folder.
        seed: of the run; each conversion's seed is drawn from it and the trial's id.
        overwrite: convert everything again.
        advance: called after every trial.
        warm_ups: of the system, where it has converted another suite before; None for new ones.

    Raises:
        UserError: if the folder holds conversions by other settings or of another trial.
    """
    settings = settings_fingerprint(entry, seed)
    is_copy = entry.facts.kind == EXISTING and not entry.facts.role
    known = {} if overwrite or is_copy else read_conversions(folder, entry.name, suite.name)
    done: dict[str, Conversion] = {}
    warm_ups = warm_ups or WarmUps()
    with JsonLog(log_path(folder, entry.name, suite.name)) as log:
        for trial in suite.trials:
            record = known.get(trial.trial_id)
            if record is not None and record.status != "failed":
                check_belongs(record, trial, settings, entry.name, suite.name, folder)
                if record.status == "absent" or (folder / record.wav).is_file():
                    done[trial.trial_id] = record
                    advance()
                    continue
            outcome = None
            if not warm_ups.done and entry.facts.kind == SYSTEM:
                outcome = warm_up(entry.system, trial, seed)
                warm_ups.done = True
            record = convert_trial(entry, trial, suite.name, folder, settings, seed, outcome)
            log.append(record.to_json())
            done[trial.trial_id] = record
            advance()
    return done


def remarks_on(
    entry: Entry, suite: Suite, folder: Path, conversions: Sequence[Conversion]
) -> list[str]:
    """Notes for the user: failed conversions, and files that were changed."""
    remarks = []
    failed = [c for c in conversions if c.status == "failed"]
    if failed:
        remarks.append(
            f"{entry.name} failed on {len(failed)} of {len(conversions)} trials of {suite.name}, "
            f"first {failed[0].trial_id}: {failed[0].error}"
        )
    if changed := altered(folder, conversions):
        remarks.append(
            f"{len(changed)} files of {entry.name} in {suite.name} were changed since they "
            f"were converted (first {changed[0]}); they are scored as they are now"
        )
    return remarks


def altered(folder: Path, conversions: Sequence[Conversion]) -> list[str]:
    """Ids of the trials whose wav is no longer the file that the conversion wrote."""
    return [
        c.trial_id
        for c in conversions
        if c.status == "ok" and file_sha256(folder / c.wav) != c.wav_sha256
    ]


def settings_fingerprint(entry: Entry, seed: int) -> str:
    """Hash of the system's settings, of the files that they name, of its code and of the seed.

    What the settings declare about the system (`bench.objects.DECLARATIONS`) is not part of it.
    """

    def content(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): content(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [content(v) for v in value]
        if entry.facts.kind == EXISTING:  # its files are hashed one by one
            return value
        path = _existing(value)
        if path is not None:
            if not path.is_dir():
                return file_sha256(path)
            # By content, not by path; notes next to a checkpoint (its card) change nothing.
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".md")
            return [[file.relative_to(path).as_posix(), file_sha256(file)] for file in files]
        return value

    settings = {k: v for k, v in entry.settings.items() if k not in DECLARATIONS}
    identity = {"settings": content(settings), "seed": seed}
    if entry.facts.code:  # without folders: moving a project changes nothing
        files = entry.facts.code.items()
        identity["code"] = sorted([Path(name).name, value] for name, value in files)
    return fingerprint(identity)


def _existing(value: Any) -> Path | None:
    """The existing file or folder that a setting names, or None."""
    if not isinstance(value, str) or value.strip(". ") == "":
        return None
    try:
        path = Path(value).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no home folder
        return None


def check_belongs(
    record: Conversion, trial: Trial, settings: str, system: str, suite: str, folder: Path
) -> None:
    """Raises UserError unless the record belongs to this trial and these settings."""
    what = "other settings or code" if record.settings != settings else "another trial"
    if record.settings != settings or record.trial != trial.fingerprint:
        raise UserError(
            f"{folder} holds {system}'s conversion of {suite}/{trial.trial_id} made with {what}; "
            "give this run another name=…, or add overwrite=true to convert again"
        )


def _call(system: Any, trial: Trial, seed: int) -> Outcome:
    """Calls a system once: in a separate process if it is isolated, else guarded in this one."""
    source, reference = trial.source.load(), trial.reference()
    if isinstance(system, Isolated):
        return system.outcome(source, reference, seed)
    with guarded():
        return call(system, source, reference, seed, ProcessState.now())


def warm_up(system: Any, trial: Trial, seed: int) -> Outcome | None:
    """Runs untimed conversions, so that compilation and first allocations are not timed.

    Returns:
        The outcome if the system's process ended, so that the trial is not tried again at once;
        else None.
    """
    for _ in range(WARM_UPS):
        outcome = _call(system, trial, trial_seed(trial.trial_id, seed))
        if outcome.process_ended:
            return outcome
        if outcome.error:  # it will be recorded when the trial is converted
            break
    return None


def convert_trial(
    entry: Entry,
    trial: Trial,
    suite: str,
    folder: Path,
    settings: str,
    seed: int,
    outcome: Outcome | None = None,
) -> Conversion:
    """Converts one trial and saves its audio.

    Args:
        entry: the system.
        trial: what is converted.
        suite: the name of its suite.
        folder: the run folder.
        settings: see `settings_fingerprint`.
        seed: of the run.
        outcome: of the system, if it is known already.
    """
    seed = trial_seed(trial.trial_id, seed)
    record = Conversion(trial.trial_id, "failed", trial.fingerprint, settings, seed)
    if entry.facts.kind == EXISTING:
        assert isinstance(entry.system, Existing)
        try:
            path = entry.system.path(suite, trial)
            if path is None:
                return replace(record, status="absent")
            outcome = Outcome(audio.load(path))
        except (FileNotFoundError, audio.AudioError) as error:
            return replace(record, error=one_line(error))
    elif outcome is None:
        outcome = _call(entry.system, trial, seed)
    record = replace(
        record,
        error=outcome.error,
        elapsed_seconds=outcome.elapsed_seconds,
        origin=outcome.origin,
        remarks="; ".join(outcome.remarks),
    )
    converted = outcome.converted
    if converted is None:
        return record
    wav = wav_of(entry.name, suite, trial.trial_id)
    converted.save(folder / wav)
    return replace(
        record,
        status="ok",
        wav=wav,
        wav_sha256=file_sha256(folder / wav),
        audio_seconds=converted.seconds,
        stages=outcome.stages,
        **({} if outcome.streamed is None else asdict(outcome.streamed)),
        sample_rate=converted.sample_rate,
        peak=converted.peak,
        clipped=float((converted.samples.abs() > 1).float().mean()),
    )

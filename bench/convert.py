"""The first stage: every system says every trial. Audio and records go into the run folder.

A system that fails is a result: its error is recorded and counted. Anything that is the harness's
own affair (a corpus file that cannot be read, a full disk) stops the run; what is finished stays.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError
from bench.files import JsonLog, fingerprint, sha256_of
from bench.provenance import origin
from bench.systems import Finished, Recording, System
from bench.timing import now, recording_stages
from bench.trials import Suite, Trial

WARM_UPS = 2  # untimed conversions before a system's first timed one


@dataclass(frozen=True)
class Entry:
    """A row of the results: a system or a recording with its name and settings.

    Attributes:
        name: its key in the configuration.
        system: what converts, has converted, or picks a recording.
        settings: its configuration, which its conversions depend on.
    """

    name: str
    system: System | Recording | Finished
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_recording(self) -> bool:
        return isinstance(self.system, Recording)

    @property
    def says_source_words(self) -> bool:
        return self.system.says_source_words if isinstance(self.system, Recording) else True


@dataclass(frozen=True)
class Conversion:
    """What became of one trial in one system.

    Attributes:
        status: "ok"; "failed" (see `error`); "absent" where the corpus has no such recording.
        error: what the system raised or what is wrong with its audio.
        wav: path of the audio relative to the run folder; "" unless ok.
        wav_sha256: hash of that file.
        seed: what the system was given.
        elapsed_seconds: time in `convert`, I/O and warm-ups excluded; None for recordings.
        audio_seconds: duration of the converted speech.
        stages: seconds by stage, where the system names its stages.
        sample_rate: of the converted speech, Hz.
        peak: largest magnitude before the 16-bit file was written.
        clipped: share of samples outside [-1, 1] before that.
        trial: fingerprint of the trial.
        settings: fingerprint of the system's settings and the seed of the run.
        origin: code and machine that converted (`bench.provenance.origin`); "" for recordings, for
            somebody's conversions, and in records of before there was one.
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


def trial_seed(trial_id: str, seed: int) -> int:
    """The seed of one conversion: from the trial's id and the run's seed alone."""
    digest = hashlib.sha256(f"{seed}:{trial_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def log_path(folder: Path, system: str, suite: str) -> Path:
    """Where the conversions of one system over one suite are recorded."""
    return folder / "conversions" / system / f"{suite}.jsonl"


def read_conversions(folder: Path, system: str, suite: str) -> dict[str, Conversion]:
    """The latest record of every trial, by trial id."""
    records = JsonLog(log_path(folder, system, suite)).read()
    return {record["trial_id"]: Conversion(**record) for record in records}


def convert_suite(
    entry: Entry,
    suite: Suite,
    folder: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Conversion]:
    """Converts what is not yet converted and returns the record of every trial of the suite.

    Finished conversions are kept, also where somebody changed the wav since: such a file is scored
    as it is. Failed ones are tried again. Somebody's conversions (`Finished`) are read anew.

    Args:
        entry: the system and its name.
        suite: the trials.
        folder: the run folder.
        seed: of the run; each conversion's seed is drawn from it and the trial's id.
        overwrite: convert everything again.
        advance: called after every trial.

    Raises:
        UserError: if the folder holds conversions by other settings or of another trial.
    """
    settings = settings_fingerprint(entry, seed)
    anew = overwrite or isinstance(entry.system, Finished)
    known = {} if anew else read_conversions(folder, entry.name, suite.name)
    done: dict[str, Conversion] = {}
    warm = False
    with JsonLog(log_path(folder, entry.name, suite.name)) as log:
        for trial in suite.trials:
            record = known.get(trial.trial_id)
            if record is not None and record.status != "failed":
                check_belongs(record, trial, settings, entry.name, suite.name, folder)
                if record.status == "absent" or (folder / record.wav).is_file():
                    done[trial.trial_id] = record
                    advance()
                    continue
            if not warm and isinstance(entry.system, System):
                _warm_up(entry, trial, seed)
                warm = True
            record = _convert(entry, trial, suite.name, folder, settings, seed)
            log.append(asdict(record))
            done[trial.trial_id] = record
            advance()
    return done


def altered(folder: Path, conversions: Sequence[Conversion]) -> list[str]:
    """Trials whose wav is no longer the file that the conversion wrote."""
    return [
        c.trial_id
        for c in conversions
        if c.status == "ok" and sha256_of(folder / c.wav) != c.wav_sha256
    ]


def settings_fingerprint(entry: Entry, seed: int) -> str:
    """Hash of the system's settings, of the files that they name, and of the run's seed."""

    def content(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): content(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [content(v) for v in value]
        if isinstance(entry.system, Finished):  # read anew each time
            return value
        if isinstance(value, str) and "/" in value and (path := Path(value)).exists():
            if not path.is_dir():
                return sha256_of(path)
            # By content and not by place; notes beside a checkpoint (its card) change nothing.
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".md")
            return [[file.relative_to(path).as_posix(), sha256_of(file)] for file in files]
        return value

    return fingerprint({"settings": content(entry.settings), "seed": seed})


def check_belongs(
    record: Conversion, trial: Trial, settings: str, system: str, suite: str, folder: Path
) -> None:
    """Raises UserError unless the record is of this trial, by these settings."""
    what = "other settings" if record.settings != settings else "another trial"
    if record.settings != settings or record.trial != trial.fingerprint:
        raise UserError(
            f"{folder} holds {system}'s conversion of {suite}/{trial.trial_id} made with {what}; "
            "give this run another name=…, or add overwrite=true to convert again"
        )


def _warm_up(entry: Entry, trial: Trial, seed: int) -> None:
    """Untimed conversions, so that compilation and first allocations stay out of the times."""
    source, reference = trial.source.load(), trial.reference()
    for _ in range(WARM_UPS):
        try:
            _run(entry.system, source, reference, trial_seed(trial.trial_id, seed))
        except Exception:  # it will be recorded when the trial is converted
            return


def _run(system: Any, source: Waveform, reference: Waveform, seed: int) -> Waveform:
    """Calls the system with every global source of randomness seeded too."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        return system.convert(source, reference, seed=seed)


def _convert(
    entry: Entry, trial: Trial, suite: str, folder: Path, settings: str, seed: int
) -> Conversion:
    seed = trial_seed(trial.trial_id, seed)
    own = origin() if isinstance(entry.system, System) else ""
    failed = Conversion(trial.trial_id, "failed", trial.fingerprint, settings, seed, origin=own)
    elapsed: float | None = None
    stages: dict[str, float] = {}
    if isinstance(entry.system, Recording):
        utterance = entry.system.recording(trial)
        if utterance is None:
            return Conversion(trial.trial_id, "absent", trial.fingerprint, settings, seed)
        converted = utterance.load()
    elif isinstance(entry.system, Finished):
        try:
            converted = audio.load(entry.system.finished(suite, trial))
        except (FileNotFoundError, audio.AudioError) as error:
            return _with(failed, error=_one_line(error))
    else:
        source, reference = trial.source.load(), trial.reference()
        try:
            with recording_stages() as stages:
                start = now()
                converted = _run(entry.system, source, reference, seed)
                elapsed = now() - start
            if not isinstance(converted, Waveform):
                raise TypeError(f"convert returned {type(converted).__name__}, not a Waveform")
            if fault := converted.fault():
                raise ValueError(f"converted speech is {fault}")
        except Exception as error:
            return _with(failed, error=_one_line(error), elapsed_seconds=elapsed)
    wav = Path("wav") / entry.name / suite / f"{trial.trial_id}.wav"
    converted.save(folder / wav)
    return _with(
        failed,
        status="ok",
        wav=wav.as_posix(),
        wav_sha256=sha256_of(folder / wav),
        elapsed_seconds=elapsed,
        audio_seconds=converted.seconds,
        stages=stages,
        sample_rate=converted.sample_rate,
        peak=converted.peak,
        clipped=float((converted.samples.abs() > 1).float().mean()),
    )


def _one_line(error: Exception) -> str:
    """The error as one line that any file can hold."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return reason.encode("utf-8", "replace").decode()


def _with(record: Conversion, **changes: Any) -> Conversion:
    return Conversion(**{**asdict(record), **changes})

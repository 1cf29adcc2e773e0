"""What the process that drives a run and its workers send each other: JSON, and never a pickle.

A call is {"method", "arguments"}. An answer has the fields of `Answer`. Its value is

- of `hello`: {"host", "pid"};
- of `convert`: {"records": [a record a trial], "digests": {hash of a file: hash of its samples}},
  and where files do not travel by a shared folder "sounds" (see `bench.stages.store`);
- of `load`: see `bench.stages.remote.JudgeFacts.to_json`;
- of `score`: a table of columns for each row;
- of `close`: null.

An utterance is the list of its fields, in their order: a call has thousands. Calls come from the
process that drives the run. Answers are untrusted: `Answer.decoded`, `records_in`, `columns_in` and
`bench.stages.remote.JudgeFacts.from_json` check every part, or raise `BrokenMessage`.
"""

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.errors import UserError, shown
from bench.files import are_texts, encoded, json_text
from bench.stages.cache import Columns
from bench.stages.convert import RECORD_FIELDS, Conversion, trial_seed, wav_of
from bench.stages.execute import one_line
from bench.stages.isolated import check_time
from bench.stages.judging import checked
from bench.stages.sounds import Row
from bench.stages.worker import BrokenMessage, json_object
from bench.trials import Trial, Utterance
from bench.weights.find import WeightsMissing

METHODS = ("hello", "load", "convert", "score", "close")  # that a worker may have
WEIGHTS, DISK, USER, OTHER = "weights", "disk", "user", "other"  # kinds of failures
MOST_BYTES = 1 << 28  # of an answer: one of 1000 records has 0.7 MB, one with sounds more
MOST_GIB = 1 << 20  # of a GPU
LARGEST = 3.5e38  # of any number in a record: float32 has no larger peak
SHA256 = re.compile(r"[0-9a-f]{64}")
UTTERANCE = tuple(f.name for f in fields(Utterance))
NOTHING: Mapping[str, Path] = {}


@dataclass(frozen=True)
class Answer:
    """What a worker answers.

    Attributes:
        value: the result, as JSON holds it; None if the call failed.
        seconds: time that the work took, without loading models.
        remarks: sentences for the user.
        failure: the kind of the error; "" if the call succeeded.
        message: the error in one line.
        path: the file that the error is about; "" for none.
        gpu_gib: memory of a GPU that the worker's process has needed so far; 0 if none or unknown.
        card_gib: memory of that GPU; 0 likewise.
    """

    value: Any = None
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    failure: str = ""
    message: str = ""
    path: str = ""
    gpu_gib: float = 0.0
    card_gib: float = 0.0

    def checked(self, what: str) -> Any:
        """The value.

        Args:
            what: the worker, for the error of a bug.

        Raises:
            WeightsMissing, UserError, OSError: the error of the call.
        """
        if self.failure == WEIGHTS:
            raise WeightsMissing(self.message)
        if self.failure == DISK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path or None)
        if self.failure == USER:
            raise UserError(self.message)
        if self.failure:
            raise UserError(f"{what}: {self.message}")
        return self.value

    def encoded(self) -> bytes:
        """The answer as JSON; the error instead, if JSON cannot hold the value."""
        try:
            return encoded(json_text(vars(self)))
        except UserError as error:
            return Answer(failure=OTHER, message=str(error)).encoded()

    @classmethod
    def decoded(cls, message: Any) -> "Answer":
        """The untrusted answer of a worker; what is in its value is checked by who asked for it.

        Raises:
            BrokenMessage: if it is no JSON, too long, or a field is missing or of a wrong type.
        """
        if not isinstance(message, bytes) or len(message) > MOST_BYTES:
            raise BrokenMessage("an answer that is no JSON, or too long")
        parts = json_object(message)
        if set(parts) != {f.name for f in fields(cls)}:
            raise BrokenMessage("an answer with other fields")
        check_time(parts["seconds"], LARGEST)
        if not (_is_memory(parts["gpu_gib"]) and _is_memory(parts["card_gib"])):
            raise BrokenMessage("a memory that cannot be")
        texts = [parts["failure"], parts["message"], parts["path"]]
        if not are_texts(parts["remarks"]) or not are_texts(texts):
            raise BrokenMessage("an answer with a text of a wrong type")
        if parts["failure"] not in ("", WEIGHTS, DISK, USER, OTHER):
            raise BrokenMessage(f"the unknown failure {shown(parts['failure'])}")
        return cls(**{**parts, "remarks": tuple(parts["remarks"])})


def _is_memory(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < MOST_GIB


def answered(call: Callable[[], Answer]) -> Answer:
    """The answer of a call; every error but Ctrl-C becomes one."""
    try:
        return call()
    except WeightsMissing as error:
        return Answer(failure=WEIGHTS, message=str(error))
    except UserError as error:
        return Answer(failure=USER, message=str(error))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return Answer(failure=DISK, path=str(error.filename or ""))
        return Answer(failure=OTHER, message=one_line(error))
    except (Exception, SystemExit) as error:
        return Answer(failure=OTHER, message=one_line(error))


def encoded_call(method: str, arguments: Sequence[Any]) -> bytes:
    """A call as JSON.

    Raises:
        UserError: names the argument that JSON cannot hold.
    """
    return encoded(json_text({"method": method, "arguments": arguments}))


def decoded_call(message: bytes) -> tuple[str, list[Any]]:
    """The method and the arguments of a call.

    Raises:
        BrokenMessage: if it is none.
    """
    parts = json_object(message)
    method, arguments = parts.get("method"), parts.get("arguments")
    if method not in METHODS or not isinstance(arguments, list):
        raise BrokenMessage(f"a call of {shown(method)}")
    return method, arguments


def trial_json(trial: Trial) -> dict[str, Any]:
    """The value that `trial_in` reads."""
    return {
        "trial_id": trial.trial_id,
        "source": _utterance_json(trial.source),
        "references": list(map(_utterance_json, trial.references)),
        "enrolment": list(map(_utterance_json, trial.enrolment)),
        "source_enrolment": list(map(_utterance_json, trial.source_enrolment)),
        "target": None if trial.target is None else _utterance_json(trial.target),
        "reference_seconds": trial.reference_seconds,
        "factors": dict(trial.factors),
    }


def trial_in(value: Mapping[str, Any], local: Mapping[str, Path] = NOTHING) -> Trial:
    """The trial that `trial_json` wrote.

    Args:
        value: parsed JSON.
        local: where files are on this machine, if not where the driver has them.
    """

    def listed(name: str) -> tuple[Utterance, ...]:
        return tuple(_utterance_in(utterance, local) for utterance in value[name])

    lists = ("references", "enrolment", "source_enrolment")
    parts: dict[str, Any] = {name: listed(name) for name in lists}
    parts["source"] = _utterance_in(value["source"], local)
    parts["target"] = None if value["target"] is None else _utterance_in(value["target"], local)
    return Trial(**{**value, **parts})


def row_json(row: Row, reads: frozenset[str]) -> dict[str, Any]:
    """The value that `row_in` reads: a row without what a judge with these `reads` does not need.

    Recordings that are not read are left out, so a worker cannot use them by mistake. Of those that
    are read, only the source has more than its path.
    """
    trial = row.trial
    value: dict[str, Any] = {
        "system": row.system,
        "suite": row.suite,
        "wav": row.conversion.wav,
        "trial_id": trial.trial_id,
        "source": _utterance_json(trial.source),
        "reference_seconds": trial.reference_seconds,
    }
    for name, utterances in (
        ("reference", trial.references),
        ("enrolment", trial.enrolment),
        ("source_enrolment", trial.source_enrolment),
    ):
        value[name] = [str(u.path) for u in utterances] if name in reads else ()
    return value


def row_in(value: Mapping[str, Any], local: Mapping[str, Path] = NOTHING) -> Row:
    """The row that `row_json` wrote.

    Its conversion has no more than its file, and so have the recordings but for the source.

    Args:
        value: parsed JSON.
        local: see `trial_in`; the converted sound by its path relative to the run's folder.
    """
    trial_id = value["trial_id"]
    references, enrolment, source_enrolment = (
        tuple(Utterance("", "", "", local.get(path) or Path(path), "") for path in value[name])
        for name in ("reference", "enrolment", "source_enrolment")
    )
    trial = Trial(
        trial_id,
        _utterance_in(value["source"], local),
        references,
        enrolment,
        source_enrolment,
        reference_seconds=value["reference_seconds"],
    )
    wav = str(local.get(value["wav"], value["wav"]))
    conversion = Conversion(trial_id, "ok", "", "", 0, wav=wav)
    return Row(value["system"], value["suite"], True, trial, conversion)


def _utterance_json(utterance: Utterance) -> list[Any]:
    return [
        utterance.utterance_id,
        utterance.speaker,
        utterance.gender,
        str(utterance.path),
        utterance.text,
        utterance.sha256,
        utterance.corpus,
        utterance.seconds,
        utterance.language,
    ]


def _utterance_in(value: Sequence[Any], local: Mapping[str, Path]) -> Utterance:
    utterance = object.__new__(Utterance)  # see Conversion.of
    parts = utterance.__dict__
    parts.update(zip(UTTERANCE, value, strict=True))
    parts["path"] = local.get(parts["path"]) or Path(parts["path"])
    return utterance


def check_hello(value: Any) -> None:
    """Checks the untrusted value of `hello`.

    Raises:
        BrokenMessage: unless it names a host and a process.
    """
    host, pid = (value.get("host"), value.get("pid")) if isinstance(value, dict) else (None, None)
    if not isinstance(host, str) or type(pid) is not int or not 0 < pid < LARGEST:
        raise BrokenMessage("no host and process")


def records_in(
    value: Any, trials: Sequence[Trial], system: str, suite: str, settings: str, seed: int
) -> tuple[list[Conversion], dict[str, str]]:
    """The records and digests in an untrusted value of `convert`.

    The hash of a trial takes long to compute. It is compared for the first record, which detects
    machines with other code, and for all records when the tables are written.

    Args:
        value: parsed JSON.
        trials: that the worker was asked for, in their order.
        system: its name.
        suite: its name.
        settings: fingerprint that the records must have.
        seed: of the run.

    Raises:
        BrokenMessage: if records are missing, of other trials or settings, or impossible.
    """
    value = value if isinstance(value, dict) else {}
    given, digests = value.get("records"), value.get("digests")
    if not isinstance(given, list) or len(given) != len(trials):
        raise BrokenMessage(f"no list of {len(trials)} records")
    records: list[Conversion] = []
    for parts, trial in zip(given, trials, strict=True):
        if not isinstance(parts, dict) or parts.keys() != RECORD_FIELDS:
            raise BrokenMessage(f"a record of {trial.trial_id} with other fields")
        record = Conversion.of(parts)
        expected = (trial.trial_id, settings, trial_seed(trial.trial_id, seed))
        is_expected = (record.trial_id, record.settings, record.seed) == expected
        if not is_expected or (not records and record.trial != trial.fingerprint):
            raise BrokenMessage(f"a record of another trial or settings for {trial.trial_id}")
        wav = wav_of(system, suite, trial.trial_id)
        if fault := _fault(record, wav):
            raise BrokenMessage(f"a record of {trial.trial_id} with {fault}")
        records.append(record)
    sounds = {record.wav_sha256 for record in records if record.wav}
    if not isinstance(digests, dict) or set(digests) != sounds:
        raise BrokenMessage("hashes of other sounds than it has converted")
    hashes = [*digests.values()]
    if not are_texts(hashes) or not all(map(SHA256.fullmatch, hashes)):
        raise BrokenMessage("hashes of sounds that are no hashes")
    return records, digests


def _fault(record: Conversion, wav: str) -> str:
    """What is wrong with an untrusted record; "" if nothing is.

    Args:
        record: with values of any type.
        wav: where its sound must be.
    """
    texts = [record.error, record.wav, record.wav_sha256, record.origin, record.remarks]
    if not are_texts([*texts, record.trial]) or not SHA256.fullmatch(record.trial):
        return "a text of a wrong type"
    if not isinstance(record.stages, dict) or not _are_amounts([*record.stages.values()]):
        return "stages that are no times"
    numbers = (
        *(record.elapsed_seconds, record.audio_seconds, record.peak, record.clipped),
        *(record.first_chunk_seconds, record.stream_seconds, record.streamed_seconds),
    )
    if not _are_amounts([number for number in numbers if number is not None]):
        return "a number that cannot be"
    if record.status == "ok":
        rate = record.sample_rate
        if type(rate) is not int or not 0 < rate < LARGEST or not record.audio_seconds:
            return "no duration or sample rate"
        has_hash = SHA256.fullmatch(record.wav_sha256) is not None
        is_whole = record.wav == wav and has_hash and not record.error
        return "" if is_whole else "another file, or no hash of it"
    if record.status not in ("failed", "absent") or record.wav or record.wav_sha256:
        return "an unknown state, or a file although there is none"
    if record.sample_rate is not None or bool(record.error) != (record.status == "failed"):
        return "an error that does not fit its state"
    return ""


def columns_in(
    value: Any, labels: Sequence[str], judge: str, metrics: Sequence[str]
) -> list[Columns]:
    """The columns in an untrusted value of `score`.

    Args:
        value: parsed JSON.
        labels: of the rows that the worker was asked for, in their order.
        judge: its name.
        metrics: that it measures.

    Raises:
        BrokenMessage: if it is no list of so many tables.
        JudgeError: if a value is no number, text or null, or lies outside of a metric's limits.
    """
    if not isinstance(value, list) or len(value) != len(labels):
        raise BrokenMessage(f"no list of {len(labels)} scores")
    try:
        return [
            checked(f"judge {judge} on {label}", metrics, columns)
            for label, columns in zip(labels, value, strict=True)
        ]
    except OverflowError as error:
        raise BrokenMessage(f"a score that is too large ({error})") from error


def _are_amounts(values: list[Any]) -> bool:
    """Whether all values are numbers from 0 to `LARGEST`."""
    if not values:
        return True
    if not set(map(type, values)) <= {int, float}:
        return False
    # A sum with NaN is NaN, wherever it stands.
    return bool(min(values) >= 0 and max(values) <= LARGEST and sum(values) >= 0)

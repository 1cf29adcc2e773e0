"""What the workers of an executor do, each in a process of its own: convert trials, judge rows.

A worker answers every call; errors travel as plain facts, because an exception of a third party
need not survive the way to another process.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import audio
from bench.errors import UserError
from bench.judges import Converted, Judge
from bench.metrics import Metric
from bench.objects import build
from bench.stages.cache import Columns
from bench.stages.convert import Entry, convert_trial, settings_fingerprint, warm_up
from bench.stages.execute import one_line
from bench.stages.isolated import Isolated
from bench.stages.judging import JudgeError
from bench.stages.score import READERS, judged_batches
from bench.stages.sounds import Row
from bench.systems import EXISTING, SYSTEM, Facts
from bench.trials import Trial
from bench.weights import Weights
from bench.weights.find import WeightsMissing

WEIGHTS, DISK, USER, OTHER = "weights", "disk", "user", "other"  # kinds of failures


@dataclass(frozen=True)
class Answer:
    """What a worker answers.

    Attributes:
        value: the result; None if the call failed.
        seconds: time that the work took, without loading models.
        remarks: sentences for the user.
        failure: the kind of the error; "" if the call succeeded.
        message: the error in one line.
        path: the file that the error is about; "" for none.
    """

    value: Any = None
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    failure: str = ""
    message: str = ""
    path: str = ""

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


@dataclass(frozen=True)
class SystemTask:
    """A system as a worker builds it.

    Attributes:
        name: of the system.
        settings: its configuration with `_target_`.
        facts: what is known about it.
        fingerprint: of its settings, files and code on the machine that drives the run.
    """

    name: str
    settings: Mapping[str, Any]
    facts: Facts
    fingerprint: str


class ConvertWorker:
    """Converts trials by one system at a time and saves their audio.

    Args:
        folder: of the run.
        seed: of the run.
        trial_seconds: see `bench.stages.isolated.Isolated`.
        isolated: whether a system converts in a process of its own, which this one starts.
    """

    def __init__(
        self, folder: str, seed: int, trial_seconds: float | None, isolated: bool = True
    ) -> None:
        self._folder = Path(folder)
        self._seed = seed
        self._trial_seconds = trial_seconds
        self._isolated = isolated
        self._entry: Entry | None = None
        self._warm: set[str] = set()  # suites

    def hello(self) -> Answer:
        """Says where it runs.

        Raises:
            UserError: if the run's folder is not there.
        """
        return hello(self._folder)

    def convert(self, task: SystemTask, suite: str, trials: Sequence[Trial]) -> Answer:
        """Converts trials.

        Returns:
            As value (records, digests): the fields of each trial's record, and hashes of the
            decoded samples by the hashes of the new files.

        Raises:
            UserError: if the system cannot be built here, or its files are others than those of
                the machine that drives the run.
        """
        entry = self._built(task)
        start = time.monotonic()
        records, digests = [], {}
        for trial in trials:
            outcome = None
            if suite not in self._warm and entry.facts.kind == SYSTEM:
                outcome = warm_up(entry.system, trial, self._seed)
            self._warm.add(suite)
            record = convert_trial(
                entry, trial, suite, self._folder, task.fingerprint, self._seed, outcome
            )
            if record.status == "ok":
                digests[record.wav_sha256] = audio.load(self._folder / record.wav).sha256
            records.append(record.to_json())
        return Answer((records, digests), time.monotonic() - start)

    def close(self) -> Answer:
        """Ends the process of the system."""
        if self._entry is not None and isinstance(self._entry.system, Isolated):
            self._entry.system.close()
        self._entry = None
        return Answer()

    def _built(self, task: SystemTask) -> Entry:
        if self._entry is not None and self._entry.name == task.name:
            return self._entry
        self.close()
        self._warm.clear()
        system: Any
        if task.facts.kind == EXISTING or not self._isolated:
            system, facts = build(dict(task.settings), f"system {task.name}"), task.facts
        else:
            system = Isolated(task.name, task.settings, self._trial_seconds)
            facts = system.facts  # waits until it is built
        entry = Entry(task.name, system, task.settings, facts)
        if settings_fingerprint(entry, self._seed) != task.fingerprint:
            if isinstance(system, Isolated):
                system.close()
            raise UserError(
                f"system {task.name}: on {socket.gethostname()} its checkpoint or code is another "
                "than where the run was started; make the files equal on all machines"
            )
        self._entry = entry
        return entry


@dataclass
class JudgeFacts:
    """A judge that a worker has built: what `bench.judges.Judge` says of itself, without a model.

    Attributes:
        class_name: dotted path of its class.
    """

    class_name: str
    reads: frozenset[str]
    metrics: tuple[str, ...]
    needs_source_words: bool
    fingerprint: str
    weights: tuple[Weights, ...]
    networks: tuple[str, ...] | None = None
    defines: Mapping[str, Metric] = field(default_factory=dict)

    @classmethod
    def of(cls, judge: Judge) -> "JudgeFacts":
        """What is known of a judge."""
        kind = type(judge)
        return cls(
            f"{kind.__module__}.{kind.__qualname__}",
            frozenset(judge.reads),
            tuple(judge.metrics),
            bool(judge.needs_source_words),
            judge.fingerprint,
            tuple(judge.weights),
            getattr(judge, "networks", None),
            getattr(judge, "defines", {}),
        )

    def score(self, items: Sequence[Converted]) -> list[Any]:
        """See `bench.judges.Judge`.

        Raises:
            JudgeError: always: its scores are in the cache, if no sound has changed meanwhile.
        """
        raise JudgeError("a sound was changed while it was scored; run the same command again")

    def self_test(self, recordings: Sequence[Any]) -> Any:
        """See `bench.judges.Judge`.

        Raises:
            JudgeError: always: the model is in another process.
        """
        raise JudgeError("its model is in another process; vcbench doctor runs self-tests")


class JudgeWorker:
    """Scores rows by one judge.

    Args:
        name: of the judge.
        settings: its configuration with `_target_`.
        folder: of the run.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], folder: str) -> None:
        self._name = name
        self._settings = settings
        self._folder = Path(folder)
        self._judge: Any = None

    def hello(self) -> Answer:
        """Says where it runs.

        Raises:
            UserError: if the run's folder is not there.
        """
        return hello(self._folder)

    def load(self) -> Answer:
        """Builds the judge; the value is its `JudgeFacts`.

        Raises:
            WeightsMissing: if its weights are not on this machine.
            UserError: if its settings are wrong.
        """
        if self._judge is None:
            from bench.judges import register_metrics_of

            self._judge = build(dict(self._settings), f"judge {self._name}")
            register_metrics_of(self._judge, self._name)
        return Answer(JudgeFacts.of(self._judge))

    def score(self, rows: Sequence[Row]) -> Answer:
        """The columns of each row, as value.

        Raises:
            JudgeError: names the row that the judge failed on.
            AudioError: if a converted file cannot be read.
        """
        self.load()
        start = time.monotonic()
        remarks: list[str] = []
        columns: list[Columns] = []
        with ThreadPoolExecutor(READERS) as readers:
            for part in judged_batches(
                rows, self._name, self._judge, self._folder, readers, remarks.append
            ):
                columns += part
        return Answer(columns, time.monotonic() - start, tuple(remarks))

    def close(self) -> Answer:
        """Forgets the judge."""
        self._judge = None
        return Answer()


def hello(folder: Path) -> Answer:
    """Says where a worker runs: as value {"host", "pid"}.

    Raises:
        UserError: if the run's folder is not there.
    """
    host = socket.gethostname()
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not there on {host}; put outputs= and the recordings on a folder that "
            "all machines share, or run shard=i/n on each machine and merge them"
        )
    return Answer({"host": host, "pid": os.getpid()})

"""What the workers of an executor do, each in a process of its own: convert trials, judge rows.

A worker answers every call (see `bench.stages.messages`); errors travel as plain facts.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench import audio
from bench.devices import gpu_memory
from bench.errors import UserError, shown
from bench.files import are_texts
from bench.judges import Converted, Judge
from bench.judges.checks import networks_of
from bench.metrics import Metric
from bench.objects import build
from bench.stages.cache import Columns
from bench.stages.convert import Entry, convert_trial, settings_fingerprint, warm_up
from bench.stages.isolated import Isolated
from bench.stages.judging import JudgeError
from bench.stages.messages import Answer, row_in, trial_in
from bench.stages.score import READERS, judged_batches
from bench.stages.sounds import Row
from bench.stages.store import ReceivedFiles
from bench.stages.worker import BrokenMessage
from bench.systems import EXISTING, SYSTEM, Facts
from bench.trials import Trial
from bench.weights import Weights

WEIGHTS_FIELDS = {f.name for f in fields(Weights)}
READABLE = {f.name for f in fields(Converted)} - {"trial_id"}


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

    def to_json(self) -> dict[str, Any]:
        """The value that `from_json` reads."""
        return {**vars(self), "settings": dict(self.settings), "facts": self.facts.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SystemTask":
        """The task that `to_json` wrote."""
        return cls(**{**value, "facts": Facts.from_json(value["facts"])})


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
    def of(cls, judge: Judge, name: str) -> "JudgeFacts":
        """What is known of a judge.

        Args:
            judge: any judge.
            name: its name, for the error.

        Raises:
            UserError: if its networks are no texts.
        """
        kind = type(judge)
        networks = networks_of(judge, name)
        return cls(
            f"{kind.__module__}.{kind.__qualname__}",
            frozenset(judge.reads),
            tuple(judge.metrics),
            bool(judge.needs_source_words),
            judge.fingerprint,
            tuple(judge.weights),
            None if networks is None else tuple(networks),
            getattr(judge, "defines", {}),
        )

    def to_json(self) -> dict[str, Any]:
        """The value that `from_json` reads."""
        return {
            **vars(self),
            "reads": sorted(self.reads),
            "weights": [asdict(weights) for weights in self.weights],
            "defines": {name: metric.to_json() for name, metric in self.defines.items()},
        }

    @classmethod
    def from_json(cls, value: Any, what: str) -> "JudgeFacts":
        """The facts in an untrusted value.

        Args:
            value: parsed JSON.
            what: the judge, for errors.

        Raises:
            BrokenMessage: if a part is missing or of a wrong type.
            UserError: if a metric that it defines has a fault.
        """
        if not isinstance(value, dict) or set(value) != {f.name for f in fields(cls)}:
            raise BrokenMessage("facts of no judge")
        names, weights, defines = value["networks"], value["weights"], value["defines"]
        lists = [value["reads"], value["metrics"], [] if names is None else names]
        if not all(map(are_texts, [*lists, [value["class_name"], value["fingerprint"]]])):
            raise BrokenMessage("facts of a judge with a text of a wrong type")
        if not set(value["reads"]) <= READABLE:
            raise BrokenMessage(f"facts of a judge that reads {shown(value['reads'])}")
        if type(value["needs_source_words"]) is not bool or not isinstance(defines, dict):
            raise BrokenMessage("facts of a judge with a part of a wrong type")
        if not isinstance(weights, list) or not all(map(_is_weights, weights)):
            raise BrokenMessage("facts of a judge with weights that are no files")
        parts = {
            "reads": frozenset(value["reads"]),
            "metrics": tuple(value["metrics"]),
            "weights": tuple(Weights(**part) for part in weights),
            "networks": None if names is None else tuple(names),
            "defines": {k: Metric.from_json(k, v, what) for k, v in defines.items()},
        }
        return cls(**{**value, **parts})

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


class ConvertWorker:
    """Converts trials by one system at a time and saves their audio.

    Args:
        folder: of the run; None where this process does not see it, and files come with the calls.
        seed: of the run.
        trial_seconds: see `bench.stages.isolated.Isolated`.
        isolated: whether a system converts in a process of its own, which this one starts.
    """

    def __init__(
        self, folder: str | None, seed: int, trial_seconds: float | None, isolated: bool = True
    ) -> None:
        self._files = ReceivedFiles() if folder is None else None
        self._folder = Path(folder or self._files.folder)  # type: ignore[union-attr]
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

    def convert(
        self,
        system: Mapping[str, Any],
        suite: str,
        trials: Sequence[Mapping[str, Any]],
        files: Sequence[Sequence[str]] = (),
        contents: Sequence[bytes] = (),
    ) -> Answer:
        """Converts trials.

        Args:
            system: see `SystemTask.to_json`.
            suite: its name.
            trials: see `bench.stages.messages.trial_json`.
            files: see `bench.stages.store.ReceivedFiles.received`.
            contents: likewise.

        Returns:
            As value {"records", "digests"}: the fields of each trial's record, and hashes of the
            decoded samples by the hashes of the new files; "sounds" without the run's folder.

        Raises:
            UserError: if the system cannot be built here, or its files are others than those of
                the machine that drives the run.
        """
        task = SystemTask.from_json(system)
        if self._files is None:
            return self._converted(task, suite, [trial_in(trial) for trial in trials])
        with self._files.received(files, contents) as local:
            local_trials = [trial_in(trial, local) for trial in trials]
            answer = self._converted(task, suite, local_trials)
        sounds = self._files.taken(answer.value["records"])
        return replace(answer, value={**answer.value, "sounds": sounds})

    def _converted(self, task: SystemTask, suite: str, trials: Sequence[Trial]) -> Answer:
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
        return Answer({"records": records, "digests": digests}, time.monotonic() - start)

    def close(self) -> Answer:
        """Ends the process of the system, and removes what was received."""
        self._end_system()
        if self._files is not None:
            self._files.close()
        return Answer()

    def _end_system(self) -> None:
        if self._entry is not None and isinstance(self._entry.system, Isolated):
            self._entry.system.close()
        self._entry = None

    def _built(self, task: SystemTask) -> Entry:
        if self._entry is not None and self._entry.name == task.name:
            return self._entry
        self._end_system()
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


class JudgeWorker:
    """Scores rows by one judge.

    Args:
        name: of the judge.
        settings: its configuration with `_target_`.
        folder: see `ConvertWorker`.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], folder: str | None) -> None:
        self._name = name
        self._settings = settings
        self._files = ReceivedFiles() if folder is None else None
        self._folder = Path(folder or self._files.folder)  # type: ignore[union-attr]
        self._judge: Any = None

    def hello(self) -> Answer:
        """Says where it runs.

        Raises:
            UserError: if the run's folder is not there.
        """
        return hello(self._folder)

    def load(self) -> Answer:
        """Builds the judge; the value is that of `JudgeFacts.to_json`.

        Raises:
            WeightsMissing: if its weights are not on this machine.
            UserError: if its settings are wrong.
        """
        if self._judge is None:
            from bench.judges import register_metrics_of

            self._judge = build(dict(self._settings), f"judge {self._name}")
            register_metrics_of(self._judge, self._name)
        return Answer(JudgeFacts.of(self._judge, self._name).to_json())

    def score(
        self,
        rows: Sequence[Mapping[str, Any]],
        files: Sequence[Sequence[str]] = (),
        contents: Sequence[bytes] = (),
    ) -> Answer:
        """The columns of each row, as value.

        Args:
            rows: see `bench.stages.messages.row_json`.
            files: see `bench.stages.store.ReceivedFiles.received`.
            contents: likewise.

        Raises:
            JudgeError: names the row that the judge failed on.
            AudioError: if a converted file cannot be read.
        """
        self.load()
        if self._files is None:
            return self._scored([row_in(row) for row in rows])
        with self._files.received(files, contents) as local:
            return self._scored([row_in(row, local) for row in rows])

    def _scored(self, rows: Sequence[Row]) -> Answer:
        start = time.monotonic()
        remarks: list[str] = []
        columns: list[Columns] = []
        with ThreadPoolExecutor(READERS) as readers:
            for part in judged_batches(
                rows, self._name, self._judge, self._folder, readers, remarks.append
            ):
                columns += part
        gpu_gib, card_gib = gpu_memory()
        return Answer(
            columns,
            time.monotonic() - start,
            tuple(remarks),
            gpu_gib=gpu_gib,
            card_gib=card_gib,
        )

    def close(self) -> Answer:
        """Forgets the judge, and removes what was received."""
        self._judge = None
        if self._files is not None:
            self._files.close()
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
            "all machines share, or send files through Ray: executor.files=store"
        )
    return Answer({"host": host, "pid": os.getpid()})


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == WEIGHTS_FIELDS and are_texts([*value.values()])

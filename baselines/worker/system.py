"""A baseline in an environment of its own, as a system of a run."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baselines.worker.client import Worker, WorkerFailed
from baselines.worker.environments import Environment, adapter_path, environments_folder
from bench.audio import Waveform
from bench.errors import UserError
from bench.stages.timing import record_stage
from bench.weights.find import WeightsMissing

MOST_ENDS = 3  # after so many conversions in a row ended the worker, no more are tried
LARGEST_LOG = 1 << 24  # bytes; a longer log is renamed before more is appended


class IsolatedBaseline:
    """Voice conversion by a library that runs in another virtual environment.

    The library's adapter (`baselines/isolated/`) runs in a worker process, with the interpreter of
    its environment. A worker that crashes, hangs or answers rubbish fails its conversion and is
    started again at once, so that no later conversion's time contains the loading of a model.

    Declare training data and networks in the settings: `_trained_on_`, `_networks_`.

    Args:
        adapter: a file of `baselines/isolated/` by its name, or the path of another one.
        python: the interpreter of its environment; null for the one that `vcbench baseline install`
            made.
        device: auto, cpu, cuda, cuda:1; auto is the first GPU that its torch has.
        trial_seconds: how long one conversion may take.
        load_seconds: how long loading the model may take.
        options: further arguments of the adapter.

    Attributes:
        versions: of the interpreter and the packages that convert, in one line.

    Raises:
        WeightsMissing: if its environment is not installed.
        UserError: if there is no such adapter, or its model cannot be loaded.
    """

    trained_on: frozenset[str] = frozenset({"unknown"})

    def __init__(
        self,
        adapter: str,
        python: str | None = None,
        device: str = "auto",
        trial_seconds: float | None = 600.0,
        load_seconds: float = 1200.0,
        **options: Any,
    ) -> None:
        self._adapter = adapter_path(adapter)
        self._environment = Environment.of(self._adapter, python)
        if missing := self._environment.missing():
            raise WeightsMissing(missing)
        self._device = device
        self._trial_seconds = trial_seconds
        self._load_seconds = load_seconds
        self._options = options
        self._log = environments_folder() / "logs" / f"{self._adapter.stem}.log"
        self._ends = 0  # in a row
        self._worker: Worker | None = None
        try:
            self._started()
        except WorkerFailed as error:
            raise UserError(f"{self._adapter.stem}: {error}; its log: {self._log}") from error

    @staticmethod
    def missing_weights(
        adapter: str, python: str | None = None, **_: Any
    ) -> tuple[WeightsMissing, ...]:
        """See `bench.systems.System`."""
        missing = Environment.of(adapter_path(adapter), python).missing()
        return (WeightsMissing(missing),) if missing else ()

    @property
    def versions(self) -> str:
        """See the class."""
        assert self._worker is not None
        return ", ".join(f"{k} {v}" for k, v in self._worker.handshake.versions.items())

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`, at the adapter's sample rate.

        Raises:
            RuntimeError: with the adapter's error, or how its process ended and the end of its
                stderr.
        """
        if self._ends >= MOST_ENDS:
            raise RuntimeError(f"not tried: {self._ends} conversions in a row ended the worker")
        try:
            worker = self._started()
            converted, stages = worker.convert(source, reference, seed, self._trial_seconds)
        except WorkerFailed:
            self._worker = None
            self._ends += 1
            if self._ends < MOST_ENDS:
                self._restart()
            raise
        self._ends = 0
        for name, seconds in stages.items():
            record_stage(name, seconds)
        return converted

    def close(self) -> None:
        """Ends the worker; a later conversion starts another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _restart(self) -> None:
        try:
            self._started()
        except WorkerFailed:  # the next conversion tries again and reports it
            self._worker = None

    def _started(self) -> Worker:
        if self._worker is None:
            _note_start(self._log)
            self._worker = Worker(
                self._environment.python,
                self._adapter,
                self._environment.folder,
                self._device,
                self._options,
                self._log,
                self._load_seconds,
            )
        return self._worker


def _note_start(log: Path) -> None:
    """Appends a line with the time; a log that has grown large is renamed first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LARGEST_LOG:
        log.replace(log.with_suffix(".old.log"))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"== started {datetime.now(UTC).isoformat(timespec='seconds')}\n")

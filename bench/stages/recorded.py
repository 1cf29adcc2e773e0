"""An index of the conversions of one system over one suite, for runs whose records fill the memory.

`bench.stages.convert.read_conversions` gives all records at once; here 9 bytes a trial stay in
memory, and a record is read from the log when it is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench.files import JsonLog
from bench.stages.convert import Conversion, Entry, check_belongs, conversion_of, log_path
from bench.systems import EXISTING
from bench.trials import Suite

NONE, OK, FAILED, ABSENT = 0, 1, 2, 3  # the state of a trial
STATES = {"ok": OK, "failed": FAILED, "absent": ABSENT}


class RecordedConversions:
    """The conversion log of one system over one suite; a context manager that closes it.

    Args:
        entry: the system.
        settings: its fingerprint (`bench.stages.convert.settings_fingerprint`).
        suite: the trials.
        folder: of the run.
        overwrite: take no record for done.
        has_file: whether a wav exists, by its path relative to `folder`.

    Attributes:
        states: of each trial, (trials,): `NONE` where it is to be converted.

    Raises:
        UserError: if a record is damaged, or belongs to other settings or another trial.
    """

    def __init__(
        self,
        entry: Entry,
        settings: str,
        suite: Suite,
        folder: Path,
        *,
        overwrite: bool = False,
        has_file: Any = None,
    ) -> None:
        self.entry = entry
        self.suite = suite
        self.settings = settings
        self._log = JsonLog(log_path(folder, entry.name, suite.name))
        self.states = np.zeros(len(suite.trials), dtype=np.int8)
        self._begins = np.full(len(suite.trials), -1, dtype=np.int64)
        self._number = {trial.trial_id: n for n, trial in enumerate(suite.trials)}
        has_file = has_file or (lambda wav: (folder / wav).is_file())
        is_copy = entry.facts.kind == EXISTING and not entry.facts.role
        if overwrite or is_copy:
            return
        for begins, fields in self._log.stream():
            record = conversion_of(fields, self._log.path)
            number = self._number.get(record.trial_id)
            if number is None:  # of a longer list
                continue
            self._begins[number] = begins
            self.states[number] = STATES.get(record.status, FAILED)
            if record.status != "failed":
                trial = suite.trials[number]
                check_belongs(record, trial, settings, entry.name, suite.name, folder)
            if record.status == "ok" and not has_file(record.wav):
                self.states[number] = NONE

    def __enter__(self) -> "RecordedConversions":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._log.__exit__()

    def to_convert(self) -> list[int]:
        """The numbers of the trials that are not converted, or failed before."""
        return np.flatnonzero((self.states == NONE) | (self.states == FAILED)).tolist()

    def add(self, records: Sequence[Mapping[str, Any]]) -> list[int]:
        """Writes records to the log; they are on disk when this returns.

        Returns:
            The numbers of their trials.
        """
        numbers = [self._number[record["trial_id"]] for record in records]
        begins = self._log.extend(records)
        for number, begin, record in zip(numbers, begins, records, strict=True):
            self._begins[number] = begin
            self.states[number] = STATES[record["status"]]
        return numbers

    def conversion(self, number: int) -> Conversion:
        """The latest record of a trial.

        Raises:
            UserError: if it has none, or it was damaged since.
        """
        return conversion_of(self._log.record_at(int(self._begins[number])), self._log.path)

"""Converts and judges at the same time, by the workers of a backend.

This process gives out the work and is the only one that writes records: the conversion log and the
score cache, which are also the checkpoint. A conversion goes to every judge as soon as it is
recorded. What a judge has no time for is left in the log and read again later, so that the memory
of this process does not grow with the number of trials.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np

from bench.errors import UserError
from bench.judges import register_metrics_of
from bench.stages.cache import ScoreCache
from bench.stages.convert import Conversion
from bench.stages.messages import (
    Answer,
    columns_in,
    records_in,
    row_json,
    trial_json,
)
from bench.stages.pool import Backend, Pool, Work
from bench.stages.recorded import ABSENT, OK, RecordedConversions
from bench.stages.remote import JudgeFacts, SystemTask
from bench.stages.score import READERS, can_be_judged, judge_identity
from bench.stages.sounds import Row, cache_key, decoded_key, samples_of, wav_path
from bench.stages.store import MOST_ITEMS, FileStore
from bench.stages.worker import BrokenMessage
from bench.trials import Trial
from bench.weights.find import WeightsMissing

MOST_QUEUED = 20_000  # rows that wait for one judge
SCANNED = 256  # rows that are read from the log at a time
POLL_SECONDS = 1.0
COLLECTED = 50_000  # new objects at which Python looks for garbage: a call of 500 trials has some

Advance = Callable[[int], None]


class SoundHashes(Protocol):
    """Knows the hashes of the sounds that judges receive."""

    def samples(
        self, rows: Sequence[Row], reads: frozenset[str], digests: Mapping[str, str]
    ) -> Mapping[str, str]:
        """See `bench.stages.sounds.samples_of`."""
        ...


class FolderHashes:
    """Reads sounds from disk, by several threads.

    Args:
        folder: of the run.
        cache: knows hashes of samples.
    """

    def __init__(self, folder: Path, cache: ScoreCache) -> None:
        self._folder = folder
        self._cache = cache
        self._readers = ThreadPoolExecutor(READERS)

    def samples(
        self, rows: Sequence[Row], reads: frozenset[str], digests: Mapping[str, str]
    ) -> Mapping[str, str]:
        """See `SoundHashes`."""
        return samples_of(rows, self._folder, reads, self._cache, self._readers, digests)


@dataclass
class Conversions:
    """What is to be converted: systems one after another, suites in order, long trials first.

    Attributes:
        logs: of every system and suite.
        tasks: system → how workers build it.
        pool: the workers.
        advance: system → receives the number of trials that are done.
        seed: of the run.
        store: carries files to workers that do not see the run's folder; None if they do.
    """

    logs: list[RecordedConversions]
    tasks: Mapping[str, SystemTask]
    pool: Pool
    advance: Mapping[str, Advance]
    seed: int = 0
    store: FileStore | None = None

    def __post_init__(self) -> None:
        self._left = sum(len(log.to_convert()) for log in self.logs)
        self._parts = self._in_order()
        self._part: list[int] = []
        self._log: RecordedConversions | None = None
        for log in self.logs:
            self.advance[log.entry.name](len(log.states) - len(log.to_convert()))

    @property
    def done(self) -> bool:
        """Whether nothing is left to convert."""
        return self._left == 0 and not self.pool.has_work

    def fill(self) -> None:
        """Gives work to workers that have room."""
        if self.done:
            return
        self.pool.start()
        self.pool.retry()
        while self._left and self.pool.room():
            size = self.pool.size(self._left)
            log, numbers = self._next(size if self.store is None else min(size, MOST_ITEMS))
            trials = [log.suite.trials[number] for number in numbers]
            label = f"{log.entry.name}/{log.suite.name}/{trials[0].trial_id} and following"
            task = self.tasks[log.entry.name].to_json()
            call = (task, log.suite.name, [trial_json(trial) for trial in trials])
            work = Work("convert", call, len(trials), (log, numbers), label)
            self.pool.give(work if self.store is None else self.store.of_trials(work, trials))

    def take(self, work: Work, answer: Answer) -> tuple[list[Row], dict[str, str]]:
        """Records what a worker has converted.

        Returns:
            The rows, and the hashes of samples by those of files.

        Raises:
            BrokenMessage: if the records are not those of the work.
        """
        value = answer.checked(self.pool.name)
        log: RecordedConversions
        log, numbers = work.about
        trials = [log.suite.trials[number] for number in numbers]
        name = log.entry.name
        records, digests = records_in(value, trials, name, log.suite.name, log.settings, self.seed)
        if self.store is not None:
            self.store.write(value, records)
        log.add(value["records"])
        self.advance[name](len(records))
        pairs = zip(trials, records, strict=True)
        return [row_of(log, trial, record) for trial, record in pairs], digests

    def _next(self, size: int) -> tuple[RecordedConversions, list[int]]:
        while not self._part:
            self._log, self._part = next(self._parts)
        assert self._log is not None
        taken, self._part = self._part[:size], self._part[size:]
        self._left -= len(taken)
        return self._log, taken

    def _in_order(self) -> Iterator[tuple[RecordedConversions, list[int]]]:
        for log in self.logs:
            trials = log.suite.trials
            yield log, sorted(log.to_convert(), key=lambda n: -(trials[n].source.seconds or 0.0))


def row_of(log: RecordedConversions, trial: Trial, conversion: Conversion) -> Row:
    """The row of a recorded conversion."""
    has_words = log.entry.facts.has_source_words
    return Row(log.entry.name, log.suite.name, has_words, trial, conversion)


class JudgeQueue:
    """One judge: its workers, and the rows that wait for it, longest first.

    Args:
        name: of the judge.
        pool: its workers; their first call is `load`.
        logs: of every system and suite.
        cache: known scores; new ones are added.
        sounds: hashes of sounds.
        folder: of the run.
        advance: receives the number of rows that are done.
        store: carries files to workers that do not see the run's folder; None if they do.

    Attributes:
        facts: of the judge; None until a worker has built it.
        unavailable: why it cannot judge; "" if it can.
        scored: how many rows it has scored.
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        logs: Sequence[RecordedConversions],
        cache: ScoreCache,
        sounds: SoundHashes,
        folder: Path,
        advance: Advance,
        store: FileStore | None = None,
    ) -> None:
        self._store = store
        self.name = name
        self.pool = pool
        self.facts: JudgeFacts | None = None
        self.unavailable = ""
        self.scored = 0
        self._logs = logs
        self._cache = cache
        self._sounds = sounds
        self._folder = folder
        self._advance = advance
        self._identity = ""
        self._heap: list[tuple[float, int, str, Row]] = []
        self._numbers = count()
        self._asked: set[str] = set()  # keys that wait or are with a worker
        self._handled = {id(log): np.zeros(len(log.states), dtype=bool) for log in logs}
        self._scan: Iterator[tuple[RecordedConversions, list[int]]] | None = None
        for log in logs:
            self._pass(log, np.flatnonzero(log.states == ABSENT).tolist())

    def done(self, converted: bool) -> bool:
        """Whether all rows are scored.

        Args:
            converted: whether nothing is left to convert.
        """
        if self.unavailable:
            return True
        idle = self.facts is not None and not self._heap and not self.pool.has_work
        return idle and converted and self._scan is None and not self._is_behind()

    def fill(self, converted: bool) -> None:
        """Gives work to workers that have room; reads rows from the logs where too few wait."""
        if self.done(converted):
            return
        if self.facts is None or self._heap or self.pool.waiting:
            self.pool.start()
        self.pool.retry()
        if self.facts is None:
            return
        if self._scan is None and self._is_behind():
            self._scan = self._unhandled()
        while self._scan is not None and len(self._heap) < MOST_QUEUED // 2:
            part = next(self._scan, None)
            if part is None:
                self._scan = None
                break
            log, numbers = part
            rows = [row_of(log, log.suite.trials[n], log.conversion(n)) for n in numbers]
            self._enqueue(log, numbers, rows, {})
        while self._heap and self.pool.room():
            size = min(len(self._heap), self.pool.size(len(self._heap) if converted else None))
            if self._store is not None:
                size = min(size, MOST_ITEMS)
            taken = [heappop(self._heap) for _ in range(size)]
            keys = [key for _, _, key, _ in taken]
            rows = [row for _, _, _, row in taken]
            labels = [row.label for row in rows]
            reads = self.facts.reads
            call = ([row_json(row, reads) for row in rows],)
            work = Work("score", call, len(rows), (keys, labels), f"{labels[0]} …")
            self.pool.give(work if self._store is None else self._store.of_rows(work, rows, reads))

    def offer(
        self,
        log: RecordedConversions,
        numbers: Sequence[int],
        rows: Sequence[Row],
        digests: Mapping[str, str],
    ) -> None:
        """Takes rows that were just recorded, unless too many wait: these stay in the log."""
        if self.facts is not None and len(self._heap) < MOST_QUEUED:
            self._enqueue(log, numbers, rows, digests)

    def take(self, work: Work, answer: Answer) -> None:
        """Stores scores, or the facts of the judge.

        Raises:
            JudgeError, UserError, OSError: errors of the judge.
            BrokenMessage: if the answer has no facts, or no scores of these rows.
        """
        if work.method == "load":
            try:
                facts = JudgeFacts.from_json(answer.checked(self.pool.name), self.pool.name)
            except WeightsMissing as error:
                if self.facts is not None:
                    raise UserError(
                        f"judge {self.name}: a machine lacks its weights ({error})"
                    ) from error
                self.unavailable = str(error)
                self.pool.end()
                return
            if self.facts is not None and self.facts.fingerprint != facts.fingerprint:
                raise UserError(
                    f"judge {self.name} is not the same on all machines: its weights or packages "
                    "differ; make them equal"
                )
            if self.facts is None:
                register_metrics_of(facts, self.name)
                self.facts = facts
                self._identity = judge_identity(facts)
            return
        assert self.facts is not None
        keys, labels = work.about
        value = answer.checked(self.pool.name)
        columns = columns_in(value, labels, self.name, self.facts.metrics)
        self._cache.put(dict(zip(keys, columns, strict=True)))
        self._asked.difference_update(keys)
        self.scored += len(keys)
        self._advance(len(keys))

    def _enqueue(
        self,
        log: RecordedConversions,
        numbers: Sequence[int],
        rows: Sequence[Row],
        digests: Mapping[str, str],
    ) -> None:
        assert self.facts is not None
        reads = self.facts.reads
        handled = self._handled[id(log)]
        new = [
            (number, row) for number, row in zip(numbers, rows, strict=True) if not handled[number]
        ]
        asked = [row for _, row in new if can_be_judged(row, self.facts)]
        samples = self._sounds.samples(asked, reads, digests)
        keys = [cache_key(self._identity, row, self._folder, reads, samples) for row in asked]
        known = self._cache.get(keys)
        queued = 0
        for key, row in zip(keys, asked, strict=True):
            if key not in known and key not in self._asked:
                self._asked.add(key)
                seconds = row.conversion.audio_seconds or 0.0
                heappush(self._heap, (-seconds, next(self._numbers), key, row))
                queued += 1
        handled[[number for number, _ in new]] = True
        self._advance(len(new) - queued)

    def _pass(self, log: RecordedConversions, numbers: Sequence[int]) -> None:
        self._handled[id(log)][list(numbers)] = True
        self._advance(len(numbers))

    def _is_behind(self) -> bool:
        return any(((log.states == OK) & ~self._handled[id(log)]).any() for log in self._logs)

    def _unhandled(self) -> Iterator[tuple[RecordedConversions, list[int]]]:
        for log in self._logs:
            numbers = np.flatnonzero((log.states == OK) & ~self._handled[id(log)]).tolist()
            for start in range(0, len(numbers), SCANNED):
                yield log, numbers[start : start + SCANNED]


def run_pipeline(
    backend: Backend,
    conversions: Conversions | None,
    judgings: Sequence[JudgeQueue],
    cache: ScoreCache,
    folder: Path,
    remark: Callable[[str], None],
) -> None:
    """Converts and judges until nothing is left; ends all workers, however it ends.

    Args:
        backend: the workers' processes.
        conversions: what is to be converted; None for nothing.
        judgings: the judges.
        cache: receives hashes of the converted samples.
        folder: of the run.
        remark: receives sentences for the user.

    Raises:
        UserError, JudgeError, OSError: the first error that another try would not mend, such as an
            answer that cannot be.
    """
    pools = [j.pool for j in judgings]
    if conversions is not None:
        pools = [conversions.pool, *pools]
    # A collection would go through all trials, and often through all rows that wait.
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(COLLECTED, *thresholds[1:])
    try:
        while True:
            converted = conversions is None or conversions.done
            if conversions is not None:
                if converted:
                    conversions.pool.end()
                else:
                    conversions.fill()
            for judging in judgings:
                if judging.done(converted):
                    judging.pool.end()
                else:
                    judging.fill(converted)
            if converted and all(judging.done(True) for judging in judgings):
                return
            make_room(pools)
            calls = [call for pool in pools for call in pool.calls]
            for call in backend.wait(calls, POLL_SECONDS) if calls else ():
                for pool in pools:
                    try:
                        if (taken := pool.take(call)) is not None:
                            _use(*taken, pool, conversions, judgings, cache, folder, remark)
                    except BrokenMessage as error:
                        raise UserError(
                            f"{pool.name}: a worker sent {error}; make the code equal on all "
                            "machines; what is finished is kept"
                        ) from error
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        for pool in pools:
            pool.end()


def make_room(pools: Sequence[Pool]) -> None:
    """Ends an idle worker if a stage with work has had no place for any worker for a while."""
    starved = [pool for pool in pools if pool.is_starved()]
    for pool in pools:
        if starved and pool not in starved and not pool.has_work and pool.end_idle():
            return


def _use(
    work: Work,
    answer: Answer,
    pool: Pool,
    conversions: Conversions | None,
    judgings: Sequence[JudgeQueue],
    cache: ScoreCache,
    folder: Path,
    remark: Callable[[str], None],
) -> None:
    for text in answer.remarks:
        remark(text)
    if conversions is None or pool is not conversions.pool:
        next(j for j in judgings if j.pool is pool).take(work, answer)
        return
    log, numbers = work.about
    rows, hashes = conversions.take(work, answer)
    if not judgings:
        return
    cache.put_samples({decoded_key(file): samples for file, samples in hashes.items()})
    digests = {
        wav_path(folder, row.conversion.wav): row.conversion.wav_sha256
        for row in rows
        if row.conversion.wav
    }
    for judging in judgings:
        judging.offer(log, numbers, rows, digests)

"""The second stage: every judge scores every converted utterance, once.

Judges run one after another, so that only one model is in memory. Scores are cached by the audio
that was judged and by the judge: equal audio is judged once, also across systems and suites.
Cache keys consist of hashes, so that audio whose scores are known is not decoded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from bench.errors import UserError
from bench.files import file_sha256, fingerprint
from bench.judges import Converted, Judge
from bench.stages.cache import Columns, ScoreCache
from bench.stages.convert import Conversion, Entry
from bench.stages.execute import Streamed
from bench.stages.judging import judged
from bench.stages.sounds import (
    Row,
    cache_key,
    check_there,
    conversion_sound,
    item_of,
    samples_of,
)
from bench.trials import Suite

STREAM_TIMES = [f.name for f in fields(Streamed)]  # columns of streamed conversions
BATCH = 32  # items per call of a judge; scores are on disk after each batch
READERS = 8  # threads that read sound files: decoding and hashing run outside of Python's lock


def rows_of(
    entries: Sequence[Entry],
    suites: Sequence[Suite],
    conversions: Mapping[tuple[str, str], Mapping[str, Conversion]],
) -> list[Row]:
    """The rows of the score table: every system × suite × trial.

    Args:
        entries: the systems.
        suites: the suites.
        conversions: (system, suite) → trial id → record.

    Raises:
        UserError: if a trial has no record; a missing conversion is never skipped.
    """
    rows = []
    for entry in entries:
        for suite in suites:
            records = conversions[entry.name, suite.name]
            for trial in suite.trials:
                if trial.trial_id not in records:
                    raise UserError(
                        f"{entry.name} has no conversion of {suite.name}/{trial.trial_id} "
                        f"({len(records)} of {len(suite.trials)} are there); run `vcbench convert`"
                    )
                rows.append(
                    Row(
                        entry.name,
                        suite.name,
                        entry.facts.has_source_words,
                        trial,
                        records[trial.trial_id],
                    )
                )
    return rows


def score_rows(
    rows: Sequence[Row],
    name: str,
    judge: Judge,
    folder: Path,
    cache: ScoreCache,
    advance: Callable[[int], None] = lambda _: None,
    remark: Callable[[str], None] = lambda _: None,
) -> list[Columns]:
    """The judge's columns for every row, in order; empty for rows that cannot be judged.

    Args:
        rows: what is to be scored.
        name: the judge's name.
        judge: the judge.
        folder: the run folder, which the conversions' paths are relative to.
        cache: known scores; new ones are added batch by batch.
        advance: called with the number of rows that are done.
        remark: see `bench.stages.judging.judged`.

    Raises:
        JudgeError: names the trial that the judge failed on.
        AudioError: if a converted file cannot be read.
    """
    asked = [index for index, row in enumerate(rows) if can_be_judged(row, judge)]
    identity = judge_identity(judge)
    with ThreadPoolExecutor(READERS) as readers:
        asked_rows = [rows[index] for index in asked]
        samples = samples_of(asked_rows, folder, judge.reads, cache, readers)
        keys = {
            index: cache_key(identity, row, folder, judge.reads, samples)
            for index, row in zip(asked, asked_rows, strict=True)
        }
        known = cache.get(keys.values())
        first_of: dict[str, int] = {}
        for index, key in keys.items():
            if key not in known:
                first_of.setdefault(key, index)

        # Audio of similar length together, so that a judge that fills batches pads little.
        def order(index: int) -> tuple[float, int]:
            return -(rows[index].conversion.audio_seconds or 0.0), index

        new = sorted(first_of.values(), key=order)
        advance(len(rows) - len(new))
        done = iter(new)
        new_rows = [rows[index] for index in new]
        for columns in judged_batches(new_rows, name, judge, folder, readers, remark):
            scores = {keys[next(done)]: of_row for of_row in columns}
            cache.put(scores)
            known.update(scores)
            advance(len(columns))
    return [known[keys[index]] if index in keys else {} for index in range(len(rows))]


def judged_batches(
    rows: Sequence[Row],
    name: str,
    judge: Judge,
    folder: Path,
    readers: ThreadPoolExecutor,
    remark: Callable[[str], None] = lambda _: None,
) -> Iterator[list[Columns]]:
    """Scores rows in batches of `BATCH`; the sounds of the next batch are read meanwhile.

    Args:
        rows: what is scored, in this order.
        name: the judge's name.
        judge: the judge.
        folder: the run folder.
        readers: threads that read.
        remark: see `bench.stages.judging.judged`.

    Yields:
        The columns of each batch.

    Raises:
        JudgeError, AudioError: see `score_rows`.
    """

    def read(batch: Sequence[Row]) -> list[Future[Converted]]:
        return [readers.submit(item_of, row, folder, judge.reads) for row in batch]

    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    ahead = read(batches[0]) if batches else []
    for number, batch in enumerate(batches, start=1):
        items = [future.result() for future in ahead]
        ahead = read(batches[number]) if number < len(batches) else []  # meanwhile
        yield judged(name, judge, items, [row.label for row in batch], remark)


def can_be_judged(row: Row, judge: Judge) -> bool:
    """Whether there is audio, with the words of the source if the judge needs them."""
    return row.conversion.status == "ok" and (row.has_source_words or not judge.needs_source_words)


def judge_identity(judge: Judge) -> str:
    """The judge's part of the keys of its scores: a hash of its class and its fingerprint."""
    kind = type(judge)
    name = getattr(judge, "class_name", f"{kind.__module__}.{kind.__qualname__}")
    return fingerprint([name, judge.fingerprint])


def wav_hashes(rows: Sequence[Row], folder: Path) -> list[str]:
    """Hash of every row's sound file as it is now; "" if it has none.

    Raises:
        AudioError: if a file is missing.
    """
    conversions = [row.conversion for row in rows]
    return [_file_sha256(folder / c.wav) if c.wav else "" for c in conversions]


def score_table(
    rows: Sequence[Row],
    folder: Path,
    hashes: Sequence[str],
    scores: Mapping[str, Sequence[Columns]],
) -> pd.DataFrame:
    """The score table as `bench.results.ScoredRun.scores` describes it.

    A sound that was changed since it was converted has the duration, rate and peak of its file as
    it is now, and no times: they belong to another sound.

    Args:
        rows: every system × suite × trial.
        folder: the run folder.
        hashes: of their sound files (see `wav_hashes`).
        scores: judge → columns of every row.

    Raises:
        AudioError: if a changed sound is not usable audio.
    """
    records = []
    for index, row in enumerate(rows):
        trial, conversion = row.trial, row.conversion
        altered = hashes[index] != conversion.wav_sha256
        if altered:
            sound = conversion_sound(folder / conversion.wav)
            conversion = replace(
                conversion,
                elapsed_seconds=None,
                stages={},
                first_chunk_seconds=None,
                stream_seconds=None,
                streamed_seconds=None,
                audio_seconds=sound.seconds,
                sample_rate=sound.sample_rate,
                peak=sound.peak,
                clipped=None,
            )
        record: dict[str, object] = {
            "system": row.system,
            "suite": row.suite,
            "trial_id": trial.trial_id,
            "status": conversion.status,
            "error": conversion.error,
            "source_speaker": trial.source.speaker,
            "target_speaker": trial.speaker,
            "source_gender": trial.source.gender,
            "target_gender": trial.references[0].gender,
            **{f"factor.{name}": value for name, value in trial.factors.items()},
            "wav": conversion.wav,
            "wav_sha256": hashes[index],
            "altered": altered,
            "origin": conversion.origin,
            "remarks": conversion.remarks,
            "sample_rate": conversion.sample_rate,
            "peak": conversion.peak,
            "clipped": conversion.clipped,
            "elapsed_seconds": conversion.elapsed_seconds,
            "audio_seconds": conversion.audio_seconds,
            **_stream_times(conversion),
            **{f"stage.{name}": seconds for name, seconds in conversion.stages.items()},
        }
        for judge, columns in scores.items():
            record.update({f"{judge}.{name}": value for name, value in columns[index].items()})
        records.append(record)
    return pd.DataFrame.from_records(records)


def _stream_times(conversion: Conversion) -> dict[str, float]:
    """The columns of a streamed conversion; none if the system does not stream."""
    times = {name: getattr(conversion, name) for name in STREAM_TIMES}
    return {name: seconds for name, seconds in times.items() if seconds is not None}


def _file_sha256(path: Path) -> str:
    check_there(path)
    return file_sha256(path)

"""The second stage: every judge scores every converted utterance, once.

Judges run one after another, so that only one model is in memory. Scores are cached by what was
judged and by which judge; equal audio is judged once, whichever system or suite it stands in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from bench import audio
from bench.audio import Waveform
from bench.cache import Columns, ScoreCache
from bench.convert import Conversion, Entry
from bench.errors import UserError
from bench.files import fingerprint, sha256_of
from bench.judges import Converted, Judge, only
from bench.trials import Suite, Trial, Utterance

BATCH = 32  # items handed to a judge at a time; scores are on disk after each batch
READERS = 8  # threads that read sound files: decoding and hashing run outside of Python's lock


class JudgeError(UserError):
    """A judge that failed: a bug or a broken installation, never a low score."""


@dataclass(frozen=True)
class Row:
    """One conversion with its trial and where it belongs."""

    system: str
    suite: str
    says_source_words: bool
    trial: Trial
    conversion: Conversion

    @property
    def label(self) -> str:
        return f"{self.system}/{self.suite}/{self.trial.trial_id}"


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
                        entry.says_source_words,
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
) -> list[Columns]:
    """The judge's columns for every row, in order; empty where there is nothing to judge.

    Args:
        rows: what is to be scored.
        name: the judge's name.
        judge: the judge.
        folder: the run folder, which the conversions' paths are relative to.
        cache: known scores; new ones are added batch by batch.
        advance: called with the number of rows that are done.

    Raises:
        JudgeError: names the trial that the judge failed on.
        AudioError: if a converted file cannot be read.
    """
    asked = [
        index
        for index, row in enumerate(rows)
        if row.conversion.status == "ok" and (row.says_source_words or not judge.needs_source_words)
    ]
    with ThreadPoolExecutor(READERS) as readers:

        def read(indices: Sequence[int]) -> list[Future[Converted]]:
            return [readers.submit(_item, rows[i], folder, judge.reads) for i in indices]

        identity = judge.fingerprint
        keys: dict[int, str] = {}
        seconds: dict[int, float] = {}
        for start in range(0, len(asked), BATCH):
            part = asked[start : start + BATCH]
            for index, future in zip(part, read(part), strict=True):
                item = future.result()
                keys[index] = _cache_key(identity, judge.reads, item)
                seconds[index] = item.converted.seconds if item.converted else 0.0
        known = cache.get(keys.values())
        first_of: dict[str, int] = {}
        for index, key in keys.items():
            if key not in known:
                first_of.setdefault(key, index)
        # Sounds of like length together, so that a judge that fills batches pads little.
        new = sorted(first_of.values(), key=lambda index: (-seconds[index], index))
        advance(len(rows) - len(new))
        batches = [new[start : start + BATCH] for start in range(0, len(new), BATCH)]
        ahead = read(batches[0]) if batches else []
        for number, batch in enumerate(batches, start=1):
            items = [future.result() for future in ahead]
            ahead = read(batches[number]) if number < len(batches) else []  # meanwhile
            columns = _judged(name, judge, items, [rows[index].label for index in batch])
            scores = {keys[index]: c for index, c in zip(batch, columns, strict=True)}
            cache.put(scores)
            known.update(scores)
            advance(len(batch))
    return [known[keys[index]] if index in keys else {} for index in range(len(rows))]


def wav_hashes(rows: Sequence[Row], folder: Path) -> list[str]:
    """Hash of every row's sound file as it is now; "" where there is none."""
    return [sha256_of(folder / c.wav) if c.wav else "" for c in (row.conversion for row in rows)]


def score_table(
    rows: Sequence[Row], hashes: Sequence[str], scores: Mapping[str, Sequence[Columns]]
) -> pd.DataFrame:
    """The score table as `bench.results.Results.scores` describes it.

    Args:
        rows: every system × suite × trial.
        hashes: of their sound files (see `wav_hashes`).
        scores: judge → columns of every row.
    """
    records = []
    for index, row in enumerate(rows):
        trial, conversion = row.trial, row.conversion
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
            "altered": hashes[index] != conversion.wav_sha256,
            "origin": conversion.origin,
            "sample_rate": conversion.sample_rate,
            "peak": conversion.peak,
            "clipped": conversion.clipped,
            "elapsed_seconds": conversion.elapsed_seconds,
            "audio_seconds": conversion.audio_seconds,
            **{f"stage.{name}": seconds for name, seconds in conversion.stages.items()},
        }
        for judge, columns in scores.items():
            record.update({f"{judge}.{name}": value for name, value in columns[index].items()})
        records.append(record)
    return pd.DataFrame.from_records(records)


@lru_cache(maxsize=512)
def _load(path: Path, modified: int, size: int) -> Waveform:
    return audio.load(path)


@lru_cache(maxsize=512)
def _reference(references: tuple[Utterance, ...], seconds: float | None) -> Waveform:
    """What the system heard, as `Trial.reference` has it; joined once for all its trials."""
    joined = audio.concatenate([_recording(utterance) for utterance in references])
    return joined if seconds is None else joined.first(seconds)


def _recording(utterance: Utterance) -> Waveform:
    return _file(utterance.path)


def _file(path: Path) -> Waveform:
    """The audio file, decoded once as long as it does not change."""
    if not path.is_file():
        raise audio.AudioError(
            f"{path}: the conversion was recorded but its file is gone; run `vcbench convert` again"
        )
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


def _item(row: Row, folder: Path, reads: frozenset[str]) -> Converted:
    """What a judge with these `reads` is handed for the row; nothing else is read from disk."""
    trial = row.trial

    def recordings(name: str, utterances: Sequence[Utterance]) -> tuple[Waveform, ...] | None:
        return tuple(map(_recording, utterances)) if name in reads else None

    item = Converted(
        trial.trial_id,
        converted=_file(folder / row.conversion.wav) if "converted" in reads else None,
        source=_recording(trial.source) if "source" in reads else None,
        reference=_reference(trial.references, trial.reference_seconds)
        if "reference" in reads
        else None,
        enrolment=recordings("enrolment", trial.enrolment),
        source_enrolment=recordings("source_enrolment", trial.source_enrolment),
        text=trial.source.text,
    )
    return only(item, reads)


def _cache_key(identity: str, reads: frozenset[str], item: Converted) -> str:
    """What the judge with this fingerprint makes of what it reads of the item, as a hash."""

    def content(value: object) -> object:
        if isinstance(value, Waveform):
            return value.sha256
        return [w.sha256 for w in value] if isinstance(value, tuple) else value

    read = {name: content(getattr(item, name)) for name in sorted(reads)}
    return fingerprint({"judge": identity, **read})


def _judged(
    name: str, judge: Judge, items: Sequence[Converted], labels: Sequence[str]
) -> list[Columns]:
    """The judge's columns, checked: one dict an item, every number finite."""
    try:
        columns = judge.score(items)
    except UserError as error:  # its message says what is wrong; no trial is
        raise JudgeError(f"judge {name}: {error}") from error
    except Exception as error:
        label = _culprit(judge, items, labels)
        raise JudgeError(
            f"judge {name} failed on {label}: {type(error).__name__}: {error}; "
            "scores so far are kept, run `vcbench doctor`"
        ) from error
    if len(columns) != len(items):
        raise JudgeError(f"judge {name} gave {len(columns)} scores for {len(items)} items")
    for label, values in zip(labels, columns, strict=True):
        for column, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise JudgeError(
                    f"judge {name} gave {column} = {value} on {label}; a judge that cannot measure "
                    "says None"
                )
    return columns


def _culprit(judge: Judge, items: Sequence[Converted], labels: Sequence[str]) -> str:
    """The item that the judge fails on by itself; the whole batch where there is none."""
    for item, label in zip(items, labels, strict=True):
        try:
            judge.score([item])
        except Exception:
            return label
    return f"the batch {', '.join(labels)}"

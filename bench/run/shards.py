"""Divides a run into shards, each of which works in a folder of its own.

    <run>/shards/2-of-7/   the folder of a run (`bench.run.run`) with the trials of this shard, and
        shard.json         which shard it is, and the systems and trials of the whole run in order
        columns.jsonl      the judges' columns as they were computed, for the merge
        scores.sqlite      the shard's score cache

No file is written by two shards, so that shards may run on machines that share a network file
system without file locks. `bench.run.merge` joins them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from bench import audio
from bench.errors import UserError, shown
from bench.files import JsonLog, encoded, json_text, link_or_copy, replacing, sha256_of, write_text
from bench.run.systems import facts_path, recorded_entries
from bench.stages.cache import Columns
from bench.stages.convert import (
    check_belongs,
    log_path,
    read_conversions,
    settings_fingerprint,
)
from bench.stages.score import Row
from bench.trials import Suite, Utterance

SHARDS = "shards"
SHARD = "shard.json"
COLUMNS = "columns.jsonl"
CACHE = "scores.sqlite"
FORMAT = 1  # of shard.json


@dataclass(frozen=True, order=True)
class Shard:
    """One of the parts of a run.

    Attributes:
        count: the number of shards.
        number: of this shard, 1 to `count`.
    """

    count: int
    number: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Converts "2/7".

        Raises:
            ValueError: if it is none.
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError("must be i/n with 1 ≤ i ≤ n, such as 2/8")
        return cls(int(match[2]), int(match[1]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folder(self, run: Path) -> Path:
        """The shard's folder in the folder of the run."""
        return run / SHARDS / f"{self.number}-of-{self.count}"

    def part_of(self, suites: Sequence[Suite]) -> list[Suite]:
        """The suites with the trials of this shard; suites without any are left out.

        A trial goes to one shard with all its systems and judges. Trials are dealt from the longest
        source to the shortest, each to the shard with the fewest seconds so far (longest processing
        time first: Graham 1969, SIAM J. Appl. Math. 17(2)). The result depends on the suites alone.

        Raises:
            UserError: if there are fewer trials than shards.
        """
        total = sum(len(suite.trials) for suite in suites)
        if total < self.count:
            raise UserError(
                f"shard={self}: the run has {total} trials, so at most {total} shards; lower n"
            )
        mine = _dealt(suites, self.count)[self.number - 1]
        parts = []
        for s, suite in enumerate(suites):
            trials = tuple(t for i, t in enumerate(suite.trials) if (s, i) in mine)
            if trials:
                parts.append(replace(suite, trials=trials))
        return parts


def _dealt(suites: Sequence[Suite], count: int) -> list[set[tuple[int, int]]]:
    """The trials of every shard, as (number of the suite, number of the trial)."""
    known: dict[Path, float] = {}
    lengths = [
        (-_seconds(trial.source, known), s, i)
        for s, suite in enumerate(suites)
        for i, trial in enumerate(suite.trials)
    ]
    shards: list[set[tuple[int, int]]] = [set() for _ in range(count)]
    # (seconds, trials, number): between equal sums the shard with fewer trials, then the first.
    loads = [(0.0, 0, number) for number in range(count)]
    heapify(loads)
    for negative, s, i in sorted(lengths):
        seconds, trials, number = heappop(loads)
        shards[number].add((s, i))
        heappush(loads, (round(seconds - negative, 3), trials + 1, number))
    return shards


def _seconds(source: Utterance, known: dict[Path, float]) -> float:
    """The duration of a recording: the manifest's, else its header's; 0 if it has none."""
    if source.seconds is not None:
        return source.seconds
    if source.path not in known:
        known[source.path] = audio.seconds_of(source.path) or 0.0
    return known[source.path]


def write_shard(
    folder: Path, shard: Shard, systems: Mapping[str, Any], suites: Sequence[Suite], seed: int
) -> None:
    """Writes shard.json, before anything is converted: a merge names what is unfinished by it.

    Args:
        folder: of the shard.
        shard: which shard it is.
        systems: name → settings of the run's systems, in order.
        suites: of the whole run.
        seed: of the run.
    """
    described = {
        "format": FORMAT,
        "shard": str(shard),
        "seed": seed,
        "systems": dict(systems),
        "suites": {
            suite.name: {"sha256": suite.sha256, "trials": [t.trial_id for t in suite.trials]}
            for suite in suites
        },
    }
    text = json_text(described, f"{folder / SHARD}: ", indent=2) + "\n"
    path = folder / SHARD
    if not path.is_file() or path.read_bytes() != encoded(text):
        write_text(path, text)


def read_shard(folder: Path) -> dict[str, Any] | None:
    """The contents of shard.json; None where there is no such file.

    Raises:
        UserError: if it is damaged or of another version.
    """
    path = folder / SHARD
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_bytes())
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}, this version reads {FORMAT}")
        Shard.parse(described["shard"])
        for suite in described["suites"].values():
            if not {type(suite["sha256"]), *map(type, suite["trials"])} <= {str}:
                raise ValueError("a suite's trials are no texts")
        for name in (*described["systems"].keys(), *described["suites"].keys()):
            if not name.strip(".") or {"/", "\\", "\0"} & set(name):
                raise ValueError(f"the name {shown(name)} leaves the folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the shard again with the "
            "same settings: what is converted and scored is kept"
        ) from error
    return described


def write_columns(
    folder: Path, rows: Sequence[Row], columns: Mapping[str, Sequence[Columns]]
) -> str:
    """Writes the judges' columns of every row, numbers with all their digits.

    The tables do not have them: a whole number in a column with a gap becomes a fraction there.

    Returns:
        The sha256 of the file.
    """
    path = folder / COLUMNS
    with replacing(path) as temporary, temporary.open("wb") as file:
        for index, row in enumerate(rows):
            record = {
                "row": [row.system, row.suite, row.trial.trial_id],
                "columns": {judge: of_rows[index] for judge, of_rows in columns.items()},
            }
            file.write(encoded(json_text(record) + "\n"))
    return sha256_of(path)


def read_columns(folder: Path, sha256: object) -> dict[tuple[str, str, str], dict[str, Columns]]:
    """The columns by system, suite and trial id, and by judge.

    Raises:
        UserError: if the file is missing or is not the one with this hash.
    """
    path = folder / COLUMNS
    if not path.is_file() or sha256_of(path) != sha256:
        raise UserError(
            f"{path} is missing or was changed since the shard was scored; score the shard again"
        )
    return {tuple(record["row"]): record["columns"] for record in JsonLog(path).read()}


def take_conversions(
    whole: Path, folder: Path, systems: Mapping[str, Any], suites: Sequence[Suite], seed: int
) -> None:
    """Takes the conversions of these trials from the folder of the whole run.

    So a run that was converted by one process can be scored in shards. Only systems that have not
    converted in the shard are taken. Sounds are hard links where the file system has them, else
    copies.

    Args:
        whole: folder of the whole run.
        folder: of the shard.
        systems: name → object or settings.
        suites: with the trials of the shard.
        seed: of the run.

    Raises:
        UserError: if the conversions were made with other settings or code.
    """
    absent = {
        name: system
        for name, system in systems.items()
        if facts_path(whole, name).is_file() and not facts_path(folder, name).is_file()
    }
    for entry in recorded_entries(absent, whole):
        settings = settings_fingerprint(entry, seed)
        for suite in suites:
            known = read_conversions(whole, entry.name, suite.name)
            records = [(t, known[t.trial_id]) for t in suite.trials if t.trial_id in known]
            for trial, record in records:
                check_belongs(record, trial, settings, entry.name, suite.name, whole)
            done = read_conversions(folder, entry.name, suite.name)
            with JsonLog(log_path(folder, entry.name, suite.name)) as log:
                for trial, record in records:
                    if trial.trial_id in done:
                        continue
                    if record.wav and (whole / record.wav).is_file():
                        link_or_copy(whole / record.wav, folder / record.wav)
                    log.append(record.to_json())
        link_or_copy(facts_path(whole, entry.name), facts_path(folder, entry.name))

"""Reads and writes a scored run on disk: `scores.csv`, `summary.csv`, and `run.json`.

run.json is written last. It has the hashes of both tables and a hash of its other contents, so that
a run that was killed between two files, truncated, or changed by hand is refused.

Sounds are not part of these hashes: the tables are enough to compare and to report. A missing sound
never changes a number; a report says how many are missing. A sound that differs from the one that
was scored is refused (`check_sounds`).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.files import file_sha256, fingerprint, replacing, sha256_of, write_json
from bench.metrics import restore
from bench.results import TRAINED_ON, ScoredRun

# Files of a run's folder.
RUN = "run.json"
SCORES = "scores.csv"
SUMMARY = "summary.csv"

FORMAT = 3  # of run.json: 1 had no hashes, 2 no list of trials
STATUSES = ("ok", "failed", "absent")
# What the folder holds: path, with <names> that stand for any, → content.
LAYOUT: Mapping[str, str] = {
    RUN: "settings, systems, judges, definitions of the metrics, machine and hashes; written last",
    SCORES: "one row per system × suite × trial: every score, every failure, the transcripts",
    SUMMARY: "the metrics pooled over trials, with intervals, numbers of trials and failures",
    "wav/<system>/<suite>/<trial_id>.wav": "the converted speech that the judges scored, 16 bits",
    "conversions/<system>/<suite>.jsonl": "one record per conversion: status, error, seed, times, "
    "hash of the sound, code and machine; a later record of a trial replaces an earlier one",
    "conversions/<system>/system.json": "kind, training data, networks, role and code of the "
    "system, as its class declares them; the identity of its settings",
    "trials/<suite>.jsonl": "the trials that were scored, as a manifest whose paths are relative "
    "to this folder",
    "recordings/<hash>.<type>": "sources and references of these trials, each file once",
    "report.html": "the report as one page; it opens from disk",
    "report.md": "the tables of the report as text",
    "figures/<name>.svg": "the figures of the report",
    "audio/<name>": "sources and references that the page plays but does not hold",
    "tables/<table>.<type>": "a published table with this run's numbers, in four formats",
    "shards/<part>-of-<parts>/": "the run folder of one shard, with shard.json, columns.jsonl "
    "(what the judges computed) and scores.sqlite (its score cache)",
    "remarks.jsonl": "workers that ended, and batches that were halved because memory was short",
    "merge.json": "marks a folder that `vcbench merge` wrote",
    ".lock": "held by the process that works on this folder",
    ".rendered.json": "hashes that decide whether a report is up to date",
}
# The contents of run.json.
CONTENTS: Mapping[str, str] = {
    "format": f"version of this file: {FORMAT}",
    "name": "name of the run",
    "created": "date and time of the scoring, ISO 8601",
    "commit": "of this project's checkout; null without git",
    "dirty": "whether that checkout had changes that are not committed",
    "packages": "distribution → version, of those that decide scores",
    "machine": "interpreter, processor, cores, threads and GPUs",
    "origin": "code and machine in one line",
    "systems": "system → settings, training data, networks and code",
    "anchors": "system → floor or ceiling, for recordings",
    "suites": "suite → number of trials, hashes of the manifest and of the stored trials",
    "judges": "judge → metrics, fingerprint, networks, weights with hash and licence, settings; or "
    "why it is unavailable",
    "metrics": "metric → its definition, so that a third party's metrics stay readable",
    "pooling": "metric → how trials become one number",
    "settings": "all settings of the run",
    "shard": "of the run of a shard: its part, and the hash of its columns",
    "tables": f"hashes of {SCORES} and {SUMMARY}",
    "sha256": "hash of all other contents of this file",
}

# Columns of the tables that are texts even where they look like numbers.
TEXT = frozenset(
    (
        *("system", "suite", "trial_id", "status", "error", "origin", "remarks"),
        *("wav", "wav_sha256", "judge", "metric", "note"),
        *("source_speaker", "target_speaker", "source_gender", "target_gender"),
        *(f"{TRAINED_ON}.source", f"{TRAINED_ON}.target"),
    )
)

# What run.json needs, and of which type.
FACTS: Mapping[str, type] = {
    "created": str,
    "systems": dict,
    "anchors": dict,
    "suites": dict,
    "judges": dict,
    "metrics": dict,
    "pooling": dict,
    "settings": dict,
    "tables": dict,
}


class NotScored(UserError):
    """The folder has no scored run of this version; nothing in it is damaged."""


def write_run(
    folder: Path,
    facts: Mapping[str, Any],
    scores: pd.DataFrame,
    summarise: Callable[[pd.DataFrame], pd.DataFrame],
) -> None:
    """Writes a run's tables and, last, the run.json with their hashes.

    If the folder already holds the same scores and facts, all but the time, it stays as it is.

    Args:
        folder: of the run.
        facts: the contents of run.json: the keys of `FACTS` except `tables`, and any others.
        scores: see `bench.results.ScoredRun.scores`.
        summarise: computes the summary (see `bench.results.ScoredRun.summary`) from the scores as
            they are on disk, so that a report written now and one written later show the same
            digits.
    """
    tables = {}
    write_table(scores, folder / SCORES)
    if _same(folder, facts):
        return
    write_table(summarise(read_table(folder / SCORES)), folder / SUMMARY)
    for name in (SCORES, SUMMARY):
        tables[name] = sha256_of(folder / name)
    write_json(folder / RUN, sealed({"format": FORMAT, **facts, "tables": tables}))


def _same(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the folder's run.json has these facts and its tables are as it says."""
    try:
        stored = read_run(folder).facts
    except UserError:
        return False
    given = {"format": FORMAT, **json.loads(json.dumps(facts)), "tables": stored["tables"]}
    timeless = ("created", "sha256")
    return {k: v for k, v in stored.items() if k not in timeless} == {
        k: v for k, v in given.items() if k not in timeless
    }


def sealed(contents: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of run.json with their hash under the key "sha256"."""
    proven = {key: value for key, value in contents.items() if key != "sha256"}
    return {**proven, "sha256": fingerprint(proven)}


def read_run(folder: Path) -> ScoredRun:
    """Reads a run that is complete and unchanged.

    Raises:
        NotScored: if the folder has no scored run, or one of another version.
        UserError: names the file that is missing, damaged or does not belong to the others.
    """
    path = folder / RUN
    way_out = f"restore {folder}, or score it again: vcbench score name={folder.name} …"
    if not path.is_file():
        raise NotScored(
            f"{folder} holds no scored run ({RUN} is missing); give the folder of a run, "
            "outputs/<name>, or make one: vcbench run name=<name>"
        )
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error}); {way_out}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        version = facts.get("format", 1) if isinstance(facts, dict) else "unknown"
        kind: type[UserError] = NotScored if version in (1, 2) else UserError
        raise kind(
            f"{path} has format {str(version)[:20]}, this version reads {FORMAT}; run the command "
            "that made it again: what is converted and scored is kept"
        )
    try:
        proof = sealed(facts)["sha256"]
    except (UserError, ValueError):  # NaN is no JSON
        proof = None
    if facts.get("sha256") != proof:
        raise UserError(f"{path} was changed since it was written; {way_out}")
    for key, kind in FACTS.items():
        if not isinstance(facts.get(key), kind):
            raise UserError(f"{path} has no usable {key!r}; {way_out}")
    restore(facts["metrics"], str(path))
    tables = []
    for name in (SCORES, SUMMARY):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {way_out}")
        if sha256_of(folder / name) != facts["tables"].get(name):
            raise UserError(
                f"{folder / name} is not the table that {RUN} describes: it was changed, or the "
                f"run was stopped while it was written; {way_out}"
            )
        tables.append(_table(folder / name, way_out))
    scores, summary = tables
    _check_rows(folder / SCORES, scores, facts, way_out)
    return ScoredRun(folder.name, folder, facts, scores, summary)


def read_report(folder: Path) -> ScoredRun:
    """Reads a run with its trials, for a report.

    Raises:
        NotScored: as `read_run`.
        UserError: as `read_run`; if a sound or a list of trials is not the one that was scored.
    """
    from bench.run.recordings import stored_suites  # which imports torch

    run = read_run(folder)
    check_sounds(folder, run.scores)
    return replace(run, suites=stored_suites(run))


def read_runs(folders: Sequence[Path]) -> tuple[list[ScoredRun], list[str]]:
    """Reads the runs of several folders.

    Returns:
        The runs, and a note on each folder that is left out because its run is not scored or is of
        another version.

    Raises:
        UserError: if a run is damaged.
    """
    runs, notes = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except NotScored as error:
            notes.append(f"Left out: {error}.")
    return runs, notes


def check_sounds(folder: Path, scores: pd.DataFrame) -> None:
    """Checks that the sounds in the folder are those that were scored; any may be missing.

    Raises:
        UserError: if a sound is another one, or its path leaves the folder.
    """
    for row in scores[scores["status"] == "ok"].itertuples():
        path = (folder / str(row.wav)).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UserError(f"{folder / SCORES}: {row.wav!r} leaves the run's folder")
        if path.is_file() and file_sha256(path) != row.wav_sha256:
            raise UserError(f"{path} is not the sound that was scored; run `vcbench score` again")


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table that `write_table` wrote: texts stay texts, empty numbers become NaN."""
    columns = pd.read_csv(path, nrows=0).columns
    text = {
        c: str for c in columns if c in TEXT or c.startswith("factor.") or c.endswith(".hypothesis")
    }
    empty = {c: [""] for c in columns if c not in text}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a CSV; an interrupted write leaves the old file unchanged."""
    table = table.replace("\r", " ", regex=True)  # Python's csv would not quote it
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _table(path: Path, way_out: str) -> pd.DataFrame:
    try:
        return read_table(path)
    except (ValueError, OSError) as error:  # pandas' errors are ValueErrors
        raise UserError(f"{path} is damaged ({error}); {way_out}") from error


def _check_rows(path: Path, scores: pd.DataFrame, facts: Mapping[str, Any], way_out: str) -> None:
    """Raises UserError unless each system has one row for each trial of each suite."""
    needed = {"system", "suite", "trial_id", "status", "source_speaker", "target_speaker", "wav"}
    if missing := sorted(needed - set(scores.columns)):
        raise UserError(f"{path} has no column {missing[0]!r}; {way_out}")
    if unknown := sorted(set(scores["status"]) - set(STATUSES)):
        raise UserError(f"{path} has a status {unknown[0]!r}; {way_out}")
    if scores.duplicated(["system", "suite", "trial_id"]).any():
        raise UserError(f"{path} has a trial twice; {way_out}")
    rows = scores.groupby(["system", "suite"]).size().to_dict()
    for suite, about in facts["suites"].items():
        trials = about.get("trials") if isinstance(about, dict) else None
        if not isinstance(trials, int) or not isinstance(about.get("sha256"), str):
            raise UserError(f"{path.with_name(RUN)} does not describe suite {suite}; {way_out}")
        for system in facts["systems"]:
            if (count := rows.pop((system, suite), 0)) != trials:
                raise UserError(
                    f"{path} has {count} rows of {system} over {suite}, {RUN} says {trials} "
                    f"trials; {way_out}"
                )
    if rows:
        system, suite = next(iter(rows))
        raise UserError(
            f"{path} has rows of {system} over {suite}, which {RUN} does not name; {way_out}"
        )

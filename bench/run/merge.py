"""Joins the folders of shards into a run that looks as if one process had made it.

The merge needs neither corpus nor judges: it reads what the shards stored. It checks that they
belong together, then writes in the order of a run: sounds, records, lists of trials, tables, and
run.json last. Every file is replaced at once, so a merge that was killed is simply called again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import UserError, shown
from bench.files import (
    encoded,
    file_sha256,
    fingerprint,
    json_text,
    link_or_copy,
    replacing,
    same_file,
    write_json,
)
from bench.results import TRAINED_ON, ScoredRun
from bench.run.folder import RUN, read_report, write_run
from bench.run.progress import Progress, Silent
from bench.run.recordings import moved_suite, write_list
from bench.run.run import Run
from bench.run.shards import CACHE, SHARDS, Shard, read_columns, read_shard
from bench.run.systems import facts_path
from bench.stages.cache import Columns, ScoreCache
from bench.stages.convert import Conversion, Entry, log_path, read_conversions
from bench.stages.score import rows_of, score_table, wav_hashes
from bench.stats.pooling import Measured, summarise
from bench.systems import Facts
from bench.trials import Suite

MERGE = "merge.json"  # marks a folder that a merge writes
NAMED = 5  # missing trials in a message

Key = tuple[str, str, str]  # system, suite, trial id


@dataclass(frozen=True)
class ShardFolder:
    """The folder of a shard.

    Attributes:
        folder: its path.
        about: the contents of its shard.json.
    """

    folder: Path
    about: Mapping[str, Any]

    @property
    def shard(self) -> Shard:
        return Shard.parse(self.about["shard"])

    @cached_property
    def run(self) -> ScoredRun | None:
        """Its scored run with its trials; None if it is only converted."""
        return read_report(self.folder) if (self.folder / RUN).exists() else None

    @cached_property
    def conversions(self) -> dict[Key, Conversion]:
        """The latest record of every conversion."""
        return {
            (system, suite, trial): record
            for system in self.about["systems"]
            for suite in self.about["suites"]
            for trial, record in read_conversions(self.folder, system, suite).items()
        }

    @cached_property
    def columns(self) -> dict[Key, dict[str, Columns]]:
        """The judges' columns of every row; empty if it is not scored."""
        if self.run is None:
            return {}
        about = self.run.facts.get("shard")
        return read_columns(self.folder, about.get("columns") if isinstance(about, dict) else None)

    def facts_of(self, system: str) -> dict[str, Any] | None:
        """The contents of the system's system.json; None if it has not converted here."""
        try:
            facts = json.loads(facts_path(self.folder, system).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return facts if isinstance(facts, dict) else None


def merge_shards(
    folders: Sequence[Path],
    out: Path,
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> bool:
    """Joins shards into the run folder `out`; the order of the folders changes nothing.

    Args:
        folders: of shards, or of runs with shards in them.
        out: the folder to write: a new one, that of an earlier merge, or the run that has the
            shards in it.
        cache: the score cache that receives the shards' scores; by default <out>/../.cache.
        progress: receives progress and notes.

    Returns:
        Whether the result is scored; False if no shard was.

    Raises:
        UserError: names the field in which two shards differ, the conversions that are missing, a
            damaged file, or why nothing can be written to `out`.
    """
    progress = progress or Silent()
    parts = _parts(folders)
    _check_together(parts)
    scored = _all_scored(parts)
    chosen = _chosen(parts, progress)
    run = Run(out, cache=cache, progress=progress)
    with run.locked():
        _check_target(run.folder, chosen)
        write_json(run.folder / MERGE, {"format": 1})
        advance = progress.task("merge", run.name, len(chosen))
        for part, record in chosen.values():
            if record.wav:
                _place(part.folder / record.wav, run.folder / record.wav, part.folder)
            advance(1)
        about = parts[0].about
        for system in about["systems"]:
            holder = next(p for p in parts if p.facts_of(system) is not None)
            link_or_copy(facts_path(holder.folder, system), facts_path(run.folder, system))
            for suite, described in about["suites"].items():
                with replacing(log_path(run.folder, system, suite)) as temporary:
                    keys = [(system, suite, trial) for trial in described["trials"]]
                    records = [asdict(chosen[key][1]) for key in keys]
                    lines = [encoded(json_text(record) + "\n") for record in records]
                    temporary.write_bytes(b"".join(lines))
        if scored:
            _write_scored(parts, chosen, run)
        _merge_caches(parts, run, progress)
    return scored


def _parts(folders: Sequence[Path]) -> list[ShardFolder]:
    """The shards in these folders, each once, in the order of their numbers.

    Raises:
        UserError: if a folder has none.
    """
    parts: dict[Path, ShardFolder] = {}
    for folder in folders:
        inside = sorted((folder / SHARDS).glob("*/")) if (folder / SHARDS).is_dir() else []
        candidates = [p for p in (folder, *inside) if (about := read_shard(p)) is not None]
        if not candidates:
            raise UserError(
                f"{folder} is no shard and has none in {SHARDS}/; give the folder of a run that "
                "was made with shard=i/n"
            )
        for path in candidates:
            about = read_shard(path)
            assert about is not None
            parts[path.resolve()] = ShardFolder(path, about)
    if not parts:
        raise UserError("merge needs the folders of shards: vcbench merge outputs/mine out=FOLDER")
    return sorted(parts.values(), key=lambda p: (p.shard, fingerprint(dict(p.about)), p.folder))


def _check_together(parts: Sequence[ShardFolder]) -> None:
    """Raises UserError with the name of the first field in which two shards differ."""
    first = parts[0]
    for part in parts[1:]:
        for field in ("seed", "suites"):
            _compare(first, part, field, first.about[field], part.about[field])
        for field in ("systems", "suites"):  # their order is that of the rows
            _compare(first, part, field, list(first.about[field]), list(part.about[field]))
    for system in first.about["systems"]:
        _check_system(system, [part for part in parts if part.facts_of(system) is not None])
    scored = [part for part in parts if part.run is not None]
    for part in scored[1:]:
        _compare(scored[0], part, "", _judged(scored[0]), _judged(part))


def _check_system(system: str, parts: Sequence[ShardFolder]) -> None:
    """Raises UserError if the shards converted with different settings or code of a system."""
    field = f"systems.{system}"
    known: tuple[ShardFolder, str] | None = None
    for part in parts:
        facts, other = ({**(p.facts_of(system) or {})} for p in (parts[0], part))
        same = facts.pop("settings", None) == other.pop("settings", None)
        if not same:
            one, two = (p.about["systems"][system] for p in (parts[0], part))
            _compare(parts[0], part, field, one, two)
            _refuse(parts[0], part, f"{field}: the files that its settings name differ")
        for of_part in (facts, other):  # moving a project changes nothing
            code = of_part.get("code") or {}
            of_part["code"] = {Path(name).name: value for name, value in code.items()}
        _compare(parts[0], part, field, facts, other)
        for (of_record, _, _), record in part.conversions.items():
            if of_record != system:
                continue
            known = known or (part, record.settings)
            if record.settings != known[1]:
                _refuse(known[0], part, f"{field}: its settings or code changed between them")


def _judged(part: ShardFolder) -> dict[str, Any]:
    """What must be equal in all scored shards, by field."""
    assert part.run is not None
    facts = part.run.facts
    judges = {}
    for name, about in facts["judges"].items():
        # The fingerprint is made of the settings and the weights, without devices and paths.
        judges[name] = {k: v for k, v in about.items() if k not in ("settings", "weights")}
        if "unavailable" in about:  # the reason names folders of the machine
            judges[name]["unavailable"] = True
    return {
        "code": str(facts.get("origin", "")).partition(" on ")[0],
        "packages": facts.get("packages"),
        "anchors": facts["anchors"],
        "systems": {
            name: {key: about.get(key) for key in ("trained_on", "networks")}
            for name, about in facts["systems"].items()
        },
        "judges": judges,
        "metrics": facts["metrics"],
        "pooling": facts["pooling"],
    }


def _compare(one: ShardFolder, other: ShardFolder, field: str, first: Any, second: Any) -> None:
    """Raises UserError with the field's name if the values differ; looks into mappings."""
    if first == second and not isinstance(first, dict):
        return
    if not (isinstance(first, dict) and isinstance(second, dict)):
        _refuse(one, other, f"{field} is {shown(first)} and {shown(second)}")
    missing = object()
    for key in dict.fromkeys((*first, *second)):
        inner = f"{field}.{key}" if field else str(key)
        values = first.get(key, missing), second.get(key, missing)
        if missing in values:
            _refuse(one, other, f"only one has {inner}")
        _compare(one, other, inner, *values)


def _refuse(one: ShardFolder, other: ShardFolder, reason: str) -> NoReturn:
    raise UserError(
        f"{one.folder} and {other.folder} do not belong together: {reason}; merge the shards of "
        "one run, made with the same settings and code"
    )


def _all_scored(parts: Sequence[ShardFolder]) -> bool:
    """Whether all shards are scored; False if none is.

    Raises:
        UserError: if some are.
    """
    unscored = [part for part in parts if part.run is None]
    if unscored and len(unscored) < len(parts):
        raise UserError(
            f"{unscored[0].folder} is not scored, other shards are; finish it: "
            f"vcbench score shard={unscored[0].shard} …, or name the other shards' folders alone"
        )
    return not unscored


def _chosen(
    parts: Sequence[ShardFolder], progress: Progress
) -> dict[Key, tuple[ShardFolder, Conversion]]:
    """Each conversion of the run with the shard that has it, in the order of a run.

    If several shards have one, a conversion that succeeded goes before one that failed, then its
    hash decides: the same one whatever the order of the folders.

    Raises:
        UserError: names the conversions that no shard has.
    """
    candidates: dict[Key, list[tuple[bool, str, ShardFolder, Conversion]]] = {}
    for part in parts:
        scored = _scored_rows(part)
        for key, record in part.conversions.items():
            if part.run is not None and key not in scored:
                continue
            if record.wav not in ("", f"wav/{key[0]}/{key[1]}/{key[2]}.wav"):
                raise UserError(f"{part.folder}: {shown(record.wav)} is no path of a conversion")
            if part.run is not None:
                _check_scored(part, record, scored[key])
            rank = fingerprint([asdict(record), part.columns.get(key)])
            candidates.setdefault(key, []).append((record.status == "failed", rank, part, record))
    about = parts[0].about
    wanted = [
        (system, suite, trial)
        for system in about["systems"]
        for suite, described in about["suites"].items()
        for trial in described["trials"]
    ]
    if missing := [key for key in wanted if key not in candidates]:
        named = ", ".join("/".join(key) for key in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        counts = {part.shard.count for part in parts}
        given = {part.shard for part in parts}
        absent = [str(s) for n in counts for i in range(n) if (s := Shard(n, i + 1)) not in given]
        reason = f"no folder has shard {', '.join(absent)}" if absent else "a shard is unfinished"
        raise UserError(
            f"{len(missing)} conversions are missing: {named}{more}; {reason}: run it, "
            "then merge again"
        )
    several = 0
    chosen = {}
    for key in wanted:
        ranked = sorted(candidates[key], key=lambda c: c[:2])
        several += len({record.wav_sha256 for failed, _, _, record in ranked if not failed}) > 1
        chosen[key] = ranked[0][2], ranked[0][3]
    if several:
        progress.note(f"{several} trials were converted by several shards to different sounds")
    return chosen


def _scored_rows(part: ShardFolder) -> dict[Key, Any]:
    if part.run is None:
        return {}
    rows = part.run.scores.itertuples()
    return {(str(r.system), str(r.suite), str(r.trial_id)): r for r in rows}


def _check_scored(part: ShardFolder, record: Conversion, row: Any) -> None:
    """Raises UserError if the trial was converted again after it was scored."""
    same = row.altered or row.wav_sha256 == record.wav_sha256
    if row.status != record.status or not same:
        raise UserError(
            f"{part.folder}: {row.system}/{row.suite}/{row.trial_id} was converted after it was "
            f"scored; score the shard again: vcbench score shard={part.shard} …"
        )


def _check_target(folder: Path, chosen: Mapping[Key, tuple[ShardFolder, Conversion]]) -> None:
    """Raises UserError if the folder has something that a merge would destroy."""
    if not (folder / MERGE).is_file():
        if (folder / RUN).exists() or (folder / "conversions").exists():
            raise UserError(f"out={folder} has a run that no merge made; give another folder")
        return
    wavs = {record.wav: (key, part, record) for key, (part, record) in chosen.items()}
    for system, suite in dict.fromkeys(key[:2] for key in chosen):
        for record in read_conversions(folder, system, suite).values():
            key = system, suite, record.trial_id
            if key in chosen and record.settings != chosen[key][1].settings:
                raise UserError(
                    f"out={folder} has conversions of systems.{system} made with other settings, "
                    "code or seed; give another folder"
                )
            path = folder / record.wav
            if not record.wav or record.wav not in wavs or not path.is_file():
                continue
            _, part, new = wavs[record.wav]
            source = part.folder / new.wav
            if not same_file(source, path) and file_sha256(path) != record.wav_sha256:
                raise UserError(f"{path} was changed by hand; move it away, or give another folder")


def _place(source: Path, target: Path, folder: Path) -> None:
    """Links or copies a sound of the shard in `folder`."""
    if not source.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{source} leaves the shard's folder; put the sound itself there")
    if same_file(source, target):
        return
    if not source.is_file():
        raise UserError(f"{source} is missing; run its shard again with the same settings")
    link_or_copy(source, target)


def _write_scored(
    parts: Sequence[ShardFolder], chosen: Mapping[Key, tuple[ShardFolder, Conversion]], run: Run
) -> None:
    """Writes the lists of trials and the tables as `Run.score` does."""
    runs = [part.run for part in parts if part.run is not None]
    first = runs[0].facts
    suites, described = [], {}
    for name, about in parts[0].about["suites"].items():
        shards = [r.suites[name] for r in runs if name in r.suites]
        changed = tuple(sorted({u for suite in shards for u in suite.changed}))
        by_id = {t.trial_id: t for suite in shards for t in suite.trials}
        trials = tuple(by_id[trial_id] for trial_id in about["trials"])
        suite = moved_suite(Suite(name, trials, about["sha256"], changed), shards, run.folder)
        described[name] = {
            "sha256": suite.sha256,
            "trials": len(trials),
            "list": write_list(run.folder, suite),
            **({"changed": list(changed)} if changed else {}),
        }
        suites.append(suite)
    entries = []
    for system in parts[0].about["systems"]:
        facts = Facts.from_json(json.loads(facts_path(run.folder, system).read_bytes()))
        entries.append(Entry(system, None, first["systems"][system]["settings"], facts))
    conversions: dict[tuple[str, str], dict[str, Conversion]] = {}
    for (system, name, trial_id), (_, record) in chosen.items():
        conversions.setdefault((system, name), {})[trial_id] = record
    rows = rows_of(entries, suites, conversions)
    stored = [
        part.columns[row.system, row.suite, row.trial.trial_id]
        for row in rows
        for part in [chosen[row.system, row.suite, row.trial.trial_id][0]]
    ]
    judges = dict.fromkeys(judge for columns in stored for judge in columns)
    names = [*(judge for judge in first["judges"] if judge in judges), TRAINED_ON]
    columns = {name: [of_row[name] for of_row in stored] for name in names}
    measured = {
        name: Measured(
            tuple(about["metrics"]), about["needs_source_words"], about.get("unavailable", "")
        )
        for name, about in first["judges"].items()
    }
    measured[TRAINED_ON] = Measured(("unseen",))
    recordings = {e.name: e.facts.has_source_words for e in entries if e.facts.role}
    settings = {**first["settings"], "name": run.name, "shard": None}
    left_out = ("format", "tables", "sha256", "shard")
    write_run(
        run.folder,
        {
            **{key: value for key, value in first.items() if key not in left_out},
            "name": run.name,
            "created": max(str(r.facts["created"]) for r in runs),
            "suites": described,
            "settings": settings if first["settings"] else {},
        },
        score_table(rows, run.folder, wav_hashes(rows, run.folder), columns),
        lambda table: summarise(table, measured, recordings),
    )


def _merge_caches(parts: Sequence[ShardFolder], run: Run, progress: Progress) -> None:
    """Adds the shards' scores to the cache, so that scoring again computes nothing."""
    files = [path for part in parts if (path := part.folder / CACHE).is_file()]
    if not files:
        return
    cache = ScoreCache(run.cache)
    for path in files:
        try:
            cache.add(path)
        except UserError as error:  # the tables are complete without it
            progress.note(f"its scores are not in the score cache: {error}")
    cache.close()

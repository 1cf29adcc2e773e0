"""Stores the trials of a scored run in its folder, with the recordings that a report plays.

    trials/<suite>.jsonl       the trials that were scored, as `bench.manifest` writes them
    recordings/<hash>.<type>   the source and the references of each trial, each file once

Paths in the trials are relative to the run's folder. Recordings that only judges need (enrolment,
target) are not stored: their paths do not exist there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from bench.errors import UserError
from bench.files import file_sha256, fingerprint, link_or_copy, replacing, same_file, sha256_of
from bench.manifest import read_trials, write_trials
from bench.results import ScoredRun
from bench.trials import Suite, Trial, Utterance

TRIALS = "trials"
RECORDINGS = "recordings"


def store_trials(folder: Path, suite: Suite) -> str:
    """Stores the trials of a suite and the recordings that a report plays.

    Returns:
        The sha256 of the stored list.
    """
    utterances = {u.path for trial in suite.trials for u in (trial.source, *trial.references)}
    stored = {path: _store(folder, path) for path in sorted(utterances)}
    trials = tuple(_relocated(trial, folder, stored) for trial in suite.trials)
    return write_list(folder, replace(suite, trials=trials))


def write_list(folder: Path, suite: Suite) -> str:
    """Writes the trials of a suite whose recordings are in the folder.

    Returns:
        The sha256 of the list.
    """
    path = _list(folder, suite.name)
    write_trials(suite.trials, path, folder)
    return sha256_of(path)


def moved_suite(suite: Suite, shards: Sequence[Suite], folder: Path) -> Suite:
    """The suite with its recordings in another run's folder, where they are linked or copied.

    Args:
        suite: trials of the shards.
        shards: the suite as each shard stored it. A recording that one shard stored and another
            did not, because only its judges needed it, is stored.
        folder: of the run.
    """
    stored = {}
    for utterance in (u for shard in shards for t in shard.trials for u in t.utterances):
        if utterance.path.parent.name == RECORDINGS:
            stored[utterance.utterance_id] = utterance.path
    paths = {}
    for name, path in stored.items():
        paths[name] = folder / RECORDINGS / path.name
        if path.is_file() and not same_file(path, paths[name]):
            link_or_copy(path, paths[name])

    def moved(utterance: Utterance) -> Path:
        return paths.get(utterance.utterance_id) or _not_stored(utterance, folder)

    return replace(suite, trials=tuple(_with_paths(trial, moved) for trial in suite.trials))


def stored_suites(run: ScoredRun) -> dict[str, Suite]:
    """The suites of a scored run, read from the lists in its folder; no corpus is needed.

    Raises:
        UserError: names the list that is missing, changed or does not belong to the scores.
    """
    suites = {}
    for name, known in run.facts["suites"].items():
        path = _list(run.folder, name)
        way_out = f"restore it, or score again: vcbench score name={run.name} …"
        if not path.resolve().is_relative_to(run.folder.resolve()) or not path.is_file():
            raise UserError(f"{path}: the run's list of trials is missing; {way_out}")
        if sha256_of(path) != known.get("list"):
            raise UserError(f"{path} was changed since the run was scored; {way_out}")
        trials = tuple(read_trials(path, run.folder, files=False))
        rows = run.scores.loc[run.scores["suite"] == name, "trial_id"]
        if {trial.trial_id for trial in trials} != set(rows):
            raise UserError(f"{path} has other trials than the scores; {way_out}")
        changed = tuple(map(str, known.get("changed", ())))
        suites[name] = Suite(name, trials, known["sha256"], changed)
    return suites


def _list(folder: Path, suite: str) -> Path:
    return folder / TRIALS / f"{suite}.jsonl"


def _store(folder: Path, path: Path) -> Path:
    """Copies a recording into the run's folder under the hash of its content."""
    digest = file_sha256(path)
    copy = folder / RECORDINGS / f"{digest[:24]}{path.suffix.lower()}"
    if not copy.is_file() or file_sha256(copy) != digest:
        copy.parent.mkdir(exist_ok=True)
        with replacing(copy) as temporary:
            copyfile(path, temporary)
    return copy


def _relocated(trial: Trial, folder: Path, stored: dict[Path, Path]) -> Trial:
    """The trial with paths in the run's folder."""
    return _with_paths(trial, lambda u: stored.get(u.path) or _not_stored(u, folder))


def _not_stored(utterance: Utterance, folder: Path) -> Path:
    """The path of a recording that is not in the run's folder: the same for every corpus folder."""
    name = fingerprint(utterance.utterance_id)[:24]
    return folder / RECORDINGS / "not_stored" / f"{name}{utterance.path.suffix}"


def _with_paths(trial: Trial, path: Callable[[Utterance], Path]) -> Trial:
    def moved(utterance: Utterance) -> Utterance:
        return replace(utterance, path=path(utterance))

    return replace(
        trial,
        source=moved(trial.source),
        references=tuple(map(moved, trial.references)),
        enrolment=tuple(map(moved, trial.enrolment)),
        source_enrolment=tuple(map(moved, trial.source_enrolment)),
        target=None if trial.target is None else moved(trial.target),
    )

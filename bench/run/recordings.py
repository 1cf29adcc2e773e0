"""The trials of a scored run, stored in its folder with the recordings that a report plays.

    trials/<suite>.jsonl       the trials that were scored, as `bench.manifest` writes them
    recordings/<hash>.<type>   the source and the references of each trial, each file once

Paths in the trials are relative to the run's folder. Recordings that only judges need (enrolment,
target) keep a path that does not exist there.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

from bench.errors import UserError
from bench.files import file_sha256, fingerprint, replacing, sha256_of
from bench.manifest import read_trials, write_trials
from bench.results import ScoredRun
from bench.trials import Suite, Trial, Utterance

TRIALS = "trials"
RECORDINGS = "recordings"


def store_trials(folder: Path, suite: Suite) -> str:
    """Stores the trials of a suite and the recordings that a report plays.

    Returns:
        The hash of the stored list.
    """
    utterances = {u.path for trial in suite.trials for u in (trial.source, *trial.references)}
    stored = {path: _store(folder, path) for path in sorted(utterances)}
    path = _list(folder, suite.name)
    write_trials((_relocated(trial, folder, stored) for trial in suite.trials), path, folder)
    return sha256_of(path)


def stored_suites(run: ScoredRun) -> dict[str, Suite]:
    """The suites of a scored run by the lists in its folder; the corpora are not needed.

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
    """Copies a recording into the run's folder, where it is named after its content."""
    digest = file_sha256(path)
    copy = folder / RECORDINGS / f"{digest[:24]}{path.suffix.lower()}"
    if not copy.is_file() or file_sha256(copy) != digest:
        copy.parent.mkdir(exist_ok=True)
        with replacing(copy) as temporary:
            copyfile(path, temporary)
    return copy


def _relocated(trial: Trial, folder: Path, stored: dict[Path, Path]) -> Trial:
    """The trial with paths in the run's folder."""

    def moved(utterance: Utterance) -> Utterance:
        path = stored.get(utterance.path)
        if path is None:
            name = fingerprint(str(utterance.path))[:24]
            path = folder / RECORDINGS / "not_stored" / f"{name}{utterance.path.suffix}"
        return replace(utterance, path=path)

    def all_moved(utterances: Iterable[Utterance]) -> tuple[Utterance, ...]:
        return tuple(map(moved, utterances))

    return replace(
        trial,
        source=moved(trial.source),
        references=all_moved(trial.references),
        enrolment=all_moved(trial.enrolment),
        source_enrolment=all_moved(trial.source_enrolment),
        target=None if trial.target is None else moved(trial.target),
    )

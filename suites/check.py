"""Checks a suite for contamination: training speakers, and copies of training recordings."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import audio
from bench.audio import AudioError
from bench.errors import UserError
from bench.trials import Trial, Utterance
from bench.validity.exposure import SEEN, UNSEEN, exposure
from suites.corpora.layouts import AUDIO


@dataclass(frozen=True)
class Exposures:
    """Training exposure of a list's trials, counted.

    Attributes:
        unseen: trials whose speakers are both outside of the training data.
        seen: ids of the trials with a speaker in the training data.
        unknown: trials for which neither is certain.
    """

    unseen: int
    seen: tuple[str, ...]
    unknown: int


def exposures(trials: Iterable[Trial], trained_on: frozenset[str]) -> Exposures:
    """Counts the trials by their exposure to the training data `trained_on`."""
    unseen, unknown = 0, 0
    seen = []
    for trial in trials:
        state = exposure(trial, trained_on).trial
        if state == SEEN:
            seen.append(trial.trial_id)
        elif state == UNSEEN:
            unseen += 1
        else:
            unknown += 1
    return Exposures(unseen, tuple(seen), unknown)


def duplicates(utterances: Iterable[Utterance], train: Path, workers: int = 4) -> dict[str, Path]:
    """Recordings of a suite that are also in a training folder, under any file name.

    Decoded samples are compared. A copy in another container or with other tags is detected. A copy
    at another sample rate, a lossy one and a cut one are not.

    Args:
        utterances: of the suite.
        train: a folder, searched with all its subfolders; files that cannot be decoded are skipped.
        workers: threads that decode.

    Returns:
        Utterance id → the file in the folder.

    Raises:
        UserError: if there is no such folder or no audio in it.
    """
    if not train.is_dir():
        raise UserError(f"no training folder at {train}; check train=")
    files = sorted(p for p in train.rglob("*") if p.suffix.lower() in AUDIO)
    if not files:
        raise UserError(f"{train}: no audio in it; nothing could be compared")
    with ThreadPoolExecutor(workers) as threads:
        digests = zip(threads.map(_digest, files), files, strict=True)
        by_digest = {digest: path for digest, path in digests if digest}
        of_suite = list(utterances)
        suite_digests = threads.map(_digest, (u.path for u in of_suite))
        return {
            u.utterance_id: by_digest[digest]
            for u, digest in zip(of_suite, suite_digests, strict=True)
            if digest in by_digest
        }


def _digest(path: Path) -> str | None:
    """Hash of the decoded samples; None if the file cannot be decoded."""
    try:
        return audio.load(path).sha256
    except AudioError:
        return None

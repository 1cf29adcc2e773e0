"""Whether a suite leaks: speakers that a system has heard, recordings of a training set."""

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
    """What a system has heard of a list.

    Attributes:
        unseen: trials of whose speakers it has heard neither.
        seen: ids of the trials of whose speakers it has heard one or both.
        unknown: trials of which that cannot be told.
    """

    unseen: int
    seen: tuple[str, ...]
    unknown: int


def exposures(trials: Iterable[Trial], trained_on: frozenset[str]) -> Exposures:
    """What a system that was trained on `trained_on` has heard of the trials."""
    unseen, unknown = 0, 0
    seen = []
    for trial in trials:
        found = exposure(trial, trained_on).trial
        if found == SEEN:
            seen.append(trial.trial_id)
        elif found == UNSEEN:
            unseen += 1
        else:
            unknown += 1
    return Exposures(unseen, tuple(seen), unknown)


def duplicates(utterances: Iterable[Utterance], train: Path, workers: int = 4) -> dict[str, Path]:
    """Recordings of a suite that are in a training folder too, under whatever name.

    Compared are decoded samples: another container, tag or date is the same recording; another
    sample rate, a lossy copy or a cut one is not found.

    Args:
        utterances: of the suite.
        train: a folder, searched to its depths; what cannot be decoded is passed over.
        workers: threads that decode.

    Returns:
        Utterance id → the file in the folder.
    """
    if not train.is_dir():
        raise UserError(f"no training folder at {train}; check train=")
    files = sorted(p for p in train.rglob("*") if p.suffix.lower() in AUDIO)
    if not files:
        raise UserError(f"{train}: no audio in it; nothing could be compared")
    with ThreadPoolExecutor(workers) as threads:
        digests = zip(threads.map(_digest, files), files, strict=True)
        by_digest = {digest: path for digest, path in digests if digest}
        own = list(utterances)
        found = threads.map(_digest, (u.path for u in own))
        return {
            u.utterance_id: by_digest[digest]
            for u, digest in zip(own, found, strict=True)
            if digest in by_digest
        }


def _digest(path: Path) -> str | None:
    try:
        return audio.load(path).sha256
    except AudioError:
        return None

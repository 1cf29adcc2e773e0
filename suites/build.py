"""Builds trial lists: over any corpus (`assemble`), and the frozen ones (`python -m suites.build`).

The same seeds give the same bytes everywhere. A changed manifest is a new version: it has a new
file name here and in `bench/conf/suite/`, and its hash there.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.audio import AudioError
from bench.files import sha256_of
from bench.manifest import write_trials
from bench.trials import Trial, Utterance
from suites.corpora.table import CorpusRecording, Faults, read_index
from suites.embedded import MINI, embedded_suites
from suites.protocols import PROTOCOLS

HERE = Path(__file__).parent
MANIFESTS = HERE / "manifests"

# Suites over corpora that are not embedded, from their lists of recordings: name → index, protocol
# and settings.
LISTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "librispeech_cross_gender": ("librispeech", "cross_gender", {"seed": 11, "trials": 1040}),
    "librispeech_unseen_speakers": ("librispeech", "unseen_speakers", {"seed": 12, "trials": 1000}),
    "librispeech_reference_length": (
        "librispeech",
        "reference_length",
        {"seed": 13, "trials": 1200},
    ),
    "librispeech_100x12": ("librispeech", "grid", {"seed": 14, "trials": 1200}),
    "vctk_cross_gender": ("vctk", "cross_gender", {"seed": 21, "trials": 1000}),
    "vctk_unseen_speakers": ("vctk", "unseen_speakers", {"seed": 22, "trials": 1000}),
    "vctk_reference_length": ("vctk", "reference_length", {"seed": 23, "trials": 1020}),
}


def listed_suite(name: str) -> list[Trial]:
    """A suite of `LISTED` over the list of its corpus's recordings; no audio is needed.

    The trials have the durations where the list's are exact.
    """
    index, protocol, settings = LISTED[name]
    recordings = read_index(HERE / "data" / f"{index}.csv", Path())
    if index == "librispeech":  # durations of the files; VCTK's exclude the silence at both ends
        recordings = [
            replace(r, utterance=replace(r.utterance, seconds=r.seconds)) for r in recordings
        ]
    return PROTOCOLS[protocol](recordings, **settings)


def assemble(
    protocol: str,
    recordings: Sequence[CorpusRecording],
    faults: Faults,
    workers: int = 4,
    **settings: Any,
) -> list[Trial]:
    """A list over a corpus whose audio is here; every recording in it is decoded and hashed.

    A recording that cannot be decoded, or has the same content as another one, is recorded as a
    fault, and the list is built again without it.

    Args:
        protocol: a key of `PROTOCOLS`.
        recordings: a corpus.
        faults: where such files are recorded.
        workers: threads that decode and hash; their number does not change the list.
        settings: the protocol's arguments: seed, trials and more.

    Raises:
        UserError: if the corpus has too few usable recordings.
    """
    left = list(recordings)
    hashes: dict[str, str | None] = {}
    names: dict[str, str] = {}  # hash → utterance id
    while True:
        trials = PROTOCOLS[protocol](left, **settings)
        new = {
            u.utterance_id: u for t in trials for u in t.utterances if u.utterance_id not in hashes
        }
        with ThreadPoolExecutor(workers) as threads:
            for name, digest in zip(new, threads.map(_hash, new.values()), strict=True):
                hashes[name] = None
                if isinstance(digest, AudioError):
                    faults.add("corrupt file", f"{name} ({digest})")
                elif names.setdefault(digest, name) != name:
                    faults.add("recording that is there twice", f"{name} is {names[digest]}")
                else:
                    hashes[name] = digest
        if all(hashes[name] for name in new):
            return [_with_hashes(trial, hashes) for trial in trials]
        left = [r for r in left if hashes.get(r.utterance.utterance_id, "") is not None]


def _hash(utterance: Utterance) -> str | AudioError:
    try:
        utterance.load()
    except AudioError as error:
        return error
    return sha256_of(utterance.path)


def _with_hashes(trial: Trial, hashes: dict[str, str | None]) -> Trial:
    def known(utterance: Utterance) -> Utterance:
        return replace(utterance, sha256=hashes[utterance.utterance_id] or "")

    return replace(
        trial,
        source=known(trial.source),
        references=tuple(map(known, trial.references)),
        enrolment=tuple(map(known, trial.enrolment)),
        source_enrolment=tuple(map(known, trial.source_enrolment)),
        target=None if trial.target is None else known(trial.target),
    )


def main() -> None:
    """Writes every frozen manifest and prints its hash."""
    for name, trials in embedded_suites().items():
        _write(trials, MANIFESTS / f"{name}.jsonl", MINI, in_full=True)
    for name in LISTED:
        _write(listed_suite(name), MANIFESTS / f"{name}.v1.jsonl", Path())


def _write(trials: Sequence[Trial], path: Path, root: Path, in_full: bool = False) -> None:
    write_trials(trials, path, root, in_full=in_full)
    print(f"{sha256_of(path)}  {path.name}  {len(trials)} trials")


if __name__ == "__main__":
    if sys.argv[1:]:  # -h, or settings, which it does not take
        print((__doc__ or "").strip())
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 1)
    main()

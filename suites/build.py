"""Builds the frozen manifests of the embedded corpus: `python -m suites.build`.

The same seeds give the same bytes everywhere. A change of a manifest is a new version: a new file
name here and in `bench/conf/suite/`, with its hash there.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.files import sha256_of, write_text
from bench.trials import Trial, trial_to_json
from suites import cross_gender, reference_length, unseen_speakers
from suites.corpora import read_csv

HERE = Path(__file__).parent
MINI = HERE / "data" / "mini"
MANIFESTS = HERE / "manifests"


def mini_suites() -> dict[str, list[Trial]]:
    """Name with version → trials of the embedded corpus."""
    recordings = read_csv(MINI / "utterances.csv")
    unheard = frozenset({"test-other"})
    return {
        "mini_cross_gender.v1": cross_gender.build(
            recordings, seed=1, times=2, reference_seconds=5.0
        ),
        "mini_unseen_speakers.v1": unseen_speakers.build(
            recordings, seed=2, splits=unheard, times=3, reference_seconds=5.0
        ),
        "mini_reference_length.v1": reference_length.build(
            recordings, seed=3, splits=unheard, lengths=(1.0, 2.0, 4.0, 8.0)
        ),
    }


def write(trials: Sequence[Trial], path: Path, root: Path) -> None:
    """Writes a manifest, paths relative to `root`."""
    write_text(path, "".join(trial_to_json(trial, root) + "\n" for trial in trials))


if __name__ == "__main__":
    for name, trials in mini_suites().items():
        path = MANIFESTS / f"{name}.jsonl"
        write(trials, path, MINI)
        print(f"{sha256_of(path)}  {path.name}  {len(trials)} trials")

"""Compares the two speaker encoders that install, over all pairs of the 136 embedded recordings.

    python -m benchmarks.programs.speaker_judges

Prints each encoder's equal-error rate, of all recordings and of each corpus, and the correlation
of the encoders' cosines.
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.judges.encoders.ecapa_small import SmallECAPA
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.judges.secs import SpeakerEncoder, calibrate
from suites.build import MINI
from suites.corpora.table import utterances


def main() -> None:
    recordings = utterances(MINI / "utterances.csv")
    speakers = np.array([r.speaker for r in recordings])
    corpora = np.array([r.corpus for r in recordings])
    encoders: dict[str, SpeakerEncoder] = {
        "ecapa_small": SmallECAPA(),
        "resemblyzer": Resemblyzer(),
    }
    waveforms = [r.load() for r in recordings]
    embedded = {name: encoder.embed(waveforms) for name, encoder in encoders.items()}
    table = Table("encoder", "recordings", "EER %", "same", "different", "threshold", "pairs")
    for name, embeddings in embedded.items():
        for corpus in ("all", *dict.fromkeys(corpora)):
            chosen = (corpora == corpus) | (corpus == "all")
            c = calibrate(embeddings[chosen], list(speakers[chosen]))
            values = (f"{100 * c.eer:.1f}", *(f"{v:.2f}" for v in (c.same, c.different)))
            pairs = f"{c.same_pairs} + {c.different_pairs}"
            table.add_row(name, corpus, *values, f"{c.threshold:.2f}", pairs)
    first, second = np.triu_indices(len(recordings), k=1)
    cosines = [np.sum(e[first] * e[second], axis=1) for e in embedded.values()]
    same = speakers[first] == speakers[second]
    console = Console()
    console.print(table)
    for noun, pairs in (("of one speaker", same), ("of different speakers", ~same)):
        r = np.corrcoef(*(c[pairs] for c in cosines))[0, 1]
        console.print(f"Pearson over {pairs.sum()} pairs {noun}: {r:.2f}")


if __name__ == "__main__":
    main()

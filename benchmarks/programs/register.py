"""How far the judge `target_prosody` is off where the answer is known, and what it gives speakers.

    python -m benchmarks.programs.register [RECORDINGS]

Recordings of the embedded corpus (96 by default, without those that the judge's limits were chosen
on) are played 4 semitones higher. Printed are the errors of the median and of the spread of F0, and
the two metrics between recordings of one speaker and of different speakers of one gender.
"""

import sys
from itertools import permutations

import numpy as np

from bench.audio import Waveform
from bench.judges import Converted
from bench.judges.target_prosody import RAISED, TargetProsody
from bench.trials import Suite
from suites.build import MANIFESTS, MINI

CHOSEN_ON = 40  # recordings
PAIRED = 40  # recordings whose pairs are compared


def main(count: int = 96) -> None:
    """Prints both tables."""
    suite = Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI)
    recordings = list(suite.utterances.values())
    rng = np.random.default_rng(0)
    judge = TargetProsody()
    moved, kept, unlimited = [], [], []
    for n in rng.permutation(len(recordings))[CHOSEN_ON:][:count]:
        waveform = recordings[n].load()
        raised = Waveform(waveform.samples, round(waveform.sample_rate * 2 ** (RAISED / 12)))
        [scores] = judge.score([Converted("t", raised, enrolment=(waveform,))])
        if scores["f0_median_error"] is None:
            print(f"{recordings[n].utterance_id}: too few voiced frames")
            continue
        before, after = (judge.prosody.contour(w) for w in (waveform, raised))
        medians = [12 * np.log2(np.median(f0[f0 > 0])) for f0 in (before, after)]
        unlimited.append(abs(medians[1] - medians[0] - RAISED))
        moved.append(abs(scores["f0_median_difference"] - RAISED))
        kept.append(scores["f0_spread_error"])
    every = "median of every voiced frame"
    for name, errors in (("median", moved), ("spread", kept), (every, unlimited)):
        print(f"{name} of {len(errors)} raised by {RAISED:g} st: {spread_of(errors)}")

    same: list[dict] = []
    other: list[dict] = []
    for a, b in permutations(recordings[:PAIRED], 2):
        if a.gender == b.gender:
            [scores] = judge.score([Converted("t", a.load(), enrolment=(b.load(),))])
            if scores["f0_median_error"] is not None:
                (same if a.speaker == b.speaker else other).append(scores)
    for name, rows in (("one speaker", same), ("one gender, different speakers", other)):
        for metric in judge.metrics:
            print(f"{metric}, {name}: {spread_of([row[metric] for row in rows])} ({len(rows)})")


def spread_of(errors: list[float]) -> str:
    """Mean, ninth decile and maximum in semitones, as text."""
    mean, ninth, most = np.mean(errors), np.percentile(errors, 90), max(errors)
    return f"{mean:.2f} st on average, {ninth:.2f} in nine of ten, {most:.2f} at most"


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))

"""Training exposure: was a system trained on a trial's speakers?

The system's declared training data is compared with the corpus that each recording names. An item
of a system's `trained_on` is a corpus or a part of one:

    LibriTTS                          all of it
    LibriTTS/train-clean-100          one split
    VCTK:p225                         one speaker (of any split; "VCTK/train:p225" of that one)
    VCTK#p225_001                     one utterance
    unknown                           the training data is not known

A trial's recordings name their corpus in `Utterance.corpus`. Where the answer is not certain it is
"unknown", never "unseen": a corpus that is not in `bench.validity.corpora` may contain any public
recording.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from bench.trials import Trial, Utterance
from bench.validity.corpora import MAY_SHARE_SPEAKERS, plain_name, public_corpus

SEEN, UNSEEN, UNKNOWN = "seen", "unseen", "unknown"
ITEM = re.compile(r"(?P<corpus>[^/:#]+)(/(?P<split>[^:#]+))?(:(?P<speaker>[^#]+))?(#(?P<id>.+))?")


def in_short(declared: Iterable[str]) -> str:
    """Declared training data for a table; many speakers or utterances of one corpus are counted."""
    by_corpus: dict[str, list[str]] = {}
    for item in sorted(declared):
        corpus, mark, _ = item.partition("#" if "#" in item else ":")
        by_corpus.setdefault(corpus if mark else item, []).append(item)
    parts = []
    for corpus, items in by_corpus.items():
        kind = "utterances" if "#" in items[0] else "speakers"
        parts += items if len(items) < 4 else [f"{corpus} ({len(items)} {kind})"]
    return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class Exposure:
    """Training exposure of a trial: "seen", "unseen" or "unknown".

    Attributes:
        source: of the source speaker.
        target: of the target speaker.
    """

    source: str
    target: str

    @property
    def trial(self) -> str:
        """Seen if either speaker was in the training data, unseen if both certainly were not."""
        return worst((self.source, self.target))


def worst(states: Iterable[str]) -> str:
    """Seen if any part is seen, else unknown if any is unknown, else unseen."""
    states = set(states)
    return next((state for state in (SEEN, UNKNOWN) if state in states), UNSEEN)


def exposure(trial: Trial, trained_on: frozenset[str]) -> Exposure:
    """Whether the trial's speakers are in the training data `trained_on`."""
    target = (*trial.references, *trial.enrolment, *((trial.target,) if trial.target else ()))
    source = (trial.source, *trial.source_enrolment)
    return Exposure(
        worst(speaker_exposure(u, trained_on) for u in source),
        worst(speaker_exposure(u, trained_on) for u in target),
    )


@lru_cache(maxsize=65536)
def speaker_exposure(utterance: Utterance, trained_on: frozenset[str]) -> str:
    """Whether the utterance's speaker is in the training data `trained_on`."""
    return worst(_exposure_to(utterance, item) for item in trained_on)


def _exposure_to(utterance: Utterance, item: str) -> str:
    """Whether the utterance's speaker is in one item of the training data."""
    declared = ITEM.fullmatch(item)
    corpus, _, split = utterance.corpus.partition("/")
    if declared is None or not corpus or item == UNKNOWN:
        return UNKNOWN
    trained, tested = public_corpus(declared["corpus"]), public_corpus(corpus)
    same_corpus = plain_name(declared["corpus"]) == plain_name(corpus)
    if not same_corpus:
        if trained is None or tested is None:
            return UNKNOWN
        if trained.voices != tested.voices:
            shared = frozenset((trained.voices, tested.voices)) in MAY_SHARE_SPEAKERS
            return UNKNOWN if shared else UNSEEN
    if declared["id"] is not None:
        if declared["id"] == utterance.utterance_id:
            return SEEN
        if declared["speaker"] is None:
            return UNKNOWN  # the declaration does not say who speaks in that utterance
    if declared["speaker"] is not None and declared["speaker"] != utterance.speaker:
        return UNSEEN
    one_split_each = tested is not None and tested.splits_share_no_speaker
    if declared["split"] is None or declared["split"] == split:
        return SEEN if same_corpus or one_split_each else UNKNOWN
    if not split:
        return UNKNOWN
    if declared["speaker"] is not None:
        return SEEN  # the speaker is named, whatever split this recording is in
    return UNSEEN if one_split_each else UNKNOWN


def columns(trial: Trial, trained_on: frozenset[str]) -> dict[str, float | str | None]:
    """The exposure as columns of the score table; `unseen` is 1, 0, or None where unknown."""
    of_trial = exposure(trial, trained_on)
    share = {UNSEEN: 1.0, SEEN: 0.0}.get(of_trial.trial)
    return {"source": of_trial.source, "target": of_trial.target, "unseen": share}

"""Whether a system has heard a trial's speakers: what it declares against what the trial names.

A declaration (an item of a system's `trained_on`) is a corpus, or a part of one:

    LibriTTS                          all of it
    LibriTTS/train-clean-100          one split
    VCTK:p225                         one speaker (of any split; "VCTK/train:p225" of that one)
    VCTK#p225_001                     one utterance
    unknown                           nobody says

A trial's recordings name theirs in `Utterance.corpus`. What cannot be told is "unknown", never
"unseen": a corpus that is not in `CORPORA` may hold any public recording.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from bench.trials import Trial, Utterance

TRAINED_ON = "trained_on"  # stands for the judge in the score table and the summary
SEEN, UNSEEN, UNKNOWN = "seen", "unseen", "unknown"
ITEM = re.compile(r"(?P<corpus>[^/:#]+)(/(?P<split>[^:#]+))?(:(?P<speaker>[^#]+))?(#(?P<id>.+))?")


@dataclass(frozen=True)
class Corpus:
    """What is known of a public corpus.

    Attributes:
        voices: whose recordings it is made of: corpora with the same `voices` share speakers.
        splits_share_no_speaker: whether a speaker is in one split only.
    """

    voices: str
    splits_share_no_speaker: bool = False


# By lower-case name without punctuation. LibriTTS and LibriTTS-R are cut from LibriSpeech's
# recordings and keep its splits (Zen et al. 2019; Koizumi et al. 2023). VCC2020 is a part of EMIME.
CORPORA = {
    "librispeech": Corpus("LibriSpeech", splits_share_no_speaker=True),
    "libritts": Corpus("LibriSpeech", splits_share_no_speaker=True),
    "librittsr": Corpus("LibriSpeech", splits_share_no_speaker=True),
    "vctk": Corpus("VCTK"),
    "esd": Corpus("ESD"),
    "aishell3": Corpus("AISHELL-3"),
    "vcc2020": Corpus("EMIME"),
    "emime": Corpus("EMIME"),
    "ljspeech": Corpus("LJSpeech"),
    "aishell": Corpus("AISHELL"),
    "aishell1": Corpus("AISHELL"),
    "arctic": Corpus("ARCTIC"),
    "cmuarctic": Corpus("ARCTIC"),
    "hifitts": Corpus("LibriVox"),
    "mls": Corpus("LibriVox"),
    "librilight": Corpus("LibriVox"),
    "libriheavy": Corpus("LibriVox"),
    "speechocean762": Corpus("speechocean762"),
    "picovoicespeechtointent": Corpus("Picovoice"),
}

# Voices that may be among others: LibriVox readers of LibriSpeech also read elsewhere, and LJSpeech
# is a LibriVox reader too.
MAY_SHARE = frozenset(
    frozenset(pair)
    for pair in (("LibriSpeech", "LibriVox"), ("LibriSpeech", "LJSpeech"), ("LibriVox", "LJSpeech"))
)


def in_short(declared: Iterable[str]) -> str:
    """A declaration for a table: many speakers or utterances of one corpus are counted."""
    parts: dict[str, list[str]] = {}
    for item in sorted(declared):
        corpus, mark, _ = item.partition("#" if "#" in item else ":")
        parts.setdefault(corpus if mark else item, []).append(item)
    told = []
    for corpus, items in parts.items():
        kind = "utterances" if "#" in items[0] else "speakers"
        told += items if len(items) < 4 else [f"{corpus} ({len(items)} {kind})"]
    return ", ".join(told) or "nothing"


@dataclass(frozen=True)
class Exposure:
    """What a system has heard of a trial: "seen", "unseen" or "unknown".

    Attributes:
        source: of the source speaker.
        target: of the target speaker.
    """

    source: str
    target: str

    @property
    def trial(self) -> str:
        """Seen where either speaker is, unseen where both are known not to be."""
        return worst((self.source, self.target))


def worst(found: Iterable[str]) -> str:
    """The most that the parts of a trial have been heard."""
    found = set(found)
    return next((state for state in (SEEN, UNKNOWN) if state in found), UNSEEN)


def exposure(trial: Trial, trained_on: frozenset[str]) -> Exposure:
    """What a system that was trained on `trained_on` has heard of the trial's speakers."""
    target = (*trial.references, *trial.enrolment, *((trial.target,) if trial.target else ()))
    source = (trial.source, *trial.source_enrolment)
    return Exposure(
        worst(heard(u, trained_on) for u in source), worst(heard(u, trained_on) for u in target)
    )


@lru_cache(maxsize=65536)
def heard(utterance: Utterance, trained_on: frozenset[str]) -> str:
    """What a system that was trained on `trained_on` has heard of the utterance's speaker."""
    return worst(_heard(utterance, item) for item in trained_on)


def _heard(utterance: Utterance, item: str) -> str:
    declared = ITEM.fullmatch(item)
    own, _, split = utterance.corpus.partition("/")
    if declared is None or not own or item == UNKNOWN:
        return UNKNOWN
    other, mine = _known(declared["corpus"]), _known(own)
    same = _plain(declared["corpus"]) == _plain(own)
    if not same:
        if other is None or mine is None:
            return UNKNOWN
        if other.voices != mine.voices:
            shared = frozenset((other.voices, mine.voices)) in MAY_SHARE
            return UNKNOWN if shared else UNSEEN
    if declared["id"] is not None:
        if declared["id"] == utterance.utterance_id:
            return SEEN
        if declared["speaker"] is None:
            return UNKNOWN  # whose recording that is, the declaration does not say
    if declared["speaker"] is not None and declared["speaker"] != utterance.speaker:
        return UNSEEN
    if declared["split"] is None or declared["split"] == split:
        return SEEN if same or (mine and mine.splits_share_no_speaker) else UNKNOWN
    if not split:
        return UNKNOWN
    if declared["speaker"] is not None:
        return SEEN  # the speaker is named, whatever split this recording is in
    return UNSEEN if mine and mine.splits_share_no_speaker else UNKNOWN


def columns(trial: Trial, trained_on: frozenset[str]) -> dict[str, float | str | None]:
    """The exposure as columns of the score table; `unseen` is 1, 0, or None where unknown."""
    found = exposure(trial, trained_on)
    share = {UNSEEN: 1.0, SEEN: 0.0}.get(found.trial)
    return {"source": found.source, "target": found.target, "unseen": share}


def _plain(corpus: str) -> str:
    return re.sub(r"[^a-z0-9]", "", corpus.lower())


def _known(corpus: str) -> Corpus | None:
    return CORPORA.get(_plain(corpus))

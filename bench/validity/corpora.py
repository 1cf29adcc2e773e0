"""Public corpora: whose voices they contain, under which licence, and where they are published.

This is the only table of such facts. A corpus that the benchmark can read or fetch has a reader in
`suites.corpora.layouts` and its archives in `suites.corpora.catalogue`, both under the same name.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PublicCorpus:
    """What is known of a public corpus.

    Attributes:
        voices: the collection that its recordings come from; corpora with the same `voices` share
            speakers.
        splits_share_no_speaker: whether each speaker is in one split only.
        licence: under which it may be used; "" where nothing here reads the corpus.
        home: its page; "" where nothing here reads the corpus.
    """

    voices: str
    splits_share_no_speaker: bool = False
    licence: str = ""
    home: str = ""


# By lower-case name without punctuation. LibriTTS and LibriTTS-R are cut from LibriSpeech's
# recordings and keep its splits (Zen et al. 2019; Koizumi et al. 2023). VCC2020 is a part of EMIME.
PUBLIC_CORPORA = {
    "librispeech": PublicCorpus(
        "LibriSpeech",
        splits_share_no_speaker=True,
        licence="CC BY 4.0",
        home="https://www.openslr.org/12",
    ),
    "libritts": PublicCorpus(
        "LibriSpeech",
        splits_share_no_speaker=True,
        licence="CC BY 4.0",
        home="https://www.openslr.org/60",
    ),
    "librittsr": PublicCorpus(
        "LibriSpeech",
        splits_share_no_speaker=True,
        licence="CC BY 4.0",
        home="https://www.openslr.org/141",
    ),
    "vctk": PublicCorpus(
        "VCTK", licence="CC BY 4.0", home="https://datashare.ed.ac.uk/handle/10283/3443"
    ),
    "esd": PublicCorpus(
        "ESD",
        licence="research only; to be asked for there",
        home="https://hltsingapore.github.io/ESD",
    ),
    "aishell3": PublicCorpus("AISHELL-3", licence="Apache-2.0", home="https://www.openslr.org/93"),
    "vcc2020": PublicCorpus(
        "EMIME",
        licence="ODbL 1.0, DbCL 1.0",
        home="https://github.com/nii-yamagishilab/VCC2020-database",
    ),
    "emime": PublicCorpus("EMIME"),
    "ljspeech": PublicCorpus("LJSpeech"),
    "aishell": PublicCorpus("AISHELL"),
    "aishell1": PublicCorpus("AISHELL"),
    "arctic": PublicCorpus("ARCTIC"),
    "cmuarctic": PublicCorpus("ARCTIC"),
    "hifitts": PublicCorpus("LibriVox"),
    "mls": PublicCorpus("LibriVox"),
    "librilight": PublicCorpus("LibriVox"),
    "libriheavy": PublicCorpus("LibriVox"),
    "speechocean762": PublicCorpus("speechocean762"),
    "an4": PublicCorpus("AN4"),
    "commonvoice": PublicCorpus("Common Voice"),
    "picovoicespeechtointent": PublicCorpus("Picovoice"),
}

# Collections that may share speakers. LibriVox readers of LibriSpeech also read elsewhere, and the
# reader of LJSpeech is a LibriVox reader too.
MAY_SHARE_SPEAKERS = frozenset(
    frozenset(pair)
    for pair in (("LibriSpeech", "LibriVox"), ("LibriSpeech", "LJSpeech"), ("LibriVox", "LJSpeech"))
)


def public_corpus(name: str) -> PublicCorpus | None:
    """The corpus of this name in any spelling ("LibriTTS-R", "libritts_r"), or None.

    The names of Common Voice go on with a version and a language: "Common Voice 6.1 zh-CN".
    """
    plain = plain_name(name)
    return PUBLIC_CORPORA.get("commonvoice" if plain.startswith("commonvoice") else plain)


def plain_name(name: str) -> str:
    """The name in lower case without punctuation, so that spellings can be compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())

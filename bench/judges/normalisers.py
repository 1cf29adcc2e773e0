"""Normalisations of texts and transcripts before their differences are counted.

English: Whisper's `EnglishTextNormalizer` (Radford et al. 2022, arXiv 2212.04356, appendix C), or
"raw": case and punctuation alone. Chinese: that of seed-tts-eval (BytedanceSpeech/seed-tts-eval at
95003fe, run_wer.py): no punctuation, simplified characters, each character a unit. Its script
converts with zhconv, whose licence is the GPL; OpenCC takes its place here. They differ in 509 of
the 20,992 characters U+4E00 to U+9FFF (zhconv 1.4.3 "zh-cn", opencc-python-reimplemented 0.1.7
"t2s", each character converted alone), and in words: see the preset `seed_tts_eval_zh`.

OpenCC's t2s leaves the particle 著 of Taiwan, which is 着 in simplified text, so 著 counts as 着 in
both texts. Its table for Taiwan, tw2s, converts the particle but does not leave simplified text
alone: 什么 becomes 什幺, 抬头 becomes 擡头, and a transcript of 什麼 would then be an error.
"""

import string
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec

from bench.trials import ENGLISH
from bench.weights.find import WeightsMissing

CHINESE = "zh"
CHINESE_VERSION = 2  # of `chinese`; rises with every change that moves a score

# Languages with alphabets and with spaces between words, so that words can be counted.
_WEST = ("ca", "da", "de", "en", "es", "fi", "fr", "it", "nl", "no", "pt", "sv")
_EAST = ("bg", "cs", "el", "et", "hr", "hu", "lt", "lv", "pl", "ro", "ru", "sk", "sl", "sr", "uk")
SPACED = frozenset((*_WEST, *_EAST, "id", "tr"))
# Normalisation → the languages that it is made for.
LANGUAGES: Mapping[str, frozenset[str]] = {
    "english": frozenset((ENGLISH,)),
    "raw": SPACED,
    "chinese": frozenset((CHINESE,)),
}

# All but the apostrophe, which is a letter in English.
PUNCTUATION = str.maketrans("", "", (string.punctuation + "‘“”«»…–—¿¡").replace("'", ""))

# seed-tts-eval removes ASCII punctuation except the apostrophe, and the package zhon's Chinese
# punctuation (2.1.1): the full-width forms of ASCII punctuation, and marks of three blocks.
_FULL_WIDTH = "".join(chr(ord(mark) + 0xFEE0) for mark in string.punctuation)
_HALF_WIDTH = "｟｠｡｢｣､"
_GENERAL = "·–—‘’‛“”„‟…‧﹏﹑﹔"
_CJK = "\u3000、。〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
CHINESE_PUNCTUATION = frozenset(
    string.punctuation.replace("'", "") + _FULL_WIDTH + _HALF_WIDTH + _GENERAL + _CJK
)


def normalise(text: str) -> str:
    """Whisper's English normalisation: lower case, no punctuation, one spelling."""
    return _normaliser()(text)


def plain(text: str) -> str:
    """Lower case without punctuation but apostrophes, spaces single; the spelling as it is."""
    return " ".join(text.lower().replace("’", "'").translate(PUNCTUATION).split())


def chinese(text: str) -> str:
    """Simplified Chinese without punctuation and without spaces; the case of letters as it is.

    seed-tts-eval converts only the transcript to simplified characters; here both texts are. 著 is
    written 着, also where simplified text has 著 (著名): the two are never an error.

    Raises:
        WeightsMissing: if OpenCC is not installed.
    """
    return _without_punctuation(simplified(text)).replace("著", "着")


def simplified(text: str) -> str:
    """Traditional characters as simplified ones, by OpenCC's table t2s; words stay as they are.

    Raises:
        WeightsMissing: if OpenCC is not installed.
    """
    check_opencc()
    return str(_converter().convert(text))


@lru_cache(maxsize=1)
def _converter():  # type: ignore[no-untyped-def]
    from opencc import OpenCC

    return OpenCC("t2s")


def check_opencc() -> None:
    """Raises WeightsMissing, with what to install, unless OpenCC is there."""
    if find_spec("opencc") is None:
        raise WeightsMissing(
            "Chinese normalisation: OpenCC is not installed; "
            "pip install 'takin-vc-bench[mandarin]' (0.5 MB, Apache-2.0)"
        )


def units(text: str, language: str = ENGLISH) -> list[str]:
    """The units that errors are counted in: Chinese characters, or words.

    Args:
        text: a text or a transcript.
        language: of the text; Chinese without OpenCC stays in its own characters, since this is for
            showing and comparing, not for scores.

    Returns:
        Of English Whisper's normalisation, of other languages `plain`.
    """
    if language == CHINESE:
        return list(chinese(text) if find_spec("opencc") else _without_punctuation(text))
    return (normalise(text) if language == ENGLISH else plain(text)).split()


def _without_punctuation(text: str) -> str:
    return "".join("".join(c for c in text if c not in CHINESE_PUNCTUATION).split())


@lru_cache(maxsize=1)
def _normaliser():  # type: ignore[no-untyped-def]
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()

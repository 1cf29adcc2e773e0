"""Chinese normalisation and CER by hand; which judge can judge which language."""

import string
from importlib.util import find_spec

import pytest
import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.checks import check_languages
from bench.judges.normalisers import CHINESE_PUNCTUATION, LANGUAGES, SPACED, chinese, units
from bench.judges.recognisers import Transcript
from bench.judges.recognisers.whisper import Whisper
from bench.judges.wer import NORMALISATIONS, WER, error_counts
from bench.metrics import METRICS
from bench.run.judges import DeclaredJudge
from bench.trials import Suite, Trial, Utterance
from bench.weights.find import WeightsMissing

opencc = pytest.mark.skipif(
    find_spec("opencc") is None, reason="no OpenCC: pip install 'takin-vc-bench[mandarin]'"
)
TEXT = "今天天气很好，我们去公园散步。"  # 13 characters and two marks


def test_what_is_punctuation_in_chinese_texts():
    """As seed-tts-eval has it: zhon.hanzi.punctuation (82 marks) and string.punctuation but '."""
    assert len(CHINESE_PUNCTUATION) == 82 + 31
    assert set("，。！？、；：“”‘’（）《》【】…—～·「」") <= CHINESE_PUNCTUATION
    assert set(string.punctuation) - CHINESE_PUNCTUATION == {"'"}
    assert not any(c.isalnum() for c in CHINESE_PUNCTUATION)
    zhon = pytest.importorskip("zhon.hanzi", reason="no zhon to compare with")
    assert set(string.punctuation) - {"'"} | set(zhon.punctuation) == CHINESE_PUNCTUATION


@opencc
def test_normalised_chinese_has_simplified_characters_alone():
    assert chinese("「軟體」，在臺灣　OK's 3.5！") == "软体在台湾OK's35"
    assert chinese("今 天 天 氣 很 好") == "今天天气很好"
    assert chinese("…… ！") == ""
    # Mixed text: one unit a letter, as run_wer.py splits it.
    assert units("我用 AI。", "zh") == ["我", "用", "A", "I"]


@opencc
def test_traditional_and_simplified_transcripts_are_the_same():
    """The particle 著 of Taiwan is 着; simplified text, such as 什么, stays as it is."""
    for traditional, simple in (
        ("他看著我，說著話", "他看着我，说着话"),
        ("隨著時間，沿著河走", "随着时间，沿着河走"),
        ("你說什麼？怎麼這麼抬頭", "你说什么？怎么这么抬头"),
        ("著名的原著", "著名的原著"),
    ):
        assert chinese(traditional) == chinese(simple)
    assert chinese("什么，抬头") == "什么抬头"


def test_only_judges_of_chinese_have_its_version_in_their_fingerprint(monkeypatch):
    def fingerprints(normalisations):
        judge = WER(Polyglot({}), normalisations=["english"])
        judge.normalisations = normalisations
        return judge.fingerprint

    monkeypatch.setattr("bench.judges.wer.identity", lambda *_, **parts: repr(parts))
    english, mandarin = fingerprints(("english",)), fingerprints(("english", "chinese"))
    monkeypatch.setattr("bench.judges.wer.CHINESE_VERSION", 99)
    assert fingerprints(("english",)) == english
    assert "chinese" not in english
    assert fingerprints(("english", "chinese")) != mandarin


@opencc
def test_cer_of_mandarin_by_hand():
    # 气 is 氣 in traditional characters: no error; 园 → 元 is one, 了 at the end another.
    counts = error_counts(TEXT, "今天天氣很好 我們去公元散步了", chinese)
    assert (counts["char_errors"], counts["chars"]) == (2, 13)
    counts = error_counts(TEXT, "今天天气很好", chinese)
    assert (counts["char_errors"], counts["chars"]) == (7, 13)
    counts = error_counts("你好！", "", chinese)
    assert (counts["char_errors"], counts["chars"]) == (2, 2)


def test_english_units_are_whispers_and_other_words_stay():
    assert units("Mister Brown's 2 dogs.") == units("mr brown's two dogs")
    assert units("Ja, die Straße!", "de") == ["ja", "die", "straße"]


def test_every_normalisation_has_languages_and_metrics():
    assert set(NORMALISATIONS) == set(LANGUAGES)
    assert "zh" not in SPACED
    chinese_metrics = [m for m in METRICS if "chinese" in m]
    assert chinese_metrics == [
        *("cer_chinese", "cer_chinese_mean", "cer_asr_chinese", "cer_asr_chinese_mean"),
        "cer_chinese_added",
    ]
    assert METRICS["cer_chinese"].numerator == "chinese_char_errors"
    assert METRICS["cer_asr_chinese"].denominator == "asr_chinese_chars"


class Polyglot:
    """A recogniser that says what it was told, and which language it was asked for."""

    weights = ()
    fingerprint = "polyglot"

    def __init__(self, texts):
        self.texts = texts
        self.asked = []

    def transcribe(self, waveforms, language="en"):
        self.asked.append((language, len(waveforms)))
        return [Transcript(self.texts[round(float(w.samples[0]), 3)]) for w in waveforms]


def sound(number):
    return Waveform(torch.tensor([number, 0.1]), 16000)


@opencc
def test_the_language_of_a_trial_decides_what_is_counted():
    recogniser = Polyglot({0.1: "今天天氣很好我们去公园", 0.2: "hello word", 0.3: "你们好"})
    judge = WER(recogniser, normalisations=["english", "chinese"])
    assert judge.metrics == ("wer", "cer", "cer_chinese", "wer_added", "cer_chinese_added")
    assert judge.languages == {"en", "zh"}
    items = [
        Converted("a", sound(0.1), text=TEXT, language="zh"),
        Converted("b", sound(0.2), text="Hello world!", language="en"),
        Converted("c", sound(0.3), text="你好。", language="zh"),
    ]
    a, b, c = judge.score(items)
    assert recogniser.asked == [("zh", 2), ("en", 1)]
    assert (a["chinese_char_errors"], a["chinese_chars"]) == (2, 13)  # 散步 is lost
    assert (c["chinese_char_errors"], c["chinese_chars"]) == (1, 2)  # 们 is one too many
    assert a["word_errors"] is a["chars"] is a["raw_words"] is None
    assert (b["word_errors"], b["words"]) == (1, 2)
    assert b["chinese_chars"] is None


def test_without_opencc_the_judge_says_what_to_install(monkeypatch):
    monkeypatch.setattr("bench.judges.normalisers.find_spec", lambda name: None)
    with pytest.raises(WeightsMissing, match=r"pip install 'takin-vc-bench\[mandarin\]'"):
        WER(Polyglot({}), normalisations=["chinese"])
    WER(Polyglot({}), normalisations=["english"])


def suite(language, tmp_path):
    said = Utterance("a", "s", "", tmp_path / "a.wav", TEXT, language=language)
    voice = Utterance("b", "t", "", tmp_path / "b.wav", "whatever")
    return Suite("listed", (Trial("a-b", said, (voice,), (voice,)),), "0" * 64)


WHISPER = "bench.judges.recognisers.whisper.Whisper"
CTC = {"_target_": "bench.judges.recognisers.ctc.CTC", "repository": "facebook/hubert"}
PARAFORMER = {"_target_": "bench.judges.recognisers.paraformer.Paraformer"}


def declared(recogniser, **settings):
    return DeclaredJudge(
        {"_target_": "bench.judges.wer.WER", "recogniser": recogniser, **settings}
    ).languages("j")


@pytest.mark.parametrize(
    ("recogniser", "normalisations", "languages"),
    [
        ({"_target_": WHISPER, "language": None}, ["english"], {"en"}),
        ({"_target_": WHISPER, "language": None}, ["chinese"], {"zh"}),
        ({"_target_": WHISPER, "language": None}, ["english", "chinese"], {"en", "zh"}),
        ({"_target_": WHISPER, "language": "zh"}, ["english", "chinese"], {"zh"}),
        ({"_target_": WHISPER, "language": "zh"}, ["english"], set()),
        ({"_target_": WHISPER, "language": None, "model": "base.en"}, ["chinese"], set()),
        (CTC, ["english", "raw"], {"en"}),
        (CTC, ["chinese"], set()),
        (PARAFORMER, ["chinese"], {"zh"}),
        ({"_target_": "bench.judges.recognisers.pocketsphinx.PocketSphinx"}, ["raw"], {"en"}),
    ],
)
def test_languages_are_what_recogniser_and_normalisations_share(
    recogniser, normalisations, languages
):
    """No recogniser is built: most of these need weights that are not here."""
    assert declared(recogniser, normalisations=normalisations) == languages


def test_a_judge_without_languages_judges_any():
    assert DeclaredJudge({"_target_": "bench.judges.dnsmos.DNSMOS"}).languages("d") is None


def test_a_wrong_pairing_is_refused_with_the_way_out(tmp_path):
    chinese_suite, english = suite("zh", tmp_path), suite("en", tmp_path)
    check_languages("w", {"en"}, [english])
    check_languages("w", None, [chinese_suite, english])
    with pytest.raises(UserError) as refused:
        check_languages("wer_hubert_large", {"en"}, [english, chinese_suite])
    assert str(refused.value) == (
        "judge wer_hubert_large measures en, but suite listed is in zh (trial a-b); take "
        "judge=cer_whisper_base for it, or set its recogniser's language and its normalisations"
    )
    with pytest.raises(UserError, match=r"measures no language: .* take judge=wer_whisper_base"):
        check_languages("w", set(), [english])
    with pytest.raises(UserError, match=r"is in fi .*; leave the judge out"):
        check_languages("w", {"en"}, [suite("fi", tmp_path)])


def test_a_language_that_a_suite_decides_and_one_that_is_set_are_one_judge_in_english():
    assert Whisper(language=None).fingerprint == Whisper(language="en").fingerprint
    assert Whisper(language="zh").fingerprint != Whisper(language="en").fingerprint
    assert {"en", "zh", "de"} <= Whisper(language=None).languages

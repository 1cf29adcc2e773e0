"""Word and character error rates of a recogniser's transcripts, by any recogniser."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jiwer

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.checks import check_choices, check_number, common_languages
from bench.judges.nn.batches import Once
from bench.judges.normalisers import (
    CHINESE_VERSION,
    LANGUAGES,
    check_opencc,
    chinese,
    normalise,
    plain,
)
from bench.judges.recognisers import Recogniser, Transcript
from bench.metrics import error_rate, kinds_of
from bench.trials import ENGLISH, Utterance
from bench.weights import Weights

# Texts that the transcript can be compared with → prefix of its columns.
REFERENCES = {"text": "", "asr_source": "asr_"}
# Normalisations of both texts → prefix of its columns.
NORMALISATIONS = {"english": "", "raw": "raw_", "chinese": "chinese_"}
_NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "english": normalise,
    "raw": plain,
    "chinese": chinese,
}
POOLINGS = ("corpus", "mean")
# Normalisation → the metric of the errors that the conversion adds, and the column that it adds up.
ADDED = {"english": "wer_added", "chinese": "cer_chinese_added"}
ADDED_COUNTS = {"english": "word_errors", "chinese": "char_errors"}
COUNTS = ("word_errors", "words", "char_errors", "chars")
CHOICES: Mapping[str, Iterable[str]] = {
    "references": REFERENCES,
    "normalisations": NORMALISATIONS,
    "poolings": POOLINGS,
}
T = TypeVar("T")


class WER:
    """WER and CER of a recogniser's transcript of the converted speech.

    The reference is the source's text, or the recogniser's transcript of the source ("asr_source":
    the errors that it makes on any speech then count less). Both texts pass through Whisper's
    `EnglishTextNormalizer` ("english"), or only lose case and punctuation ("raw": then "Mr" for
    "mister" and "2" for "two" are errors), or are compared character by character as seed-tts-eval
    compares them ("chinese", see `bench.judges.normalisers`: CER alone, since Chinese is written
    without spaces).

    The language of each trial's source decides what is counted: its text passes through those
    normalisations that are made for its language, whichever the report shows, and the recogniser
    is told the language.

    A recogniser errs on recordings too. `wer_added` is the errors in the converted speech less
    those in the source's recording, over the source's words: what the conversion costs. Edit counts
    are stored with the transcript. Rates are pooled from them, over all words together ("corpus")
    or as the mean of each utterance's rate ("mean").

    Args:
        recogniser: transcribes speech.
        references: "text", "asr_source" or both.
        normalisations: some of "english", "raw" and "chinese"; which of them become metrics.
            Together they say which languages the judge measures.
        poolings: "corpus", "mean" or both; likewise.
        max_wer: the self-test fails above this WER (text, english, corpus) on real recordings.

    Raises:
        UserError: if one of the three lists is empty or names something else, or `max_wer` is
            negative.
        WeightsMissing: if "chinese" is among the normalisations and OpenCC is not installed.
    """

    VERSION = 4
    metrics: tuple[str, ...] = ("wer", "cer", "wer_added")
    needs_source_words = True

    def __init__(
        self,
        recogniser: Recogniser,
        references: Sequence[str] = ("text",),
        normalisations: Sequence[str] = ("english",),
        poolings: Sequence[str] = ("corpus",),
        max_wer: float = 0.15,
    ) -> None:
        lists = {"references": references, "normalisations": normalisations, "poolings": poolings}
        self.check_settings({**lists, "max_wer": max_wer})
        if "chinese" in normalisations:
            check_opencc()
        self.recogniser = recogniser
        self.references = tuple(references)
        self.normalisations = tuple(normalisations)
        self.max_wer = max_wer
        self.metrics = self.metrics_for(lists)
        self.reads = self.reads_for(lists)
        transcribed = getattr(recogniser, "languages", None)
        self.languages = common_languages(transcribed, self.languages_for(lists))
        self._transcripts: dict[str, Once[Transcript]] = {}

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """See `bench.judges.checks.check_settings`."""
        for name, known in CHOICES.items():
            if name in settings:
                check_choices(name, settings[name], known)
        check_number(settings, "max_wer", 0)

    @staticmethod
    def metrics_for(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics of a judge with these settings, built or not."""
        references = settings.get("references", ("text",))
        normalisations = settings.get("normalisations", ("english",))
        rates = tuple(
            error_rate(kind, reference, normalisation, pooling)
            for reference in references
            for normalisation in normalisations
            for pooling in settings.get("poolings", ("corpus",))
            for kind in kinds_of(normalisation)
        )
        added = (ADDED[name] for name in normalisations if name in ADDED and "text" in references)
        return (*rates, *added)

    @staticmethod
    def reads_for(settings: Mapping[str, Any]) -> frozenset[str]:
        """What a judge with these settings reads, built or not."""
        text = {"text"} & {*settings.get("references", ("text",))}
        return frozenset({"converted", "source", "language", *text})

    @staticmethod
    def languages_for(settings: Mapping[str, Any]) -> frozenset[str]:
        """The languages of its normalisations; its recogniser may know fewer."""
        chosen = settings.get("normalisations", ("english",))
        return frozenset().union(*(LANGUAGES.get(name, frozenset()) for name in chosen))

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self.recogniser.weights

    @property
    def networks(self) -> tuple[str, ...] | None:
        return getattr(self.recogniser, "networks", None)

    @property
    def fingerprint(self) -> str:
        settings: dict[str, Any] = {
            "recogniser": self.recogniser.fingerprint,
            "references": sorted(self.references),
        }
        # The normaliser is openai-whisper's, whichever recogniser transcribes.
        packages = ["openai-whisper", "jiwer"]
        if "chinese" in self.normalisations:
            packages.append("opencc-python-reimplemented")
            settings["chinese"] = CHINESE_VERSION  # of English nothing is written
        return identity("wer", self.VERSION, settings=settings, packages=packages)

    def transcribe(
        self, waveforms: Sequence[Waveform], language: str = ENGLISH
    ) -> list[Transcript]:
        """The recogniser's transcript of each waveform; each sound is transcribed once."""
        if language not in self._transcripts:
            transcribe = self.recogniser.transcribe
            if language != ENGLISH:  # a recogniser of English alone need not take it
                transcribe = partial(transcribe, language=language)
            self._transcripts[language] = Once(transcribe)
        return self._transcripts[language](waveforms)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """The transcripts and the edit counts of each item; see `error_counts`."""
        # All sounds of one language in one call, so that the recogniser can fill its batches.
        for language in dict.fromkeys(item.language or ENGLISH for item in items):
            of_language = [item for item in items if (item.language or ENGLISH) == language]
            sounds = [w for i in of_language for w in (i.converted, i.source) if w is not None]
            self.transcribe(sounds, language)
        return [self._score(item, item.language or ENGLISH) for item in items]

    def _score(self, item: Converted, language: str) -> dict[str, Value]:
        [transcript] = self.transcribe([_given(item.converted)], language)
        columns: dict[str, Value] = {
            "hypothesis": transcript.text,
            "looped": int(transcript.looped),
        }
        if "text" in self.references:
            text = _given(item.text)
            columns |= self._counts("", text, transcript.text, language)
            if item.source is not None:
                [of_source] = self.transcribe([item.source], language)
                columns |= _added(columns, self._counts("", text, of_source.text, language))
        if "asr_source" in self.references:
            [of_source] = self.transcribe([_given(item.source)], language)
            columns["source_hypothesis"] = of_source.text
            prefix = REFERENCES["asr_source"]
            columns |= self._counts(prefix, of_source.text, transcript.text, language)
        return columns

    def _counts(self, prefix: str, text: str, hypothesis: str, language: str) -> dict[str, Value]:
        """The counts of every normalisation under their columns' names; None in other languages."""
        columns: dict[str, Value] = {}
        for name, mark in NORMALISATIONS.items():
            known = language in LANGUAGES[name]
            if name == "chinese" and not known and name not in self.normalisations:
                continue
            counts: dict[str, Value] = (
                dict(error_counts(text, hypothesis, _NORMALISERS[name]))
                if known
                else dict.fromkeys(COUNTS)
            )
            if "wer" not in kinds_of(name):
                counts = {key: counts[key] for key in ("char_errors", "chars")}
            columns |= {f"{prefix}{mark}{key}": n for key, n in counts.items()}
        return columns

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Transcribes real recordings: no conversion can be expected to have a lower WER.

        They must be in a language of the recogniser. A recogniser of several languages is tested in
        that of the recordings, whatever the normalisations are.
        """
        transcribed = getattr(self.recogniser, "languages", None)
        known = [r for r in recordings if transcribed is None or r.language in transcribed]
        if not known:
            languages = ", ".join(sorted(transcribed or ()))
            return SelfTest(True, {f"not tested: no known recording is in {languages}": "–"})
        counts = []
        for language in sorted({r.language for r in known}):
            spoken = [r for r in known if r.language == language]
            transcripts = self.transcribe([r.load() for r in spoken], language)
            counts += [
                error_counts(r.text, transcript.text, _for(language))
                for r, transcript in zip(spoken, transcripts, strict=True)
            ]
        wer = sum(c["word_errors"] for c in counts) / sum(c["words"] for c in counts)
        cer = sum(c["char_errors"] for c in counts) / sum(c["chars"] for c in counts)
        return SelfTest(
            passed=wer <= self.max_wer,
            findings={
                "WER of real recordings": (
                    f"{wer:.2%} over {len(known)} utterances (at most {self.max_wer:.0%})"
                ),
                "CER of real recordings": f"{cer:.2%}",
            },
        )


def _added(columns: Mapping[str, Value], of_source: Mapping[str, Value]) -> dict[str, Value]:
    """The errors in the converted speech beyond those in the unconverted source."""
    added: dict[str, Value] = {}
    for name, count in ADDED_COUNTS.items():
        column = f"{NORMALISATIONS[name]}{count}"
        if column in columns:
            errors, others = columns[column], of_source[column]
            known = isinstance(errors, int) and isinstance(others, int)
            added[f"added_{column}"] = errors - others if known else None  # type: ignore[operator]
    return added


def error_counts(
    text: str, hypothesis: str, normalised: Callable[[str], str] = normalise
) -> dict[str, int]:
    """Edit counts of the normalised `hypothesis` against the normalised `text`.

    Returns:
        word_errors and char_errors (substitutions, deletions and insertions together), words and
        chars (of the text). With no words in the text every word of the hypothesis is an insertion.
    """
    reference, transcript = normalised(text), normalised(hypothesis)
    if not reference:
        return {
            "word_errors": len(transcript.split()),
            "words": 0,
            "char_errors": len(transcript),
            "chars": 0,
        }
    words = jiwer.process_words(reference, transcript)
    chars = jiwer.process_characters(reference, transcript)
    return {
        "word_errors": words.substitutions + words.deletions + words.insertions,
        "words": words.hits + words.substitutions + words.deletions,
        "char_errors": chars.substitutions + chars.deletions + chars.insertions,
        "chars": chars.hits + chars.substitutions + chars.deletions,
    }


def _for(language: str) -> Callable[[str], str]:
    """The first normalisation that is made for the language."""
    name = next((name for name in NORMALISATIONS if language in LANGUAGES[name]), "raw")
    return _NORMALISERS[name]


def _given(value: T | None) -> T:
    assert value is not None
    return value

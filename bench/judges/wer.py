"""Word and character error rates of a recogniser's transcripts, by any recogniser."""

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import jiwer

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.checks import check_choices, check_number
from bench.judges.nn.batches import Once
from bench.judges.recognisers import Recogniser, Transcript
from bench.metrics import error_rate
from bench.trials import Utterance
from bench.weights import Weights

# Texts that the transcript can be compared with → prefix of its columns.
REFERENCES = {"text": "", "asr_source": "asr_"}
# Normalisations of both texts → prefix of its columns.
NORMALISATIONS = {"english": "", "raw": "raw_"}
POOLINGS = ("corpus", "mean")
CHOICES: Mapping[str, Iterable[str]] = {
    "references": REFERENCES,
    "normalisations": NORMALISATIONS,
    "poolings": POOLINGS,
}
# All but the apostrophe, which is a letter in English.
PUNCTUATION = str.maketrans("", "", (string.punctuation + "‘“”«»…–—¿¡").replace("'", ""))

T = TypeVar("T")


class WER:
    """WER and CER of a recogniser's transcript of the converted speech.

    The reference is the source's text, or the recogniser's transcript of the source ("asr_source":
    the errors that it makes on any speech then count less). Both texts pass through Whisper's
    `EnglishTextNormalizer` ("english"), or only lose case and punctuation ("raw": then "Mr" for
    "mister" and "2" for "two" are errors). Edit counts of both normalisations are stored with the
    transcript, whichever the report shows. Rates are pooled from them, over all words together
    ("corpus") or as the mean of each utterance's rate ("mean").

    Args:
        recogniser: transcribes speech.
        references: "text", "asr_source" or both.
        normalisations: "english", "raw" or both; which of them become metrics.
        poolings: "corpus", "mean" or both; likewise.
        max_wer: the self-test fails above this WER (text, english, corpus) on real recordings.

    Raises:
        UserError: if one of the three lists is empty or names something else, or `max_wer` is
            negative.
    """

    VERSION = 3
    metrics: tuple[str, ...] = ("wer", "cer")
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
        self.recogniser = recogniser
        self.references = tuple(references)
        self.max_wer = max_wer
        self.metrics = self.metrics_for(lists)
        needed = {"text": "text", "asr_source": "source"}
        self.reads = frozenset({"converted", *(needed[r] for r in references)})
        self._transcripts = Once(recogniser.transcribe)

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
        return tuple(
            error_rate(kind, reference, normalisation, pooling)
            for reference in settings.get("references", ("text",))
            for normalisation in settings.get("normalisations", ("english",))
            for pooling in settings.get("poolings", ("corpus",))
            for kind in ("wer", "cer")
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self.recogniser.weights

    @property
    def networks(self) -> tuple[str, ...] | None:
        return getattr(self.recogniser, "networks", None)

    @property
    def fingerprint(self) -> str:
        settings = {
            "recogniser": self.recogniser.fingerprint,
            "references": sorted(self.references),
        }
        # The normaliser is openai-whisper's, whichever recogniser transcribes.
        packages = ["openai-whisper", "jiwer"]
        return identity("wer", self.VERSION, settings=settings, packages=packages)

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """The recogniser's transcript of each waveform; each sound is transcribed once."""
        return self._transcripts(waveforms)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """The transcripts and the edit counts of each item; see `error_counts`."""
        # All sounds of this batch in one call, so that the recogniser can fill its batches.
        sounds = [w for item in items for w in (item.converted, item.source) if w is not None]
        self._transcripts(sounds)
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        [transcript] = self._transcripts([_given(item.converted)])
        columns: dict[str, Value] = {
            "hypothesis": transcript.text,
            "looped": int(transcript.looped),
        }
        if "text" in self.references:
            columns |= _counts("", _given(item.text), transcript.text)
        if "asr_source" in self.references:
            [of_source] = self._transcripts([_given(item.source)])
            columns["source_hypothesis"] = of_source.text
            columns |= _counts(REFERENCES["asr_source"], of_source.text, transcript.text)
        return columns

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Transcribes real recordings: no conversion can be expected to have a lower WER."""
        transcripts = self.transcribe([r.load() for r in recordings])
        counts = [
            error_counts(r.text, transcript.text)
            for r, transcript in zip(recordings, transcripts, strict=True)
        ]
        wer = sum(c["word_errors"] for c in counts) / sum(c["words"] for c in counts)
        cer = sum(c["char_errors"] for c in counts) / sum(c["chars"] for c in counts)
        return SelfTest(
            passed=wer <= self.max_wer,
            findings={
                "WER of real recordings": (
                    f"{wer:.2%} over {len(recordings)} utterances (at most {self.max_wer:.0%})"
                ),
                "CER of real recordings": f"{cer:.2%}",
            },
        )


def normalise(text: str) -> str:
    """Whisper's English normalisation: lower case, no punctuation, one spelling."""
    return _normaliser()(text)


def plain(text: str) -> str:
    """Lower case without punctuation but apostrophes, spaces single; the spelling as it is."""
    return " ".join(text.lower().replace("’", "'").translate(PUNCTUATION).split())


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


def _counts(prefix: str, text: str, hypothesis: str) -> dict[str, Value]:
    """The counts of both normalisations under their columns' names."""
    english = error_counts(text, hypothesis)
    raw = error_counts(text, hypothesis, plain)
    return {
        **{f"{prefix}{NORMALISATIONS['english']}{name}": n for name, n in english.items()},
        **{f"{prefix}{NORMALISATIONS['raw']}{name}": n for name, n in raw.items()},
    }


@lru_cache(maxsize=1)
def _normaliser():  # type: ignore[no-untyped-def]
    from whisper.normalizers import EnglishTextNormalizer

    return EnglishTextNormalizer()


def _given(value: T | None) -> T:
    assert value is not None
    return value

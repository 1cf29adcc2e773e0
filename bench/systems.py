"""What is compared: voice-conversion systems, and the recordings that mark floor and ceiling."""

from typing import Protocol, runtime_checkable

from bench.audio import Waveform
from bench.trials import Trial, Utterance


@runtime_checkable
class System(Protocol):
    """Says the words of one recording in the voice of another.

    Any class with this method is a system; it needs nothing of this package but `Waveform`. Its
    name is its key in the configuration.

    Attributes:
        trained_on: corpora and splits whose speakers it has heard ("LibriTTS/train-clean-100");
            empty where it was trained on nothing, {"unknown"} where nobody says.
    """

    trained_on: frozenset[str]

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        Args:
            source: as recorded, at its own sample rate.
            reference: speech of the target speaker, at its own sample rate.
            seed: for whatever is drawn at random; the same seed gives the same audio.

        Returns:
            The converted speech, at the system's own sample rate.
        """
        ...


@runtime_checkable
class Recording(Protocol):
    """A row of real recordings instead of conversions: a floor or a ceiling for the judges.

    Attributes:
        says_source_words: False where the recording has words of its own, so that word error rate
            and prosody against the source mean nothing.
    """

    says_source_words: bool

    def recording(self, trial: Trial) -> Utterance | None:
        """The recording that stands in this row for `trial`; None where the corpus has none."""
        ...

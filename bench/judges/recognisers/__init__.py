"""The protocol of speech recognisers, which transcribe for the judge `WER`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.audio import Waveform
from bench.weights import Weights


@dataclass(frozen=True)
class Transcript:
    """A recogniser's result for one waveform.

    Attributes:
        text: in the recogniser's spelling and punctuation.
        looped: whether its first decoding repeated itself and was decoded again.
    """

    text: str
    looped: bool = False


class Recogniser(Protocol):
    """A model that transcribes speech.

    Attributes:
        weights: files of the model.
        networks: optional, see `bench.judges.Judge`.
        fingerprint: see `bench.judges.identity`.
        languages: optional, as `bench.judges.Judge.languages`: what speech it can transcribe.
    """

    @property
    def weights(self) -> tuple[Weights, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def transcribe(self, waveforms: Sequence[Waveform], language: str = "en") -> list[Transcript]:
        """One transcript a waveform, in order; none depends on the other waveforms.

        Args:
            waveforms: speech.
            language: that they are spoken in, one of `languages`.
        """
        ...

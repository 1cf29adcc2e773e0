"""What a WER judge hears with: the protocol of speech recognisers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.audio import Waveform
from bench.weights import Weights


@dataclass(frozen=True)
class Transcript:
    """What a recogniser heard.

    Attributes:
        text: in the recogniser's own spelling and punctuation.
        looped: whether its first decoding went round in circles and was done again.
    """

    text: str
    looped: bool = False


class Recogniser(Protocol):
    """A model that writes down speech.

    Attributes:
        weights: what it hears with.
        fingerprint: hash over weights, settings and code.
    """

    @property
    def weights(self) -> tuple[Weights, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """One transcript a waveform, in order; none depends on the other waveforms."""
        ...

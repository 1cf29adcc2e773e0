"""Similarity of speaking style, accent or emotion, to the source and to the target, by any encoder.

Encoders of style carry the voice too. How much, the rows of the floor and of the ceiling show: see
docs/methods/prosody.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.audio import Waveform
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.nn.batches import Once
from bench.trials import Utterance
from bench.weights import Weights


@dataclass(frozen=True)
class Style:
    """What an encoder says about one recording.

    Attributes:
        embedding: (C,), of unit length.
        scores: class → score, higher for more likely; the unit is the encoder's.
    """

    embedding: np.ndarray
    scores: Mapping[str, float]

    @property
    def label(self) -> str:
        """The likeliest class; of equal ones the first."""
        return max(self.scores, key=lambda name: self.scores[name])

    def cosine(self, other: "Style") -> float:
        """Of the two embeddings, in [-1, 1]."""
        return float(np.clip(self.embedding @ other.embedding, -1.0, 1.0))


class StyleEncoder(Protocol):
    """A model that embeds speech by style and puts it into classes.

    Attributes:
        weights: files of the model.
        networks, languages: see `bench.judges.Judge`; the second is optional.
        fingerprint: see `bench.judges.identity`.
    """

    @property
    def weights(self) -> tuple[Weights, ...]: ...

    @property
    def networks(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def styles(self, waveforms: Sequence[Waveform]) -> list[Style]:
        """One a waveform, in order; none depends on the other waveforms."""
        ...

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Checks the encoder on recordings of read speech."""
        ...


class _StyleSimilarity:
    """What both judges share.

    `KIND_source` is the cosine of the embeddings of the converted speech and of the source,
    `KIND_target` the mean cosine to the target's enrolment recordings, empty where there are none.
    `KIND_kept` is 1 where converted speech and source are put into one class, else 0. `scores.csv`
    also has both classes: `KIND` and `KIND_of_source`.

    Args:
        encoder: of this style.
    """

    VERSION = 1
    KIND = ""
    reads = frozenset({"converted", "source", "enrolment"})
    metrics: tuple[str, ...] = ()
    needs_source_words = False

    def __init__(self, encoder: StyleEncoder) -> None:
        self.encoder = encoder
        self.languages: frozenset[str] | None = getattr(encoder, "languages", None)
        self._styles = Once(encoder.styles)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self.encoder.weights

    @property
    def networks(self) -> tuple[str, ...]:
        return self.encoder.networks

    @property
    def fingerprint(self) -> str:
        return identity(self.KIND, self.VERSION, settings={"encoder": self.encoder.fingerprint})

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        # All sounds of this batch in one call, so that the encoder can fill its batches.
        self._styles([waveform for item in items for waveform in _sounds(item)])
        return [self._score(item) for item in items]

    def _score(self, item: Converted) -> dict[str, Value]:
        converted, source, *target = self._styles(_sounds(item))
        to_target = [converted.cosine(recording) for recording in target]
        return {
            f"{self.KIND}_source": converted.cosine(source),
            f"{self.KIND}_target": float(np.mean(to_target)) if to_target else None,
            f"{self.KIND}_kept": float(converted.label == source.label),
            self.KIND: converted.label,
            f"{self.KIND}_of_source": source.label,
        }

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """The encoder's."""
        return self.encoder.self_test(recordings)


class AccentSimilarity(_StyleSimilarity):
    """Whether the source's accent is kept, and how near it is to the target's: `_StyleSimilarity`
    with `KIND` = accent."""

    KIND = "accent"
    metrics = ("accent_source", "accent_target", "accent_kept")


class EmotionSimilarity(_StyleSimilarity):
    """Whether the source's emotion is kept, and how near it is to that of the target's recordings:
    `_StyleSimilarity` with `KIND` = emotion."""

    KIND = "emotion"
    metrics = ("emotion_source", "emotion_target", "emotion_kept")


def _sounds(item: Converted) -> list[Waveform]:
    """The converted speech, the source, and the target's enrolment."""
    assert item.converted is not None
    assert item.source is not None
    return [item.converted, item.source, *(item.enrolment or ())]

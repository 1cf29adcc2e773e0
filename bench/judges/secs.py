"""SECS: speaker similarity as the cosine of speaker embeddings, by any encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.checks import check_choices, check_number
from bench.judges.nn.batches import Once
from bench.trials import Utterance
from bench.weights import Weights

# Recordings that the converted speech can be compared with → suffix of its columns and metrics.
AGAINST = {"enrolment": "", "reference": "_reference"}


class SpeakerEncoder(Protocol):
    """A model that embeds speech: recordings of one speaker point in one direction.

    Attributes:
        weights: files of the model.
        networks: optional, see `bench.judges.Judge`.
        fingerprint: see `bench.judges.identity`.
    """

    @property
    def weights(self) -> tuple[Weights, ...]: ...

    @property
    def fingerprint(self) -> str: ...

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """(N, C), each row of unit length; a row does not depend on the other waveforms."""
        ...


@dataclass(frozen=True)
class KnownPair:
    """Two recordings whose cosine was measured once with the published weights.

    An equal-error rate does not detect other weights or a wrong preprocessing that still separate
    speakers; a cosine to three digits does.

    Attributes:
        first: the id of one recording.
        second: of the other.
        cosine: of their embeddings.
        within: how far from it the judge may be, since machines round differently.
    """

    first: str
    second: str
    cosine: float
    within: float = 0.005


@dataclass(frozen=True)
class Calibration:
    """The scale of an encoder's cosines, measured on pairs of recordings of known speakers.

    Attributes:
        same: mean cosine of two recordings of one speaker.
        different: of two recordings of different speakers.
        threshold: the cosine at which it errs as often on the former as on the latter.
        eer: how often it errs there, in [0, 1].
        same_pairs, different_pairs: how many were compared.
    """

    same: float
    different: float
    threshold: float
    eer: float
    same_pairs: int
    different_pairs: int

    def scale(self, cosine: float) -> float:
        """0 where different speakers are on average, 1 where one speaker is.

        Stretching or shifting an encoder's cosines does not change it, so that values by two
        encoders can be compared.
        """
        return (cosine - self.different) / (self.same - self.different)


class SECS:
    """The cosine between the converted speech and recordings of the target speaker.

    `secs` is the mean cosine to each enrolment recording, which the system does not receive;
    `secs_reference` the cosine to the reference itself, as in several papers. `source_secs` is the
    mean cosine to other recordings of the source speaker: how much of that voice is left.
    `sv_accept` is the share of comparisons that a speaker verification at the encoder's equal-error
    threshold would accept, `secs_calibrated` where `secs` lies between different speakers (0) and
    one speaker (1); both come from the pairs of `calibration`.

    Args:
        encoder: embeds speech.
        against: "enrolment", "reference" or both.
        calibration: recordings of known speakers, at least two of each; empty for no calibration.
        max_eer: above this equal-error rate on `calibration`, the encoder's weights are taken for
            wrong: the judge refuses to score, and fails its self-test.
        known_pair: two recordings and their cosine, checked by the self-test where it receives
            them; None where the cosine was not measured.

    Raises:
        UserError: if `against` names something else, or `max_eer` is no share.
    """

    VERSION = 2
    metrics: tuple[str, ...] = (
        "secs",
        "secs_calibrated",
        "sv_accept",
        "source_secs",
        "nearer_target",
    )
    needs_source_words = False

    def __init__(
        self,
        encoder: SpeakerEncoder,
        against: Sequence[str] = ("enrolment",),
        calibration: Sequence[Utterance] = (),
        max_eer: float = 0.08,
        known_pair: KnownPair | None = None,
    ) -> None:
        self.check_settings({"against": against, "max_eer": max_eer})
        self.encoder = encoder
        self.against = tuple(against)
        self.calibration = tuple(calibration)
        self.max_eer = max_eer
        self.known_pair = known_pair
        self.metrics = self.metrics_for({"against": against})
        self.reads = self.reads_for({"against": against})
        self._embedded = Once(lambda waveforms: list(encoder.embed(waveforms)))

    @staticmethod
    def check_settings(settings: Mapping[str, Any]) -> None:
        """See `bench.judges.checks.check_settings`."""
        check_choices("against", settings.get("against", ("enrolment",)), AGAINST)
        check_number(settings, "max_eer", 0, 1)

    @staticmethod
    def metrics_for(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics of a judge with these settings, built or not."""
        suffixes = [AGAINST[a] for a in settings.get("against", ("enrolment",))]
        compared = [f"{n}{s}" for s in suffixes for n in ("secs", "secs_calibrated", "sv_accept")]
        return (*compared, "source_secs", "nearer_target")

    @staticmethod
    def reads_for(settings: Mapping[str, Any]) -> frozenset[str]:
        """What a judge with these settings reads, built or not."""
        against = settings.get("against", ("enrolment",))
        return frozenset({"converted", "source_enrolment", *against})

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self.encoder.weights

    @property
    def networks(self) -> tuple[str, ...] | None:
        return getattr(self.encoder, "networks", None)

    @property
    def fingerprint(self) -> str:
        settings = {
            "encoder": self.encoder.fingerprint,
            "against": self.against,
            "calibration": [(u.speaker, u.sha256) for u in self.calibration],
        }
        return identity("secs", self.VERSION, settings=settings)

    def embed(self, waveforms: Sequence[Waveform]) -> np.ndarray:
        """The encoder's embeddings (N, C); each sound is embedded once."""
        return np.stack(self._embedded(waveforms))

    @cached_property
    def calibrated(self) -> Calibration | None:
        """The scale of the cosines; None without recordings to measure it."""
        if not self.calibration:
            return None
        return self._calibrate(self.calibration)

    def _calibrate(self, recordings: Sequence[Utterance]) -> Calibration:
        if not recordings:
            raise UserError("comparing speakers needs recordings; there are none")
        embeddings = self.embed([r.load() for r in recordings])
        return calibrate(embeddings, [r.speaker for r in recordings])

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        """The columns named in the class's description; None where there is nothing to compare.

        Raises:
            UserError: if the encoder cannot tell the speakers of `calibration` apart.
        """
        # All sounds of this batch in one call, so that the encoder can fill its batches.
        self._embedded([w for item in items for w in _sounds(item)])
        known = self.calibrated
        if known is not None and not known.eer <= self.max_eer:
            raise UserError(
                f"the speaker encoder errs on {known.eer:.0%} of known pairs (at most "
                f"{self.max_eer:.0%}): its weights are wrong or were not loaded "
                f"({', '.join(w.path for w in self.weights)}); run `vcbench doctor`"
            )
        return [self._score(item, known) for item in items]

    def _score(self, item: Converted, known: Calibration | None) -> dict[str, Value]:
        assert item.converted is not None
        columns: dict[str, Value] = {}
        for against in self.against:
            others = item.enrolment if against == "enrolment" else (_given(item.reference),)
            cosines, suffix = self._cosines(item.converted, others or ()), AGAINST[against]
            similarity = float(np.mean(cosines)) if len(cosines) else None
            columns[f"secs{suffix}"] = similarity
            measured = known is not None and similarity is not None
            columns[f"secs_calibrated{suffix}"] = known.scale(similarity) if measured else None  # type: ignore[union-attr, arg-type]
            columns[f"sv_accept{suffix}"] = (
                float(np.mean(cosines >= known.threshold)) if measured else None  # type: ignore[union-attr]
            )
        to_source = self._cosines(item.converted, item.source_enrolment or ())
        columns["source_secs"] = float(np.mean(to_source)) if len(to_source) else None
        to_target = columns[f"secs{AGAINST[self.against[0]]}"]
        columns["nearer_target"] = (
            None
            if to_target is None or columns["source_secs"] is None
            else float(to_target > columns["source_secs"])  # type: ignore[operator]
        )
        return columns

    def _cosines(self, waveform: Waveform, others: Sequence[Waveform]) -> np.ndarray:
        if not others:
            return np.zeros(0)
        first, *rest = self._embedded([waveform, *others])
        return np.stack(rest) @ first

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """Measures mean cosines within and across speakers and the equal-error rate, and compares
        the cosine of the known pair."""
        measured = self._calibrate(recordings)
        passed = measured.eer <= self.max_eer
        findings = {
            "same speaker": f"{measured.same:.3f} over {measured.same_pairs} pairs",
            "different speakers": f"{measured.different:.3f} over {measured.different_pairs} pairs",
            "equal-error rate": (
                f"{measured.eer:.1%} (at most {self.max_eer:.0%}) at {measured.threshold:.3f}"
            ),
        }
        pair, named = self.known_pair, {r.utterance_id: r for r in recordings}
        if pair is not None and {pair.first, pair.second} <= named.keys():
            one, other = self.embed([named[pair.first].load(), named[pair.second].load()])
            cosine = float(one @ other)
            passed &= abs(cosine - pair.cosine) <= pair.within
            findings[f"{pair.first} and {pair.second}"] = (
                f"{cosine:.3f} (known: {pair.cosine:.3f} ± {pair.within})"
            )
        return SelfTest(passed, findings)


def calibrate(embeddings: np.ndarray, speakers: Sequence[str]) -> Calibration:
    """The scale of cosines, from embeddings (N, C) of unit length and their speakers.

    Raises:
        UserError: if there is no pair of one speaker or none of two.
    """
    first, second = np.triu_indices(len(embeddings), k=1)
    cosines = np.sum(embeddings[first] * embeddings[second], axis=1)
    names = np.array(speakers)
    same = names[first] == names[second]
    if not same.any() or same.all():
        raise UserError(
            f"{len(embeddings)} recordings of {len(set(speakers))} speakers: telling speakers "
            "apart needs two of one speaker and one of another"
        )
    eer, threshold = operating_point(cosines[same], cosines[~same])
    return Calibration(
        same=float(cosines[same].mean()),
        different=float(cosines[~same].mean()),
        threshold=threshold,
        eer=eer,
        same_pairs=int(same.sum()),
        different_pairs=int((~same).sum()),
    )


def operating_point(same: np.ndarray, different: np.ndarray) -> tuple[float, float]:
    """The threshold with as many errors on same- as on different-speaker pairs.

    Args:
        same: scores of same-speaker pairs, higher for more alike.
        different: scores of different-speaker pairs.

    Returns:
        The equal-error rate, in [0, 1]: 0 where a threshold separates them, 0.5 for random scores,
        NaN where a score is not a number. And that threshold: scores that reach it are accepted.
    """
    if not (np.isfinite(same).all() and np.isfinite(different).all()):
        return float("nan"), float("nan")
    thresholds = np.sort(np.concatenate([same, different]))
    misses = np.searchsorted(np.sort(same), thresholds) / len(same)
    false_alarms = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    nearest = np.argmin(np.abs(misses - false_alarms))
    return float((misses[nearest] + false_alarms[nearest]) / 2), float(thresholds[nearest])


def _sounds(item: Converted) -> list[Waveform]:
    """All sounds of the item that are embedded."""
    several = (*(item.enrolment or ()), *(item.source_enrolment or ()))
    return [w for w in (item.converted, item.reference, *several) if w is not None]


def _given(waveform: Waveform | None) -> Waveform:
    assert waveform is not None
    return waveform

"""Accent and emotion similarity: what is compared with what, by an encoder of known answers."""

import math

import numpy as np
import pytest
import torch

from bench.audio import Waveform
from bench.cli.settings import load
from bench.errors import UserError
from bench.judges import Converted, SelfTest, only, register_metrics_of
from bench.judges.checks import check_languages
from bench.judges.encoders.commonaccent import HUB as ACCENT
from bench.judges.encoders.hubert_emotion import HUB as EMOTION
from bench.judges.style import AccentSimilarity, EmotionSimilarity, Style
from bench.metrics import METRICS
from bench.run.judges import DeclaredJudge
from bench.validity.kinship import canonical, family_of


class Angles:
    """An encoder that takes a sound's first sample for an angle, and "a" or "b" for its class."""

    weights = ()
    networks = ("angles",)
    fingerprint = "angles 1"

    def __init__(self) -> None:
        self.received: list[int] = []

    def styles(self, waveforms):
        self.received.append(len(waveforms))
        angles = [math.pi * float(w.samples[0]) for w in waveforms]
        return [
            Style(np.array([math.cos(x), math.sin(x)]), {"a": math.cos(x), "b": math.sin(x)})
            for x in angles
        ]

    def self_test(self, recordings):
        return SelfTest(False, {"recordings": str(len(recordings))})


def sound(angle: float) -> Waveform:
    """Speech of so many degrees."""
    return Waveform(torch.full((4,), angle / 180), 16000)


@pytest.mark.parametrize(
    ("kind", "judge"), [("accent", AccentSimilarity), ("emotion", EmotionSimilarity)]
)
def test_each_part_is_compared_with_the_right_one(kind, judge) -> None:
    scorer = judge(Angles())
    items = [
        Converted("kept", sound(30), sound(0), enrolment=(sound(90), sound(60))),
        Converted("changed", sound(60), sound(0), enrolment=()),
    ]
    # Angles are stored as 32-bit samples.
    kept, changed = scorer.score([only(item, scorer.reads) for item in items])
    assert kept == pytest.approx(
        {
            f"{kind}_source": math.cos(math.radians(30)),
            f"{kind}_target": (0.5 + math.cos(math.radians(30))) / 2,
            f"{kind}_kept": 1.0,
            kind: "a",
            f"{kind}_of_source": "a",
        },
        abs=1e-6,
    )
    assert (changed[f"{kind}_target"], changed[f"{kind}_kept"], changed[kind]) == (None, 0.0, "b")
    assert scorer.encoder.received == [4]  # each sound once, in one call
    assert {METRICS[m].numerator for m in scorer.metrics} <= kept.keys()
    register_metrics_of(scorer, kind)


def test_the_floor_is_one_and_a_cosine_never_exceeds_it() -> None:
    rounded = Style(np.array([1.0, 1e-4]), {"a": 1.0})
    assert rounded.cosine(rounded) == 1.0
    same = sound(40)
    [columns] = AccentSimilarity(Angles()).score([Converted("t", same, same, enrolment=(same,))])
    assert columns["accent_source"] == pytest.approx(1)
    assert columns["accent_kept"] == 1


def test_only_kept_emotion_has_a_direction() -> None:
    directions = {m: METRICS[m].higher_is_better for j in JUDGES for m in j.metrics}
    assert {m for m, better in directions.items() if better} == {"emotion_source", "emotion_kept"}
    assert not any(better is False for better in directions.values())


def test_an_encoders_change_is_another_judge() -> None:
    one, other = Angles(), Angles()
    other.fingerprint = "angles 2"
    prints = [judge(e).fingerprint for judge in JUDGES for e in (one, other)]
    assert len(set(prints)) == 4
    assert AccentSimilarity(one).self_test([]).findings == {"recordings": "0"}


JUDGES = (AccentSimilarity, EmotionSimilarity)


@pytest.mark.parametrize("name", ["accent_commonaccent", "emotion_hubert_large"])
def test_settings_know_language_and_metrics_without_weights(name, tmp_path) -> None:
    config = load([f"judge={name}"])
    assert name not in load([]).judge
    declared = DeclaredJudge(config.judge[name])
    assert declared.languages(name) == {"en"}


def test_a_suite_in_another_language_is_refused_without_naming_a_recogniser(tmp_path) -> None:
    from tests.bench.judges.test_normalisers import suite

    with pytest.raises(UserError, match=r"measures en, but .* is in zh .*; leave the judge out$"):
        check_languages("accent_commonaccent", {"en"}, [suite("zh", tmp_path)])


def test_their_networks_have_families() -> None:
    assert family_of(canonical(ACCENT.repository)) == "ecapa"
    assert family_of(canonical(EMOTION.repository)) == "hubert"

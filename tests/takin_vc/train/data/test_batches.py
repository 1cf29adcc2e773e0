"""Which recordings are in which batch."""

from pathlib import Path

import numpy as np
import pytest

from takin_vc.train.data.batches import CropSampler, PairSampler, generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording, weights_of


def recordings(*speakers: str) -> list[TrainingRecording]:
    return [TrainingRecording(f"u{i}", s, Path("x"), "Made") for i, s in enumerate(speakers)]


def sampler(speakers, seconds, **changed) -> PairSampler:
    settings = {"targets": [1.0], "references": [1.0], "batch_seconds": 400.0, "balance": 0.5}
    return PairSampler(recordings(*speakers), np.array(seconds), **settings | changed)


def test_a_batch_depends_on_its_number_alone():
    pairs = sampler("aabb", [[3.0, 4.0, 5.0, 6.0]])
    for _ in range(2):
        draw = pairs.draw(generator(7, 3, 0))
    again = pairs.draw(generator(7, 3, 0))
    assert (draw.target == again.target).all()
    assert (draw.target_start == again.target_start).all()
    other = pairs.draw(generator(7, 4, 0))
    assert (draw.target_start != other.target_start).any()
    other_process = pairs.draw(generator(7, 3, 1))
    assert (draw.target_start != other_process.target_start).any()


def test_references_are_other_recordings_of_the_speaker_where_there_are_any():
    draw = sampler("aabbc", [[3.0, 4.0, 5.0, 6.0, 7.0]]).draw(generator(0))
    speakers = np.array(list("aabbc"))
    assert (speakers[draw.target] == speakers[draw.reference]).all()
    alone = draw.target == 4  # the one recording of c
    assert alone.any()
    assert (draw.reference[~alone] != draw.target[~alone]).all()
    assert (draw.reference[alone] == 4).all()
    apart = np.abs(draw.target_start[alone] - draw.reference_start[alone])
    assert (apart >= 1.0 - 1e-9).all()


def test_parts_lie_within_their_recordings_at_every_speed():
    seconds = np.array([[3.0, 4.0], [1.5, 2.0]])
    draw = sampler("aa", seconds).draw(generator(0))
    assert set(draw.version) == {0, 1}
    for recording, start in (
        (draw.target, draw.target_start),
        (draw.reference, draw.reference_start),
    ):
        assert (start >= 0).all()
        assert (start + 1.0 <= seconds[draw.version, recording] + 1e-9).all()


@pytest.mark.parametrize(("balance", "share"), [(0.0, 1 / 2), (0.5, 3 / 4), (1.0, 9 / 10)])
def test_speakers_are_drawn_by_a_power_of_how_long_they_speak(balance, share):
    # a speaks 18 s, b 2 s: nine times as long
    pairs = sampler("aab", [[9.0, 9.0, 2.0]], balance=balance, batch_seconds=20000.0)
    draw = pairs.draw(generator(0))
    assert np.mean(draw.target < 2) == pytest.approx(share, abs=0.01)


def test_speakers_without_a_pair_of_these_lengths_are_left_out():
    draw = sampler("aab", [[3.0, 3.0, 1.9]]).draw(generator(0))
    assert set(draw.target) == {0, 1}
    with pytest.raises(CorpusError, match=r"no speaker has a recording of 5.0 s"):
        sampler("aab", [[3.0, 3.0, 1.9]], targets=[5.0])


def test_the_batch_fills_its_seconds():
    assert (
        len(sampler("aa", [[9.0, 9.0]], targets=[4.0], batch_seconds=40).draw(generator(0)).target)
        == 10
    )


def test_crops_of_known_speakers_leave_the_others_out():
    crops = CropSampler(
        recordings("a", "", "b"), np.array([[2.0, 9.0, 2.0]]), crop_seconds=1.0, size=50,
        known_speakers=True,
    )  # fmt: skip
    version, recording, start = crops.draw(generator(0))
    assert set(recording) == {0, 2}
    assert (version == 0).all()
    assert (start <= 1.0).all()


def test_content_is_computed_at_the_first_speeds_only():
    seconds = np.full((4, 2), 5.0)
    draw = sampler("aa", seconds, content_versions=2).draw(generator(0))
    assert set(draw.content_version) == {0, 1}
    assert set(draw.version) == {0, 1, 2, 3}


def test_recordings_of_nobody_known_can_stay_out():
    speakers = ["a", "a", ""]
    seconds = [[5.0, 5.0, 5.0]]
    assert set(sampler(speakers, seconds).draw(generator(0)).target) == {0, 1, 2}
    assert set(sampler(speakers, seconds, known_speakers=True).draw(generator(0)).target) == {0, 1}
    with pytest.raises(CorpusError, match="no speaker has a recording"):
        sampler(["", ""], [[5.0, 5.0]], known_speakers=True)


def test_recordings_of_a_corpus_are_drawn_at_their_factor():
    members = [
        TrainingRecording(f"u{i}", s, Path("x"), corpus)
        for i, (s, corpus) in enumerate(
            zip("aabbcc", ["Clean"] * 4 + ["Phone de"] * 2, strict=True)
        )
    ]
    seconds = np.full((1, 6), 4.0)
    weights = weights_of(members, {"Phone": 0.25})
    assert weights.tolist() == [1, 1, 1, 1, 0.25, 0.25]
    pairs = PairSampler(
        members, seconds, targets=[1.0], references=[1.0], batch_seconds=4000, weights=weights
    )
    assert np.mean(pairs.draw(generator(0)).target >= 4) == pytest.approx(0.5 / 4.5, abs=0.02)
    crops = CropSampler(members, seconds, crop_seconds=1.0, size=4000, weights=weights)
    assert np.mean(crops.draw(generator(0))[1] >= 4) == pytest.approx(0.5 / 4.5, abs=0.02)


def test_a_corpus_without_recordings_is_named():
    with pytest.raises(
        CorpusError, match="corpora names 'Phone', and no recording is of it; known"
    ):
        weights_of(recordings(*"ab"), {"Phone": 0.5})
    with pytest.raises(CorpusError, match="must not be negative"):
        weights_of(recordings(*"ab"), {"Made": -1})

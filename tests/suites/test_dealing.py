"""Recordings have one part each, and pairs are balanced after any number of them."""

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.trials import Utterance
from suites.corpora.table import CorpusRecording
from suites.dealing import SourceQueue, deal, even_pairs


def recordings(speaker, seconds, text="words of {}"):
    return [
        CorpusRecording(
            Utterance(name, speaker, speaker[0], Path(f"{name}.wav"), text.format(name)), s, ""
        )
        for i, s in enumerate(seconds)
        for name in [f"{speaker}-{i}"]
    ]


def speakers(*names):
    table = [r for name in names for r in recordings(name, [9, 8, 7, 6, 5, 4, 3])]
    return deal(table, random.Random(0), reference_seconds=5)


def test_reference_is_the_longest_until_it_lasts_and_the_target_the_next():
    (speaker,) = deal(
        recordings("F1", [3, 9, 4, 8, 5, 6, 7, 1]), random.Random(0), reference_seconds=16
    )
    assert [u.utterance_id for u in speaker.reference] == ["F1-1", "F1-3"]  # 9 + 8 s
    assert speaker.target.utterance_id == "F1-6"
    assert len(speaker.enrolment) == 3
    assert "F1-7" not in {u.utterance_id for u in speaker.enrolment}  # 1 s is too short
    sources = {u for of_class in speaker.sources.values() for u in of_class}
    assert not sources & {*speaker.reference, speaker.target}
    for source in sources:
        others = speaker.others_than(source)
        assert len(others) == 3
        assert source not in others


def test_speakers_with_too_few_recordings_are_left_out_or_named():
    table = [*recordings("F1", [9, 8, 7, 6, 5, 4]), *recordings("F2", [9, 8, 7])]
    assert [s.name for s in deal(table, random.Random(0), reference_seconds=5)] == ["F1"]
    with pytest.raises(UserError, match="none of 2 speakers has 60 s of reference"):
        deal(table, random.Random(0), reference_seconds=60)


@pytest.mark.parametrize("targets", [("F1", "F2", "F3"), ("M1", "M2"), ("M1", "M2", "M3", "M4")])
def test_every_prefix_of_the_pairs_is_balanced(targets):
    a, b = speakers("F1", "F2", "F3"), speakers(*targets)
    pairs = [
        (source.name, target.name)
        for source, target in islice(even_pairs(a, b, random.Random(1)), 60)
    ]
    assert all(source != target for source, target in pairs)
    for n in range(1, 61):
        for names, all_names in (
            ([s for s, _ in pairs[:n]], ["F1", "F2", "F3"]),
            ([t for _, t in pairs[:n]], targets),
        ):
            counts = [Counter(names)[name] for name in all_names]
            assert max(counts) - min(counts) <= 1
    different = len({(s, t) for s in ("F1", "F2", "F3") for t in targets if s != t})
    assert len(set(pairs[:different])) == different  # each once before any comes again


def test_one_speaker_makes_no_pair():
    with pytest.raises(UserError, match="at least two speakers"):
        next(even_pairs(speakers("F1"), speakers("F1"), random.Random(0)))


def test_a_source_with_the_words_of_the_reference_is_skipped_or_named():
    def of(speaker, text):
        table = recordings(speaker, [9, 8, 7, 6, 5, 4, 3], text)
        return deal(table, random.Random(0), reference_seconds=5)[0]

    queue = SourceQueue()
    texts = {queue.next("c", of("F1", "{}"), of("M1", "F1-4!"))[0].text for _ in range(12)}
    assert "F1-4" not in texts
    assert len(texts) > 1
    with pytest.raises(UserError, match=r"every source of F1 says what a reference of \['M1'\]"):
        queue.next("c", of("F1", "Same words."), of("M1", "same words"))

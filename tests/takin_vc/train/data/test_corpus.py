"""Lists of recordings."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from takin_vc.train.data.corpus import (
    CorpusError,
    TrainingRecording,
    held_out_speakers,
    identity_of,
    names_of,
    only_speakers,
    read_recordings,
)
from tests.support.tiny_training import write_corpus


@pytest.fixture
def table(tmp_path):
    return write_corpus(tmp_path / "corpus")


def edit(table, old: str, new: str) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))


def test_what_a_model_was_trained_on_names_speakers_and_unlabelled_corpora(table):
    assert names_of(read_recordings([table])) == {"Made", *(f"Made:s{i}" for i in range(6))}


def test_a_missing_recording_is_named_and_counted(table):
    (table.parent / "s1-0.wav").unlink()
    (table.parent / "s2-0.wav").unlink()
    with pytest.raises(CorpusError, match=r"2 of 20 recordings are not there, the first: .*s1-0"):
        read_recordings([table])


def test_a_path_out_of_the_folder_is_refused(table):
    edit(table, "s1-0.wav", "../s1-0.wav")
    with pytest.raises(CorpusError, match=r"utterances\.csv:5: '\.\./s1-0\.wav' leads out of"):
        read_recordings([table])


def test_an_id_that_comes_twice_is_refused(table):
    with pytest.raises(CorpusError, match="'s0-0' comes twice"):
        read_recordings([table, table])


def test_a_list_without_a_column_is_refused(table):
    edit(table, "speaker", "talker")
    with pytest.raises(CorpusError, match="lacks the column speaker"):
        read_recordings([table])


def test_held_out_speakers_are_drawn_by_the_seed(table):
    recordings = read_recordings([table])
    drawn = held_out_speakers(recordings, 2, 0)
    assert len(drawn) == 2
    assert drawn == held_out_speakers(recordings, 2, 0)
    assert len({held_out_speakers(recordings, 2, seed) for seed in range(20)}) > 5
    with pytest.raises(CorpusError, match=r"held_out.speakers \(6\) are too many"):
        held_out_speakers(recordings, 6, 0)


def test_held_out_speakers_can_be_named(table):
    recordings = read_recordings([table])
    name = recordings[0].speaker
    assert held_out_speakers(recordings, [name], 0) == {name}
    with pytest.raises(CorpusError, match="names 'nobody', who has no recording"):
        held_out_speakers(recordings, [name, "nobody"], 0)
    with pytest.raises(CorpusError, match="none is left to train on"):
        held_out_speakers(recordings, sorted({r.speaker for r in recordings}), 0)


def test_a_list_is_known_by_its_rows_wherever_its_files_lie(table, tmp_path):
    identity = identity_of(read_recordings([table]))
    assert identity.startswith("20 recordings, sha256 ")
    assert identity_of(read_recordings([write_corpus(tmp_path / "moved")])) == identity
    recordings = read_recordings([table])
    assert identity_of(recordings[::-1]) != identity  # batches are drawn by number
    for column in ("utterance_id", "speaker", "corpus", "text"):
        other = replace(recordings[3], **{column: "other"})
        assert identity_of([*recordings[:3], other, *recordings[4:]]) != identity


def test_a_smaller_number_of_speakers_is_among_a_larger_one_whatever_the_order():
    names = [f"s{i % 9}" for i in range(40)] + [""]
    members = [TrainingRecording(f"u{i}", s, Path("x"), "Made") for i, s in enumerate(names)]

    def chosen(count, listed):
        taken = only_speakers(listed, count)
        speakers = {r.speaker for r, weight in zip(listed, taken, strict=True) if weight == 1}
        # Either all recordings of a speaker or none.
        assert sum(r.speaker in speakers for r in listed) == taken.sum()
        return speakers

    sets = [chosen(count, members) for count in range(1, 10)]
    assert [len(s) for s in sets] == list(range(1, 10))
    assert all(a < b for a, b in pairwise(sets))
    assert chosen(4, members[::-1]) == sets[3]
    for count in (0, 10):
        with pytest.raises(CorpusError, match=rf"speakers={count}: it must be from 1 to 9"):
            only_speakers(members, count)

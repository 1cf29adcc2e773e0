"""Every corpus is read from a miniature of its true layout; bad ones are named and counted."""

from dataclasses import replace

import pytest

from bench.errors import UserError
from bench.trials import Utterance
from suites.corpora import layouts
from suites.corpora.table import CorpusRecording, Faults, gather, read_index, write_index
from tests.suites import miniatures


def read(name, root, stop=True, **more):
    faults = Faults(stop=stop)
    return gather(layouts.READERS[name], root, faults, **more), faults


def test_librispeech_as_distributed(tmp_path):
    found, _ = read("librispeech", miniatures.librispeech(tmp_path))
    expected = {
        row["utterance_id"]: row
        for speaker in (miniatures.WOMEN[0], miniatures.MEN[0])
        for row in miniatures.BY_SPEAKER[speaker]
    }
    assert [r.utterance.utterance_id for r in found] == sorted(expected)
    for recording in found:
        row = expected[recording.utterance.utterance_id]
        assert recording.utterance.text == row["text"]
        assert recording.utterance.gender == row["gender"]
        assert recording.speaker == row["speaker"]
        assert recording.seconds == pytest.approx(float(row["seconds"]), abs=1e-3)
        assert recording.utterance.corpus == "LibriSpeech/test-clean"
        assert recording.language == "en"


@pytest.mark.parametrize(
    ("name", "corpus"), [("libritts", "LibriTTS"), ("libritts_r", "LibriTTS-R")]
)
def test_libritts_and_r_take_the_normalised_text(name, corpus, tmp_path):
    found, _ = read(name, miniatures.libritts(tmp_path))
    assert len(found) == 4
    assert {r.utterance.gender for r in found} == {"F", "M"}
    assert all(r.utterance.text.endswith(".") for r in found)  # the original text ends with "!"
    assert {r.utterance.corpus for r in found} == {f"{corpus}/test-clean"}
    assert all(r.utterance.utterance_id.count("_") == 3 for r in found)


def test_vctk_takes_microphone_1_and_leaves_out_the_speaker_without_texts(tmp_path):
    found, _ = read("vctk", miniatures.vctk(tmp_path))
    assert [r.utterance.utterance_id for r in found] == [
        f"{s}_{n:03d}" for s in ("p225", "p226") for n in (1, 2)
    ]
    assert all(r.utterance.path.name.endswith("_mic1.flac") for r in found)
    assert [r.utterance.gender for r in found] == ["F", "F", "M", "M"]
    assert all(r.utterance.text == r.utterance.text.strip() for r in found)


@pytest.mark.parametrize("split", [False, True])
def test_esd_with_and_without_splits(split, tmp_path):
    root = miniatures.esd(tmp_path, split)
    for place in (root, root.parent):  # the archive has one folder more
        found, _ = read("esd", place)
        assert [(r.speaker, r.emotion) for r in found] == [
            (s, e.lower()) for s in ("0001", "0011") for e in miniatures.EMOTIONS
        ]
        assert {(r.speaker, r.language, r.utterance.gender) for r in found} == {
            ("0001", "zh", "F"),
            ("0011", "en", "M"),
        }
        assert found[0].utterance.text == "我很好"  # GB 18030; the other table is UTF-16
        assert {r.split for r in found} == ({"test"} if split else {""})


def test_aishell3_gives_characters_without_pinyin(tmp_path):
    found, _ = read("aishell3", miniatures.aishell3(tmp_path))
    assert {r.utterance.text for r in found} == {"广州女"}
    assert {(r.speaker, r.utterance.gender) for r in found} == {("SSB0005", "F"), ("SSB0009", "M")}
    assert {r.language for r in found} == {"zh"}
    assert {r.utterance.corpus for r in found} == {"AISHELL-3/train"}


def test_vcc2020_names_the_language_of_every_file(tmp_path):
    found, _ = read("vcc2020", miniatures.vcc2020(tmp_path))
    by_speaker = {r.speaker: (r.language, r.utterance.gender) for r in found}
    assert by_speaker == {
        "SEF1": ("en", "F"),
        "SEM1": ("en", "M"),
        "TFF1": ("fi", "F"),
        "TMM1": ("zh", "M"),
    }
    same = [r.utterance.text for r in found if r.utterance.utterance_id.endswith("-E10003")]
    assert same == ["sentence 3 of E"] * 2  # parallel: all who read English read the same


def test_a_plain_folder_needs_path_speaker_and_text_only(tmp_path):
    found, _ = read("folder", miniatures.folder(tmp_path / "mine"))
    assert [r.utterance.utterance_id for r in found] == [
        r["utterance_id"] for r in miniatures.SPEECH[:3]
    ]
    assert {r.utterance.corpus for r in found} == {"mine"}
    assert all(1.9 < r.seconds <= 2.0 for r in found)
    columns = ("path", "speaker", "text", "gender", "split", "corpus")
    found, _ = read("folder", miniatures.folder(tmp_path / "more", columns=columns))
    assert {r.utterance.corpus for r in found} == {"LibriSpeech/test-other"}
    assert {r.utterance.gender for r in found} == {"M"}


@pytest.mark.parametrize("form", ["recordings", "cuts"])
@pytest.mark.parametrize("packed", [False, True])
def test_lhotse_manifests(form, packed, tmp_path):
    found, _ = read("lhotse", miniatures.lhotse(tmp_path, form, packed))
    for recording, row in zip(found, miniatures.SPEECH[:3], strict=True):
        utterance = recording.utterance
        assert (utterance.utterance_id, utterance.speaker) == (row["utterance_id"], row["speaker"])
        assert (utterance.text, utterance.gender) == (row["text"], row["gender"])
        assert (recording.language, recording.emotion) == ("en", "neutral")


def test_lhotse_runs_no_command_and_takes_no_part_of_a_file(tmp_path):
    miniatures.lhotse(tmp_path, packed=False)
    recordings = tmp_path / "x_recordings_test.jsonl"
    recordings.write_text(recordings.read_text().replace('"file"', '"command"', 1))
    supervisions = tmp_path / "x_supervisions_test.jsonl"
    lines = supervisions.read_text().splitlines()
    lines[1] = lines[1].replace('"start": 0.0', '"start": 1.0')
    supervisions.write_text("\n".join(lines))
    found, faults = read("lhotse", tmp_path, stop=False)
    assert [r.utterance.utterance_id for r in found] == [miniatures.SPEECH[2]["utterance_id"]]
    assert set(faults.by_kind) == {"sound that is not one file", "part of a file"}


def test_an_unknown_split_is_named_with_those_that_are_there(tmp_path):
    miniatures.librispeech(tmp_path)
    with pytest.raises(UserError, match=r"no split 'test-cleen'; there is test-clean"):
        read("librispeech", tmp_path, splits=frozenset({"test-cleen"}))


def spoil_table(root, chapter):
    (root / "SPEAKERS.TXT").unlink()


def spoil_audio(root, chapter):
    next(chapter.glob("*-0003.flac")).unlink()


def spoil_text(root, chapter):
    transcript = next(chapter.glob("*.trans.txt"))
    lines = [line for line in transcript.read_text().splitlines() if "-0003 " not in line]
    transcript.write_text("\n".join(lines))


def spoil_file(root, chapter):
    next(chapter.glob("*-0003.flac")).write_bytes(b"not audio at all")


def spoil_ids(root, chapter):
    other = chapter.parent / "999"
    other.mkdir()
    for name in ("*-0003.flac", "*.trans.txt"):
        path = next(chapter.glob(name))
        (other / path.name).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "kind", "named", "left_out"),
    [
        (spoil_table, "missing speaker table, so no genders", "SPEAKERS.TXT", 0),
        (spoil_audio, "transcript without audio", "1688-142285-0003", 1),
        (spoil_text, "audio without transcript", "1688-142285-0003", 1),
        (spoil_file, "corrupt file", "1688-142285-0003", 1),
        (spoil_ids, "two recordings with one id", "1688-142285-0003", 0),
    ],
)
def test_a_bad_corpus_is_named_counted_and_left_out_or_stops(
    spoil, kind, named, left_out, tmp_path
):
    root = miniatures.librispeech(tmp_path, ["1688"])
    chapter = root / "test-clean" / "1688" / "142285"
    whole = len(read("librispeech", root)[0])
    spoil(root, chapter)
    found, faults = read("librispeech", root, stop=False)
    assert len(found) == whole - left_out
    assert any(named in what for what in faults.by_kind[kind])
    assert any(line.startswith(f"{kind}: ") and named in line for line in faults.lines())
    with pytest.raises(UserError, match=r"bad=skip"):
        read("librispeech", root, stop=True)


def test_a_folder_that_is_not_the_corpus_says_so(tmp_path):
    with pytest.raises(UserError, match="no corpus folder"):
        read("vctk", tmp_path / "gone")
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(UserError, match="no usable recording"):
        read("librispeech", tmp_path, stop=False)


def test_the_number_of_workers_changes_nothing(tmp_path):
    root = miniatures.librispeech(tmp_path)
    assert read("librispeech", root, workers=1)[0] == read("librispeech", root, workers=7)[0]


def test_an_index_holds_what_was_read_and_opens_no_audio(tmp_path):
    root = miniatures.esd(tmp_path / "corpus")
    found, _ = read("esd", root)
    write_index(found, tmp_path / "index.csv", root)
    for path in root.rglob("*.wav"):
        path.unlink()
    again = read_index(tmp_path / "index.csv", root)
    assert [(r.utterance, r.emotion, r.language) for r in again] == [
        (r.utterance, r.emotion, r.language) for r in found
    ]
    assert [r.seconds for r in again] == pytest.approx([r.seconds for r in found], rel=1e-5)


MINIATURES = {
    "librispeech": miniatures.librispeech,
    "libritts": miniatures.libritts,
    "vctk": miniatures.vctk,
    "aishell3": miniatures.aishell3,
    "vcc2020": miniatures.vcc2020,
    "folder": miniatures.folder,
    "lhotse": lambda root: miniatures.lhotse(root, packed=False),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_every_text_file_of_a_corpus_is_utf8(name, tmp_path):
    """With a byte order mark or without; another encoding is named, never a traceback."""
    root = MINIATURES[name](tmp_path / "corpus")
    whole, _ = read(name, root)
    tables = [p for p in root.rglob("*") if p.suffix in {".txt", ".TXT", ".tsv", ".csv", ".jsonl"}]
    tables = [p for p in tables if ".original." not in p.name]  # LibriTTS's, which nobody reads
    for path in {p.suffix + p.name[:2]: p for p in tables}.values():  # one of each kind
        text = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8-sig")
        assert read(name, root)[0] == whole
        for encoding in ("utf-16", "utf-16-le", "utf-32"):
            path.write_text(text, encoding=encoding)
            with pytest.raises(
                UserError, match=f"{path.name}.* not UTF-8 text .*; save it as UTF-8"
            ) as caught:
                read(name, root)
            assert "\n" not in str(caught.value)
        path.write_text(text, encoding="utf-8")
    assert read(name, root)[0] == whole


@pytest.mark.parametrize("data", [b"not gzip", b"\x1f\x8b\x08\0", "cut"], ids=str)
def test_a_damaged_lhotse_manifest_is_named(data, tmp_path):
    path = miniatures.lhotse(tmp_path) / "x_supervisions_test.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20] if data == "cut" else data)
    with pytest.raises(UserError, match=r"supervisions_test\.jsonl\.gz: not gzip, or cut short"):
        read("lhotse", tmp_path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("path,speaker\na.wav,x\n", r"corpus\.csv: no column 'text'; it needs path, speaker, text"),
        ("path,speaker,text\na.wav,x\n", r"corpus\.csv:2: no text; a row has a cell"),
        ("path,speaker,text\na.wav\n", r"corpus\.csv:2: no speaker; a row has a cell"),
        ("", r"corpus\.csv: no column 'path'"),
        (f"path,speaker,text\na.wav,x,{'y' * 200_000}\n", r"corpus\.csv:2: no CSV \(field larger"),
    ],
)
def test_a_table_with_too_little_in_it_is_named(lines, said, tmp_path):
    (tmp_path / "corpus.csv").write_text(lines)
    with pytest.raises(UserError, match=said):
        read("folder", tmp_path)


def test_a_name_or_text_that_no_list_can_hold_is_a_fault_of_the_corpus(tmp_path):
    root = miniatures.folder(tmp_path / "mine")
    first, second, third = (r["utterance_id"] for r in miniatures.SPEECH[:3])
    (root / f"{first}.wav").rename(root / "caf\udce9.wav")  # a name that is not UTF-8
    table = (
        f'path,speaker,text,utterance_id\n{second}.wav,"a\nb",words,u2\n{third}.wav,s,?!,u3\n'
        f"{first}.wav,s,words,\n"
    )
    (root / "corpus.csv").write_text(table)
    faults = Faults()
    with pytest.raises(UserError, match="no usable recording"):
        gather(layouts.folder, root, faults)
    assert faults.by_kind["name or text that no list can hold"] == [
        r"speaker 'a\nb' has a control character ('\n')"
    ]
    assert faults.by_kind["audio without transcript"][-1] == "u3"
    odd = CorpusRecording(Utterance("u", "s", "", root / "caf\udce9.wav", "words"), 2.0, "")
    faults = Faults()
    with pytest.raises(UserError, match="no usable recording"):
        gather(lambda *_: [odd], root, faults)
    (fault,) = faults.by_kind["name or text that no list can hold"]
    assert "half of a surrogate pair" in fault


def test_texts_of_several_lines_come_back_from_an_index(tmp_path):
    root = miniatures.folder(tmp_path / "corpus")
    found, _ = read("folder", root)
    text = 'one\r\n"two", three\n=4+1'
    odd = [replace(r, utterance=replace(r.utterance, text=text)) for r in found]
    write_index(odd, tmp_path / "index.csv", root)
    assert [r.utterance.text for r in read_index(tmp_path / "index.csv", root)] == [text] * 3


def test_an_index_whose_seconds_are_no_number_is_named(tmp_path):
    root = miniatures.folder(tmp_path / "corpus")
    found, _ = read("folder", root)
    write_index(found, tmp_path / "index.csv", root)
    text = (tmp_path / "index.csv").read_text()
    (tmp_path / "index.csv").write_text(text.replace(",2,", ",two,", 1))
    with pytest.raises(UserError, match=r"index\.csv:\d: seconds 'two' is not a number"):
        read_index(tmp_path / "index.csv", root)

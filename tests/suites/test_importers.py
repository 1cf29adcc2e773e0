"""Published lists are converted to the trials that they describe."""

import json

import pytest

from bench.errors import UserError
from bench.manifest import write_trials
from bench.trials import ENROLMENT, REFERENCE, Suite
from suites import importers
from suites.corpora.layouts import kaldi
from suites.corpora.table import Faults
from tests.suites import miniatures

WOMAN, MAN = miniatures.WOMEN[0], miniatures.MEN[0]


@pytest.fixture
def corpus(tmp_path):
    return miniatures.librispeech(tmp_path / "corpus")


def flac(speaker, number):
    """Path of a recording in the miniature, as lists write it."""
    row = miniatures.BY_SPEAKER[speaker][number]
    name = row["utterance_id"]
    return f"test-clean/{speaker}/{name.split('-')[1]}/{name}.flac", row


def files(trials, folder):
    """The files of each trial relative to a folder: source, references."""
    return [
        tuple(str(u.path.relative_to(folder)) for u in (t.source, *t.references)) for t in trials
    ]


def load(trials, root, tmp_path):
    """The list as a suite that went through a manifest."""
    write_trials(trials, tmp_path / "m.jsonl", root)
    return Suite.load(tmp_path / "m.jsonl", root=root).trials


def test_freevc_names_title_source_and_target(corpus, tmp_path):
    (source, spoken), (target, _) = flac(WOMAN, 0), flac(MAN, 0)
    lines = f"title1|{source}|{target}\ntitle2|{target}|{source}\n"
    (tmp_path / "pairs.txt").write_text(lines)
    trials = importers.freevc(tmp_path / "pairs.txt", corpus, corpus="librispeech")
    assert [t.trial_id for t in trials] == ["title1", "title2"]
    assert trials[0].source.text == spoken["text"]
    assert (trials[0].source.speaker, trials[0].speaker) == (WOMAN, MAN)
    assert trials[0].factors == {ENROLMENT: REFERENCE, "gender_pair": "F2M"}
    assert files(load(trials, corpus, tmp_path), corpus) == [(source, target), (target, source)]


def test_freevc_paths_of_another_machine_are_matched_by_file_name(corpus, tmp_path):
    name = miniatures.BY_SPEAKER[WOMAN][1]["utterance_id"]
    other = miniatures.BY_SPEAKER[MAN][1]["utterance_id"]
    (tmp_path / "pairs.txt").write_text(f"a|DUMMY/{WOMAN}/{name}.wav|/data/x/{other}.wav\n")
    (trial,) = importers.freevc(tmp_path / "pairs.txt", corpus, corpus="librispeech")
    assert (trial.source.utterance_id, trial.references[0].utterance_id) == (name, other)


def test_oovc_names_source_target_and_conversion(corpus, tmp_path):
    (source, _), (target, _) = flac(WOMAN, 2), flac(MAN, 2)
    lines = f"{source}|{target}|523484f40e8d05b39775a04c08df8a54\n"
    (tmp_path / "pairs.txt").write_text(lines)
    trials = importers.oovc(tmp_path / "pairs.txt", corpus)
    assert trials[0].trial_id == "523484f40e8d05b39775a04c08df8a54"
    assert files(load(trials, corpus, tmp_path), corpus) == [(source, target)]


@pytest.fixture
def seed_tts(tmp_path):
    root = tmp_path / "seedtts_testset"
    for name, speaker in (("a-b", WOMAN), ("c-d", MAN)):
        row, prompt = miniatures.BY_SPEAKER[speaker][:2]
        miniatures.put(row, root / "en" / "wavs" / f"{name}.wav")
        miniatures.put(prompt, root / "en" / "prompt-wavs" / f"p-{name}.wav")
    return root


def test_seed_tts_vc_list_has_five_fields(seed_tts, tmp_path):
    listed = seed_tts / "en" / "non_para_reconstruct_meta.lst"
    lines = (
        "x1|The prompt's text.|prompt-wavs/p-a-b.wav|What is said.|wavs/c-d.wav\n"
        "x2|Another.|prompt-wavs/p-c-d.wav|What else is said.|wavs/a-b.wav\n"
    )
    listed.write_text(lines)
    trials = importers.seed_tts(listed, seed_tts)
    assert [t.source.text for t in trials] == ["What is said.", "What else is said."]
    assert trials[0].references[0].text == "The prompt's text."
    assert files(load(trials, seed_tts, tmp_path), seed_tts / "en") == [
        ("wavs/c-d.wav", "prompt-wavs/p-a-b.wav"),
        ("wavs/a-b.wav", "prompt-wavs/p-c-d.wav"),
    ]


def test_seed_tts_meta_with_four_fields_takes_the_recording_of_that_name(seed_tts):
    listed = seed_tts / "en" / "meta.lst"
    listed.write_text("a-b|The prompt's text.|prompt-wavs/p-c-d.wav|What is said.\n")
    (trial,) = importers.seed_tts(listed, seed_tts)
    assert trial.source.path == seed_tts / "en" / "wavs" / "a-b.wav"
    listed.write_text("gone|The prompt's text.|prompt-wavs/p-c-d.wav|What is said.\n")
    with pytest.raises(UserError, match=r"meta\.lst:1: no file 'wavs/gone\.wav'"):
        importers.seed_tts(listed, seed_tts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_seed_tts_lists_say_their_language_by_their_folder(language, tmp_path):
    root = miniatures.seed_tts_eval(tmp_path / "seedtts_testset")
    listed = root / language / "non_para_reconstruct_meta.lst"
    trials = load(importers.seed_tts(listed, root), root, tmp_path)
    said = {n: (v[3], v[1]) for n, v in miniatures.SEED_TTS_EVAL[language].items()}
    assert {t.trial_id: (t.source.text, t.references[0].text) for t in trials} == said
    assert {u.language for t in trials for u in t.utterances} == {language}


def test_seed_tts_swapped_converts_the_prompt(tmp_path):
    root = miniatures.seed_tts_eval(tmp_path / "seedtts_testset")
    listed = root / "zh" / "non_para_reconstruct_meta.lst"
    one_way, other_way = (
        load(importers.seed_tts(listed, root, swap=swap), root, tmp_path) for swap in (False, True)
    )
    assert [t.trial_id for t in one_way] == [t.trial_id for t in other_way]
    for a, b in zip(one_way, other_way, strict=True):
        assert (b.source, b.references) == (a.references[0], (a.source,))
    assert other_way[0].source.text == "图书馆晚上九点关门。"


def test_seed_tts_in_a_folder_of_another_name_needs_the_language(tmp_path):
    root = miniatures.seed_tts_eval(tmp_path / "seedtts_testset")
    (root / "zh").rename(root / "mandarin")
    listed = root / "mandarin" / "meta.lst"
    with pytest.raises(UserError, match=r"called 'mandarin', not en or zh; add language=en or"):
        importers.seed_tts(listed, root)
    assert importers.seed_tts(listed, root, language="zh")[0].language == "zh"


def test_vce_pairs_have_several_references(corpus, tmp_path):
    (source, spoken), (first, _), (second, _) = flac(WOMAN, 0), flac(MAN, 0), flac(MAN, 1)
    below = [p.removeprefix("test-clean/") for p in (source, first, second)]
    metadata = {
        "source_corpus": "LibriSpeech",
        "pairs": [
            {
                "source_speaker": WOMAN,
                "target_speaker": MAN,
                "src_utt": below[0],
                "tgt_utts": below[1:],
                "content": spoken["text"] + "\n",
                "src_second": 5.0,
            }
        ],
    }
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    trials = importers.vce(
        tmp_path / "metadata.json", corpus, source_root="test-clean", target_root="test-clean"
    )
    stems = [p.rpartition("/")[2].removesuffix(".flac") for p in below]
    assert trials[0].trial_id == f"{stems[0]}_to_{stems[1]}"  # as its inference.py calls the result
    assert len(trials[0].references) == 2
    (trial,) = load(trials, corpus, tmp_path)
    assert files([trial], corpus) == [(source, first, second)]
    assert (trial.source.speaker, trial.speaker, trial.source.text) == (WOMAN, MAN, spoken["text"])


def kaldi_folder(folder, rows):
    """A Kaldi data folder with its audio inside."""
    for row in rows:
        miniatures.put(row, folder / "wav" / f"{row['utterance_id']}.wav")
    lines = {
        "wav.scp": "".join(f"{r['utterance_id']} wav/{r['utterance_id']}.wav\n" for r in rows),
        "text": "".join(f"{r['utterance_id']} {r['text']}\n" for r in rows),
        "utt2spk": "".join(f"{r['utterance_id']} {r['speaker']}\n" for r in rows),
        "spk2gender": "".join(
            f"{s} {g.lower()}\n"
            for s, g in sorted({r["speaker"]: r["gender"] for r in rows}.items())
        ),
    }
    for name, text in lines.items():
        (folder / name).write_text(text)


def test_kaldi_folders_are_read_with_paths_inside_and_absolute_ones(tmp_path):
    rows = miniatures.BY_SPEAKER[WOMAN][:2] + miniatures.BY_SPEAKER[MAN][:2]
    rows.sort(key=lambda r: r["utterance_id"])
    kaldi_folder(tmp_path / "data", rows)
    utterances = [r.utterance for r in kaldi(tmp_path / "data", frozenset(), Faults(stop=True))]
    assert [(u.utterance_id, u.speaker, u.gender, u.text) for u in utterances] == [
        (r["utterance_id"], r["speaker"], r["gender"], r["text"]) for r in rows
    ]
    assert all(u.path.is_file() for u in utterances)
    scp = tmp_path / "data" / "wav.scp"
    scp.write_text(scp.read_text().replace(" wav/", f" {tmp_path}/data/wav/"))
    absolute = [r.utterance for r in kaldi(tmp_path / "data", frozenset(), Faults(stop=True))]
    assert absolute == utterances


def test_kaldi_never_runs_a_command(tmp_path):
    rows = miniatures.BY_SPEAKER[WOMAN][:2]
    kaldi_folder(tmp_path, rows)
    scp = tmp_path / "wav.scp"
    scp.write_text(scp.read_text().replace("wav/", f"touch {tmp_path}/ran | cat wav/", 1))
    scp.write_text(scp.read_text().replace(".wav\n", ".wav |\n", 1))
    faults = Faults()
    assert len(list(kaldi(tmp_path, frozenset(), faults))) == 1
    assert list(faults.by_kind) == ["command in place of a file"]
    assert not (tmp_path / "ran").exists()


def test_voiceprivacy_takes_reference_and_enrolment_from_its_enrolment_data(tmp_path):
    women, men = miniatures.BY_SPEAKER[WOMAN], miniatures.BY_SPEAKER[MAN]
    kaldi_folder(tmp_path / "libri_test_trials_f", women[:2])
    kaldi_folder(tmp_path / "libri_test_enrolls", men[:4] + women[4:6])
    enrolls = [r["utterance_id"] for r in men[:3] + women[4:6]]
    (tmp_path / "libri_test_enrolls" / "enrolls").write_text("\n".join(enrolls) + "\n")
    lines = "".join(f"{MAN} {r['utterance_id']} nontarget\n" for r in women[:2])
    lines += f"{WOMAN} {women[0]['utterance_id']} target\n"
    listed = tmp_path / "libri_test_trials_f" / "trials"
    listed.write_text(lines)
    trials = importers.voiceprivacy(
        listed, tmp_path, target_root="libri_test_enrolls", targets=True
    )
    assert [u.utterance_id for u in (*trials[0].references, *trials[0].enrolment)] == enrolls[:3]
    assert ENROLMENT not in trials[0].factors
    assert [
        (t.speaker, t.source.utterance_id, t.speaker == t.source.speaker)
        for t in load(trials, tmp_path, tmp_path)
    ] == [
        (MAN, women[0]["utterance_id"], False),
        (MAN, women[1]["utterance_id"], False),
        (WOMAN, women[0]["utterance_id"], True),
    ]
    without = importers.voiceprivacy(listed, tmp_path, target_root="libri_test_enrolls")
    assert len(without) == 2  # nobody is source and target unless asked


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a|b\n", "pairs.txt:1: 2 fields, not 3"),
        ("../up|x.flac|y.flac\n", "pairs.txt:1: .*no x"),
        ("a|x.flac|y.flac\n", "pairs.txt:1: the corpus at .* has no x"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line, message, corpus, tmp_path):
    (tmp_path / "pairs.txt").write_text(line)
    with pytest.raises(UserError, match=message):
        importers.freevc(tmp_path / "pairs.txt", corpus, corpus="librispeech")


def test_a_path_outside_of_the_root_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    miniatures.put(miniatures.SPEECH[0], tmp_path / "secret.wav")
    (tmp_path / "pairs.txt").write_text("a|../secret.wav|../secret.wav\n")
    with pytest.raises(UserError, match="no file"):
        importers.freevc(tmp_path / "pairs.txt", inside)


def test_a_list_without_texts_says_that_it_needs_the_corpus(tmp_path):
    row = miniatures.SPEECH[0]
    miniatures.put(row, tmp_path / "a.wav")
    (tmp_path / "pairs.txt").write_text("t|a.wav|a.wav\n")
    with pytest.raises(UserError, match=r"no text of .*corpus="):
        importers.freevc(tmp_path / "pairs.txt", tmp_path)


def test_a_list_that_hides_that_its_enrolment_is_the_reference_is_refused(corpus, tmp_path):
    (source, _), (target, _) = flac(WOMAN, 0), flac(MAN, 0)
    (tmp_path / "pairs.txt").write_text(f"t|{source}|{target}\n")
    trials = importers.freevc(tmp_path / "pairs.txt", corpus, corpus="librispeech")
    write_trials(trials, tmp_path / "m.jsonl", corpus)
    record = json.loads((tmp_path / "m.jsonl").read_text())
    record["factors"] = {}
    (tmp_path / "m.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match="SECS would compare a recording with what the system"):
        Suite.load(tmp_path / "m.jsonl", root=corpus)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("form", importers.IMPORTERS)
def test_a_list_that_is_not_utf8_is_named(form, encoding, corpus, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("café|a.wav|b.wav\n", encoding=encoding)
    for folder in (tmp_path, corpus):
        for name in ("wav.scp", "text", "utt2spk"):
            (folder / name).write_text("")
    with pytest.raises(UserError, match=r"list\.txt: not UTF-8 text .*; save it as UTF-8"):
        importers.IMPORTERS[form](path, corpus)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([{"src_utt": 7}], "pair 0: tgt_utts must be a list of texts"),
        ([{"tgt_utts": []}], "pair 0: tgt_utts must be a list of texts"),
        ([{"tgt_utts": "a.flac"}], "pair 0: tgt_utts must be a list of texts"),
        ([{"content": None}], "pair 0: tgt_utts must be a list of texts"),
        (7, "no metadata of pairs"),
        (["twice"], "is its reference twice"),
    ],
)
def test_vce_pairs_of_another_kind_are_named(pairs, message, corpus, tmp_path):
    (source, _), (target, _) = flac(WOMAN, 0), flac(MAN, 0)
    pair = {"source_speaker": "a", "target_speaker": "b", "content": "words"}
    pair |= {"src_utt": source, "tgt_utts": [target]}
    if pairs == ["twice"]:
        pairs = [{"tgt_utts": [target, target]}]
    if isinstance(pairs, list):
        pairs = [{**pair, **change} for change in pairs]
    (tmp_path / "metadata.json").write_text(json.dumps({"pairs": pairs}))
    with pytest.raises(UserError, match=message):
        importers.vce(tmp_path / "metadata.json", corpus)

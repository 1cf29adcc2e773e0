"""The list of LibriTTS sentences: dealt from a corpus in LibriTTS's layout, then frozen."""

import json
from pathlib import Path

import pytest

from bench.cli.settings import load
from bench.errors import UserError
from bench.files import sha256_of
from bench.manifest import read_trials
from bench.objects import build
from bench.trials import ManifestError
from suites.commands import suite as suite_command
from suites.corpora.layouts import libritts
from suites.corpora.table import Faults, gather
from suites.listed import from_corpus, listed
from tests.suites import miniatures

LIST = Path("suites/data/libritts_test_clean.txt")
SPEAKERS = (*miniatures.WOMEN[:3], *miniatures.MEN[:3])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """LibriTTS's layout with 7 recordings of 2 s of each of three women and three men."""
    return miniatures.libritts(tmp_path_factory.mktemp("LibriTTS"), SPEAKERS, count=7)


@pytest.fixture(scope="module")
def names(corpus):
    """One sentence of each speaker: the first in its chapter."""
    return sorted(p.stem for p in corpus.rglob("*_000000_000000.wav"))


@pytest.fixture
def sources(names, tmp_path):
    path = tmp_path / "sources.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def settings(corpus, sources, tmp_path):
    return {
        "manifest": tmp_path / "listed.v1.jsonl",
        "root": corpus,
        "corpus": "libritts",
        "split": "test-clean",
        "sources": sources,
        "seed": 31,
        "reference_seconds": 4.0,
    }


def test_the_frozen_list_has_97_sentences_of_33_speakers():
    names = LIST.read_text().split()
    assert len(names) == len(set(names)) == 97
    assert len({name.split("_")[0] for name in names}) == 33
    assert all(len(name.split("_")) == 4 for name in names)


def test_every_sentence_goes_to_two_women_and_two_men_who_do_not_say_it(corpus, sources, names):
    recordings = gather(libritts, corpus, Faults(), frozenset(("test-clean",)))
    trials = listed(recordings, seed=1, sources=sources, reference_seconds=4.0)
    assert len(trials) == 4 * len(names) == len({t.trial_id for t in trials})
    for name in names:
        targets = [t for t in trials if t.source.utterance_id == name]
        assert sorted(t.references[0].gender for t in targets) == ["F", "F", "M", "M"]
        assert all(t.speaker != t.source.speaker for t in targets)
    pairs = [t.factors["gender_pair"] for t in trials]
    assert {pair: pairs.count(pair) for pair in set(pairs)} == dict.fromkeys(
        ("F2F", "F2M", "M2F", "M2M"), len(trials) // 4
    )
    listed_names = set(names)
    for trial in trials:
        others = (*trial.references, *trial.enrolment, trial.target)
        assert not listed_names & {u.utterance_id for u in others}
    assert {t.source.gender for t in trials[:2]} == {"F", "M"}  # the beginning is balanced


def test_it_is_dealt_at_first_use_and_then_holds_text_and_hash(corpus, sources, tmp_path):
    made = settings(corpus, sources, tmp_path)
    first = from_corpus(**made, limit=3)
    assert (first.name, len(first.trials)) == ("listed", 3)
    written = made["manifest"].read_bytes()
    source = json.loads(written.splitlines()[0])["source"]
    file = corpus / source["path"]
    assert source["sha256"] == sha256_of(file)
    assert source["text"] == file.with_name(f"{file.stem}.normalized.txt").read_text()
    assert source["corpus"] == "LibriTTS/test-clean"
    assert from_corpus(**made, limit=3).sha256 == first.sha256
    assert made["manifest"].read_bytes() == written
    first.check_audio()

    made["manifest"].unlink()  # another machine with the same release
    assert from_corpus(**made).sha256 == first.sha256


def test_a_recording_that_changed_since_is_refused(sources, tmp_path):
    corpus = miniatures.libritts(tmp_path / "LibriTTS", SPEAKERS, count=7)
    made = settings(corpus, sources, tmp_path)
    source = from_corpus(**made).trials[0].source
    other = next(r for r in miniatures.SPEECH if r["speaker"] not in SPEAKERS)
    miniatures.put(other, source.path)
    with pytest.raises(ManifestError, match="is not the recording that the manifest was made with"):
        from_corpus(**made).check_audio()


def test_an_incomplete_corpus_is_refused(corpus, sources, tmp_path):
    made = settings(corpus, sources, tmp_path)
    with pytest.raises(UserError, match=r"42 recordings of test-clean .* the corpus has 4837"):
        from_corpus(**made, recordings=4837)
    with pytest.raises(UserError, match=r"97 of the 97 sentences .* first 1089_134686_000001"):
        from_corpus(**{**made, "sources": LIST})
    missing = {**made, "root": tmp_path / "nowhere"}
    with pytest.raises(UserError, match=r"`vcbench corpus fetch libritts/test-clean`, or choose"):
        from_corpus(**missing)
    assert not made["manifest"].exists()


def test_the_papers_preset_builds_it(corpus, sources, tmp_path):
    """The preset's own settings, over the miniature."""
    config = load(
        [
            "preset=takin_paper",
            f"corpora={tmp_path}",
            f"suite.libritts_test_clean.root={corpus}",
            f"suite.libritts_test_clean.sources={sources}",
            "suite.libritts_test_clean.recordings=42",
            "suite.libritts_test_clean.reference_seconds=4.0",
        ]
    )
    (node,) = config.suite.values()
    suite = build(node, "suite", name="libritts_test_clean", limit=config.limit)
    assert (suite.name, len(suite.trials)) == ("libritts_test_clean", 24)
    assert (tmp_path / "libritts_test_clean.v1.jsonl").is_file()


def test_suite_build_takes_a_list_of_ids(corpus, sources, tmp_path):
    out = tmp_path / "out.jsonl"
    arguments = [
        *("build", "listed", "corpus=libritts", f"root={corpus}", f"out={out}"),
        *(f"sources={sources}", "reference_seconds=4", "trials=8"),
    ]
    assert suite_command(arguments) == 0
    assert len(list(read_trials(out, corpus))) == 8

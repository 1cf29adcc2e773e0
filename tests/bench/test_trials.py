"""Trials and suites: loading, checks of the audio, fingerprints."""

import numpy as np
import pytest
import soundfile

from bench import audio
from bench.errors import UserError
from bench.trials import ManifestError, Suite, Utterance
from suites.build import MANIFESTS, MINI


def test_a_suite_is_its_trials_in_the_manifests_order(suite, lines):
    assert [t.trial_id for t in suite.trials] == [line["trial_id"] for line in lines]
    first = suite.trials[0]
    assert first.source.text == lines[0]["source"]["text"]
    assert first.speaker == lines[0]["references"][0]["speaker"]
    assert first.factors == {"gender_pair": "F2F"}
    assert suite.check_audio() == []


def test_the_reference_is_cut_to_its_length(suite):
    assert suite.trials[0].reference_seconds == 5.0
    assert suite.trials[0].reference().seconds == 5.0


def test_the_fingerprint_moves_with_what_matters_and_not_with_the_folder(
    load_suite, lines, suite, corpus, tmp_path
):
    before = suite.trials[0].fingerprint
    corpus.rename(tmp_path / "moved")
    (tmp_path / "corpus").symlink_to(tmp_path / "moved")
    assert load_suite(lines).trials[0].fingerprint == before
    lines[0]["reference_seconds"] = 4.0
    assert load_suite(lines).trials[0].fingerprint != before


def test_the_language_moves_the_fingerprint_unless_it_is_english(load_suite, lines, suite):
    """The hash is that of version 0.1.0, which knew no languages: its conversions stay valid."""
    first = suite.trials[0]
    known = "45109215c4348fab04db1a98414c14c6cda516cf99cf48e1c6a2f72a3782189e"
    assert first.fingerprint == known
    lines[0]["source"]["language"] = "en"
    assert load_suite(lines).trials[0].fingerprint == known
    lines[0]["source"]["language"] = "zh"
    assert load_suite(lines).trials[0].fingerprint != known


def test_an_empty_manifest_is_an_error_not_an_empty_result(tmp_path, corpus):
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match="no trials"):
        Suite.load(tmp_path / "m.jsonl", root=corpus)


def test_missing_manifest_and_missing_root_are_named(tmp_path, corpus):
    with pytest.raises(ManifestError, match="no manifest at"):
        Suite.load(tmp_path / "gone.jsonl", root=corpus)
    (tmp_path / "m.jsonl").write_text("{}")
    with pytest.raises(ManifestError, match="no corpus folder at"):
        Suite.load(tmp_path / "m.jsonl", root=tmp_path / "gone")


def test_a_frozen_suite_that_was_edited_is_refused(load_suite, lines):
    sha256 = load_suite(lines).sha256
    assert load_suite(lines, sha256=sha256).sha256 == sha256
    lines[0]["reference_seconds"] = 3.0
    with pytest.raises(ManifestError, match="not the frozen"):
        load_suite(lines, sha256=sha256)


def test_a_recording_that_was_re_encoded_is_refused(suite):
    path = suite.trials[0].source.path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match=path.name):
        suite.check_audio()


def test_without_hashes_in_the_manifest_the_audio_is_still_known_by_its_content(
    load_suite, lines, corpus
):
    for line in lines:
        for utterance in (line["source"], line["target"], *line["references"]):
            del utterance["sha256"]
    before = load_suite(lines).trials[0]
    (corpus / lines[0]["source"]["path"]).write_bytes(b"another recording")
    assert load_suite(lines).trials[0].fingerprint != before.fingerprint


def test_limit_takes_the_first_trials(load_suite, lines):
    assert [t.trial_id for t in load_suite(lines, limit=2).trials] == [
        line["trial_id"] for line in lines[:2]
    ]


def load_without_hashes(lines, load_suite):
    """The suite as if its recordings had been changed before the manifest was written."""
    for line in lines:
        for utterance in (
            *(line["source"], line["target"], *line["references"]),
            *(*line["enrolment"], *line["source_enrolment"]),
        ):
            utterance.pop("sha256", None)
    return load_suite(lines)


def test_a_reference_shorter_than_what_is_asked_of_it_is_the_manifests_fault(lines, load_suite):
    last = lines[-1]
    available = load_suite(lines).trials[-1].references[0].load().seconds
    for asked in (available + 0.1, 400.0, 1e6):
        last["reference_seconds"] = asked
        with pytest.raises(ManifestError) as caught:
            load_suite(lines).check_audio()
        message = str(caught.value)
        assert f"trial {last['trial_id']}: reference_seconds ({asked!r}) is longer" in message
        assert f"last {available:.2f} s ({last['references'][0]['utterance_id']})" in message
        assert "set it to null" in message
        assert "\n" not in message
    for fine in (available + 0.01, available, available - 0.1, None):
        last["reference_seconds"] = fine
        assert load_suite(lines).check_audio() == []


def test_several_references_are_as_long_as_all_of_them(lines, load_suite):
    last = lines[-1]
    last["references"] += last["enrolment"][:1]
    last["enrolment"] = last["enrolment"][1:]
    available = sum(u.load().seconds for u in load_suite(lines).trials[-1].references)
    last["reference_seconds"] = available
    assert load_suite(lines).check_audio() == []
    last["reference_seconds"] = available + 0.1
    with pytest.raises(ManifestError, match="longer than its references"):
        load_suite(lines).check_audio()


@pytest.mark.parametrize("seconds", [1e-9, 0.001, 0.049, 0.05, 0.06])
def test_a_reference_cut_to_nothing_is_the_manifests_fault(seconds, lines, load_suite):
    lines[1]["reference_seconds"] = seconds
    suite = load_suite(lines)
    if seconds >= 0.05:
        assert suite.check_audio() == []
        return
    reference = lines[1]["references"][0]["utterance_id"]
    with pytest.raises(ManifestError, match=r"raise it, or set it to null") as caught:
        suite.check_audio()
    what = "empty" if seconds < 1e-6 else "too short"
    assert f"trial {lines[1]['trial_id']}: reference_seconds ({seconds!r})" in str(caught.value)
    assert f"leaves of {reference} what is {what}" in str(caught.value)


@pytest.mark.parametrize(("level", "what"), [(0.0, "silent"), (0.25, "constant"), (1e-4, "silent")])
def test_a_reference_whose_beginning_is_no_speech_is_the_manifests_fault(
    level, what, lines, load_suite, corpus
):
    path = corpus / lines[1]["references"][0]["path"]
    speech, rate = soundfile.read(path)
    soundfile.write(path, np.concatenate([np.full(rate, level), speech]), rate)
    lines[1]["reference_seconds"] = 0.9
    with pytest.raises(ManifestError, match=rf"reference_seconds \(0\.9\).* what is {what}"):
        load_without_hashes(lines, load_suite).check_audio()
    lines[1]["reference_seconds"] = 1.5
    assert load_suite(lines).check_audio() == []


@pytest.mark.parametrize("part", ["source", "references", "enrolment", "target"])
def test_a_recording_that_is_constant_is_the_manifests_fault(part, lines, load_suite, corpus):
    utterance = lines[1][part] if isinstance(lines[1][part], dict) else lines[1][part][0]
    soundfile.write(corpus / utterance["path"], np.full(9 * 16000, 0.25), 16000)
    with pytest.raises(ManifestError, match=rf"\({utterance['utterance_id']}\) is constant"):
        load_without_hashes(lines, load_suite).check_audio()


def test_every_recording_is_decoded_once(suite, monkeypatch):
    decoded = []
    load = audio.load
    monkeypatch.setattr(audio, "load", lambda path: decoded.append(path) or load(path))
    suite.check_audio()
    assert sorted(decoded) == sorted(u.path for u in suite.utterances.values())


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("mini_*.jsonl")), ids=lambda p: p.stem)
def test_the_embedded_suites_are_without_fault(path):
    assert Suite.load(path, root=MINI).check_audio() == []


def test_a_suite_is_named_after_its_file_unless_named(tmp_path):
    path = MANIFESTS / "mini_cross_gender.v2.jsonl"
    suite = Suite.load(path, root=MINI, limit=1)
    assert (suite.name, suite.root) == ("mini_cross_gender", MINI)
    assert Suite.load(str(path), root=str(MINI), name="mine", limit=1).name == "mine"
    odd = tmp_path / "my trials.jsonl"
    odd.write_bytes(path.read_bytes())
    with pytest.raises(ManifestError, match=r"suite 'my trials': .*give another: name="):
        Suite.load(odd, root=MINI)
    assert Suite.load(odd, root=MINI, name="mine", limit=1).name == "mine"


def test_the_former_order_of_arguments_is_not_misread():
    path = MANIFESTS / "mini_cross_gender.v2.jsonl"
    for arguments, more in ((("mini", path, MINI), {}), (("mini", path), {"root": MINI})):
        with pytest.raises(TypeError):
            Suite.load(*arguments, **more)


def test_a_recording_that_two_suites_share_is_decoded_again_only_to_be_cut(monkeypatch):
    names = ("mini_cross_gender.v2.jsonl", "mini_unseen_speakers.v2.jsonl")
    suites = [Suite.load(MANIFESTS / name, root=MINI, limit=8) for name in names]
    decoded = []
    load = Utterance.load
    monkeypatch.setattr(Utterance, "load", lambda u: decoded.append(u.utterance_id) or load(u))
    checked = {}
    for suite in suites:
        assert suite.check_audio(checked) == []
    again = {name for name in decoded if decoded.count(name) > 1}
    assert again <= {t.references[0].utterance_id for t in suites[1].trials}
    assert len(again) < len(suites[1].utterances) / 2
    assert (
        {u.utterance_id for u in checked}
        == set(decoded)
        == {name for suite in suites for name in suite.utterances}
    )

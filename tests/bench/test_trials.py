import json

import pytest

from bench.errors import UserError
from bench.manifest import trial_to_json
from bench.trials import ManifestError, Suite


def test_a_suite_is_its_trials_in_the_manifests_order(suite, lines):
    assert [t.trial_id for t in suite.trials] == [line["trial_id"] for line in lines]
    first = suite.trials[0]
    assert first.source.text == lines[0]["source"]["text"]
    assert first.speaker == lines[0]["references"][0]["speaker"]
    assert first.factors == {"gender_pair": "F2F"}
    assert suite.check_audio() == []


def test_writing_a_trial_gives_its_line_back(suite, lines, corpus):
    assert json.loads(trial_to_json(suite.trials[0], corpus)) == lines[0]


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


def broken(kind, lines):
    """Spoils the second trial; returns what the message must name beside its line."""
    second = lines[1]
    if kind == "missing file":
        second["source"] |= {"path": "flac/gone.flac", "utterance_id": "new"}
        return ["flac/gone.flac", "root"]
    if kind == "unknown key":
        second["refernces"] = second["references"]
        return ["'refernces'", "did you mean 'references'"]
    if kind == "unknown utterance key":
        second["source"]["txt"] = "x"
        return ["'txt'", "did you mean 'text'"]
    if kind == "no key":
        del second["enrolment"]
        return ["no 'enrolment'"]
    if kind == "duplicate id":
        second["trial_id"] = lines[0]["trial_id"]
        return [lines[0]["trial_id"], "line 1"]
    if kind == "empty transcript":
        second["source"]["text"] = "  "
        return ["empty transcript", second["source"]["utterance_id"]]
    if kind == "path leaves the root":
        second["source"]["path"] = "../../etc/passwd"
        return ["../../etc/passwd", "leaves the corpus root"]
    if kind == "absolute path":
        second["source"]["path"] = "/etc/passwd"
        return ["/etc/passwd", "leaves the corpus root"]
    if kind == "trial id with a slash":
        second["trial_id"] = "../x"
        return ["../x", "slashes"]
    if kind == "enrolment is the reference":
        second["enrolment"] = second["references"]
        return ["also source or reference"]
    if kind == "enrolment of another speaker":
        second["enrolment"] = lines[0]["enrolment"]
        return ["is by speaker"]
    if kind == "target is enrolment":
        second["target"] = second["enrolment"][0]
        return ["compared with itself"]
    if kind == "enrolment is the reference under another name":
        second["enrolment"] = [{**second["references"][0], "utterance_id": "copy"}]
        return ["copy is also source or reference"]
    if kind == "source enrolment is the source":
        second["source_enrolment"] = [second["source"]]
        return ["the source itself"]
    if kind == "two texts for one id":
        second["references"][0]["text"] = "something else"
        lines.insert(1, {**json.loads(json.dumps(lines[1])), "trial_id": "other"})
        lines[1]["references"][0]["text"] = "this"
        lines[2]["trial_id"] = "third"
        return ["its text is"]
    if kind == "no references":
        second["references"] = []
        return ["references", "at least one"]
    if kind == "negative length":
        second["reference_seconds"] = -1
        return ["reference_seconds (-1)"]
    second["source"]["speaker"] = 7
    return ["speaker must be a string, not 7"]


@pytest.mark.parametrize(
    "kind",
    [
        "missing file",
        "unknown key",
        "unknown utterance key",
        "no key",
        "duplicate id",
        "empty transcript",
        "path leaves the root",
        "absolute path",
        "trial id with a slash",
        "enrolment is the reference",
        "enrolment of another speaker",
        "target is enrolment",
        "enrolment is the reference under another name",
        "source enrolment is the source",
        "two texts for one id",
        "no references",
        "negative length",
        "number for a string",
    ],
)
def test_a_bad_manifest_is_one_line_that_names_file_line_and_key(kind, lines, load_suite):
    named = broken(kind, lines)
    with pytest.raises(ManifestError) as caught:
        load_suite(lines)
    message = str(caught.value)
    assert "\n" not in message
    assert "trials.jsonl:2" in message or "trials.jsonl:3" in message
    for part in named:
        assert part in message


def test_a_line_that_is_not_json_is_named(tmp_path, corpus):
    (tmp_path / "m.jsonl").write_text('{"trial_id": \n')
    with pytest.raises(ManifestError, match=r"m\.jsonl:1: not JSON"):
        Suite.load("x", tmp_path / "m.jsonl", corpus)


def test_an_empty_manifest_is_an_error_not_an_empty_result(tmp_path, corpus):
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(ManifestError, match="no trials"):
        Suite.load("x", tmp_path / "m.jsonl", corpus)


def test_missing_manifest_and_missing_root_are_named(tmp_path, corpus):
    with pytest.raises(ManifestError, match="no manifest at"):
        Suite.load("x", tmp_path / "gone.jsonl", corpus)
    (tmp_path / "m.jsonl").write_text("{}")
    with pytest.raises(ManifestError, match="no corpus folder at"):
        Suite.load("x", tmp_path / "m.jsonl", tmp_path / "gone")


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

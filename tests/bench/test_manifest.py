"""Manifests are read with all checks, and what is written is read back."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from bench.manifest import read_trials, trial_to_json, write_trials
from bench.trials import ManifestError, Suite
from suites.build import MANIFESTS


def test_writing_a_trial_gives_its_line_back(suite, lines, corpus):
    assert json.loads(trial_to_json(suite.trials[0], corpus)) == lines[0]


def test_a_language_is_read_back_and_english_is_not_written(lines, load_suite, corpus, tmp_path):
    """Lists from before there was a language are lists of English, byte for byte."""
    assert load_suite(lines).languages == ("en",)
    assert "language" not in trial_to_json(load_suite(lines).trials[0], corpus)
    lines[0]["source"] |= {"language": "zh", "utterance_id": "mandarin"}
    lines[1]["source"] |= {"language": "en", "utterance_id": "english"}
    suite = load_suite(lines)
    assert (suite.languages, suite.trials[0].language) == (("en", "zh"), "zh")
    assert json.loads(trial_to_json(suite.trials[0], corpus))["source"]["language"] == "zh"
    assert "language" not in json.loads(trial_to_json(suite.trials[1], corpus))["source"]
    write_trials(suite.trials, tmp_path / "again.jsonl", corpus)
    assert tuple(read_trials(tmp_path / "again.jsonl", corpus)) == suite.trials


def broken(kind, lines):
    """Damages the second trial; returns what the message must name in addition to its line."""
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
    if kind == "language in words":
        second["source"]["language"] = "Chinese"
        return ["language 'Chinese'", "such as en or zh"]
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
        "language in words",
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
        Suite.load(tmp_path / "m.jsonl", root=corpus)


def refused(load_suite, lines, *named):
    """Checks that the manifest is refused in one short line that names file, line and `named`."""
    with pytest.raises(ManifestError) as caught:
        load_suite(lines)
    message = str(caught.value)
    assert "trials.jsonl:2" in message
    assert "\n" not in message
    assert len(message) < 700
    message.encode()
    for part in named:
        assert part in message
    return message


def refused_text(tmp_path, corpus, text, *named):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(text)
    with pytest.raises(ManifestError) as caught:
        Suite.load(path, root=corpus)
    assert "\n" not in str(caught.value)
    for part in named:
        assert part in str(caught.value)


def paths_in(value, *path):
    """The path of every value in a JSON value, itself first."""
    yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_in(part, *path, key)


def put(line, path, value):
    *above, last = path
    for key in above:
        line = line[key]
    line[last] = value


ODD = [None, True, 0, -1, 1e308, 10**400, "", "\ud800", "a\0b", [], {}, [[]]]


def test_any_value_instead_of_any_other_is_accepted_or_named(lines, tmp_path, corpus):
    """Any value in any position gives trials or a ManifestError that names the line."""
    manifest = tmp_path / "trials.jsonl"
    taken = set()
    for path in list(paths_in(lines[1])):
        if len(path) > 2 and path[0] != "references":  # one list of recordings is like another
            continue
        for value in ODD:
            spoilt = deepcopy(lines[1])
            if path:
                put(spoilt, path, value)
            text = json.dumps(spoilt if path else value)
            manifest.write_text(f"{json.dumps(lines[0])}\n{text}\n")
            try:
                list(read_trials(manifest, corpus, files=False))
            except ManifestError as error:
                message = str(error)
            else:
                message = "trials.jsonl:2"
                taken.add((path[-1], repr(value)))
            assert "trials.jsonl:2" in message
            assert "\n" not in message
    unknown = {(key, "''") for key in ("text", "gender", "sha256", "corpus", "gender_pair")}
    none = {("source_enrolment", "[]"), ("factors", "{}")}
    assert taken == unknown | none | {("target", "None"), ("reference_seconds", "None")}


KEYS = ("utterance_id", "speaker", "gender", "path", "text", "sha256", "corpus")


@pytest.mark.parametrize("text", ["\ud800", "x\udfff", "a\0b", "a\x1b[31m", "a\x7f"], ids=ascii)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("part", ["source", "references"])
def test_half_a_surrogate_pair_or_a_control_character_is_named(part, key, text, lines, load_suite):
    utterance = lines[1][part] if part == "source" else lines[1][part][0]
    utterance[key] = text
    refused(
        load_suite,
        lines,
        f"{part}",
        f"{key} {text!a}",
        "surrogate" if max(text) >= "\ud800" else "control",
    )


@pytest.mark.parametrize("factors", [{"a\nb": "x"}, {"x": "a\nb"}, {"x": "\ud800"}, {"\udfff": ""}])
def test_factors_are_names_and_values_without_control_characters(factors, lines, load_suite):
    lines[1]["factors"] = factors
    refused(load_suite, lines, "factors: ", "; write it without")


def test_a_text_may_have_several_lines_and_any_script(lines, load_suite):
    for text in ("one\ntwo\tthree\r\n", "你好", "नमस्ते", "42", "“Hear, hear!” 🎉"):
        lines[1]["source"]["text"] = text
        assert load_suite(lines).trials[1].source.text == text


@pytest.mark.parametrize("text", ["?!", "…", "- -", "\n", "🎉", ""])
def test_a_source_without_words_is_named_and_other_recordings_need_none(text, lines, load_suite):
    words = lines[1]["source"]["text"]
    lines[1]["source"]["text"] = text
    refused(load_suite, lines, lines[1]["source"]["utterance_id"], "needs at least one word")
    lines[1]["source"]["text"] = words
    lines[1]["references"][0]["text"] = text
    load_suite(lines[:2])


@pytest.mark.parametrize(
    "number",
    [
        "true",
        "false",
        "0",
        "-1",
        "1e308",
        "1e999",
        "1000001",
        "9" * 5000,
        "NaN",
        "-Infinity",
        '"4"',
        "[4]",
    ],
    ids=lambda number: number[:9],
)
@pytest.mark.parametrize("key", ["reference_seconds", "seconds"])
def test_a_duration_is_a_positive_number_up_to_a_million(key, number, lines, tmp_path, corpus):
    lines[1]["source"]["seconds"] = "SECONDS" if key == "seconds" else 4.0
    lines[1]["reference_seconds"] = "SECONDS" if key == "reference_seconds" else 4.0
    text = json.dumps(lines[1]).replace('"SECONDS"', number)
    refused_text(
        tmp_path, corpus, text.encode(), "trials.jsonl:1", f"{key} (", "must be a positive"
    )


@pytest.mark.parametrize("value", [0, 0.0, False, "", {}, None, "x", 7], ids=repr)
@pytest.mark.parametrize("key", ["references", "enrolment", "source_enrolment"])
def test_what_is_no_list_is_named(key, value, lines, load_suite):
    lines[1][key] = value
    refused(load_suite, lines, f"{key}: must be a list")


def test_no_source_enrolment_is_an_empty_list_or_none_at_all(lines, load_suite):
    lines[1]["source_enrolment"] = []
    del lines[2]["source_enrolment"]
    assert [t.source_enrolment for t in load_suite(lines).trials[1:3]] == [(), ()]


@pytest.mark.parametrize("key", ["references", "enrolment", "source_enrolment"])
@pytest.mark.parametrize("other", ["the same", "its id", "another id", "another place"])
def test_a_list_that_has_a_recording_twice_is_named(key, other, lines, load_suite, corpus):
    first = lines[1][key][0]
    again = {"the same": first, "its id": first["utterance_id"]}.get(other)
    if again is None:
        again = {**first, "utterance_id": "copy"}
    if other == "another place":
        (corpus / "copy.flac").write_bytes((corpus / first["path"]).read_bytes())
        again["path"] = "copy.flac"
    lines[1][key].append(again)
    named = ["copy"] if again != first and other != "its id" else []
    refused(load_suite, lines, f"{key}: lists one recording twice", first["utterance_id"], *named)


@pytest.mark.parametrize("path", [("trial_id",), ("source", "text"), ("factors", "gender_pair")])
def test_a_key_that_an_object_has_twice_is_named(path, lines, tmp_path, corpus):
    text = json.dumps(lines[0])
    pair = json.dumps(path[-1])
    at = text.index(pair)
    text = f'{text[:at]}{pair}: "first", {text[at:]}'
    refused_text(tmp_path, corpus, text.encode(), f"trials.jsonl:1: key '{path[-1]}' stands")


@pytest.mark.parametrize("depth", [5, 500, 50_000])
@pytest.mark.parametrize("key", ["source", "text", "references", "factors", "reference_seconds"])
def test_lists_in_lists_are_named_however_deep(depth, key, lines, tmp_path, corpus):
    part = lines[0]["source"] if key == "text" else lines[0]
    part[key] = "NESTED"
    text = json.dumps(lines[0]).replace('"NESTED"', "[" * depth + "]" * depth)
    refused_text(tmp_path, corpus, text.encode(), "trials.jsonl:1: ")


def test_a_path_that_cannot_be_opened_is_named(lines, load_suite, corpus):
    (corpus / "loop").symlink_to("loop")
    for path in ("x" * 5000 + ".wav", "d/" * 3000 + "a.wav", "loop", "loop/a.wav", "flac", "", "."):
        lines[1]["source"] |= {"path": path, "utterance_id": "new"}
        refused(load_suite, lines, "source")


def test_only_required_keys_are_called_needed(lines, load_suite):
    for part, needed in (
        (lines[1], "trial_id, source, references, enrolment"),
        (lines[1]["source"], "utterance_id, speaker, gender, path, text"),
    ):
        for key in needed.split(", "):
            value = part.pop(key)
            assert refused(load_suite, lines, f"no '{key}' in ").endswith(f"; it needs {needed}")
            part[key] = value
    load_suite(lines)


def test_a_byte_order_mark_is_read_over_and_another_encoding_named(lines, tmp_path, corpus):
    path = tmp_path / "m.jsonl"
    text = json.dumps(lines[0], ensure_ascii=False)
    path.write_text(text, encoding="utf-8-sig")
    assert len(Suite.load(path, root=corpus).trials) == 1
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        refused_text(tmp_path, corpus, text.encode(encoding), "trials.jsonl", "save it as UTF-8")


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_every_frozen_manifest_is_read(path, tmp_path):
    assert len(list(read_trials(path, tmp_path, files=False))) >= 6


def test_what_could_not_be_read_back_is_not_written(suite, corpus):
    trial = suite.trials[0]
    for changed in (
        replace(trial, source=replace(trial.source, text="\udcff")),
        replace(trial, source=replace(trial.source, path=corpus / "caf\udce9.wav")),
        replace(trial, references=(replace(trial.references[0], speaker="a\nb"),)),
        replace(trial, factors={"x": "\0"}),
    ):
        with pytest.raises(ManifestError, match=f"trial {trial.trial_id}: .*; write it without"):
            trial_to_json(changed, corpus)


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.jsonl")), ids=lambda p: p.stem)
def test_written_trials_are_read_back_without_the_audio(path, tmp_path):
    whole = list(read_trials(path, tmp_path, files=False))
    some = whole[:100]  # the other forms treat every trial alike
    for trials, root, in_full in (
        (whole, tmp_path, False),
        (some, tmp_path, True),
        (some, "/", False),
    ):
        assert write_trials(trials, tmp_path / "t.jsonl", root, in_full=in_full) == len(trials)
        again = list(read_trials(tmp_path / "t.jsonl", Path(root), files=False))
        assert again == trials
        assert [t.fingerprint for t in again] == [t.fingerprint for t in trials]


def test_stored_trials_keep_the_hashes_of_a_corpus_that_is_gone(load_suite, lines, tmp_path):
    for line in lines:
        lists = (line[key] for key in ("references", "enrolment", "source_enrolment"))
        for part in (line["source"], line["target"], *chain.from_iterable(lists)):
            part.update(sha256="")  # so that reading computes it
    suite = load_suite(lines)
    write_trials(suite.trials, tmp_path / "t.jsonl", suite.root)
    suite.root.rename(tmp_path / "gone")
    again = tuple(read_trials(tmp_path / "t.jsonl", suite.root, files=False))
    assert again == suite.trials
    assert all(u.sha256 for t in again for u in t.utterances)


def test_trials_of_a_changed_corpus_are_stored_and_read_back(suite, tmp_path):
    """A source was replaced by a copy of its speaker's enrolment: allow_changed=true accepts it."""
    trial = suite.trials[0]
    shutil.copyfile(trial.source_enrolment[0].path, trial.source.path)
    changed = suite.with_changed_recordings()
    assert changed.changed == (trial.source.utterance_id,)
    write_trials(changed.trials, tmp_path / "t.jsonl", changed.root)
    again = tuple(read_trials(tmp_path / "t.jsonl", changed.root, files=False))
    assert again == changed.trials


def test_two_utterances_of_one_id_are_not_written(suite, corpus, tmp_path):
    first, second = suite.trials[:2]
    other = replace(second.source, utterance_id=first.source.utterance_id)
    with pytest.raises(ManifestError, match=f"trial {second.trial_id}: two different utterances"):
        write_trials([first, replace(second, source=other)], tmp_path / "t.jsonl", corpus)
    assert not (tmp_path / "t.jsonl").exists()

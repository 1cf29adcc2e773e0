"""Unusual but valid runs have a report and a history, which say what is unusual."""

import dataclasses
import io
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from bench.run.folder import SCORES, SUMMARY, read_run, read_table
from bench.stats.history import history
from reports.findings import findings_of
from reports.html.cards import listing
from reports.html.page import HtmlReport
from reports.papers.report import PaperReport
from reports.text.comparison import history_markdown
from reports.text.markdown import MarkdownReport
from reports.text.terminal import terminal_table
from tests.support.made_up import judged, make_results, rescored, with_failures, write_folder

SUITE = "mini_cross_gender"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    systems = {"a": "world", "b": "world"}
    return make_results(tmp_path_factory.mktemp("odd"), 4, systems, [SUITE])


def failing(results, rows):
    return rescored(results, with_failures(results.scores, rows))


def without_judges(results):
    return rescored(results, results.scores.drop(columns=judged(results.scores)), {})


def one_trial(results):
    suite = results.suites[SUITE]
    first = dataclasses.replace(suite, trials=suite.trials[:1])
    scores = results.scores[results.scores["trial_id"] == suite.trials[0].trial_id]
    return rescored(dataclasses.replace(results, suites={SUITE: first}), scores)


ODD = {
    "no judge": without_judges,
    "no judge and no time": lambda r: rescored(
        r, without_judges(r).scores.assign(elapsed_seconds=np.nan), {}
    ),
    "judges that measured nothing": lambda r: rescored(r, without_judges(r).scores),
    "one trial": one_trial,
    "one trial, failed": lambda r: failing(one_trial(r), one_trial(r).scores.index),
    "everything failed": lambda r: failing(r, r.scores.index),
    "one system failed on everything": lambda r: failing(r, r.scores["system"] == "b"),
    "all systems failed on everything": lambda r: failing(r, r.scores["system"].isin(["a", "b"])),
    "no recordings": lambda r: dataclasses.replace(
        rescored(r, r.scores[r.scores["system"].isin(["a", "b"])]), facts={**r.facts, "anchors": {}}
    ),
}


def saved(results, folder):
    """The run as it is read back from another folder."""
    facts = {**results.facts, "anchors": dict(results.anchors)}
    write_folder(folder, facts, results.scores, lambda _: results.summary)
    return dataclasses.replace(
        results,
        folder=folder,
        scores=read_table(folder / SCORES),
        summary=read_table(folder / SUMMARY),
    )


def terminal(results):
    console = Console(width=200, file=io.StringIO())
    console.print(terminal_table(results))
    return console.file.getvalue()


def forms(results):
    """What each form of the report says, as text on one line without markup."""
    page = HtmlReport(embed_trials=1, beside_trials=0).render(results).read_text()
    body = re.sub(r"<(script|style)>.*?</\\1>", "", page, flags=re.S)
    texts = {
        "terminal": terminal(results),
        "markdown": MarkdownReport().render(results).read_text(),
        "html": re.sub(r"<[^>]*>", "", body).replace("&#39;", "'"),
    }
    return {form: " ".join(text.split()) for form, text in texts.items()}


@pytest.mark.parametrize("odd", ODD)
def test_every_report_and_the_history_accept_an_unusual_run(two, odd, tmp_path):
    run = saved(ODD[odd](two), tmp_path)
    assert all(SUITE in text for text in forms(run).values())
    assert PaperReport("takin_table1").render(run).is_file()
    past = history([read_run(tmp_path)])
    assert set(past.table["system"]) == {"a", "b"}
    assert "nan" not in history_markdown(past)


def test_a_run_that_failed_stands_in_the_history_with_its_failures(two, tmp_path):
    folders = [tmp_path / "good", tmp_path / "failed"]
    for folder, run in zip(folders, (two, failing(two, two.scores.index)), strict=True):
        folder.mkdir()
        saved(run, folder)
    rows = (
        history([read_run(folder) for folder in folders])
        .table.query("system == 'a' and metric == 'secs'")
        .set_index("run")
    )
    assert rows.loc["failed", ["n", "failed"]].tolist() == [0, 4]
    assert np.isnan(rows.loc["failed", "value"])
    assert rows.loc["good", "n"] == 4


def test_a_system_that_sets_its_threads_is_not_taken_for_one_kept_from_elsewhere(two):
    here = "0123456789ab on A, 2 cores, 2 threads"
    fewer, older = "0123456789ab on A, 2 cores, 1 threads", "ba9876543210 on A, 2 cores, 1 threads"
    scores = two.scores.assign(origin=here, remarks="")
    a, b = (scores.index[scores["system"] == name] for name in "ab")
    scores.loc[a, ["origin", "remarks"]] = [fewer, "set torch's number of threads to 1"]
    scores.loc[b, "origin"] = fewer
    scores.loc[b[:1], ["origin", "remarks"]] = [older, "set torch's number of threads to 1"]
    facts = {**two.facts, "origin": here}
    kept = findings_of(dataclasses.replace(two, scores=scores, facts=facts)).reused
    assert {row[1] for row in kept} == {"b"}


def test_every_form_says_what_was_changed_since_and_what_a_system_changed(two, tmp_path):
    scores = two.scores.assign(altered=False, remarks="")
    a, b = (scores.index[scores["system"] == name] for name in "ab")
    scores.loc[a[:3], "altered"] = True
    scores.loc[b, "remarks"] = "set torch's default dtype to bfloat16"
    scores.loc[b[:1], "remarks"] = "changed the working directory."
    for text in forms(saved(rescored(two, scores), tmp_path)).values():
        assert (
            "conversions of a changed since they were converted: 3 of 4; they were scored as they "
            "are now." in text
        )
        assert "conversions of b changed" not in text
        assert "b set torch's default dtype to bfloat16 (conversions: 3)." in text
        assert "b changed the working directory (conversions: 1)." in text


def test_a_run_without_these_columns_has_no_note_on_them(two):
    """Runs of earlier versions have neither column."""
    known = findings_of(two)
    assert (known.altered, known.remarks, known.missing) == ((), (), ())
    empty = two.scores.assign(altered=False, remarks=np.nan)  # as an untyped reader has them
    known = findings_of(dataclasses.replace(two, scores=empty))
    assert (known.altered, known.remarks) == ((), ())


def without_sounds(results, folder, corpus):
    """The run without b's first file and all files of a; optionally without the corpus."""
    shutil.copytree(results.folder / "wav", folder / "wav")
    shutil.rmtree(folder / "wav" / "a")
    rows = results.scores[results.scores["system"] == "b"]
    (folder / rows["wav"].iloc[0]).unlink()
    run = saved(results, folder)
    if corpus:
        return run
    suite = results.suites[SUITE]

    def moved(utterance):
        return dataclasses.replace(utterance, path=folder / "nowhere" / utterance.path.name)

    trials = tuple(
        dataclasses.replace(t, source=moved(t.source), references=tuple(map(moved, t.references)))
        for t in suite.trials
    )
    return dataclasses.replace(run, suites={SUITE: dataclasses.replace(suite, trials=trials)})


@pytest.mark.parametrize("corpus", [True, False])
def test_missing_sounds_change_no_number_and_are_counted(two, corpus, tmp_path):
    whole, gone = tmp_path / "whole", tmp_path / "gone"
    whole.mkdir()
    shutil.copytree(two.folder / "wav", whole / "wav")
    before = forms(saved(two, whole))
    run = without_sounds(two, gone, corpus)
    recordings = len({u.path for t in two.suites[SUITE].trials for u in (t.source, *t.references)})
    more = "" if corpus else f", sources and references {recordings}"
    note = (
        f"sounds that are missing: {5 + (0 if corpus else recordings)} (a 4, b 1{more}). They "
        "have no player and no spectrogram here; no number depends on them."
    )
    for form, text in forms(run).items():
        assert note in text
        if form != "html":
            assert set(re.findall(r"\d+\.\d+", text)) == set(re.findall(r"\d+\.\d+", before[form]))
    page = (gone / "report.html").read_text()
    for link in re.findall(r'href="\./([^"]+)"', page):
        assert (gone / link).is_file()


@pytest.mark.parametrize("corpus", [True, False])
def test_a_card_plays_what_is_there_and_no_voice_comes_twice(two, corpus, tmp_path):
    listed = listing(without_sounds(two, tmp_path / "gone", corpus), SUITE, 2, 1e9, beside_trials=9)
    for card in listed.cards:
        names = [voice.name for voice in card.sounds]
        assert len(names) == len(set(names))
        gone = next(voice for voice in card.sounds if voice.name == "a")
        assert (gone.clip, gone.link) == (None, "")
        assert gone.problem.startswith("the sound is missing: wav/a/")
        assert gone.measures
    assert listed.embedded == 2


def test_a_card_without_any_sound_is_not_counted_as_playing(two, tmp_path):
    run = without_sounds(two, tmp_path / "gone", corpus=False)
    shutil.rmtree(tmp_path / "gone" / "wav")
    listed = listing(run, SUITE, 2, 1e9, beside_trials=9)
    assert listed.embedded == 0
    assert all(voice.problem for card in listed.cards for voice in card.sounds)

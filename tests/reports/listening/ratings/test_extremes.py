"""The best, the median and the worst stimulus of each system, and their players in report.html."""

import base64
import io

import numpy as np
import pytest
import soundfile

from bench.audio import Waveform
from bench.files import sha256_of
from reports.html.listening import TOO_LARGE, listening_sections
from reports.listening.ratings.extremes import extremes
from reports.listening.ratings.results import results_of
from reports.listening.ratings.table import Answers, checked, rows_table
from tests.support.made_up import run, scores
from tests.support.raters import TEST_ID, small_test, written


def rated(folder, kind, ratings, screens=6, sounds=False):
    """Results of answers (listener, screen, stimulus, rating), screening aside."""
    public, key = small_test(kind, screens=screens)
    if sounds:  # a tone of each stimulus, whose pitch tells it
        (folder / "audio").mkdir(parents=True)
        for number, name in enumerate(key["stimuli"]):
            path = folder / "audio" / f"{name}.wav"
            tone = 0.1 * np.sin(2 * np.pi * (300 + 20 * number) * np.arange(16000) / 16000)
            Waveform.from_numpy(tone, 16000).save(path)
            key["stimuli"][name]["sha256"] = sha256_of(path)
    test = written(folder, public, key)
    rows = []
    for listener, screen, stimulus, rating in ratings:
        other = next((s for s in test.screens[screen] if s != stimulus), "") if test.paired else ""
        row = {"test_id": TEST_ID, "listener": listener, "screen": screen, "stimulus": stimulus}
        rows.append({**row, "other": other, "rating": rating, "where": "here"})
    table = checked(test, Answers(rows_table(rows))).table
    return results_of(test, table)


def votes(means, kind="nmos"):
    """Two listeners whose ratings of system a have these means, and those of b are 3."""
    for t, mean in enumerate(means):
        for listener, change in (("l1", 1), ("l2", -1)):
            yield listener, f"q{t}a", f"x{t}a", mean + change
            yield listener, f"q{t}b", f"x{t}b", 3


def test_best_median_and_worst_are_those_of_the_planted_means(tmp_path):
    results = rated(tmp_path / "t", "nmos", votes([2, 4, 3, 3, 2, 3]))
    chosen, left_out = extremes(results, 9)
    of_a = {e.rank: e for e in chosen if e.name == "a"}
    assert list(of_a) == ["best", "median", "worst"]
    assert (of_a["best"].trial_id, of_a["best"].mean, of_a["best"].votes) == ("t1", 4, 2)
    assert of_a["worst"].mean == 2
    assert of_a["worst"].trial_id == "t0"  # the first of two that are equal
    assert of_a["median"].mean == 3
    assert of_a["best"].sounds == (("a", "x1a"),)
    assert left_out == 0
    assert len({e.sounds for e in chosen if e.name == "b"}) == 3  # all means are equal


def test_the_number_is_bounded_and_the_worst_come_first(tmp_path):
    results = rated(tmp_path / "t", "nmos", votes([2, 4, 3, 3, 2, 3]))
    chosen, left_out = extremes(results, 3)
    assert [(e.name, e.rank) for e in chosen] == [("a", "best"), ("a", "worst"), ("b", "worst")]
    assert left_out == 3


def test_one_and_two_stimuli_have_no_median(tmp_path):
    for screens, ranks in ((1, ["only one"]), (2, ["best", "worst"])):
        answers = [r for r in votes([3, 4][:screens]) if r[2].endswith("a")]
        chosen, _ = extremes(rated(tmp_path / str(screens), "nmos", answers, screens), 9)
        assert [e.rank for e in chosen] == ranks


def test_a_pair_is_turned_to_one_order_and_has_its_reference(tmp_path):
    # even screens play b first: a rating of -1 prefers a there, and b on odd screens
    answers = [("l1", f"p{t}", f"x{t}{'ba'[t % 2]}", (-1, 1, 0, -1, 1, 0)[t]) for t in range(6)]
    chosen, _ = extremes(rated(tmp_path / "t", "abx", answers), 9)
    assert [(e.name, e.rank, e.trial_id, e.mean) for e in chosen] == [
        ("a against b", "best", "t0", 1.0),
        ("a against b", "median", "t5", 0.0),
        ("a against b", "worst", "t3", -1.0),
    ]
    assert chosen[0].sounds == (("reference", "ref0"), ("a", "x0a"), ("b", "x0b"))


@pytest.fixture
def a_run():
    return run("mini", *(scores(name, np.full(72, 0.5)) for name in "ab"))


def pitch(address):
    """Hz of the strongest tone of an embedded sound."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


def test_the_players_play_the_stimuli_that_the_key_names(tmp_path, a_run):
    results = rated(tmp_path / "t", "nmos", votes([2, 4, 3, 3, 2, 3]), sounds=True)
    (tmp_path / "t" / "audio" / "x0b.wav").unlink()
    (tmp_path / "t" / "audio" / "x1b.wav").write_bytes(b"another sound")
    (section,) = listening_sections(a_run, {"nmos": results})
    numbers = {name: n for n, name in enumerate(results.test.stimuli)}
    problems = {}
    for extreme, mean, (player,) in section["stimuli"]:
        (_, stimulus) = extreme.sounds[0]
        if player.problem:
            problems[stimulus] = player.problem
            continue
        assert pitch(player.audio) == pytest.approx(300 + 20 * numbers[stimulus], abs=3)
        assert player.label == (
            f"{extreme.name}, {extreme.trial_id} ({extreme.rank} of {extreme.name})"
        )
        assert mean == f"{extreme.mean:.2f}"
    assert "is missing" in problems["x0b"]
    assert "another sha256" in problems["x1b"]


def test_the_sounds_have_a_limit(tmp_path, a_run):
    results = rated(tmp_path / "t", "nmos", votes([2, 4, 3, 3, 2, 3]), sounds=True)
    (section,) = listening_sections(a_run, {"nmos": results}, max_bytes=12_000)
    players = [player for _, _, [player] in section["stimuli"]]
    assert 0 < sum(len(p.audio) for p in players) <= 12_000
    assert players[-1].problem == TOO_LARGE


def test_an_id_does_not_lead_out_of_the_folder(tmp_path, a_run):
    results = rated(tmp_path / "t", "nmos", votes([2, 4, 3, 3, 2, 3]), sounds=True)
    (tmp_path / "t" / "audio" / "x1a.wav").rename(tmp_path / "t" / "x1a.wav")
    (tmp_path / "t" / "audio" / "x1a.wav").symlink_to(tmp_path / "t" / "x1a.wav")
    (section,) = listening_sections(a_run, {"nmos": results})
    best = next(row for row in section["stimuli"] if row[0].mean == 4)
    assert best[2][0].audio == ""

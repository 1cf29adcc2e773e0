"""A run in shards, joined in any order, is the run of one process: the same bytes."""

import errno
import fcntl
import json
import os
import random
import shutil
from itertools import count
from pathlib import Path

import pytest

import bench
from bench.errors import UserError
from bench.files import write_json
from bench.metrics import registry_restored
from bench.run.folder import read_report, sealed
from bench.run.merge import merge_shards
from bench.run.shards import Shard
from bench.stages import execute
from reports.findings import findings_of
from suites.build import MANIFESTS, MINI
from tests.support.fakes import Faulty, Length, Louder, MosNet

LISTS = [MANIFESTS / "mini_cross_gender.v2.jsonl", MANIFESTS / "mini_reference_length.v2.jsonl"]
TABLES = ("scores.csv", "summary.csv")


class Words(MosNet):
    """Counts whole numbers, with a gap at every third sound: a column with gaps is of fractions."""

    def score(self, items):
        counts = [int(item.converted.sha256[:4], 16) for item in items]
        return [{"mos_net": 3, "count": n if n % 3 else None} for n in counts]


class Killed(BaseException):
    """Stands for SIGKILL."""


def suites():
    return [
        bench.Suite.load(path, root=MINI, limit=limit)
        for path, limit in zip(LISTS, (6, 2), strict=True)
    ]


def victims():
    return {t.source.load().sha256 for t in suites()[0].trials[:2]}


def run_in(folder, shard=None, systems=None, **settings):
    given = {
        "mine": Louder(),
        "source": "baselines.anchors.Source",
        "faulty": Faulty("raises", victims()),
    }
    return bench.Run(
        folder,
        suites=settings.pop("suites", suites()),
        systems=systems or given,
        shard=shard and Shard.parse(shard),
        **settings,
    )


def judges():
    return {"length": Length(), "words": Words()}


def finish(run, judged=None):
    with registry_restored():
        run.convert()
        run.score(judges() if judged is None else judged)


@pytest.fixture(autouse=True)
def fixed_times(monkeypatch):
    """Every conversion takes a quarter of a second, so that all bytes can be compared."""
    ticks = count()
    monkeypatch.setattr(execute, "now", lambda: next(ticks) / 4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        ticks = count()
        patch.setattr(execute, "now", lambda: next(ticks) / 4)
        run = run_in(tmp_path_factory.mktemp("whole") / "run")
        finish(run)
    return run.folder


@pytest.fixture(scope="module")
def thirds(tmp_path_factory):
    """The run in three shards in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        ticks = count()
        patch.setattr(execute, "now", lambda: next(ticks) / 4)
        folder = tmp_path_factory.mktemp("thirds") / "run"
        for number in (1, 2, 3):
            finish(run_in(folder, f"{number}/3"))
    return folder


def assert_same(merged: Path, whole: Path):
    """Tables, lists, logs, sounds and the data of the report are the same bytes."""
    for pattern in (*TABLES, "trials/*", "conversions/*/*", "wav/*/*/*", "recordings/*"):
        names = [p.relative_to(whole) for p in sorted(whole.glob(pattern)) if p.is_file()]
        assert names
        assert names == [p.relative_to(merged) for p in sorted(merged.glob(pattern)) if p.is_file()]
        for name in names:
            assert (merged / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (json.loads((folder / "run.json").read_text()) for folder in (merged, whole))
    for facts in (one, other):
        del facts["created"], facts["sha256"]
    assert one == other
    with registry_restored():
        first, second = (findings_of(read_report(folder)) for folder in (merged, whole))
    for name, value in vars(first).items():
        if name not in ("run", "results"):
            assert repr(value) == repr(vars(second)[name]), name


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_one_folder_of_killed_shards_merges_to_the_bytes_of_one_process(
    whole, tmp_path, monkeypatch, shards
):
    drawn = random.Random(shards)
    folder, fsync, left = tmp_path / "run", os.fsync, [0]

    def killing(number):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        fsync(number)

    monkeypatch.setattr(os, "fsync", killing)
    tasks = list(range(1, shards + 1))
    tasks += tasks[:3]  # some twice
    drawn.shuffle(tasks)
    kills = 0
    for number in tasks:
        left[0] = drawn.randrange(1, 12) if kills < 4 else 0
        try:
            finish(run_in(folder, f"{number}/{shards}"))
        except Killed:
            kills += 1
            tasks.append(number)
            for log in folder.rglob("*.jsonl"):
                if drawn.random() < 0.2 and log.parent.parent.name == "conversions":
                    log.write_bytes(log.read_bytes()[:-9])  # the kill tore the last line
    assert kills
    left[0] = 7
    out = tmp_path / "merged" / "run"
    with pytest.raises(Killed):
        merge_shards([folder], out)
    left[0] = 0
    assert merge_shards([folder], out)
    assert_same(out, whole)


def test_separate_folders_merge_in_any_order(whole, thirds, tmp_path):
    parts = []
    for number in (1, 2, 3):
        parts.append(tmp_path / f"machine{number}")
        shutil.copytree(thirds / "shards" / f"{number}-of-3", parts[-1])
    for name, order in (("a", (2, 0, 1)), ("b", (1, 2, 0, 1))):
        out = tmp_path / name / "run"
        merge_shards([parts[i] for i in order], out)
        assert_same(out, whole)


def test_a_merge_beside_its_shards_and_again_changes_nothing(whole, thirds, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(thirds, folder)
    merge_shards([folder], folder)
    assert_same(folder, whole)
    written = (folder / "run.json").read_bytes()
    merge_shards([folder], folder)
    assert (folder / "run.json").read_bytes() == written


def test_a_merged_run_is_scored_again_without_computing_anything(whole, thirds, tmp_path):
    merge_shards([thirds], tmp_path / "run")
    again = judges()
    with registry_restored():
        run_in(tmp_path / "run").score(again)
    assert again["length"].items == []
    assert_same(tmp_path / "run", whole)


def test_every_trial_is_judged_in_one_shard(tmp_path):
    seen = []
    given = suites()[:1]  # each of its trials has another source
    for number in (1, 2, 3):
        length = Length()
        run = run_in(tmp_path / "run", f"{number}/3", {"mine": Louder()}, suites=given)
        finish(run, {"length": length})
        seen += length.items
    assert sorted(seen) == sorted(t.trial_id for t in given[0].trials)


def test_a_run_that_was_converted_whole_is_scored_in_shards(whole, tmp_path):
    folder = tmp_path / "run"
    run_in(folder).convert()
    for number in (2, 1):
        with registry_restored():
            run_in(folder, f"{number}/2").score(judges())
    merge_shards([folder], tmp_path / "merged" / "run")
    assert_same(tmp_path / "merged" / "run", whole)


def test_converted_shards_are_merged_and_scored_by_one_process(whole, tmp_path):
    for number in (1, 2):
        run_in(tmp_path / "parts", f"{number}/2").convert()
    assert not merge_shards([tmp_path / "parts"], tmp_path / "run")
    with registry_restored():
        run_in(tmp_path / "run").score(judges())
    assert_same(tmp_path / "run", whole)


def test_shards_are_balanced_by_the_sources_durations():
    given = [bench.Suite.load(LISTS[0], root=MINI)]
    seconds = {t.trial_id: t.source.load().seconds for t in given[0].trials}
    parts = [Shard(7, n).part_of(given)[0].trials for n in range(1, 8)]
    sums = [sum(seconds[t.trial_id] for t in part) for part in parts]
    assert sorted(t.trial_id for part in parts for t in part) == sorted(seconds)
    assert max(sums) - min(sums) <= max(seconds.values())  # Graham's bound
    assert parts == [Shard(7, n).part_of(given)[0].trials for n in range(1, 8)]


def test_more_shards_than_trials_are_refused():
    with pytest.raises(UserError, match=r"shard=9/9: the run has 8 trials, so at most 8"):
        Shard(9, 9).part_of(suites())


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match=r"must be i/n with 1 ≤ i ≤ n"):
        Shard.parse(text)


def other_half(folder, judged=None, **different):
    """Two halves of a run; the second differs."""
    systems = {"mine": {"_target_": "tests.support.fakes.Louder", "gain": 2.0}}
    finish(run_in(folder, "1/2", systems, isolated=False), {"length": Length()})
    given = {"systems": systems, "isolated": False, **different}
    finish(run_in(folder, "2/2", **given), judged or {"length": Length()})


LOUD = {"_target_": "tests.support.fakes.Louder", "gain": 3.0}


@pytest.mark.parametrize(
    ("different", "named"),
    [
        ({"systems": {"mine": LOUD}}, r"systems\.mine\.gain is 2\.0 and 3\.0"),
        ({"systems": {"other": LOUD}}, r"systems is \['mine'\] and \['other'\]"),
        ({"seed": 1}, r"seed is 0 and 1"),
        ({"suites": suites()[:1]}, r"only one has suites\.mini_reference_length"),
        ({"judged": {"length": Length(version=2)}}, r"judges\.length\.fingerprint is "),
        ({"judged": {"long": Length()}}, r"only one has judges\.length"),
    ],
)
def test_shards_that_differ_are_refused_by_the_name_of_the_field(tmp_path, different, named):
    other_half(tmp_path / "run", **different)
    with pytest.raises(UserError, match=named):
        merge_shards([tmp_path / "run"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def change(folder, path, **changes):
    """Changes facts in a shard's run.json, which stays sound in itself."""
    facts = json.loads((folder / "run.json").read_text())
    part = facts
    for key in path:
        part = part[key]
    part.update(changes)
    write_json(folder / "run.json", sealed(facts))


@pytest.mark.parametrize(
    ("path", "changes", "named"),
    [
        ((), {"origin": "abc on a machine"}, "code is "),
        (("packages",), {"torch": "1.0"}, r"packages\.torch is "),
        (("metrics", "mos_net"), {"near": 0.2}, r"metrics\.mos_net\.near is 0\.1 and 0\.2"),
        (("systems", "mine"), {"trained_on": ["VCTK"]}, r"systems\.mine\.trained_on is "),
        (("pooling",), {"wer": "mean"}, r"pooling\.wer is "),
    ],
)
def test_facts_that_differ_are_named(thirds, tmp_path, path, changes, named):
    shutil.copytree(thirds, tmp_path / "run")
    change(tmp_path / "run" / "shards" / "2-of-3", path, **changes)
    with registry_restored(), pytest.raises(UserError, match=named):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_the_hash_of_a_suite_that_differs_is_named(thirds, tmp_path):
    shutil.copytree(thirds, tmp_path / "run")
    path = tmp_path / "run" / "shards" / "3-of-3" / "shard.json"
    about = json.loads(path.read_text())
    about["suites"]["mini_cross_gender"]["sha256"] = "0" * 64
    write_json(path, about)
    with pytest.raises(UserError, match=r"suites\.mini_cross_gender\.sha256 is "):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_missing_trials_and_their_shard_are_named(thirds, tmp_path):
    shards = [thirds / "shards" / f"{n}-of-3" for n in (1, 3)]
    first = Shard(3, 2).part_of(suites())[0].trials[0].trial_id
    with pytest.raises(
        UserError, match=rf"mine/mini_cross_gender/{first}.*no folder has shard 2/3"
    ):
        merge_shards(shards, tmp_path / "out")


def test_a_shard_that_is_not_scored_is_named(thirds, tmp_path):
    shutil.copytree(thirds, tmp_path / "run")
    (tmp_path / "run" / "shards" / "2-of-3" / "run.json").unlink()
    with pytest.raises(UserError, match=r"2-of-3 is not scored, .* score shard=2/3"):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_a_folder_without_shards_is_refused(whole, tmp_path):
    with pytest.raises(UserError, match="is no shard and has none"):
        merge_shards([whole], tmp_path / "out")


def test_a_merge_never_replaces_another_run(thirds, tmp_path):
    run = run_in(tmp_path / "run", systems={"mine": Louder(3.0)})
    run.convert()
    before = {p: p.read_bytes() for p in run.folder.rglob("*.wav")}
    with pytest.raises(UserError, match="has a run that no merge made"):
        merge_shards([thirds], run.folder)
    assert before == {p: p.read_bytes() for p in run.folder.rglob("*.wav")}


def test_a_merged_sound_that_was_changed_by_hand_is_kept(thirds, tmp_path):
    merge_shards([thirds], tmp_path / "run")
    wav = next((tmp_path / "run" / "wav" / "mine").rglob("*.wav"))
    edited = wav.read_bytes()[:-2]
    wav.unlink()
    wav.write_bytes(edited)
    with pytest.raises(UserError, match="was changed by hand"):
        merge_shards([thirds], tmp_path / "run")
    assert wav.read_bytes() == edited


@pytest.mark.parametrize("name", ["../../away", "..", "", "a/b"])
def test_names_that_leave_the_folder_are_refused(thirds, tmp_path, name):
    shutil.copytree(thirds, tmp_path / "run")
    for path in (tmp_path / "run").glob("shards/*/shard.json"):
        about = json.loads(path.read_text())
        write_json(path, {**about, "systems": {name: {}}})
    with pytest.raises(UserError, match="leaves the folder"):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_a_sound_outside_of_the_shard_is_refused(thirds, tmp_path):
    shutil.copytree(thirds, tmp_path / "run")
    log = next((tmp_path / "run" / "shards").glob("*/conversions/mine/*.jsonl"))
    record, *others = log.read_text().splitlines()
    log.write_text("\n".join([json.dumps({**json.loads(record), "wav": "run.json"}), *others, ""]))
    with registry_restored(), pytest.raises(UserError, match=r"'run\.json' is no path"):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_conversions_of_other_settings_are_not_taken_into_a_shard(tmp_path):
    run_in(tmp_path / "run", systems={"mine": LOUD}, isolated=False).convert()
    shard = run_in(tmp_path / "run", "1/2", {"mine": {**LOUD, "gain": 1.0}}, isolated=False)
    with pytest.raises(UserError, match="made with other settings or code"):
        shard.score({"length": Length()})
    finish(shard, {"length": Length()})


def test_changed_columns_are_refused(thirds, tmp_path):
    shutil.copytree(thirds, tmp_path / "run")
    path = tmp_path / "run" / "shards" / "1-of-3" / "columns.jsonl"
    path.write_text(path.read_text().replace('"mos_net": 3', '"mos_net": 4'))
    with pytest.raises(UserError, match=r"columns\.jsonl is missing or was changed"):
        merge_shards([tmp_path / "run"], tmp_path / "out")


def test_a_running_shard_stops_neither_another_nor_the_whole_runs_folder(tmp_path):
    folder = tmp_path / "run"
    with run_in(folder, "1/2").locked():
        torn = folder / "shards" / "1-of-2" / ".a.wav.1.part"
        torn.write_bytes(b"being written")
        with run_in(folder, "2/2").locked(), run_in(folder).locked():
            assert torn.exists()
        with (
            pytest.raises(UserError, match="another vcbench works in"),
            run_in(folder, "1/2").locked(),
        ):
            pass


def test_a_file_system_without_locks_gives_a_caution(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    notes = []

    class Notes(bench.run.progress.Silent):
        def note(self, text, caution=False):
            notes.append((text, caution))

    with run_in(tmp_path / "run", "1/2", progress=Notes()).locked():
        pass
    [(text, caution)] = notes
    assert caution
    assert "no locks" in text

"""The written test: levels, blinding, formats, and what is refused."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from bench.audio import Waveform
from bench.errors import UserError
from reports.listening.checks import SpokenTrap
from reports.listening.export import Presentation, unusable_trials, write_test
from reports.listening.loudness import loudness

KINDS = ("nmos", "smos", "ab", "abx", "cmos", "mushra")


def contents(folder):
    return [json.loads((folder / name).read_text()) for name in ("test.json", "key.json")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_level_differs_by_less_than_a_tenth(exported, kind):
    folder = exported(kind)
    _, key = contents(folder)
    levels = {}
    for path in (folder / "audio").glob("*.wav"):
        samples, rate = soundfile.read(path, dtype="float64")
        levels[path.stem] = loudness(samples, rate)
        assert np.abs(samples).max() < 10 ** (-0.9 / 20)
        assert key["processing"][path.stem]["lufs_after"] == pytest.approx(
            levels[path.stem], abs=0.01
        )
    assert levels.keys() == key["stimuli"].keys()
    assert np.ptp(list(levels.values())) < 0.1
    assert np.mean(list(levels.values())) == pytest.approx(key["level_lufs"], abs=0.05)
    # the systems came at levels 13 dB apart
    before = [
        key["processing"][s]["lufs_before"]
        for s, f in key["stimuli"].items()
        if f["what"] == "converted"
    ]
    assert np.ptp(before) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_public_file_names_nothing(exported, kind):
    folder = exported(kind)
    public = (folder / "test.json").read_text()
    page = (folder / "page" / "index.html").read_text()
    test, key = contents(folder)
    names = {
        str(f[n])
        for f in key["stimuli"].values()
        for n in ("system", "suite", "trial_id", "source_speaker")
    } - {"", "source", "target"}
    assert len(names) > 10
    for name in names | {key["run"]}:
        assert f'"{name}' not in public
        assert name not in [p.name for p in folder.rglob("*")]
    assert not {n for n in names if len(n) > 4 and n in page}
    assert {screen["role"] for screen in test["screens"]} == {"trial"}
    assert [s["screen"] for s in test["screens"]] == sorted(s["screen"] for s in test["screens"])
    assert "key.json" not in [p.name for p in (folder / "page").rglob("*")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_files_belong_together(exported, kind):
    folder = exported(kind)
    test, key = contents(folder)
    assert test["test_id"] == key["test_id"]
    heads = {"format", "test_id", "kind", "scale", "screens", "groups", "language"}
    assert set(test) == heads | {"training", "notice"}
    screens = {s["screen"]: s for s in test["screens"]}
    used = {i for s in screens.values() for i in [*s["stimuli"], *filter(None, [s["reference"]])]}
    assert used == key["stimuli"].keys() == key["processing"].keys()
    assert screens.keys() == key["screens"].keys() == {i for g in test["groups"] for i in g}
    for screen, known in key["screens"].items():
        assert set(known) == {"role", "expected", "repeats"}
        assert (known["repeats"] in screens) == (known["role"] == "repeat")
        assert set(screens[screen]) == {"screen", "stimuli", "reference", "role"}
    assert {p.stem for p in (folder / "audio").iterdir()} == used
    for facts in key["stimuli"].values():
        assert set(facts) == {
            "system",
            "suite",
            "trial_id",
            "sha256",
            "source_speaker",
            "target_speaker",
            "gender_pair",
            "what",
        }


def metadata(path: Path, test, screen: str, turn: int) -> list[float]:
    """All that a listener could see of a stimulus without its sound."""
    info, status, raw = soundfile.info(path), path.stat(), path.read_bytes()[:44]
    order = sorted(p.name for p in path.parent.iterdir())
    positions = [g.index(screen) for g in test["groups"] if screen in g]
    return [
        info.frames,
        info.samplerate,
        info.channels,
        status.st_size,
        status.st_mtime,
        float(int(path.stem[1:], 16)),
        order.index(path.name),
        np.mean(positions),
        min(positions),
        turn,
        loudness(soundfile.read(path)[0], info.samplerate),
        *raw,
    ]


@pytest.fixture(scope="module")
def blinded(make, tmp_path_factory):
    """Metadata of every stimulus of a test, its system and its trial."""
    folder = tmp_path_factory.mktemp("blinded") / "test"
    write_test(make("nmos", trials=24, listeners=4, seed=3), folder)
    test, key = contents(folder)
    rows, systems, trials = [], [], []
    for screen in test["screens"]:
        if key["screens"][screen["screen"]]["role"] != "trial":
            continue
        for turn, name in enumerate(screen["stimuli"]):
            rows.append(metadata(folder / "audio" / f"{name}.wav", test, screen["screen"], turn))
            systems.append(key["stimuli"][name]["system"])
            trials.append(key["stimuli"][name]["trial_id"])
    assert Counter(systems) == dict.fromkeys(("world", "knn", "diffusion", "source"), 24)
    return np.array(rows), np.array(systems), np.array(trials)


def guesses(table, systems, trials):
    """Of the systems, by a forest that sees how a stimulus differs from the others of its trial."""
    table = table - np.array([table[trials == trial].mean(0) for trial in trials])
    table = table[:, np.ptp(table, axis=0) > 0]
    folds = StratifiedGroupKFold(6, shuffle=True, random_state=0)
    forest = RandomForestClassifier(40, max_features=None, random_state=0)
    return cross_val_predict(forest, table, systems, groups=trials, cv=folds)


CHANCE, ERROR = 0.25, 0.044  # of four systems; standard error of 96 guesses


def test_a_classifier_that_sees_all_but_the_sound_stays_at_chance(blinded):
    table, systems, trials = blinded
    assert (guesses(table, systems, trials) == systems).mean() < CHANCE + 3 * ERROR
    for trial in set(trials):
        assert len(set(table[trials == trial, 0])) == 1  # padded alike


@pytest.mark.parametrize("column", [0, 4, 7, 10])  # length, date, position, level
def test_the_classifier_sees_a_leak(blinded, column):
    table, systems, trials = blinded
    leak = table.copy()
    leak[systems == "knn", column] += 1 + 3 * np.ptp(table[:, column])
    right = guesses(leak, systems, trials) == systems
    assert right[systems == "knn"].mean() > 0.9


def test_a_plain_wav_has_no_tags_and_no_date(exported):
    for path in (exported("nmos") / "audio").iterdir():
        raw = path.read_bytes()
        assert raw[:4] == b"RIFF"
        assert raw[12:16] == b"fmt "
        assert raw[36:40] == b"data"
        assert len(raw) == 44 + int.from_bytes(raw[40:44], "little")
        assert path.stat().st_mtime == 946_684_800


def test_silence_is_cut_and_padded_alike(exported):
    folder = exported("nmos")
    _, key = contents(folder)
    for name, facts in key["stimuli"].items():
        samples, rate = soundfile.read(folder / "audio" / f"{name}.wav")
        assert not samples[: round(0.1 * rate)].any()
        assert np.flatnonzero(np.abs(samples) > 1e-3)[0] < 0.4 * rate
        if facts["system"] == "knn":  # 3000 samples of silence at 16 kHz
            assert key["processing"][name]["trimmed_seconds"][0] > 0.1


def test_the_same_command_writes_the_same_files(make, tmp_path):
    for name in ("a", "b"):
        write_test(make("nmos", trials=4, listeners=4), tmp_path / name)
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_with_other_files_is_refused_and_ratings_stay(make, tmp_path):
    test = make("nmos", trials=4, listeners=4)
    folder = tmp_path / "test"
    write_test(test, folder)
    (folder / "ratings.csv").write_text("mine")
    write_test(test, folder)  # the same test: written again
    assert (folder / "ratings.csv").read_text() == "mine"
    with pytest.raises(UserError, match="holds another test or other files"):
        write_test(make("nmos", trials=4, listeners=4, seed=9), folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_test(test, tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "test"]


def test_webmushra_has_one_configuration_a_group(exported):
    for kind in KINDS:
        folder = exported(kind)
        test, key = contents(folder)
        root = folder / "webmushra"
        configs = sorted((root / "configs").glob("*.yaml"), key=lambda p: int(p.stem.split("_")[1]))
        assert len(configs) == len(test["groups"])
        for path, group in zip(configs, test["groups"], strict=True):
            config = yaml.safe_load(path.read_text())
            assert config["testId"] == test["test_id"]
            pages = config["pages"][1:-1]
            assert [p["id"] for p in pages] == group
            for page in pages:
                sounds = [*page["stimuli"].values(), *filter(None, [page.get("reference")])]
                assert all((root / sound).is_file() for sound in sounds)
                if kind == "mushra":
                    whats = {key["stimuli"][name]["what"] for name in page["stimuli"]}
                    assert "source" not in whats  # webMUSHRA adds the hidden reference itself
                    assert len(page["stimuli"]) <= 12
                    assert len({soundfile.info(root / s).frames for s in sounds}) == 1
                else:
                    assert len(page["stimuli"]) == 1
                    values = [r["value"] for r in page["response"]]
                    assert values == sorted(values, key=float)
                    assert len(values) == test["scale"]["highest"] - test["scale"]["lowest"] + 1


def test_a_pair_is_one_file_for_webmushra(exported):
    folder = exported("abx")
    test, _ = contents(folder)
    screen = test["screens"][0]
    resources = folder / "webmushra" / "configs" / "resources" / test["test_id"]
    joined, rate = soundfile.read(resources / f"{screen['screen']}.wav")
    parts = [
        soundfile.read(folder / "audio" / f"{i}.wav")[0]
        for i in (
            screen["reference"],
            screen["stimuli"][0],
            screen["reference"],
            screen["stimuli"][1],
        )
    ]
    assert len(joined) == sum(map(len, parts)) + 3 * round(0.5 * rate)
    np.testing.assert_array_equal(joined[: len(parts[0])], parts[0])
    np.testing.assert_array_equal(joined[-len(parts[3]) :], parts[3])


def read_csv(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_p808_has_its_columns(exported):
    folder = exported("nmos") / "p808"
    heads, *rows = read_csv(folder / "rating_clips.csv")
    assert heads == ["rating_clips"]
    assert len(rows) == 8 * 3  # trials times two systems and the source
    assert all(row[0].startswith("https://example.org/audio/s") for row in rows)
    heads, *rows = read_csv(folder / "gold_clips.csv")
    assert heads == ["gold_clips", "gold_clips_ans"]
    assert sorted(int(answer) for _, answer in rows) == [1, 5]
    assert read_csv(folder / "training_clips.csv")[0] == ["training_clips"]
    assert not (folder / "trapping_clips.csv").exists()
    for kind in ("cmos", "smos"):
        heads, *rows = read_csv(exported(kind) / "p808" / "rating_clips.csv")
        assert heads == ["rating_clips", "references"]
        assert all(len(row) == 2 for row in rows)
        training = read_csv(exported(kind) / "p808" / "training_clips.csv")
        assert training[0] == ["training_clips", "training_references"]
    assert not (exported("ab") / "p808").exists()


def test_a_spoken_trap_is_a_sound_like_the_others(make, tmp_path):
    path = tmp_path / "two.wav"
    noise = np.random.default_rng(0).normal(0, 0.05, 32000)
    Waveform.from_numpy(noise, 16000).save(path)
    test = make("nmos", trials=4, listeners=4, spoken=(SpokenTrap(path, 2),))
    write_test(test, tmp_path / "test", Presentation(url="https://x.org"))
    public, key = contents(tmp_path / "test")
    assert public["notice"] == ""
    (trap,) = [s for s, known in key["screens"].items() if known["role"] == "trap"]
    assert key["screens"][trap]["expected"] == 2
    heads, row = read_csv(tmp_path / "test" / "p808" / "trapping_clips.csv")
    assert heads == ["trapping_clips", "trapping_ans"]
    assert row[1] == "2"


@pytest.fixture
def faulty(run, make):
    """A test with a sound that is too quiet and a silent one; the ids of their trials."""
    test = make("nmos", trials=4, listeners=4)
    of_knn = [s for s in test.ids if s.system == "knn"]
    of_world = [s for s in test.ids if s.system == "world"]
    sounds = of_knn[0], next(s for s in of_world if s.trial_id != of_knn[0].trial_id)
    old = [sound.paths[0].read_bytes() for sound in sounds]
    soft = 4e-4 * np.sin(np.arange(16000))
    for sound, samples in zip(sounds, (soft, np.zeros(16000)), strict=True):
        Waveform.from_numpy(samples, 16000).save(sound.paths[0])
    yield test, [f"{sound.suite}/{sound.trial_id}" for sound in sounds]
    for sound, contents_ in zip(sounds, old, strict=True):
        sound.paths[0].write_bytes(contents_)


def test_all_sounds_that_cannot_be_used_are_named_at_once(faulty, tmp_path):
    test, (first, second) = faulty
    with pytest.raises(UserError, match="cannot be used") as error:
        write_test(test, tmp_path / "test")
    text = str(error.value)
    assert "\n" not in text
    assert f"knn of {first} (too quiet: -68.3 LUFS, under -60)" in text
    assert f"world of {second} (silent: its peak is under -70 dBFS)" in text
    skip = re.search(r"skip=([^ ]+), all", text)[1].split(",")
    assert set(skip) == {first, second} == set(unusable_trials(test))
    assert list(tmp_path.iterdir()) == []


def test_trials_that_are_skipped_are_left_out_for_all_systems(faulty, make, tmp_path):
    _, names = faulty
    test = make("nmos", trials=4, listeners=4, skip=tuple(names))
    assert not {f"{s.suite}/{s.trial_id}" for s in test.ids} & set(names)
    counts = Counter(s.sounds[0].system for s in test.design.screens if s.role == "trial")
    assert counts == dict.fromkeys(("world", "knn", "diffusion", "source"), 4)
    assert unusable_trials(test) == []
    write_test(test, tmp_path / "test")
    by_id = make("nmos", trials=4, listeners=4, skip=(names[0].partition("/")[2],))
    assert names[0] not in {f"{s.suite}/{s.trial_id}" for s in by_id.ids}


def test_a_recording_of_a_check_that_is_too_quiet_is_named(make, tmp_path):
    Waveform.from_numpy(np.zeros(16000), 16000).save(tmp_path / "two.wav")
    test = make("nmos", trials=4, listeners=4, spoken=(SpokenTrap(tmp_path / "two.wav", 2),))
    with pytest.raises(UserError, match=r"two.wav \(silent: .*\); recordings of attention checks"):
        write_test(test, tmp_path / "test")


@pytest.mark.parametrize("kind", ["nmos", "cmos"])
def test_the_answer_of_a_trap_is_in_its_sound_alone(make, tmp_path, kind):
    write_test(make(kind, trials=12, listeners=12, traps=3), tmp_path / "test")
    public, key = contents(tmp_path / "test")
    page = (tmp_path / "test" / "page" / "index.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["test"] == public
    assert not {"expected", "role", "key"} & (data.keys() | data["words"].keys())
    assert len({frozenset(screen) for screen in public["screens"]}) == 1
    assert public["notice"] == make(kind, trials=4, listeners=4, seed=5).public()["notice"]
    asked = {"nmos": {1: 1, 2: 2, 4: 4, 5: 5}, "cmos": {1: 3, 2: -3}}[kind]
    for tones, rating in asked.items():
        assert f"{tones} – {public['scale']['labels'][str(rating)]}" in public["notice"]
    traps = [s for s in public["screens"] if key["screens"][s["screen"]]["role"] == "trap"]
    assert len(traps) == 3
    for screen in traps:
        for name in screen["stimuli"]:
            count = tones_at_the_end(tmp_path / "test" / "audio" / f"{name}.wav")
            assert asked[count] == key["screens"][screen["screen"]]["expected"]
    for config in (tmp_path / "test" / "webmushra" / "configs").glob("*.yaml"):
        pages = yaml.safe_load(config.read_text())["pages"][1:-1]
        assert len({page["content"] for page in pages}) == 1


def tones_at_the_end(path):
    """How many tones of 1 kHz a sound ends with, by the share of the band in frames of 20 ms."""
    samples, rate = soundfile.read(path)
    frame = rate // 50
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    power = np.abs(np.fft.rfft(frames * np.hanning(frame))) ** 2
    low, high = round(900 * frame / rate), round(1100 * frame / rate)
    pure = (power[:, low : high + 1].sum(1) > 0.98 * power.sum(1)) & (frames.std(1) > 1e-3)
    starts = np.flatnonzero(np.diff(np.r_[0, np.convolve(pure, np.ones(7), "valid") == 7, 0]) == 1)
    return len(starts)

"""The conversion stage: records, seeds, failures, resuming, and changed settings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from baselines.anchors import Source, Target
from bench import audio
from bench.errors import UserError
from bench.stages import execute, timing
from bench.stages.convert import (
    WARM_UPS,
    Entry,
    WarmUps,
    altered,
    convert_suite,
    log_path,
    read_conversions,
    settings_fingerprint,
    trial_seed,
)
from bench.systems import Facts
from tests.support.fakes import Faulty, Louder, Noise, Slow


def test_every_trial_becomes_a_wav_and_a_record(suite, tmp_path):
    done = convert_suite(Entry("louder", Louder()), suite, tmp_path)
    assert list(done) == [t.trial_id for t in suite.trials]
    for trial in suite.trials:
        record = done[trial.trial_id]
        source = trial.source.load()
        assert record.status == "ok"
        assert record.audio_seconds == pytest.approx(source.seconds)
        converted = audio.load(tmp_path / record.wav)
        np.testing.assert_allclose(converted.numpy(), source.numpy() / 2, atol=1 / 32768)
    assert read_conversions(tmp_path, "louder", suite.name) == done


def test_a_conversions_seed_comes_from_its_trial_and_not_from_the_order(suite, tmp_path):
    forward, backward = Noise(), Noise()
    turned = replace(suite, trials=suite.trials[::-1])
    a = convert_suite(Entry("noise", forward), suite, tmp_path / "a", seed=3)
    b = convert_suite(Entry("noise", backward), turned, tmp_path / "b", seed=3)
    c = convert_suite(Entry("noise", Noise()), suite, tmp_path / "c", seed=4)
    for trial in a:
        assert a[trial].wav_sha256 == b[trial].wav_sha256
        assert a[trial].wav_sha256 != c[trial].wav_sha256
    assert len({r.wav_sha256 for r in a.values()}) == len(a)
    assert a[suite.trials[0].trial_id].seed == trial_seed(suite.trials[0].trial_id, 3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "RuntimeError: out of memory"),
        ("nan", "not finite"),
        ("empty", "empty"),
        ("silent", "silent"),
        ("bare tensor", "returned Tensor, not a Waveform"),
    ],
)
def test_a_systems_failure_is_a_result(fault, message, suite, tmp_path):
    victim = suite.trials[1]
    system = Faulty(fault, {victim.source.load().sha256})
    done = convert_suite(Entry("faulty", system), suite, tmp_path)
    assert [done[t.trial_id].status for t in suite.trials] == ["ok", "failed", "ok", "ok"]
    record = done[victim.trial_id]
    assert message in record.error
    assert record.wav == ""
    assert record.audio_seconds is None
    assert not list((tmp_path / "wav").rglob(f"{victim.trial_id}*"))


def test_a_failed_conversion_is_tried_again_and_the_others_are_not(suite, tmp_path):
    victim = suite.trials[1].source.load().sha256
    convert_suite(Entry("x", Faulty("raises", {victim})), suite, tmp_path)
    mended = Louder()
    done = convert_suite(Entry("x", mended), suite, tmp_path)
    assert {r.status for r in done.values()} == {"ok"}
    assert {call[0] for call in mended.calls} == {victim}


def test_a_resumed_run_ends_with_the_same_bytes_as_an_unbroken_one(suite, tmp_path):
    class Killed(Noise):
        def convert(self, source, reference, *, seed):
            if source.sha256 == suite.trials[2].source.load().sha256:
                raise KeyboardInterrupt
            return super().convert(source, reference, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        convert_suite(Entry("noise", Killed()), suite, tmp_path / "broken")
    assert len(read_conversions(tmp_path / "broken", "noise", suite.name)) == 2
    resumed = convert_suite(Entry("noise", Noise()), suite, tmp_path / "broken")
    whole = convert_suite(Entry("noise", Noise()), suite, tmp_path / "whole")
    assert {k: r.wav_sha256 for k, r in resumed.items()} == {
        k: r.wav_sha256 for k, r in whole.items()
    }


def test_a_torn_record_and_a_lost_wav_are_converted_again(suite, tmp_path):
    first = convert_suite(Entry("x", Louder()), suite, tmp_path)
    log = log_path(tmp_path, "x", suite.name)
    log.write_bytes(log.read_bytes()[:-30])  # the last record is torn
    lost = suite.trials[0]
    (tmp_path / first[lost.trial_id].wav).unlink()
    system = Louder()
    second = convert_suite(Entry("x", system), suite, tmp_path)
    assert {k: r.wav_sha256 for k, r in first.items()} == {
        k: r.wav_sha256 for k, r in second.items()
    }
    again = {lost.source.load().sha256, suite.trials[-1].source.load().sha256}
    assert {call[0] for call in system.calls} == again


def test_a_file_changed_by_hand_is_kept_and_reported(suite, tmp_path):
    done = convert_suite(Entry("x", Louder()), suite, tmp_path)
    trial = suite.trials[1].trial_id
    soundfile.write(tmp_path / done[trial].wav, np.full(8000, 0.1), 16000)
    before = (tmp_path / done[trial].wav).read_bytes()
    again = convert_suite(Entry("x", Louder()), suite, tmp_path)
    assert altered(tmp_path, list(again.values())) == [trial]
    assert (tmp_path / done[trial].wav).read_bytes() == before


def test_other_settings_never_mix_with_what_is_there(suite, tmp_path):
    convert_suite(Entry("x", Louder(), {"gain": 1}), suite, tmp_path)
    other = Entry("x", Louder(), {"gain": 2})
    with pytest.raises(UserError, match="other settings or code; give this run another name"):
        convert_suite(other, suite, tmp_path)
    with pytest.raises(UserError, match="overwrite=true"):
        convert_suite(Entry("x", Louder(), {"gain": 1}), suite, tmp_path, seed=1)
    convert_suite(other, suite, tmp_path, overwrite=True)
    convert_suite(other, suite, tmp_path)


def test_a_folder_of_weights_is_known_by_its_content(tmp_path):
    for folder_name in ("here", "there"):
        (tmp_path / folder_name).mkdir()
        (tmp_path / folder_name / "weights.bin").write_bytes(b"1")

    def known(folder_name):
        entry = Entry("x", Louder(), {"checkpoint": str(tmp_path / folder_name)})
        return settings_fingerprint(entry, 0)

    first = known("here")
    assert known("there") == first
    (tmp_path / "here" / "README.md").write_text("a card")
    assert known("here") == first
    (tmp_path / "here" / "weights.bin").write_bytes(b"2")
    assert known("here") != first
    (tmp_path / "there" / "weights.bin").rename(tmp_path / "there" / "other.bin")
    assert known("there") != first


def test_another_trial_under_an_old_id_never_mixes_with_what_is_there(suite, tmp_path):
    convert_suite(Entry("x", Louder()), suite, tmp_path)
    changed = replace(suite.trials[0], reference_seconds=1.0)
    with pytest.raises(UserError, match="another trial"):
        convert_suite(
            Entry("x", Louder()), replace(suite, trials=(changed, *suite.trials[1:])), tmp_path
        )


def test_a_systems_time_excludes_the_disks(suite, tmp_path, monkeypatch):
    """On a clock that only the disk, the system and its stages advance."""
    passed = []
    load, save = audio.load, audio.Waveform.save

    def slow_load(path):
        passed.append(1000.0)
        return load(path)

    def slow_save(self, path):
        passed.append(1000.0)
        save(self, path)

    monkeypatch.setattr(audio, "load", slow_load)
    monkeypatch.setattr(audio.Waveform, "save", slow_save)
    for module in (execute, timing):
        monkeypatch.setattr(module, "now", lambda: sum(passed))
    done = convert_suite(Entry("x", Slow(4.0, wait=passed.append)), suite, tmp_path)
    assert sum(passed) > 1000.0
    for record in done.values():
        assert record.elapsed_seconds == 4.0
        assert record.stages == {"encode": 1.0, "vocode": 3.0}


def test_warm_ups_come_before_the_first_timed_conversion_only(suite, tmp_path):
    system = Louder()
    convert_suite(Entry("x", system), suite, tmp_path)
    assert len(system.calls) == len(suite.trials) + 2
    assert len(set(system.calls[:3])) == 1


def test_a_system_is_warmed_up_once_for_all_of_its_suites(suite, tmp_path):
    system, warm_ups = Louder(), WarmUps()
    for name in ("first", "second"):
        named = replace(suite, name=name)
        convert_suite(Entry("x", system), named, tmp_path, warm_ups=warm_ups)
    assert len(system.calls) == 2 * len(suite.trials) + WARM_UPS


def test_nothing_is_warmed_up_where_nothing_is_left_to_convert(suite, tmp_path):
    convert_suite(Entry("x", Louder()), suite, tmp_path)
    system = Louder()
    convert_suite(Entry("x", system), suite, tmp_path)
    assert system.calls == []


def test_the_reference_that_a_system_gets_has_the_trials_length(suite, tmp_path):
    system = Louder()
    convert_suite(Entry("x", system), suite, tmp_path)
    assert {call[1] for call in system.calls} == {5.0}


def test_the_floor_is_the_source_and_the_ceiling_another_recording_of_the_target(suite, tmp_path):
    floor = convert_suite(Entry("source", Source()), suite, tmp_path)
    ceiling = convert_suite(Entry("target", Target()), suite, tmp_path)
    for trial in suite.trials:
        low, high = floor[trial.trial_id], ceiling[trial.trial_id]
        assert audio.load(tmp_path / low.wav).sha256 == trial.source.load().sha256
        assert audio.load(tmp_path / high.wav).sha256 == trial.target.load().sha256
        assert low.elapsed_seconds is None
        assert high.elapsed_seconds is None


def test_a_trial_without_a_ceiling_recording_is_absent_not_failed(suite, tmp_path):
    trials = (replace(suite.trials[0], target=None), *suite.trials[1:])
    done = convert_suite(Entry("target", Target()), replace(suite, trials=trials), tmp_path)
    assert [r.status for r in done.values()] == ["absent", "ok", "ok", "ok"]


@pytest.mark.parametrize("wav", ["../other.wav", "/etc/sound.wav", "wav/../../x.wav"])
def test_a_record_that_leaves_the_run_folder_is_refused(wav, suite, tmp_path):
    convert_suite(Entry("x", Louder()), suite, tmp_path)
    log = log_path(tmp_path, "x", suite.name)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[1]["wav"] = wav
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError, match="leaves the run's folder"):
        read_conversions(tmp_path, "x", suite.name)


def test_two_files_of_code_that_change_places_are_other_code():
    one, two = ({"/p/a.py": a, "/p/b.py": b} for a, b in ("12", "21"))
    moved = {path.replace("/p/", "/q/"): value for path, value in one.items()}
    known = [
        settings_fingerprint(Entry("x", Louder(), {}, Facts(code=code)), 0)
        for code in (one, two, moved)
    ]
    assert known[0] != known[1]
    assert known[0] == known[2]

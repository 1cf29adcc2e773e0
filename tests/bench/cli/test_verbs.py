"""The command line as users run it: real processes, kills, typos, full disks."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from bench.__main__ import main
from suites.build import MINI
from tests.support import fakes

QUICK = [
    *("judge=[tests.support.fakes.Length]", "report=[]", "suite=mini_cross_gender"),
    "isolated=false",  # a process for each system takes seconds: stages/test_isolated.py
]
ROOT = Path(__file__).parents[3]


def vcbench(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    """A temporary folder, to which the test's runs are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def hashes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.wav")}


def test_a_class_in_a_file_of_the_working_directory_is_a_system(outputs):
    text = "from tests.support.fakes import Louder\n\n\nclass Loudest(Louder):\n    pass\n"
    Path("my_loud_systems.py").write_text(text)
    vcbench("run", "name=a", "limit=1", "system=[source,my_loud_systems.Loudest]", *QUICK)
    assert "loudest" in set(pd.read_csv(outputs / "a" / "scores.csv")["system"])


def test_a_run_leaves_audio_tables_and_provenance(outputs):
    vcbench("run", "name=a", "limit=4", "system=[source,tests.support.fakes.Louder]", *QUICK)
    folder = outputs / "a"
    assert len(hashes(folder)) == 8
    scores = pd.read_csv(folder / "scores.csv")
    assert len(scores) == 8
    assert set(scores["status"]) == {"ok"}
    run = json.loads((folder / "run.json").read_text())
    assert run["packages"]["torch"].startswith("2.11")
    assert run["suites"]["mini_cross_gender"]["trials"] == 4
    assert len(run["suites"]["mini_cross_gender"]["sha256"]) == 64
    assert run["systems"]["louder"]["settings"]["_target_"] == "tests.support.fakes.Louder"
    assert run["judges"]["length"]["fingerprint"]
    assert run["anchors"] == {"source": "floor"}
    assert run["machine"]["cores"] == os.cpu_count()


def test_a_stage_at_a_time_gives_what_a_run_gives(outputs):
    common = ["limit=2", "system=tests.support.fakes.Louder", *QUICK]
    vcbench("run", "name=whole", *common)
    vcbench("convert", "name=staged", *common)
    assert not (outputs / "staged" / "scores.csv").exists()
    vcbench("score", "name=staged", *common)
    vcbench("report", "name=staged", *common)
    same = ["trial_id", "length.duration_ratio", "status"]
    whole, staged = (pd.read_csv(outputs / n / "scores.csv")[same] for n in ("whole", "staged"))
    pd.testing.assert_frame_equal(whole, staged)


def test_a_published_table_is_filled_by_a_run(outputs, capsys):
    common = ["name=a", "limit=2", "system=tests.support.fakes.Louder", *QUICK]
    vcbench("run", *common)
    vcbench("report", *common, "table=takin_table1")
    path = outputs / "a" / "tables" / "takin_table1.md"
    assert str(path.relative_to(outputs.parent)) in capsys.readouterr().out
    assert "| Takin-VC" in path.read_text()
    vcbench("report", *common, "table=takin_table9", code=2)
    assert "did you mean 'takin_table" in capsys.readouterr().err


def test_a_run_builds_each_system_once(monkeypatch):
    built = []
    start = fakes.Louder.__init__
    monkeypatch.setattr(
        fakes.Louder, "__init__", lambda self, gain=2.0: (built.append(self), start(self, gain))[1]
    )
    vcbench("run", "name=a", "limit=1", "system=tests.support.fakes.Louder", *QUICK)
    assert len(built) == 1


def test_scoring_again_gives_the_same_bytes(outputs):
    common = ["name=a", "limit=2", "system=tests.support.fakes.Louder", *QUICK]
    vcbench("run", *common)
    first = (
        (outputs / "a" / "scores.csv").read_bytes(),
        (outputs / "a" / "summary.csv").read_bytes(),
    )
    vcbench("run", *common)
    (outputs / ".cache" / "scores.sqlite").unlink()
    vcbench("score", *common)
    assert first == (
        (outputs / "a" / "scores.csv").read_bytes(),
        (outputs / "a" / "summary.csv").read_bytes(),
    )


def test_a_third_partys_system_works_by_its_dotted_path_alone(outputs, tmp_path, monkeypatch):
    package = tmp_path / "elsewhere" / "their_lab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "flip.py").write_text(
        "from bench.audio import Waveform\n"
        "class Flip:\n"
        "    trained_on = frozenset({'unknown'})\n"
        "    def __init__(self, gain=1.0):\n"
        "        self.gain = gain\n"
        "    def convert(self, source, reference, *, seed):\n"
        "        return Waveform(-self.gain * source.samples, source.sample_rate)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    vcbench(
        "run", "name=a", "limit=2", "system=their_lab.flip.Flip", "+system.flip.gain=0.5", *QUICK
    )
    run = json.loads((outputs / "a" / "run.json").read_text())
    assert run["systems"]["flip"]["trained_on"] == ["unknown"]
    assert run["systems"]["flip"]["settings"]["gain"] == 0.5
    assert pd.read_csv(outputs / "a" / "scores.csv")["status"].tolist() == ["ok", "ok"]


def test_something_that_is_no_system_is_refused(capsys):
    vcbench("run", "system=tests.support.fakes.Length", *QUICK, code=2)
    error = capsys.readouterr().err
    assert "system length: Length is no system" in error
    assert "convert(source, reference, *, seed)" in error


def test_a_system_that_fails_everywhere_is_shown_and_exits_with_1(outputs, capsys):
    vcbench(
        "run",
        "name=a",
        "limit=2",
        "system=[source,tests.support.fakes.Faulty]",
        "+system.faulty.fault=raises",
        *QUICK,
        code=1,
    )
    scores = pd.read_csv(outputs / "a" / "scores.csv").set_index("system")
    assert scores.loc["faulty", "status"].tolist() == ["failed", "failed"]
    assert scores.loc["faulty", "length.duration_ratio"].isna().all()
    error = capsys.readouterr().err
    assert "faulty failed on 2 of 2 trials" in error
    assert "no trial was completed" in error


def test_a_judges_failure_stops_the_run_with_its_trial(outputs, capsys):
    arguments = ["name=a", "limit=2", "system=source", *QUICK]
    vcbench("run", *arguments, "+judge.length.fails_on=F2M-00-4680-1867", code=2)
    error = capsys.readouterr().err
    assert "judge length failed on source/mini_cross_gender/F2M-00-4680-1867" in error
    assert not (outputs / "a" / "scores.csv").exists()
    vcbench("run", *arguments)
    assert len(pd.read_csv(outputs / "a" / "scores.csv")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "unknown verb 'rnu'; did you mean 'run'?"),
        (["run", "system=wrold"], "did you mean 'world'?"),
        (["run", "suite=nothing"], "mini_cross_gender, mini_reference_length"),
        (["report", "name=never_run"], "no run 'never_run' in outputs"),
        (["score", "name=never_run", "system=source", *QUICK], "run `vcbench convert`"),
        (["ls", "sistems"], "did you mean 'systems'?"),
        (["run", "system=[]"], "no system to run"),
        (["run", "suite=[]", "system=source"], "no suite to run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, capsys):
    vcbench(*arguments, code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vcbench: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_no_verb_and_help_print_the_usage(capsys):
    vcbench(code=2)
    vcbench("--help")
    assert capsys.readouterr().out.count("vcbench <verb>") == 2


def test_ls_names_everything_that_can_be_named(capsys):
    vcbench("ls")
    listing = capsys.readouterr().out
    for name in ("world", "mini_reference_length", "wer_whisper_base", "f0_correlation", "html"):
        assert name in listing


def test_a_full_disk_is_one_line_and_loses_nothing(outputs, monkeypatch, capsys):
    from bench.audio import Waveform

    save, written = Waveform.save, []

    def save_until_full(self, path):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        save(self, path)

    common = ["name=a", "limit=4", "system=tests.support.fakes.Louder", *QUICK]
    monkeypatch.setattr(Waveform, "save", save_until_full)
    vcbench("run", *common, code=2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the disk is full while writing" in error
    assert "run the same command again" in error
    before = hashes(outputs / "a")
    assert len(before) == 2
    monkeypatch.setattr(Waveform, "save", save)
    vcbench("run", *common)
    after = hashes(outputs / "a")
    assert len(after) == 4
    assert {k: after[k] for k in before} == before


def test_control_c_says_how_to_resume(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cli.verbs.run", interrupted)
    vcbench("run", code=130)
    assert "run the same command again to resume" in capsys.readouterr().err


def start(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell starts what it runs in the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)


SLOW = [
    *("limit=6", "system=tests.support.fakes.Slow", "+system.slow.seconds=0.4"),
    *(setting for setting in QUICK if setting != "isolated=false"),
]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_ends_the_same(outputs):
    process = start("run", "name=killed", *SLOW)
    wait_for(lambda: len(hashes(outputs / "killed")) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {p: p.stat().st_mtime_ns for p in (outputs / "killed").rglob("[!.]*.wav")}
    assert 2 <= len(kept) < 6
    vcbench("run", "name=killed", *SLOW)
    # What a system waits for changes no sound.
    vcbench("run", "name=unbroken", *(s.replace("seconds=0.4", "seconds=0") for s in SLOW))
    assert hashes(outputs / "killed") == hashes(outputs / "unbroken")
    # Every conversion with a record on disk was kept; at most the one in progress was repeated.
    again = [p for p, modified in kept.items() if p.stat().st_mtime_ns != modified]
    assert len(again) <= 1
    same = ["trial_id", "status", "length.duration_ratio"]
    pd.testing.assert_frame_equal(
        pd.read_csv(outputs / "killed" / "scores.csv")[same],
        pd.read_csv(outputs / "unbroken" / "scores.csv")[same],
    )


@pytest.mark.slow
def test_two_processes_never_work_in_one_folder_and_control_c_ends_with_130(outputs, capsys):
    longer = [*SLOW, "limit=72"]  # half a minute: it must not end before the second has begun
    process = start("run", "name=busy", *longer)
    wait_for(lambda: len(hashes(outputs / "busy")) >= 1, process)
    vcbench("run", "name=busy", *longer, code=2)
    assert "another vcbench works in" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"run the same command again to resume" in error
    assert b"Traceback" not in error


def test_scores_of_other_settings_or_other_sounds_are_refused(outputs, capsys):
    common = ["name=a", "limit=2", "system=tests.support.fakes.Louder", *QUICK]
    vcbench("run", *common)
    vcbench("score", *common, "seed=1", code=2)
    vcbench("score", *common, "+system.louder.gain=0.5", code=2)
    assert capsys.readouterr().err.count("made with other settings or code") == 2
    vcbench("convert", *common, "+system.louder.gain=0.5", "overwrite=true")
    vcbench("report", "name=a", code=2)
    assert "is not the sound that was scored" in capsys.readouterr().err


def test_a_sound_changed_by_hand_is_marked_in_the_table(outputs):
    common = ["name=a", "limit=2", "system=tests.support.fakes.Louder", *QUICK]
    vcbench("run", *common)
    wav = next((outputs / "a").rglob("F2F*.wav"))
    soundfile.write(wav, [0.1, -0.1] * 8000, 16000)
    vcbench("score", *common)
    scores = pd.read_csv(outputs / "a" / "scores.csv").set_index("trial_id")
    assert scores["altered"].to_dict() == {wav.stem: True, "F2M-00-4680-1867": False}
    assert scores.loc[wav.stem, "length.duration_ratio"] == 1.0
    vcbench("report", "name=a")


def test_conversions_kept_from_other_code_are_reported(outputs, monkeypatch):
    quick = [setting.replace("report=[]", "report=[markdown,html]") for setting in QUICK]
    common = ["name=a", "limit=2", "system=[source,tests.support.fakes.Louder]", *quick]
    with monkeypatch.context() as earlier:
        made_by = "0123456789ab on a Cray-1"
        earlier.setattr("bench.stages.execute.origin", lambda versions="": made_by)
        vcbench("run", *common)
    text = "conversions of louder kept from an earlier run: 2, made by 0123456789ab on a Cray-1"
    assert text in (outputs / "a" / "report.md").read_text()
    assert text in (outputs / "a" / "report.html").read_text()
    vcbench("run", *common, "overwrite=true")
    assert "kept from" not in (outputs / "a" / "report.md").read_text()
    scores = pd.read_csv(outputs / "a" / "scores.csv", keep_default_na=False)
    run = json.loads((outputs / "a" / "run.json").read_text())
    assert set(scores[scores["system"] == "louder"]["origin"]) == {run["origin"]}
    assert set(scores[scores["system"] == "source"]["origin"]) == {""}


def test_another_checkpoint_under_the_same_name_is_noticed(outputs, tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.bin").write_bytes(b"one")
    common = ["name=a", "limit=1", "system=tests.support.fakes.Checkpointed", *QUICK]
    common += [f"+system.checkpointed.checkpoint={tmp_path / 'weights'}"]
    vcbench("run", *common)
    vcbench("run", *common)
    (tmp_path / "weights" / "model.bin").write_bytes(b"two")
    vcbench("run", *common, code=2)
    assert "made with other settings" in capsys.readouterr().err


def test_whatever_a_system_says_in_its_error_is_only_text(outputs, capsys):
    faulty = ["system=[source,tests.support.fakes.Faulty]", "+system.faulty.fault=raises"]
    message = "'+system.faulty.message=\"[/INST] 10%\\r20% <b>\"'"
    vcbench("run", "name=a", "limit=1", *faulty, message.strip("'"), *QUICK, code=1)
    scores = pd.read_csv(outputs / "a" / "scores.csv")
    assert len(scores) == 2
    assert "[/INST]" in scores["error"][1]


def test_an_altered_recording_of_the_corpus_stops_the_run(tmp_path, capsys):
    import shutil

    root = tmp_path / "mini"
    shutil.copytree(MINI, root)
    victim = next((root / "flac" / "4680").glob("*.flac"))
    victim.write_bytes(victim.read_bytes() + b"\0")
    common = ["limit=24", "system=source", f"suite.mini_cross_gender.root={root}", *QUICK]
    vcbench("run", *common, code=2)
    assert victim.name in capsys.readouterr().err


def test_doctor_exits_with_1_when_a_judge_answers_wrongly(capsys):
    vcbench("doctor", "judge=tests.support.fakes.Length", code=1)
    printed = capsys.readouterr().out
    assert "✗ length" in printed
    assert "length: wrong answers on known recordings" in printed


def test_doctor_passes_a_judge_with_right_answers(capsys):
    vcbench("doctor", "judge=prosody")
    printed = capsys.readouterr().out
    assert "✓ prosody" in printed
    assert "F0 of speech raised by 2 st" in printed
    assert "18 speakers" in printed


FETCHED = ["judge=tests.support.fakes.Fetched", "+judge.fetched.path=weights.txt"]


def test_doctor_names_what_is_missing_and_fetches_it_when_asked(tmp_path, capsys):
    (tmp_path / "weights.published").write_text("right")
    vcbench("doctor", *FETCHED)
    printed = capsys.readouterr().out
    assert "– fetched not available: no weights; get them" in printed
    assert not (tmp_path / "weights.txt").exists()
    vcbench("doctor", "--fetch", *FETCHED)
    printed = capsys.readouterr().out
    assert "fetched 5 MB: hf download owner/name" in printed
    assert "✓ fetched" in printed
    vcbench("doctor", "--fetch", *FETCHED)
    assert "hf download" not in capsys.readouterr().out


def test_doctor_refuses_weights_that_answer_wrongly_whoever_fetched_them(tmp_path, capsys):
    (tmp_path / "weights.published").write_text("random")
    vcbench("doctor", "--fetch", *FETCHED, code=1)
    assert "✗ fetched" in capsys.readouterr().out


def test_doctor_goes_on_without_a_connection(capsys):
    vcbench("doctor", "--fetch", *FETCHED)
    assert "– fetched not available: owner/name: no download (no route)" in capsys.readouterr().out


def test_a_run_by_a_papers_judges_says_what_is_missing_and_where_it_deviates(outputs, capsys):
    common = ["limit=1", "system=source", "suite=mini_cross_gender", "report=[markdown]"]
    vcbench("run", "name=paper", "preset=knn_vc", *common)
    text = capsys.readouterr().err
    assert "secs_ecapa cannot judge" in text
    assert "hf download speechbrain/spkrec-ecapa-voxceleb" in text
    report = (outputs / "paper" / "report.md").read_text()
    assert "after kNN-VC, Interspeech 2023" in report
    assert "base is assumed" in report
    summary = pd.read_csv(outputs / "paper" / "summary.csv")
    missing = summary[summary["judge"] == "secs_ecapa"]
    assert set(missing["metric"]) >= {"secs", "sv_accept", "secs_calibrated"}
    assert missing["value"].isna().all()


def test_doctor_without_recordings_is_an_error_not_a_pass(tmp_path, capsys):
    """s3prl's defect: a pattern that matches no file passes in silence."""
    columns = "utterance_id,speaker,gender,path,text,seconds,corpus,split\n"
    (tmp_path / "none.csv").write_text(columns)
    vcbench("doctor", "judge=dnsmos", f"known_recordings.path={tmp_path / 'none.csv'}", code=2)
    assert "known_recordings: there are none" in capsys.readouterr().err

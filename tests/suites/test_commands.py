"""The verbs `corpus` and `suite`: corpora are indexed; lists are built, imported, checked."""

import json
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from bench.__main__ import main
from bench.manifest import read_trials, write_trials
from bench.run.folder import read_report
from bench.trials import Suite, Utterance
from reports.tables import summary_table
from suites.corpora.table import CorpusRecording
from suites.embedded import MINI
from suites.protocols import unseen_speakers
from tests.suites import miniatures

LOUDER = "tests.support.fakes.Louder"
QUICK = ["judge=[tests.support.fakes.Length]", "report=[markdown]"]
ROOT = Path(__file__).parents[2]


def vcbench(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def corpus(here):
    """All embedded speakers as a LibriSpeech split."""
    return miniatures.librispeech(here / "LibriSpeech", list(miniatures.BY_SPEAKER))


def built(suite, root):
    return [
        "suite=[]",
        "+suite.mine._target_=bench.trials.Suite.load",
        f"+suite.mine.manifest={suite}",
        f"+suite.mine.root={root}",
    ]


BUILD = ["suite", "build", "cross_gender", "corpus=librispeech", "trials=24", "seed=3"]


def test_a_list_is_the_same_bytes_for_any_number_of_workers_and_from_an_index(corpus, here):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl", "workers=1")
    vcbench(*BUILD, f"root={corpus}", "out=b.jsonl", "workers=5")
    vcbench("corpus", "index", "librispeech", f"root={corpus}", "out=index.csv")
    vcbench(*BUILD, f"root={corpus}", "out=c.jsonl", "index=index.csv")
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    assert Path("a.jsonl").read_bytes() == Path("c.jsonl").read_bytes()
    trials = Suite.load("a.jsonl", root=corpus).trials
    assert len(trials) == 24
    assert all(u.sha256 for t in trials for u in t.utterances)


def test_a_file_that_cannot_be_decoded_is_left_out_and_named(corpus, here, capsys):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl")
    used = Suite.load("a.jsonl", root=corpus).trials[0].references[0].path
    used.write_bytes(used.read_bytes()[:3000])  # the header is whole, the sound is not
    vcbench(*BUILD, f"root={corpus}", "out=b.jsonl")
    assert used.stem in capsys.readouterr().err
    suite = Suite.load("b.jsonl", root=corpus)
    assert used.stem not in suite.utterances
    assert len(suite.trials) == 24
    vcbench(*BUILD, f"root={corpus}", "out=c.jsonl", "bad=stop", code=2)
    assert not Path("c.jsonl").exists()


def test_finished_wavs_are_a_system_and_a_missing_one_is_a_failure(here, capsys):
    vcbench(
        "run", "name=a", "limit=4", "suite=mini_cross_gender", f"system=[source,{LOUDER}]", *QUICK
    )
    folder = here / "my-outputs"
    shutil.copytree(here / "outputs" / "a" / "wav" / "louder" / "mini_cross_gender", folder)
    gone = sorted(folder.iterdir())[0]
    gone.unlink()
    vcbench("score", f"wavs={folder}", "limit=4", "suite=mini_cross_gender", *QUICK)
    scores = pd.read_csv(here / "outputs" / "my_outputs" / "scores.csv")
    assert set(scores["system"]) == {"source", "target", "my_outputs"}
    outputs_rows = scores[scores["system"] == "my_outputs"].set_index("trial_id")
    assert outputs_rows.loc[gone.stem, "status"] == "failed"
    assert gone.stem in outputs_rows.loc[gone.stem, "error"]
    whole = pd.read_csv(here / "outputs" / "a" / "scores.csv").query("system == 'louder'")
    same = outputs_rows.drop(gone.stem)["length.duration_ratio"]
    assert same.to_dict() == (
        whole.set_index("trial_id").drop(gone.stem)["length.duration_ratio"].to_dict()
    )
    # What is repaired is read anew, under the same name.
    shutil.copyfile(next(folder.iterdir()), gone)
    vcbench("score", f"wavs={folder}", "limit=4", "suite=mini_cross_gender", *QUICK)
    scores = pd.read_csv(here / "outputs" / "my_outputs" / "scores.csv")
    assert set(scores["status"]) == {"ok"}
    vcbench("score", "wavs=nowhere", "suite=mini_cross_gender", *QUICK, code=2)
    assert "no folder of finished conversions at nowhere" in capsys.readouterr().err


def test_a_changed_corpus_is_refused_by_name_or_accepted_and_marked(corpus, here, capsys):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl")
    trial = Suite.load("a.jsonl", root=corpus).trials[0]
    other = next(p for p in corpus.rglob("*.flac") if p != trial.source.path)
    shutil.copyfile(other, trial.source.path)
    common = ["run", "limit=2", "system=source", *built("a.jsonl", corpus), *QUICK]
    vcbench(*common, "name=strict", code=2)
    expected = capsys.readouterr().err
    assert trial.source.utterance_id in expected
    assert "allow_changed=true" in expected
    vcbench(*common, "name=loose", "allow_changed=true")
    run = json.loads((here / "outputs" / "loose" / "run.json").read_text())
    assert run["suites"]["mine"]["changed"] == [trial.source.utterance_id]
    report = (here / "outputs" / "loose" / "report.md").read_text()
    assert "1 recordings differ from those of the frozen list" in report
    assert trial.source.utterance_id in report


def test_without_a_hash_another_duration_gives_a_changed_file_away(corpus, here, capsys):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl")
    lines = Path("a.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        for part in ("source", "target"):
            if isinstance(record[part], dict):
                record[part].update(sha256="", seconds=99.0)
    Path("a.jsonl").write_text("\n".join(map(json.dumps, records)))
    vcbench("run", "limit=2", "system=source", *built("a.jsonl", corpus), *QUICK, code=2)
    assert re.search(r"[\d.]+ s long, not 99\.00 s", capsys.readouterr().err)


def test_check_counts_seen_unseen_and_unknown_trials(here, capsys):
    base = ["suite", "check", "mini_unseen_speakers"]
    wavs = ["+system.x._target_=bench.systems.Wavs", "+system.x.folder=.", "system=[]"]
    declared = "+system.x.trained_on=[LibriTTS/train-clean-100]"
    vcbench(*base, *wavs, declared)
    assert re.search(r"LibriTTS/train-clean-100 +24 +0 +0", capsys.readouterr().out)
    vcbench(*base, *wavs, "+system.x.trained_on=[LibriTTS/test-other]", code=1)
    assert re.search(r"LibriTTS/test-other +0 +24 +0", capsys.readouterr().out)
    vcbench(*base, *wavs)
    assert re.search(r"unknown +0 +0 +24", capsys.readouterr().out)


def test_duplicates_are_detected_by_content_whatever_the_name(here, capsys):
    suite = Suite.load(ROOT / "suites/manifests/mini_unseen_speakers.v2.jsonl", root=MINI)
    planted = suite.trials[3].source
    train = here / "train" / "deep"
    train.mkdir(parents=True)
    planted.load().save(train / "innocent.wav")  # FLAC in the corpus, WAV here
    (train / "broken.wav").write_bytes(b"RIFF")
    base = ["suite", "check", "mini_unseen_speakers", "system=world"]
    vcbench(*base, f"train={train.parent}", code=1)
    out = capsys.readouterr().out
    assert f"1 of {len(suite.utterances)} recordings" in out
    assert planted.utterance_id in out
    assert "innocent.wav" in out
    (train / "innocent.wav").unlink()
    shutil.copyfile(MINI / "flac/1737/1737-146161-0006.flac", train / "other.flac")
    vcbench(*base, f"train={train.parent}")


def test_every_report_says_what_share_is_unseen(here):
    vcbench(
        *["run", "name=a", "limit=8", "suite=mini_cross_gender", "system=[source]", *QUICK],
        *["+system.x._target_=tests.suites.test_commands.Trained"],
    )
    results = read_report(here / "outputs" / "a")
    row = results.summary.query("system == 'x' and metric == 'unseen'").iloc[0]
    train = Suite.load(ROOT / "suites/manifests/mini_cross_gender.v2.jsonl", root=MINI, limit=8)
    corpora = [{t.source.corpus, t.references[0].corpus} for t in train.trials]
    unseen = sum("LibriSpeech/train-clean-100" not in c for c in corpora)
    assert row["value"] == pytest.approx(100 * unseen / 8)
    states = results.scores.query("system == 'x'")[["trained_on.source", "trained_on.target"]]
    assert set(states.to_numpy().ravel()) == {"seen", "unseen"}
    heads = [c.head for c in summary_table(results, "mini_cross_gender").columns]
    assert "unseen %" in heads
    assert "unseen %" in (here / "outputs" / "a" / "report.md").read_text()


class Trained:
    """Returns the source; declares one of the embedded speech's splits."""

    trained_on = frozenset({"LibriTTS/train-clean-100"})

    def convert(self, source, reference, *, seed):
        return source


def test_an_imported_list_runs(corpus, here):
    rows = miniatures.SPEECH
    paths = [next(corpus.rglob(f"{r['utterance_id']}.flac")).relative_to(corpus) for r in rows[:20]]
    Path("pairs.txt").write_text(f"t1|{paths[0]}|{paths[12]}\nt2|{paths[12]}|{paths[0]}\n")
    vcbench(
        *["suite", "import", "freevc", "list=pairs.txt", f"root={corpus}", "out=m.jsonl"],
        "corpus=librispeech",
    )
    vcbench("run", "name=imported", "system=source", *built("m.jsonl", corpus), *QUICK)
    scores = pd.read_csv(here / "outputs" / "imported" / "scores.csv")
    assert list(scores["trial_id"]) == ["t1", "t2"]
    assert set(scores["factor.enrolment"]) == {"reference"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["suite", "buidl"], "did you mean 'build'"),
        (["suite", "build", "cross_gendr", "corpus=x"], "did you mean 'cross_gender'"),
        (["suite", "build", "cross_gender", "corpus=librispeech"], "root=… is missing"),
        (["suite", "build", "corpus=librispeech"], "needs a protocol first"),
        ([*BUILD, "root=.", "out=x", "trails=4"], "did you mean 'trials'"),
        ([*BUILD, "root=.", "out=x", "trials=four"], "'four' is not a whole number"),
        ([*BUILD, "root=.", "out=x", "bad=maybe"], "must be skip or stop"),
        ([*BUILD, "root=gone", "out=x"], "no corpus folder at gone"),
        ([*BUILD, "root=.", "out=x", "languages=en"], "cross_gender takes no languages"),
        (["suite", "import", "freevcc", "list=x"], "did you mean 'freevc'"),
        (["suite", "check", "mini_cross_gendr", "system=world"], "mini_cross_gender"),
        (["corpus", "index", "librispech", "root=.", "out=x"], "did you mean 'librispeech'"),
        (["run", "suite=vctk_cross_gender"], "no corpus folder at corpora/VCTK-Corpus-0.92"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_way_out(arguments, message, capsys, corpus):
    index = [a.replace("root=.", f"root={corpus}") for a in arguments]
    vcbench(*index, code=2)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.search(message, error)


def test_ls_names_every_corpus_with_its_licence(capsys):
    vcbench("corpus", "ls")
    out = capsys.readouterr().out
    for name in ("librispeech", "libritts_r", "vctk", "esd", "aishell3", "vcc2020"):
        assert name in out
    assert "CC BY 4.0" in out


def test_verbs_without_arguments_show_what_they_take(capsys):
    for verb in ("suite", "corpus"):
        vcbench(verb, code=2)
        assert f"vcbench {verb}" in capsys.readouterr().out


STREAM = """
import resource, sys
from pathlib import Path
import bench.manifest as t
t.Path.is_file = lambda self: True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = sum(1 for _ in t.read_trials(Path(sys.argv[1]), Path(".")))
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_long_list_streams_in_little_memory(here):
    recordings = [
        CorpusRecording(
            Utterance(
                f"s{s}-{i}", f"s{s}", "FM"[s % 2], Path(f"{s}-{i}.flac"), f"words {i}", "0" * 64
            ),
            3.0 + i / 10,
            "",
        )
        for s in range(100)
        for i in range(20)
    ]
    recordings = [
        CorpusRecording(
            Utterance(**{**vars(r.utterance), "sha256": f"{n:064d}"}), r.seconds, r.split
        )
        for n, r in enumerate(recordings)
    ]
    trials = unseen_speakers(recordings, seed=0, trials=20_000)
    assert write_trials(trials, Path("m.jsonl"), Path()) == 20_000
    done = subprocess.run(
        [sys.executable, "-c", STREAM, "m.jsonl"],
        capture_output=True,
        text=True,
        check=True,
        cwd=here,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    number, kilobytes = map(int, done.stdout.split())
    assert number == 20_000
    # What grows is one id a trial: a million of them would take about 200 MB.
    assert kilobytes < 20_000


def test_a_list_says_how_many_speakers_it_has_and_when_they_are_too_few(here, capsys):
    rows = [r for r in miniatures.SPEECH if r["speaker"] in ("1688", "1737")]
    rows += [next(r for r in miniatures.SPEECH if r["speaker"] == "1998")]
    root = miniatures.folder(here / "few", rows, ("path", "speaker", "gender", "text"))
    vcbench(
        *["suite", "build", "reference_length", "corpus=folder", f"root={root}", "trials=4"],
        *["lengths=[1,2]", "out=a.jsonl"],
    )
    printed = capsys.readouterr()
    assert "a.jsonl: 4 trials, 2 of 3 speakers, sha256 " in printed.out
    assert "under 4 sources or targets a report has no intervals" in printed.err


def test_read_trials_begins_before_the_list_ends(corpus, here):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl")
    with Path("a.jsonl").open("a") as file:
        file.write("not JSON\n")
    trials = read_trials(Path("a.jsonl"), corpus)
    assert next(trials).trial_id.startswith("F2F")
    assert len(Suite.load("a.jsonl", root=corpus, limit=24).trials) == 24


def test_cross_lingual_over_a_parallel_bilingual_corpus(here):
    root = miniatures.vcc2020(here / "VCC2020", count=7)
    common = ["suite", "build", "cross_lingual", "corpus=vcc2020", f"root={root}", "out=m.jsonl"]
    vcbench(*common, "trials=28", "reference_seconds=2")
    pairs = {t.factors["languages"] for t in Suite.load("m.jsonl", root=root).trials}
    # Finnish and Mandarin have one reader each: no target has the same language.
    assert pairs == {"en2en", "en2fi", "en2zh", "fi2en", "fi2zh", "zh2en", "zh2fi"}
    vcbench(*common, "trials=12", "reference_seconds=2", "languages=en")
    pairs = {t.factors["languages"] for t in Suite.load("m.jsonl", root=root).trials}
    assert pairs == {"en2en", "en2fi", "en2zh"}


def test_expressive_over_emotional_speech_is_judged_by_its_contours(here):
    root = miniatures.esd(here / "ESD", neutral=6)
    vcbench(
        *["suite", "build", "expressive", "corpus=esd", f"root={root}", "out=m.jsonl"],
        *["trials=20", "reference_seconds=2"],
    )
    emotions = [t.factors["emotion"] for t in Suite.load("m.jsonl", root=root).trials]
    assert {e: emotions.count(e) for e in emotions} == dict.fromkeys(
        ("angry", "happy", "neutral", "sad", "surprise"), 4
    )
    vcbench(
        *["run", "name=e", "system=source", "limit=2", *built("m.jsonl", root)],
        *["judge=[prosody,energy]", "report=[]"],
    )
    summary = pd.read_csv(here / "outputs" / "e" / "summary.csv").set_index("metric")["value"]
    assert summary["energy_correlation"] == pytest.approx(1.0)  # the source against itself
    assert summary["f0_correlation"] == pytest.approx(1.0)


def test_a_recording_that_is_there_twice_is_used_once_and_named(corpus, here, capsys):
    vcbench(*BUILD, f"root={corpus}", "out=a.jsonl")
    trial = Suite.load("a.jsonl", root=corpus).trials[0]
    kept, copy = sorted([trial.source.path, trial.source_enrolment[0].path])
    shutil.copyfile(kept, copy)
    vcbench(*BUILD, f"root={corpus}", "out=b.jsonl")
    expected = capsys.readouterr().err
    assert "recording that is there twice: 1" in expected
    assert {kept.stem, copy.stem} == set(re.findall(r"[0-9]+-[0-9]+-[0-9]+", expected))
    utterances = Suite.load("b.jsonl", root=corpus).utterances
    assert len({kept.stem, copy.stem} & set(utterances)) == 1


def test_training_speakers_are_checked_without_any_audio(capsys):
    base = ["suite", "check", "librispeech_unseen_speakers"]
    x = ["system=[]", "+system.x._target_=bench.systems.Wavs", "+system.x.folder=."]
    vcbench(*base, *x, "+system.x.trained_on=[LibriTTS/train-clean-360]")
    assert re.search(r"LibriTTS/train-clean-360 +1000 +0 +0", capsys.readouterr().out)
    vcbench(*base, *x, "+system.x.trained_on=['LibriTTS/test-clean:61']", code=1)
    # 40 speakers, each 25 times source and 25 times target of somebody else.
    assert re.search(r"LibriTTS/test-clean:61 +950 +50 +0", capsys.readouterr().out)


def test_a_list_leaves_out_the_training_speakers_of_the_named_systems(corpus, here):
    speakers = list(miniatures.BY_SPEAKER)
    corpora_seen = ",".join(f"'LibriTTS:{s}'" for s in speakers[:3])
    vcbench(
        *["suite", "build", "unseen_speakers", "corpus=librispeech", f"root={corpus}"],
        *["out=m.jsonl", "trials=30", "trained_on=[LibriSpeech:" + speakers[3] + "]"],
        *["system=[]", "+system.x._target_=bench.systems.Wavs", "+system.x.folder=."],
        f"+system.x.trained_on=[{corpora_seen}]",
    )
    trials = Suite.load("m.jsonl", root=corpus).trials
    assert len({t.speaker for t in trials}) == len(speakers) - 4
    assert not set(speakers[:4]) & {s for t in trials for s in (t.speaker, t.source.speaker)}


def test_a_frozen_list_meets_its_corpus_and_names_the_first_file_of_another_release(here, capsys):
    """Sounds of the listed durations stand in for LibriSpeech, which is not here."""
    root = here / "corpora" / "LibriSpeech"
    manifest = ROOT / "suites/manifests/librispeech_cross_gender.v1.jsonl"
    first = list(islice(read_trials(manifest, root, files=False), 2))
    noise = np.random.default_rng(0).integers(-9000, 9000, 40 * 16000, dtype=np.int16)
    for number, utterance in enumerate(
        {u.utterance_id: u for t in first for u in t.utterances}.values()
    ):
        utterance.path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.roll(noise, number)[: round(utterance.seconds * 16000)]
        soundfile.write(utterance.path, samples, 16000, subtype="PCM_16")
    common = ["run", "suite=librispeech_cross_gender", "limit=2", "system=source", *QUICK]
    vcbench(*common, "name=there")
    scores = pd.read_csv(here / "outputs" / "there" / "scores.csv")
    assert list(scores["status"]) == ["ok", "ok"]
    shorter = first[0].references[0]
    soundfile.write(shorter.path, noise[:16000], 16000, subtype="PCM_16")
    vcbench(*common, "name=other", code=2)
    expected = capsys.readouterr().err
    assert f"{shorter.utterance_id}: 1.00 s long, not {shorter.seconds:.2f} s" in expected

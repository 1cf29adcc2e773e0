"""`benchmarks.programs.questions` builds paired lists, `questions_scores` compares conditions."""

import csv
import re

import numpy as np
import pandas as pd
import pytest

from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.recognisers import Transcript
from bench.manifest import read_trials
from bench.metrics import METRICS
from benchmarks.programs import questions, questions_scores

RATE = questions.RATE
CORPORA = ("de", "ro", "pl", "lt", "et", "tr", "hi", "ta", "zh-CN", "ja", "ar", "mt", "en")


def tone(frequency, seconds=1.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """The lists of a made-up corpus: two women and two men of each language, in AN4 too."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    with (folder / "recordings.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["utterance_id", "speaker", "gender", "path", "text", "seconds", "corpus"])
        for corpus in (*(f"Common Voice 6.1 {code}" for code in CORPORA), "AN4"):
            for speaker in range(4):
                for take, seconds in enumerate((5.0, 4.5, 2.5)):
                    name = f"{corpus.split()[-1]}-{speaker}-{take}"
                    sound = Waveform.from_numpy(rng.normal(0, 0.1, round(seconds * RATE)), RATE)
                    sound.save(folder / f"{name}.wav")
                    who = f"{corpus.split()[-1]}-{speaker}"
                    gender = "FM"[speaker % 2]
                    rows.writerow([name, who, gender, f"{name}.wav", "words", seconds, corpus])
    out = folder / "out"
    assert questions.main([str(folder / "recordings.csv"), str(out)]) == 0
    return {name: list(read_trials(out / f"{name}.jsonl", out)) for name in questions.LISTS}


def slots(trials):
    grouped = {}
    for trial in trials:
        slot = questions_scores.SLOT.match(trial.trial_id)[0]
        grouped.setdefault(slot, {})[trial.factors["condition"]] = trial
    return list(grouped.values())


@pytest.mark.parametrize("name", ["languages", "halves", "disturbed"])
def test_a_slot_has_one_source_for_all_references(lists, name):
    for conditions in slots(lists[name]):
        assert len({t.source.utterance_id for t in conditions.values()}) == 1
        assert len({t.references[0].gender for t in conditions.values()}) == 1
        assert len({t.references[0].utterance_id for t in conditions.values()}) == len(conditions)


def test_a_slot_has_one_reference_for_all_sources(lists):
    for conditions in slots(lists["sources"]):
        assert len({t.references for t in conditions.values()}) == 1
        assert len({t.source.gender for t in conditions.values()}) == 1
        assert conditions["South Asia"].source.language in {"hi", "ta"}


def test_references_are_in_the_language_of_their_condition(lists):
    spoken = {
        condition: {
            t.references[0].language
            for t in lists["languages"]
            if t.factors["condition"] == condition
        }
        for condition in (questions.AN4, *questions.GROUPS)
    }
    assert spoken[questions.AN4] == {"en"}
    assert spoken["East, South-East Asia"] == {"zh", "ja"}
    assert spoken["Slavic, Baltic"] == {"pl", "lt"}


def test_halves_are_the_ends_of_one_recording(lists):
    for trial in lists["halves"]:
        [reference], [enrolment] = trial.references, trial.enrolment
        names = [u.utterance_id.rpartition("-") for u in (reference, enrolment)]
        assert names[0][0] == names[1][0]
        assert [name[2] for name in names] == ["first", "last"]
        assert reference.seconds == enrolment.seconds == questions.HALF_SECONDS


def test_only_the_reference_is_disturbed(lists):
    for conditions in slots(lists["disturbed"]):
        assert len({t.enrolment for t in conditions.values()}) == 1
        sounds = {name: t.reference().numpy() for name, t in conditions.items()}
        noise = sounds["white 20 dB"] - sounds["clean"]
        snr = 20 * np.log10(np.std(sounds["clean"]) / np.std(noise))
        assert snr == pytest.approx(20, abs=0.3)  # 16 bits, and the mean counts


def test_noise_is_as_loud_as_it_says_and_pink_noise_falls():
    speech = tone(200)
    for noise in (questions.white, questions.pink):
        added = questions.noisy(noise, 10)(speech) - speech
        assert np.mean(speech**2) / np.mean(added**2) == pytest.approx(10)
    power = np.abs(np.fft.rfft(questions.pink(1 << 18, np.random.default_rng(0)))) ** 2
    low, high = (power[k : 2 * k].mean() for k in (1 << 13, 1 << 15))
    assert low / high == pytest.approx(4, rel=0.05)


def test_a_telephone_has_its_band():
    for frequency, kept in ((100, False), (1000, True), (6000, False)):
        passed = np.std(questions.narrow(tone(frequency))[2000:-2000]) / np.std(tone(frequency))
        assert passed == pytest.approx(1, abs=0.05) if kept else passed < 0.02


def test_the_corpus_names_the_language(tmp_path):
    table = tmp_path / "recordings.csv"
    head = "utterance_id,speaker,gender,path,text,seconds,corpus\n"
    rows = ("AN4", "Common Voice zh-CN", "Common Voice 6.1 zh-HK", "Common Voice fa (not checked)")
    table.write_text(head + "".join(f"{i},s,F,a.wav,w,3,{c}\n" for i, c in enumerate(rows)))
    languages = [(r.utterance.language, r.group) for r in questions.read_recordings(table)]
    asia, africa = "East, South-East Asia", "Near East, Africa"
    assert languages == [("en", questions.AN4), ("zh", asia), ("zh", ""), ("fa", africa)]
    table.write_text(head + "a,s,F,a.wav,w,3,Nothing\n")
    with pytest.raises(UserError, match=r":2: corpus 'Nothing' ends in no language"):
        questions.read_recordings(table)


def scores(rng, effect):
    """A score table: a control and two other languages, the first of which differs by `effect`."""
    rows = []
    for slot in range(12):
        easy = rng.normal(0, 0.1)
        for condition, more in (("English", 0.0), ("X", effect), ("Y", 0.0)):
            rows.append(
                {
                    "system": "takin_vc",
                    "trial_id": f"{slot:02d}-{condition}",
                    "source_speaker": f"s{slot % 6}",
                    "target_speaker": f"{condition}{slot}",
                    "factor.condition": condition,
                    "judge.secs": 0.5 + easy + more + rng.normal(0, 0.005),
                }
            )
    return pd.DataFrame(rows)


def test_differences_are_paired_by_slot():
    table = scores(np.random.default_rng(0), -0.05)
    english, x, y, others = questions_scores.rows_of(table, "judge", METRICS["secs"], "English")
    assert (english.n, x.n, others.condition) == (12, 12, "all other languages")
    assert np.isnan(english.difference)
    assert x.difference == pytest.approx(x.value - english.value)
    assert x.difference_low < -0.05 < x.difference_high < -0.04  # far narrower than the spread
    assert x.q < 0.05 < y.q
    assert others.difference == pytest.approx((x.difference + y.difference) / 2)
    with pytest.raises(UserError, match="no condition 'Z'"):
        questions_scores.rows_of(table, "judge", METRICS["secs"], "Z")


def test_lengths_are_conditions_too():
    table = scores(np.random.default_rng(0), 0.1).rename(
        columns={"factor.condition": "factor.reference_seconds"}
    )
    table["trial_id"] = "L-00" + table["trial_id"]
    rows = questions_scores.rows_of(table, "judge", METRICS["secs"], "X")
    assert [row.condition for row in rows] == ["English", "X", "Y"]
    assert rows[0].difference < -0.09
    printed = questions_scores.markdown([(("judge", "secs"), METRICS["secs"], rows)])
    assert re.search(r"^\| X \| 12 \| 0\.\d\d \[0\.\d\d, 0\.\d\d\] \|  \|$", printed, re.MULTILINE)


def test_letters_of_all_scripts_count():
    assert questions_scores.letters("Ça va, 12 ｋｍ? – हिन्दी 你好。") == "çava12kmहिन्दी你好"


def test_agreement_counts_characters_that_differ(monkeypatch):
    class Recogniser:
        networks, weights, languages, fingerprint = ("made-up",), (), frozenset({"hi"}), "1"

        def __init__(self, *_, **__):
            self.calls = []

        def transcribe(self, waveforms, language):
            self.calls.append((len(waveforms), language))
            return [Transcript("ab cd" if w.samples[0] > 0 else "Abde.") for w in waveforms]

    monkeypatch.setattr(questions_scores, "Whisper", Recogniser)
    judge = questions_scores.Agreement()
    source, converted = (Waveform.from_numpy(np.full(9, sign), 16000) for sign in (1, -1))
    item = Converted("a", source=source, converted=converted, language="hi")
    [row], again = judge.score([item]), judge.score([item])
    assert (row["agreement_errors"], row["agreement_chars"]) == (2, 4)
    assert again == [row]
    assert judge.recogniser.calls == [(2, "hi")]  # each sound once


@pytest.mark.parametrize("program", [questions, questions_scores])
def test_wrong_arguments_are_answered_with_how_to_call_it(program, capsys):
    assert program.main(["--help"]) == 0
    assert program.main([]) == 1
    assert f"python -m {program.__name__} R" in capsys.readouterr().out


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert questions.main([str(tmp_path / "none.csv"), str(tmp_path)]) == 1
    assert questions_scores.main([str(tmp_path), "English"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("error: ") and str(tmp_path) in line for line in errors)

"""seed-tts-eval from its list to the report: English and Mandarin, spoken by eSpeak NG."""

from importlib.util import find_spec

import pandas as pd
import pytest

from bench.__main__ import main
from bench.manifest import read_trials
from tests.suites import miniatures
from tests.support.espeak import speak

# Only Whisper base is installed. What is judged are the recordings of the test set's texts.
BASE = ["report=[markdown]", "system=source"]


def vcbench(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


@pytest.fixture(scope="module")
def test_set(tmp_path_factory):
    return miniatures.seed_tts_eval(tmp_path_factory.mktemp("seedtts_testset"), speak)


@pytest.fixture
def lists(test_set, tmp_path, monkeypatch):
    """The imported lists: language → file."""
    monkeypatch.chdir(tmp_path)
    for language in ("en", "zh"):
        vcbench(
            *("suite", "import", "seed_tts", f"root={test_set}", f"out={language}.jsonl"),
            f"list={test_set / language / 'non_para_reconstruct_meta.lst'}",
        )
    return {language: f"suite={language}.jsonl" for language in ("en", "zh")}


def distance(text: str, transcript: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(transcript) + 1))
    for i, a in enumerate(text, 1):
        row, above = [i], row
        for j, b in enumerate(transcript, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@pytest.mark.skipif(find_spec("opencc") is None, reason="no OpenCC: the extra `mandarin`")
def test_mandarin_through_the_preset(test_set, lists, tmp_path):
    vcbench(
        *("run", "name=mandarin", "preset=seed_tts_eval_zh", lists["zh"], f"root={test_set}"),
        *("judge.cer_whisper_large_v3.recogniser.model=base", *BASE),
    )
    folder = tmp_path / "outputs" / "mandarin"
    summary = pd.read_csv(folder / "summary.csv").set_index(["system", "judge", "metric"])
    scores = pd.read_csv(folder / "scores.csv", dtype=str, keep_default_na=False)
    texts = {name: said[3] for name, said in miniatures.SEED_TTS_EVAL["zh"].items()}
    judge = "cer_whisper_large_v3"
    # The texts without their marks; counts of each trial; then the mean over utterances.
    from bench.judges.normalisers import chinese

    rates = []
    for row in scores[scores["system"] == "source"].to_dict("records"):
        text = "".join(c for c in texts[row["trial_id"]] if c not in "，。！")
        errors = distance(text, chinese(row[f"{judge}.hypothesis"]))
        counts = row[f"{judge}.chinese_char_errors"], row[f"{judge}.chinese_chars"]
        assert tuple(float(n) for n in counts) == (errors, len(text))
        rates.append(100 * errors / len(text))
    assert summary.loc[("source", judge, "cer_chinese_mean"), "value"] == pytest.approx(
        sum(rates) / len(rates)
    )
    # It was heard as Mandarin.
    transcripts = "".join(scores[f"{judge}.hypothesis"])
    assert sum("\u4e00" <= c <= "\u9fff" for c in transcripts) > 20
    for missing in ("cer_paraformer", "secs_wavlm_large"):
        notes = summary.xs(missing, level="judge")["note"]
        assert notes.str.startswith("no weights").all()
    stored = list(read_trials(folder / "trials" / "zh.jsonl", folder, files=False))
    assert {t.language for t in stored} == {"zh"}
    report = (folder / "report.md").read_text()
    assert "seed-tts-eval (BytedanceSpeech/seed-tts-eval at 95003fe), Mandarin" in report
    assert "CER Chinese mean" in report


def test_english_through_the_preset(test_set, lists, tmp_path):
    vcbench(
        *("run", "name=english", "preset=seed_tts_eval", lists["en"], f"root={test_set}"),
        *("judge.wer_whisper_large_v3.recogniser.model=base", *BASE),
    )
    folder = tmp_path / "outputs" / "english"
    summary = pd.read_csv(folder / "summary.csv").set_index(["system", "judge", "metric"])
    value = summary.loc[("source", "wer_whisper_large_v3", "wer_raw_mean"), "value"]
    assert 0 <= value < 100
    assert '"language"' not in (folder / "trials" / "en.jsonl").read_text()


def test_an_english_preset_refuses_the_mandarin_list_before_it_converts(
    test_set, lists, tmp_path, capsys
):
    vcbench(
        *("run", "name=wrong", "preset=seed_tts_eval", lists["zh"], f"root={test_set}", *BASE),
        code=2,
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert "judge wer_whisper_large_v3 measures" in line
    assert "suite zh is in zh" in line
    assert "take judge=cer_whisper_base" in line
    assert not list((tmp_path / "outputs").rglob("*.wav"))
    vcbench(
        *("run", "name=wrong", "preset=seed_tts_eval_zh", lists["en"], f"root={test_set}", *BASE),
        code=2,
    )
    assert "judge cer_paraformer measures zh, but suite en is in en" in capsys.readouterr().err

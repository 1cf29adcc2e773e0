"""Presets: the judges of publications, and where ours deviate."""

import pandas as pd
import pytest
from hydra.utils import get_class

from bench.cli.settings import load, options
from bench.errors import UserError
from bench.metrics import METRICS
from bench.results import ScoredRun
from reports.headline import preset_of

PRESETS = ("offline", "takin_paper", "seed_vc", "seed_tts_eval", "seed_tts_eval_zh", "knn_vc")


def metrics_of(config) -> dict[str, tuple[str, ...]]:
    metrics_of_judges = {}
    for name, node in config.judge.items():
        judge = get_class(node["_target_"])
        metrics_of_judges[name] = (
            judge.metrics_for(node) if hasattr(judge, "metrics_for") else judge.metrics
        )
    return metrics_of_judges


def test_every_preset_is_listed_with_a_sentence() -> None:
    assert set(options("preset")) == set(PRESETS)
    assert all(len(sentence) > 40 for sentence in options("preset").values())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_names_judges_metrics_and_its_deviations(preset) -> None:
    config = load([f"preset={preset}"])
    assert config.preset.name == preset
    assert all(name in METRICS for names in metrics_of(config).values() for name in names)
    if preset == "offline":
        assert config.preset.publication is None
        assert config.limit == 8
    else:
        assert config.limit is None
        assert len(config.preset.deviations) >= 3


def test_what_each_publication_measures() -> None:
    def measured(preset: str) -> dict[str, tuple[str, ...]]:
        return metrics_of(load([f"preset={preset}"]))

    # as its eval.py has it: against the reference, lower case, the mean over pairs
    seed_vc = measured("seed_vc")
    assert seed_vc["secs_resemblyzer"][0] == "secs_reference"
    assert seed_vc["wer_hubert_large"] == ("wer_raw_mean", "cer_raw_mean")
    assert "dnsmos_ovrl" in seed_vc["dnsmos"]
    # run_wer.py and average_wer.py: no normaliser, the mean over utterances
    seed_tts = measured("seed_tts_eval")
    assert seed_tts["wer_whisper_large_v3"] == ("wer_raw_mean", "cer_raw_mean")
    assert seed_tts["secs_wavlm_large"][0] == "secs_reference"
    # the same scripts with zh: characters, by Paraformer
    mandarin = measured("seed_tts_eval_zh")
    assert mandarin["cer_paraformer"] == ("cer_chinese_mean", "cer_chinese_added")
    assert mandarin["secs_wavlm_large"][0] == "secs_reference"
    takin = measured("takin_paper")
    assert {"wer", "wer_raw"} <= set(takin["wer_hubert_large"])
    assert {"secs", "secs_reference"} <= set(takin["secs_wavlm_large"])
    assert takin["utmos"] == ("utmos",)
    assert "sv_accept" in measured("knn_vc")["secs_ecapa"]


def test_the_papers_preset_is_about_its_corpus_unless_another_is_named() -> None:
    assert list(load(["preset=takin_paper"]).suite) == ["libritts_test_clean"]
    assert list(load(["preset=takin_paper", "suite=mini_cross_gender"]).suite) == [
        "mini_cross_gender"
    ]


def test_a_changed_setting_is_one_more_deviation() -> None:
    untouched = load(["preset=seed_vc"]).preset.deviations
    changed = load(["preset=seed_vc", "judge.wer_hubert_large.poolings=[corpus]", "limit=8"])
    assert list(changed.preset.deviations) == [
        *untouched,
        "Set on the command line: judge.wer_hubert_large.poolings=[corpus]",
    ]
    assert changed.limit == 8
    assert list(load(["judge=[dnsmos]"]).preset.deviations) == []


def test_a_preset_without_its_judges_is_no_preset() -> None:
    with pytest.raises(UserError, match=r"preset=seed_vc is about judge secs_resemblyzer"):
        load(["preset=seed_vc", "judge=[dnsmos]"])


def test_a_report_says_preset_of_and_every_deviation(tmp_path) -> None:
    def sentence(preset: dict) -> str:
        facts = {"settings": {"preset": preset}}
        return preset_of(ScoredRun("r", tmp_path, facts, pd.DataFrame(), pd.DataFrame()))

    paper = {"name": "paper", "publication": "A, 2025", "deviations": ["Pairs.", "Pooling."]}
    assert sentence(paper) == "Preset paper, after A, 2025. It deviates: (1) Pairs. (2) Pooling."
    assert sentence({"name": "offline", "publication": None, "deviations": []}) == ""
    assert sentence({}) == ""

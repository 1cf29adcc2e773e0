"""Each degenerate system raises its flag; real conversions raise almost none."""

import numpy as np
import pandas as pd
import pytest

from baselines import degenerate
from baselines.world import World
from bench.judges import Converted
from bench.judges.integrity import Integrity
from bench.trials import Suite
from bench.validity.confounds import confounds
from bench.validity.flags import FLAGS, raised, suspicious
from suites.build import MANIFESTS, MINI
from tests.support.simulation import ring

TRIALS = 3
# The flag that each degenerate system must raise; it may raise others too.
EXPECTED = {
    "source": "source_copy",
    "silence": "level",
    "noise": "no_speech",
    "reversed": "reversed",
    "resynthesis": "source_copy",
    "copy_reference": "reference_audio",
    "splice": "reference_audio",
    "narrow_band": "narrow_band",
}
SYSTEMS = {
    "silence": degenerate.Silence(),
    "noise": degenerate.Noise(),
    "reversed": degenerate.Reversed(),
    "resynthesis": degenerate.Resynthesis(),
    "copy_reference": degenerate.CopyReference(),
    "splice": degenerate.Splice(),
    "narrow_band": degenerate.NarrowBand(),
    "world": World(),
}


@pytest.fixture(scope="module")
def suite():
    return Suite.load(MANIFESTS / "mini_cross_gender.v2.jsonl", root=MINI, name="s", limit=TRIALS)


def row(system, trial, columns, **more):
    return {
        "system": system,
        "suite": "s",
        "trial_id": trial.trial_id,
        "status": "ok",
        "source_speaker": trial.source.speaker,
        "target_speaker": trial.speaker,
        **{f"integrity.{name}": value for name, value in columns.items()},
        **more,
    }


@pytest.fixture(scope="module")
def flags(suite):
    judge, rows = Integrity(), []
    for trial in suite.trials:
        source, reference = trial.source.load(), trial.reference()
        outputs = {"source": source, "target": trial.target.load()}
        outputs |= {n: s.convert(source, reference, seed=0) for n, s in SYSTEMS.items()}
        for name, output in outputs.items():
            item = Converted(trial.trial_id, output, source, reference)
            rows.append(row(name, trial, judge.score([item])[0]))
    return raised(pd.DataFrame(rows), {"s": suite})


@pytest.mark.parametrize(("system", "flag"), EXPECTED.items())
def test_each_degenerate_system_raises_its_flag(flags, system, flag):
    raised_flags = flags[(flags["system"] == system) & (flags["flag"] == flag)]
    assert len(raised_flags) >= TRIALS - 1
    assert raised_flags["reason"].str.len().min() > 5


def test_a_copied_recording_of_the_target_is_off_in_duration(flags):
    """It is neither the source nor the reference: its words and its duration reveal it."""
    assert {"duration"} <= set(flags.query("system == 'target'")["flag"])


def test_a_real_conversion_raises_no_flag(flags):
    assert flags.query("system == 'world'").empty


def texts(suite, hypotheses, errors=0, words=10, secs=0.8, source_secs=0.6):
    """A table with transcripts only: the floor and one system."""
    rows = []
    for trial, hypothesis in zip(suite.trials, hypotheses, strict=True):
        for system, transcript in (("source", trial.source.text), ("mine", hypothesis)):
            is_converted = system == "mine"
            rows.append(
                row(
                    system,
                    trial,
                    {},
                    **{
                        "a.hypothesis": transcript,
                        "a.word_errors": errors if is_converted else 0,
                        "a.words": words,
                        "b.secs": secs if is_converted else 0.55,
                        "b.source_secs": source_secs if is_converted else 0.9,
                    },
                )
            )
    return pd.DataFrame(rows)


def test_words_of_the_reference_are_detected(suite):
    leaked = [
        " ".join(t.references[0].text.split()[:5]) + " " + t.source.text for t in suite.trials
    ]
    flags = raised(texts(suite, leaked), {"s": suite})
    assert len(flags.query("flag == 'reference_words'")) == TRIALS
    clean = raised(texts(suite, [t.source.text for t in suite.trials]), {"s": suite})
    assert "reference_words" not in set(clean["flag"])


def test_words_that_source_and_reference_share_are_no_leak(suite):
    """The source has these words too, so the conversion must have them."""
    from bench.validity.flags import _leak

    trial = suite.trials[0]
    assert _leak(trial, trial.source.text) == ""
    assert len(_leak(trial, trial.references[0].text).split()) >= 3


def test_lost_words_are_flagged_and_short_texts_are_not(suite):
    hypotheses = ["something else"] * TRIALS
    flags = raised(texts(suite, hypotheses, errors=10), {"s": suite})
    assert len(flags.query("flag == 'words_lost' and system == 'mine'")) == TRIALS
    flags = raised(texts(suite, hypotheses, errors=2, words=2), {"s": suite})
    assert flags.query("flag == 'words_lost'").empty


def test_the_ceiling_of_wer_at_the_floor_of_secs_is_no_conversion(suite):
    transcripts = [t.source.text for t in suite.trials]

    def unconverted(**scores):
        flags = raised(texts(suite, transcripts, **scores), {"s": suite}, floor="source")
        return len(flags.query("flag == 'unconverted' and system == 'mine'"))

    assert unconverted(secs=0.55, source_secs=0.88) == TRIALS
    assert unconverted(secs=0.80, source_secs=0.60) == 0  # another voice
    assert unconverted(secs=0.55, source_secs=0.60) == 0  # a bad voice, but not the old one
    assert unconverted(secs=0.55, source_secs=0.88, errors=3) == 0


@pytest.mark.parametrize("prefix", ["", "asr_", "raw_", "asr_raw_"])
@pytest.mark.parametrize("against", ["secs", "secs_reference"])
def test_lost_words_and_unconverted_speech_are_detected_by_whatever_a_judge_counts(
    suite, prefix, against
):
    transcripts = [t.source.text for t in suite.trials]
    renamed = {"a.word_errors": f"a.{prefix}word_errors", "a.words": f"a.{prefix}words"}
    renamed["b.secs"] = f"b.{against}"
    copied = texts(suite, transcripts, secs=0.56, source_secs=0.88).rename(columns=renamed)
    flags = raised(copied, {"s": suite}, floor="source").query("system == 'mine'")
    assert set(flags["flag"]) == {"unconverted"}
    assert flags["reason"].iloc[0].startswith("SECS")
    assert flags["reason"].iloc[0].endswith("0.56, floor 0.55")
    lost = texts(suite, transcripts, errors=10).rename(columns=renamed)
    flags = raised(lost, {"s": suite}, floor="source").query("system == 'mine'")
    assert set(flags["flag"]) == {"words_lost"}


@pytest.mark.parametrize(("share", "flagged"), [(0.011, True), (0.01, False), (None, False)])
def test_more_than_a_hundredth_of_clipped_samples_is_flagged(suite, share, flagged):
    table = pd.DataFrame([row("a", t, {}, clipped=share) for t in suite.trials])
    flags = raised(table, {"s": suite})
    assert (list(flags["flag"]) == ["clipped"] * TRIALS) == flagged
    assert len(flags) == flagged * TRIALS
    if flagged:
        assert flags["reason"].iloc[0] == "1.1% of its samples were outside [-1, 1]"
        assert suspicious(table, flags)["trials"].tolist() == [TRIALS]


def test_a_system_is_suspicious_by_a_share_of_its_trials():
    scores = pd.DataFrame({"suite": "s", "system": "a", "status": ["ok"] * 100})
    flags = pd.DataFrame({"suite": "s", "system": "a", "flag": "level"}, index=range(5))
    assert suspicious(scores, flags).empty
    flags = pd.DataFrame({"suite": "s", "system": "a", "flag": "level"}, index=range(6))
    assert suspicious(scores, flags)[["trials", "of"]].to_numpy().tolist() == [[6, 100]]
    few = scores.head(8)
    assert suspicious(few, flags.head(1)).empty


def test_without_its_measures_nothing_is_flagged_and_nothing_breaks(suite):
    bare = pd.DataFrame([row("a", t, {}) for t in suite.trials])
    assert raised(bare, {"s": suite}).empty
    assert suspicious(bare, raised(bare, {"s": suite})).empty


def test_every_flag_is_explained():
    for flag in FLAGS.values():
        assert flag.label
        assert flag.about.endswith(".")


def test_planted_confounds_are_detected_and_others_are_not():
    rng = np.random.default_rng(0)
    source, target = ring(18, 4)
    width = np.where(rng.random(72) < 0.3, 3900.0, 8000.0) + rng.normal(0, 50, 72)
    table = pd.DataFrame(
        {
            "suite": "s",
            "system": "a",
            "status": "ok",
            "source_speaker": source.astype(str),
            "target_speaker": target.astype(str),
            "j.secs": 0.7 + 3e-5 * width + 0.02 * rng.normal(size=72),
            "audio_seconds": rng.uniform(2, 9, 72),
            "integrity.level_db": -20.0,
            "integrity.bandwidth_hz": width,
        }
    )
    by_property = {c.what: c for c in confounds(table, ["a"])}
    assert by_property["bandwidth"].beyond_chance
    assert by_property["bandwidth"].correlation > 0.5
    assert not by_property["duration"].beyond_chance
    assert "level" not in by_property  # it does not vary


def test_the_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    source, target = ring(10, 3)
    x, y = rng.normal(size=(2, 30))
    table = pd.DataFrame(
        {
            "suite": "s",
            "system": "a",
            "status": "ok",
            "source_speaker": source.astype(str),
            "target_speaker": target.astype(str),
            "j.secs": x,
            "audio_seconds": y,
        }
    )
    confound = confounds(table, ["a"])[0]
    assert confound.correlation == pytest.approx(spearmanr(x, y).statistic)
    assert confound.low < confound.correlation < confound.high

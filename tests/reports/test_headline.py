"""The sentences at the head of a report, against numbers set by hand."""

import dataclasses

from reports.headline import headline
from tests.reports.conftest import make_results


def with_values(results, suite, metric, **values):
    summary = results.summary.copy()
    for system, value in values.items():
        row = (
            (summary["suite"] == suite)
            & (summary["metric"] == metric)
            & (summary["system"] == system)
        )
        summary.loc[row, ["value", "low", "high"]] = [value, value - 0.1, value + 0.1]
    return dataclasses.replace(results, summary=summary)


def test_it_says_what_was_run(results):
    assert headline(results)[0] == (
        "world was given 16 trials (8 in mini_cross_gender and 8 in mini_reference_length), beside "
        "the recordings source and target. Finished 2025-01-02 03:04 UTC on A processor."
    )


def test_it_says_what_failed(results, failed):
    assert headline(results)[1] == "No conversion failed."
    assert headline(failed)[1].startswith("Conversions that failed: world: 1 of 16.")


def test_similarity_is_placed_between_floor_and_ceiling(results):
    changed = with_values(
        results, "mini_cross_gender", "secs", source=0.5, world=0.6, target=0.9
    )  # (0.6 - 0.5) / (0.9 - 0.5)
    sentence = headline(changed)[2]
    assert sentence.startswith(
        "mini_cross_gender, world: SECS 0.60 [0.50, 0.70] by secs_resemblyzer, 25% of the way from "
        "the unconverted source (0.50) to the target's own speech (0.90)."
    )


def test_a_ceiling_under_the_floor_gives_no_share(results):
    changed = with_values(results, "mini_cross_gender", "secs", source=0.9, world=0.6, target=0.5)
    assert "of the way" not in headline(changed)[2]


def test_word_errors_stand_beside_those_of_the_source(results):
    changed = with_values(results, "mini_cross_gender", "wer", source=4.0, world=7.5)
    assert (
        "WER 7.5 % [7.4, 7.6] by wer_whisper_base; the unconverted source has 4.0 %."
        in headline(changed)[2].replace("\u00a0", " ")
    )


def test_it_does_without_provenance(results):
    bare = dataclasses.replace(results, provenance={})
    assert headline(bare)[0].endswith("the recordings source and target.")


def test_many_systems_share_a_sentence(tmp_path):
    systems = {f"s{i}": "world" for i in range(7)}
    made = make_results(tmp_path, 2, systems, ["mini_cross_gender"])
    changed = with_values(
        made, "mini_cross_gender", "secs", source=0.5, target=0.9, s3=0.1, s5=0.95
    )
    assert len(headline(changed)) == 3
    assert headline(changed)[2].startswith(
        "mini_cross_gender: SECS from 0.10 (s3) to 0.95 (s5) by secs_resemblyzer; the unconverted "
        "source has 0.50 and the target's own speech has 0.90. WER from "
    )

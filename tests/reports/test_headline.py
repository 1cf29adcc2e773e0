"""The sentences at the head of a report, against numbers set by hand."""

import dataclasses

from reports.headline import headline
from tests.support.made_up import make_results


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
    assert headline(results).run == (
        "world was given 16 trials (8 in mini_cross_gender and 8 in mini_reference_length), beside "
        "the recordings source and target. Finished 2025-01-02 03:04 UTC on A."
    )


def test_it_says_what_failed(results, failed):
    assert headline(results).failures == "No conversion failed."
    assert not headline(results).any_failed
    assert headline(failed).failures.startswith("Conversions that failed: world: 1 of 16.")
    assert headline(failed).any_failed


def test_similarity_is_placed_between_floor_and_ceiling(results):
    changed = with_values(
        results, "mini_cross_gender", "secs", source=0.5, world=0.6, target=0.9
    )  # (0.6 - 0.5) / (0.9 - 0.5)
    sentence = headline(changed).reached[0]
    assert sentence.startswith(
        "mini_cross_gender, world: SECS 0.60 [0.50, 0.70] by secs_resemblyzer, 25% of the way from "
        "the unconverted source (0.50) to the target's own speech (0.90)."
    )


def test_a_ceiling_under_the_floor_gives_no_share(results):
    changed = with_values(results, "mini_cross_gender", "secs", source=0.9, world=0.6, target=0.5)
    assert "of the way" not in headline(changed).reached[0]


def test_word_errors_are_shown_with_those_of_the_source(results):
    changed = with_values(results, "mini_cross_gender", "wer", source=4.0, world=7.5)
    assert (
        "WER 7.5 % [7.4, 7.6] by wer_whisper_base; the unconverted source has 4.0 %."
        in headline(changed).reached[0].replace("\u00a0", " ")
    )


def test_it_does_without_provenance(results):
    bare = dataclasses.replace(results, facts={"anchors": dict(results.anchors)})
    assert headline(bare).run.endswith("the recordings source and target.")


def test_many_systems_share_a_sentence(tmp_path):
    systems = {f"s{i}": "world" for i in range(7)}
    given = make_results(tmp_path, 2, systems, ["mini_cross_gender"])
    changed = with_values(
        given, "mini_cross_gender", "secs", source=0.5, target=0.9, s3=0.1, s5=0.95
    )
    [sentence] = headline(changed).reached
    assert sentence.startswith(
        "mini_cross_gender: SECS from 0.10 (s3) to 0.95 (s5) by secs_resemblyzer; the unconverted "
        "source has 0.50 and the target's own speech has 0.90. WER from "
    )


def test_its_sentences_stand_in_one_order_with_and_without_a_preset(failed):
    assert headline(failed).preset == ""
    preset = {"name": "p", "publication": "A, 2025", "deviations": []}
    facts = {**failed.facts, "settings": {"preset": preset}}
    summary_text = headline(dataclasses.replace(failed, facts=facts))
    assert summary_text.sentences == [
        summary_text.run,
        "Preset p, after A, 2025.",
        summary_text.failures,
        *summary_text.reached,
    ]
    assert headline(failed).sentences == [
        summary_text.run,
        summary_text.failures,
        *summary_text.reached,
    ]

"""The CTC stage: texts, their batches, and a recogniser that the content encoder takes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import CorpusError, TrainingRecording
from takin_vc.train.stages.ctc import VOCABULARY, TextSampler, read_greedily, spell
from tests.support.tiny_training import train


def test_ctc_trains_a_recogniser_that_the_content_encoder_takes(trained, table, tmp_path):
    out, _ = trained
    result = train(table, tmp_path, "ctc", f"features.folder={out}/features")
    assert 0 < result["losses"]["ctc"] < 100
    assert result["validation"]["cer"] > 0
    ppg = HybridFormerPPG.from_pretrained(tmp_path / "ctc" / "hybridformer")
    assert ppg.dim == 16
    assert float(ppg.hybridformer.fbank_std.min()) > 0
    assert not torch.equal(ppg.hybridformer.fbank_mean, torch.zeros(80))


def test_a_text_is_spelt_and_read_again():
    codes = spell("Don't  stop, café 2!")
    logits = torch.full((1, 2 * len(codes), VOCABULARY), -9.0)
    for at, code in enumerate(codes):  # a blank between any two
        logits[0, 2 * at, code] = 0
        logits[0, 2 * at + 1, 0] = 0
    assert read_greedily(logits) == ["DON'T STOP CAF "]
    logits[0, 1] = logits[0, 0]  # a repeat is the same character
    assert read_greedily(logits) == ["DON'T STOP CAF "]


def test_batches_of_texts_are_of_one_length_and_leave_out_what_has_none():
    texts = ["A", "B", "", "C", "D"]
    spoken = [
        TrainingRecording(f"u{i}", "s", Path("x"), "Made", text) for i, text in enumerate(texts)
    ]
    sampler = TextSampler(spoken, np.array([[1.0, 4.0, 1.0, 1.1, 4.2]]), batch_seconds=8.5)
    # In order of length 0, 3, 1, 4: as many as fit with the last of them, and end there.
    drawn = {tuple(sampler.draw(generator(seed)).tolist()) for seed in range(30)}
    assert drawn == {(0,), (0, 3), (3, 1), (1, 4)}
    with pytest.raises(CorpusError, match="no recording of up to 20 s has a text"):
        TextSampler(spoken[2:3], np.array([[1.0]]), batch_seconds=8.0)

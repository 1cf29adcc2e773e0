"""Greedy decoding in shrinking batches gives the tokens of openai-whisper's own."""

import pytest
import torch
import whisper
from whisper.model import ModelDimensions

from bench.judges.nn.whisper_decoding import ShrinkingBatch

DIMENSIONS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=50,
    n_audio_state=32,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51865,
    n_text_ctx=24,
    n_text_state=32,
    n_text_head=2,
    n_text_layer=2,
)


@pytest.fixture(scope="module")
def network():
    """Random weights; a transcript ends with some chance at each step."""
    torch.manual_seed(3)
    model = whisper.model.Whisper(DIMENSIONS).eval()
    with torch.no_grad():
        model.decoder.positional_embedding.normal_()
        model.decoder.token_embedding.weight[50257] *= 2.5  # <|endoftext|>
        for block in model.decoder.blocks:
            block.cross_attn.value.weight *= 8  # so that clips differ
    return model


@torch.inference_mode()
def test_tokens_are_those_of_the_whole_batch(network):
    torch.manual_seed(4)
    encoded = 3 * torch.randn(16, 50, 32)
    options = whisper.DecodingOptions(
        language="en", temperature=0.0, without_timestamps=True, fp16=False
    )
    expected = network.decode(encoded, options)
    results = ShrinkingBatch(network, options).run(encoded)
    lengths = {len(result.tokens) for result in expected}
    assert len(lengths) > 3  # the batch shrinks
    assert max(lengths) == DIMENSIONS.n_text_ctx // 2  # and one transcript never ends
    assert [r.tokens for r in results] == [r.tokens for r in expected]
    assert [r.text for r in results] == [r.text for r in expected]
    torch.testing.assert_close(
        torch.tensor([r.no_speech_prob for r in results]),
        torch.tensor([r.no_speech_prob for r in expected]),
    )


def test_a_beam_is_refused(network):
    with pytest.raises(ValueError, match="greedily"):
        ShrinkingBatch(network, whisper.DecodingOptions(beam_size=5, temperature=0.0))

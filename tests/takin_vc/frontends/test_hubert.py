"""HuBERT's posteriors beside transformers' CTC head."""

import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
)

from takin_vc.frontends.hubert import HuBERTPosteriors
from tests.support.tiny_frontends import (
    GROUP_NORM,
    TINY,
    speech,
)


@torch.no_grad()
def test_hubert_posteriors_are_the_ctc_heads():
    torch.manual_seed(0)
    model = HubertForCTC(HubertConfig(**TINY, **GROUP_NORM, vocab_size=9)).eval()
    waveform, lengths = speech((16000,))
    posteriors, _ = HuBERTPosteriors(model)(waveform, lengths)
    torch.testing.assert_close(posteriors, model(waveform).logits.softmax(-1))
    torch.testing.assert_close(posteriors.sum(-1), torch.ones(1, 49))

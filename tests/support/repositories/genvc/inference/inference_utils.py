import torch
from calls import record


def synthesize_utt(genVC_mdl, src_wav, tgt_audio, seg_len=6.0):
    record("synthesize_utt", {"top_k": genVC_mdl.config.top_k, "src_wav": src_wav})
    return torch.full((2400,), 0.25)

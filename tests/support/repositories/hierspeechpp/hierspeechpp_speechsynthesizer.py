import torch
import transformers
from calls import record


class Wav2vec2(torch.nn.Module):
    def __init__(self, layer=7, w2v="mms"):
        super().__init__()
        read = transformers.Wav2Vec2ForPreTraining.from_pretrained("facebook/mms-300m")
        record("Wav2vec2", {"read": read})

    def forward(self, x):
        return torch.zeros(1, 1024, x.shape[-1] // 320)


class SynthesizerTrn(torch.nn.Module):
    def __init__(self, spec_channels, segment_size, **model):
        record("SynthesizerTrn", locals())
        super().__init__()
        torch.zeros(1).cuda()

    def voice_conversion_noise_control(
        self,
        src,
        src_length,
        trg_mel,
        trg_length,
        f0,
        noise_scale=0.333,
        uncond=False,
        denoise_ratio=0,
    ):
        record("voice_conversion_noise_control", locals())
        return torch.full((1, 1, src.shape[2] * 320), 0.25)

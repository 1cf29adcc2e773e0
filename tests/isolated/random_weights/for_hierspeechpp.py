"""Writes random weights of HierSpeech++ to a folder; MMS has 8 layers, the rest is at its size.

REPOSITORY (of the environment) names the clone of HierSpeechpp. CONFIG has what the code reads of
`logs/hierspeechpp_eng_kor/config.json`, which is published beside the weights.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

sys.path.insert(0, os.environ["REPOSITORY"])
from hierspeechpp_speechsynthesizer import SynthesizerTrn

out = Path(sys.argv[1])
torch.manual_seed(1)
CONFIG = {
    "train": {"segment_size": 61440},
    "data": {
        "sampling_rate": 16000,
        "filter_length": 1280,
        "hop_length": 320,
        "win_length": 1280,
        "n_mel_channels": 80,
        "mel_fmin": 0,
        "mel_fmax": 8000,
    },
    "model": {
        "inter_channels": 192,
        "hidden_channels": 192,
        "filter_channels": 768,
        "n_heads": 2,
        "n_layers": 6,
        "kernel_size": 3,
        "p_dropout": 0.1,
        "resblock": "1",
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "upsample_rates": [4, 5, 4, 2, 2],
        "upsample_initial_channel": 512,
        "upsample_kernel_sizes": [8, 11, 8, 4, 4],
        "n_layers_q": 3,
        "use_spectral_norm": False,
        "wav2vec_feature_layer": 7,
        "gin_channels": 256,
        "cfg": True,
        "uncond_ratio": 0.1,
        "prosody_size": 20,
    },
}
(out / "config.json").write_text(json.dumps(CONFIG))
data = CONFIG["data"]
torch.Tensor.cuda = lambda self: self  # its constructor calls it
model = SynthesizerTrn(
    data["filter_length"] // 2 + 1,
    CONFIG["train"]["segment_size"] // data["hop_length"],
    **CONFIG["model"],
)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M parameters")
torch.save(model.state_dict(), out / "hierspeechpp_v1.1_ckpt.pth")

mms = Wav2Vec2Config(
    hidden_size=1024,
    num_hidden_layers=8,  # of 24; the features are the seventh's
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_bias=True,
)
Wav2Vec2ForPreTraining(mms).save_pretrained(out / "mms-300m", safe_serialization=False)

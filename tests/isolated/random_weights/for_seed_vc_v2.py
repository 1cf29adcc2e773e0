"""Writes random weights of Seed-VC v2 to a folder.

Both transformers have their published size, HuBERT has 2 layers, BigVGAN an eighth of its channels.
REPOSITORY (of the environment) names the clone of seed-vc.
"""

import json
import os
import sys
from pathlib import Path

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

sys.path.insert(0, os.environ["REPOSITORY"])
from modules.astral_quantization import default_model
from modules.bigvgan.bigvgan import BigVGAN
from modules.bigvgan.env import AttrDict

repository = Path(os.environ["REPOSITORY"])
out = Path(sys.argv[1])
torch.manual_seed(1)
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
state = {"generator": BigVGAN(AttrDict(VOCODER)).state_dict()}
torch.save(state, out / "bigvgan" / "bigvgan_generator.pt")

hubert = HubertConfig(
    hidden_size=1024,
    num_hidden_layers=2,  # of 24; the code takes the output of the 18th
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_bias=True,
)
HubertModel(hubert).save_pretrained(out / "hubert", safe_serialization=False)
Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(
    out / "hubert"
)


class Unused:
    @staticmethod
    def from_pretrained(_):
        return None


default_model.AutoTokenizer = Unused
config = yaml.safe_load((repository / "configs" / "v2" / "vc_wrapper.yaml").read_text())
for name in ("content_extractor_narrow", "content_extractor_wide"):
    config[name]["ssl_model_name"] = str(out / "hubert")
config["vocoder"]["pretrained_model_name_or_path"] = str(out / "bigvgan")
model = instantiate(OmegaConf.create(config))
for name, flow, regulator in (
    ("cfm_small.pth", "cfm", "cfm_length_regulator"),
    ("ar_base.pth", "ar", "ar_length_regulator"),
):
    (out / "v2").mkdir(exist_ok=True)
    parts = {flow: getattr(model, flow), "length_regulator": getattr(model, regulator)}
    state = {"net": {name: part.state_dict() for name, part in parts.items()}}
    torch.save(state, out / "v2" / name)
for size, extractor in ((32, "narrow"), (2048, "wide")):
    state = getattr(model, f"content_extractor_{extractor}").state_dict()
    (out / f"bsq{size}").mkdir()
    own = {k: v for k, v in state.items() if not k.startswith("ssl_model.")}
    torch.save(own, out / f"bsq{size}" / f"bsq{size}_light.pth")
torch.save(model.style_encoder.state_dict(), out / "campplus_cn_common.bin")

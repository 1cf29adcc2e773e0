"""Writes random weights of Vevo-Timbre, at its published size (3.5 GB), to a folder.

REPOSITORY (of the environment) names the clone of Amphion.
"""

import os
import sys
from pathlib import Path

import torch
import torchaudio
from safetensors.torch import save_file

sys.path.insert(0, os.environ["REPOSITORY"])
from models.vc.vevo import vevo_utils
from utils.util import load_config

repository = Path(os.environ["REPOSITORY"])
out = Path(sys.argv[1])
torch.manual_seed(1)
configs = repository / "models" / "vc" / "vevo" / "config"
flow = load_config(str(configs / "Vq8192ToMels.json"))
vocoder = load_config(str(configs / "Vocoder.json"))
PARTS = {
    "tokenizer/vq8192": (vevo_utils.build_vqvae_model, flow.model.repcodec),
    "acoustic_modeling/Vq8192ToMels": (vevo_utils.build_fmt_model, flow),
    "acoustic_modeling/Vocoder": (vevo_utils.build_vocoder_model, vocoder),
}
for name, (build, config) in PARTS.items():
    state = {k: v.clone().contiguous() for k, v in build(config, "cpu").state_dict().items()}
    (out / name).mkdir(parents=True)
    save_file(state, out / name / "model.safetensors")

hubert = torchaudio.models.wav2vec2_model(**torchaudio.pipelines.HUBERT_LARGE._params)
folder = out / "hub" / "checkpoints"
folder.mkdir(parents=True)
torch.save(hubert.state_dict(), folder / "hubert_fairseq_large_ll60k.pth")

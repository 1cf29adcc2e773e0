"""Amphion: Vevo-Timbre, flow matching over HuBERT tokens with the reference in context."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "python": "3.10",
    # torch: 2.6 is the first whose torch.load refuses code; the authors have 2.0.1.
    "requirements": [
        "torch==2.6.0",
        "torchaudio==2.6.0",
        "transformers==4.41.2",
        "accelerate==0.24.1",
        "safetensors==0.4.5",
        "numpy==1.26.4",
        "scipy==1.12.0",
        "librosa==0.10.2",
        "einops==0.8.1",
        "soundfile==0.13.1",
        "pyworld-prebuilt==0.3.6.post1",
        "json5==0.9.28",
        "six==1.16.0",
        "ruamel.yaml==0.18.6",
        "PyYAML==6.0.2",
        "ipython==8.29.0",
        "tqdm==4.66.5",
    ],
    "packages": ["torchaudio", "transformers", "accelerate"],
    "repository": "open-mmlab/Amphion",
    "commit": "d3de90f02e7f1c7dbc24b04d52fe1b8ef438effe",
    "paths": [
        "/models/__init__.py",
        "/models/codec/__init__.py",
        "/models/codec/amphion_codec/",
        "/models/codec/kmeans/",
        "/models/codec/melvqgan/",
        "/models/codec/vevo/",
        "/models/vc/autoregressive_transformer/",
        "/models/vc/flow_matching_transformer/",
        "/models/vc/vevo/*.py",
        "/models/vc/vevo/config/",
        "/utils/__init__.py",
        "/utils/hparam.py",
        "/utils/util.py",
    ],
    "licences": {"code": "MIT", "weights": "CC-BY-NC-4.0"},
    "weights": [
        {
            "path": "tokenizer/vq8192/model.safetensors",
            "url": "https://huggingface.co/amphion/Vevo/resolve/7edf4640c400c20542aa39c45b63f60e6c7baba0/tokenizer/vq8192/model.safetensors",
        },
        {
            "path": "acoustic_modeling/Vq8192ToMels/model.safetensors",
            "url": "https://huggingface.co/amphion/Vevo/resolve/7edf4640c400c20542aa39c45b63f60e6c7baba0/acoustic_modeling/Vq8192ToMels/model.safetensors",
        },
        {
            "path": "acoustic_modeling/Vocoder/model.safetensors",
            "url": "https://huggingface.co/amphion/Vevo/resolve/7edf4640c400c20542aa39c45b63f60e6c7baba0/acoustic_modeling/Vocoder/model.safetensors",
        },
        {
            "path": "hub/checkpoints/hubert_fairseq_large_ll60k.pth",
            "url": "https://download.pytorch.org/torchaudio/models/hubert_fairseq_large_ll60k.pth",
        },
    ],
}


class Adapter:
    """`inference_fm` of its script `infer_vevotimbre.py`, without the loudness that it sets.

    Args:
        device: "cpu", "cuda", "cuda:1".
        folder: of the environment.
        steps: of the solver; the script has 32.
    """

    sample_rate = 24000

    def __init__(self, device: str, folder: Path, steps: int) -> None:
        repository, weights = folder / "repository", folder / "weights"
        sys.path.insert(0, str(repository))
        os.environ["TORCH_HOME"] = str(weights.absolute())  # where torchaudio looks for HuBERT
        Path("models").symlink_to((repository / "models").absolute())  # paths in its configuration
        import torch
        from models.vc.vevo.vevo_utils import VevoInferencePipeline

        config = repository / "models" / "vc" / "vevo" / "config"
        self._pipeline = VevoInferencePipeline(
            content_style_tokenizer_ckpt_path=str(weights / "tokenizer" / "vq8192"),
            fmt_cfg_path=str(config / "Vq8192ToMels.json"),
            fmt_ckpt_path=str(weights / "acoustic_modeling" / "Vq8192ToMels"),
            vocoder_cfg_path=str(config / "Vocoder.json"),
            vocoder_ckpt_path=str(weights / "acoustic_modeling" / "Vocoder"),
            device=torch.device(device),
        )
        self._steps = steps

    def convert(self, source: str, reference: str, seed: int, stage: Any) -> Any:
        return self._pipeline.inference_fm(
            src_wav_path=source,
            timbre_ref_wav_path=reference,
            flow_matching_steps=self._steps,
        )
